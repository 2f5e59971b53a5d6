package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
)

func main() { Serve(watch) }

// watch takes one message of MQTT. What a source says beyond the event is in the header
// casemate-detail: an object of texts, in base64.
func watch(_ context.Context, r *Request) (*Response, error) {
	var detail map[string]string
	raw, err := base64.StdEncoding.DecodeString(r.Header("casemate-detail"))
	if err == nil {
		err = json.Unmarshal(raw, &detail)
	}
	if err != nil {
		return nil, err
	}
	_, room, _ := strings.Cut(detail["mqtt.topic"], "/")
	room, _, _ = strings.Cut(room, "/")
	switch state := string(r.Body); state {
	case "open", "closed":
		println("the door of the", room, "is", state)
		return JSON(200, map[string]string{"room": room, "state": state})
	default:
		println("the door of the", room, "speaks in riddles")
		return JSON(200, map[string]string{"room": room, "state": "unknown"})
	}
}

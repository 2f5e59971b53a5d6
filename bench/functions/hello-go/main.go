package main

import (
	"context"
	"encoding/json"
)

func main() {
	// Tried before the state is frozen, so that what encoding/json learns of the types
	// is there for each request.
	Serve(hello, &Request{Method: "POST", Path: "/", Body: []byte(`{"name":"Ada"}`)})
}

// hello answers {"name":"Ada"} with {"hello":"Ada"}.
func hello(_ context.Context, r *Request) (*Response, error) {
	var in struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(r.Body, &in); err != nil {
		return JSON(400, map[string]string{"error": "the body is not JSON"})
	}
	return JSON(200, map[string]string{"hello": in.Name})
}

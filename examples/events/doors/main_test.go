package main

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestWatch(t *testing.T) {
	detail := base64.StdEncoding.EncodeToString([]byte(`{"mqtt.topic":"house/kitchen/door"}`))
	for body, want := range map[string]string{"open": `"open"`, "closed": `"closed"`, "ajar": `"unknown"`} {
		out, err := watch(t.Context(), &Request{Headers: map[string][]string{"casemate-detail": {detail}}, Body: []byte(body)})
		if err != nil || !strings.Contains(string(out.Body), want) || !strings.Contains(string(out.Body), `"kitchen"`) {
			t.Errorf("%s: %v, %v", body, out, err)
		}
	}
	if _, err := watch(t.Context(), &Request{}); err == nil {
		t.Error("a message without a topic was taken")
	}
}

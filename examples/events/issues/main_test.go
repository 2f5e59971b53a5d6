package main

import (
	"strings"
	"testing"
)

func TestTriage(t *testing.T) {
	for body, want := range map[string]string{
		`{"action":"opened","issue":{"number":7,"title":"Crash at start"}}`: `"bug"`,
		`{"action":"opened","issue":{"number":8,"title":"How do I …?"}}`:    `"question"`,
		`{"action":"closed","issue":{"number":7,"title":"Crash at start"}}`: `""`,
	} {
		r := &Request{Headers: map[string][]string{"ce-type": {"casemate.webhook.github.issues"}}, Body: []byte(body)}
		out, err := triage(t.Context(), r)
		if err != nil || out.Status != 200 || !strings.Contains(string(out.Body), want) {
			t.Errorf("%s: %v, %v", body, out, err)
		}
	}
	if out, err := triage(t.Context(), &Request{}); err != nil || out.Status != 400 {
		t.Errorf("another event: %v, %v", out, err)
	}
}

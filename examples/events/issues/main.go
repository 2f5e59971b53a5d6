package main

import (
	"context"
	"encoding/json"
	"strings"
)

func main() { Serve(triage) }

// issue is what is read of GitHub's event "issues".
type issue struct {
	Action string `json:"action"`
	Issue  struct {
		Number int    `json:"number"`
		Title  string `json:"title"`
	} `json:"issue"`
}

// triage says which label an issue that was opened gets. The event's own attributes are
// headers (CloudEvents, binary mode); the body is what GitHub sent, its signature verified.
func triage(_ context.Context, r *Request) (*Response, error) {
	if r.Header("ce-type") != "casemate.webhook.github.issues" {
		return JSON(400, map[string]string{"error": "this is no issue"})
	}
	var in issue
	if err := json.Unmarshal(r.Body, &in); err != nil {
		return nil, err
	}
	if in.Action != "opened" {
		return JSON(200, map[string]string{"label": ""})
	}
	label := "question"
	for _, word := range []string{"crash", "error", "fails"} {
		if strings.Contains(strings.ToLower(in.Issue.Title), word) {
			label = "bug"
		}
	}
	println("issue", in.Issue.Number, "of", r.Header("ce-subject"), "is a", label)
	return JSON(200, map[string]string{"label": label})
}

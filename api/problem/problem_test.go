package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

func TestNothingPrivateIsWritten(t *testing.T) {
	t.Parallel()
	const private = "dial tcp 10.0.0.7:5432: password authentication failed"
	for name, err := range map[string]error{
		"a cause":             problem.New(problem.Overloaded, "try later").Because(errors.New(private)),
		"a wrapped problem":   fmt.Errorf("%s: %w", private, problem.New(problem.NotFound, "no such thing")),
		"an error of no kind": errors.New(private),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			problem.Write(w, err, "req-1")
			if strings.Contains(w.Body.String(), "10.0.0.7") {
				t.Errorf("leaked: %s", w.Body)
			}
			if !strings.Contains(err.Error(), "password") && name != "a wrapped problem" {
				t.Errorf("the log lost the cause: %v", err)
			}
		})
	}
}

func TestWriteIsAProblemDetail(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	problem.Write(w, problem.New(problem.TooManyRequests, "too many %s", "calls").At("body.name").After(1500*time.Millisecond), "req-1")
	var d problem.Details
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if w.Code != 429 || d.Status != 429 || d.Code != problem.TooManyRequests || d.Detail != "too many calls" ||
		d.Field != "body.name" || d.RequestID != "req-1" || d.Type != problem.TypeBase+"too_many_requests" || d.Remedy == "" {
		t.Errorf("got %d %+v", w.Code, d)
	}
	if got := w.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2: a second and a half is rounded up", got)
	}
	if got := w.Header().Get("Content-Type"); got != problem.MediaType {
		t.Errorf("content type %q", got)
	}
}

func TestCatalogueIsSound(t *testing.T) {
	t.Parallel()
	seen := map[problem.Code]bool{}
	last := 0
	for _, r := range problem.Catalogue() {
		if seen[r.Code] {
			t.Errorf("%s stands twice", r.Code)
		}
		seen[r.Code] = true
		if r.Title == "" || r.Remedy == "" || r.Status < 400 || r.Status > 599 {
			t.Errorf("%s is incomplete: %+v", r.Code, r)
		}
		if r.Status < last {
			t.Errorf("%s is out of order", r.Code)
		}
		last = r.Status
		if problem.Lookup(r.Code).Code != r.Code {
			t.Errorf("%s is not found", r.Code)
		}
	}
	if problem.Lookup("made up").Code != problem.Internal {
		t.Error("an unknown code must look like an internal error")
	}
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func outcome(status int, body string, headers map[string][]string) *invoke.Outcome {
	return &invoke.Outcome{Status: status, Body: []byte(body), Headers: headers, Receipt: audit.Receipt{ID: "r-1"}}
}

// TestAttackResponseSplitting lets a function answer with what would end its
// header fields and begin another answer.
func TestAttackResponseSplitting(t *testing.T) {
	t.Parallel()
	for _, headers := range []map[string][]string{
		{"x": {"a\r\nSet-Cookie: evil=1"}},
		{"x": {"a\nSet-Cookie: evil=1"}},
		{"x": {"a\rb"}},
		{"x": {"ok", "a\r\n\r\n<script>evil"}},
		{"x": {"a\x00b"}},
		{"x": {"a\x7fb"}},
		{"x\r\nset-cookie": {"evil=1"}},
		{"x: evil": {"1"}},
		{"x evil": {"1"}},
		{"": {"evil"}},
		{"évil": {"1"}},
		{"content-type": {"text/html\r\nx: evil"}},
		{"location": {"/a\r\nx-evil: evil"}},
		{"x": {strings.Repeat("evil", maxAnswerHeader)}},
		{"x": make([]string, maxAnswerFields+1)},
		{"connection": {"close\r\nx: evil"}}, // dropped, but refused all the same
	} {
		w := newWorld(t, Limits{})
		w.serve(t)
		w.invoker.answering(outcome(200, "evil body", headers), nil)
		a := w.do(t, "GET", "/hello", nil, bearer(goodKey))
		a.want(t, problem.FunctionBadAnswer)
		if strings.Contains(a.text, "evil=1") || strings.Contains(a.text, "evil body") || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%.100q: part of it came through:\n%s", headers, a.text)
		}
		if d := a.problem(t); d.Receipt != "r-1" || a.header.Get("Casemate-Receipt") != "r-1" {
			t.Errorf("receipt %q", d.Receipt)
		}
	}
}

func TestAttackFunctionSpeaksForThePlatform(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	w.invoker.answering(outcome(200, "body", map[string][]string{
		"X-Request-ID": {"evil"}, "casemate-receipt": {"evil"}, "Casemate-Anything": {"evil"}, "content-length": {"1", "evil"}, "date": {"evil"},
		"connection": {"x-named, keep-alive"}, "x-named": {"evil"}, "keep-alive": {"evil"}, "transfer-encoding": {"evil"}, "trailer": {"evil"},
		"upgrade": {"evil"}, "proxy-authenticate": {"evil"}, "te": {"evil"}, "x-content-type-options": {"evil"},
		"strict-transport-security": {"evil"}, "alt-svc": {"evil"}, "clear-site-data": {"evil"}, "nel": {"evil"}, "report-to": {"evil"},
		"public-key-pins": {"evil"}, "service-worker-allowed": {"evil"},
		"set-cookie": {"a=1", "b=2"}, "x-kept": {"yes"}, "CONTENT-type": {"text/css", "evil"}, "vary": {"accept"},
	}), nil)
	for _, a := range []answer{w.do(t, "GET", "/hello", nil, bearer(goodKey)), w.rawAnswer(t, get1("/hello", bearer(goodKey)))} {
		if a.status != 200 || a.body != "body" || strings.Contains(a.text, "evil") {
			t.Errorf("got %s", a.text)
		}
		for name, want := range map[string]string{
			"Content-Length": "4", "Casemate-Receipt": "r-1", "X-Content-Type-Options": "nosniff", "X-Kept": "yes", "Content-Type": "text/css", "Vary": "accept",
		} {
			if got := a.header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got := a.header.Values("Set-Cookie"); len(got) != 2 {
			t.Errorf("Set-Cookie is %q", got)
		}
	}
}

func TestAnswerForms(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, status := range []int{-1, 0, 1, 99, 100, 101, 103, 199, 600, 999, 1000} {
		w.invoker.answering(outcome(status, "x", nil), nil)
		w.do(t, "GET", "/hello", nil, bearer(goodKey)).want(t, problem.FunctionBadAnswer)
	}
	for _, status := range []int{204, 205, 304} {
		w.invoker.answering(outcome(status, "body that must not be", map[string][]string{"content-type": {"text/plain"}, "etag": {`"x"`}}), nil)
		// The raw form shows bytes that a client library would hide.
		stream := w.raw(t, get1("/hello", bearer(goodKey)))
		if strings.Contains(stream, "must not") || strings.Contains(stream, "text/plain") || !strings.Contains(stream, `Etag: "x"`) {
			t.Errorf("%d: %q", status, stream)
		}
	}
	w.invoker.answering(outcome(418, "<html>", nil), nil)
	a := w.do(t, "GET", "/hello", nil, bearer(goodKey))
	if a.status != 418 || a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %s", a.text)
	}
	w.invoker.answering(outcome(200, "", nil), nil)
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 || a.header.Get("Content-Length") != "0" {
		t.Errorf("got %s", a.text)
	}
	w.invoker.answering(outcome(200, strings.Repeat("x", 3<<20), nil), nil)
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); len(a.body) != 3<<20 {
		t.Errorf("got %d bytes", len(a.body))
	}
}

// TestAttackInternalsLeak fails in every way with planted words in the cause.
func TestAttackInternalsLeak(t *testing.T) {
	t.Parallel()
	cause := errors.New(planted)
	for _, row := range problem.Catalogue() {
		w := newWorld(t, Limits{})
		w.serve(t)
		e := problem.New(row.Code, "public words").Because(cause).After(1500 * time.Millisecond)
		for name, err := range map[string]error{"bare": e, "wrapped": fmt.Errorf("%s: %w", planted, e)} {
			w.invoker.answering(&invoke.Outcome{Receipt: audit.Receipt{ID: "r-9"}}, err)
			a := w.do(t, "GET", "/hello", nil, bearer(goodKey))
			a.want(t, row.Code)
			d := a.problem(t)
			if strings.Contains(a.text, "planted") || d.Detail != "public words" || d.Receipt != "r-9" || a.header.Get("Retry-After") != "2" || a.header.Get("Casemate-Receipt") != "r-9" {
				t.Errorf("%s, %s: got %s", row.Code, name, a.text)
			}
		}
		if logged := strings.Contains(w.logs.String(), "planted"); logged != (row.Status >= 500) {
			t.Errorf("%s: cause logged: %v", row.Code, logged)
		}
	}
	w := served(t, Limits{})
	for name, run := range map[string]func(context.Context, *invoke.Call) (*invoke.Outcome, error){
		"unknown error": func(context.Context, *invoke.Call) (*invoke.Outcome, error) { return nil, cause },
		"nothing":       func(context.Context, *invoke.Call) (*invoke.Outcome, error) { return nil, nil },
		"panic":         func(context.Context, *invoke.Call) (*invoke.Outcome, error) { panic(planted + goodKey) },
		"panic error":   func(context.Context, *invoke.Call) (*invoke.Outcome, error) { panic(cause) },
		"nil dereference": func(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
			var p *invoke.Outcome
			return p, errors.New(p.Receipt.ID)
		},
	} {
		w.invoker.run = run
		a := w.do(t, "GET", "/hello", nil, bearer(goodKey))
		a.want(t, problem.Internal)
		if strings.Contains(a.text, "planted") || strings.Contains(a.text, "goroutine") || strings.Contains(a.text, ".go") {
			t.Errorf("%s: got %s", name, a.text)
		}
	}
	if logs := w.logs.String(); strings.Contains(logs, keySecret) || !strings.Contains(logs, "nil pointer dereference") {
		t.Errorf("panics are logged wrongly:\n%s", logs)
	}
	// The node still stands.
	w.invoker.run = nil
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 {
		t.Errorf("after panics: %d", a.status)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{}, Route{Ref: routesForTests()[0].Ref, Trigger: trigger("ANY", "/{rest...}")})
	a := w.do(t, "GET", "/.casemate/healthz", nil)
	if a.status != 200 || a.body != "ok\n" {
		t.Errorf("got %s", a.text)
	}
	for name := range a.header {
		switch name {
		case "Content-Type", "Content-Length", "Date", "X-Request-Id", "Cache-Control", "X-Content-Type-Options":
		default:
			t.Errorf("health tells %s", name)
		}
	}
	if a := w.do(t, "HEAD", "/.casemate/healthz", nil); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
	if a := w.do(t, "POST", "/.casemate/healthz", strings.NewReader("x")); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s", a.text)
	}
	// Nothing else of the node's own is there, and a catch-all does not get it.
	for _, path := range []string{"/.casemate", "/.casemate/", "/.casemate/healthz/", "/.casemate/status", "/%2Ecasemate/x", "/.casemate/metrics"} {
		w.do(t, "GET", path, nil, bearer(goodKey)).want(t, problem.NotFound)
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func lines(texts ...string) (out []audit.Record) {
	for _, s := range texts {
		out = append(out, audit.Record{Line: &audit.LogLine{Time: time.Unix(1, 0), Function: "hello", RequestID: "q", Text: s}})
	}
	return out
}

func TestLogsStreamUntilTheClientLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.recorder.records = append(lines("one", "two"), audit.Record{Receipt: &audit.Receipt{ID: "r1", Function: "hello", Outcome: "ok"}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	var last error
	since := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for rec, err := range r.client(adminSecret).Logs(ctx, "default", api.LogQuery{Function: "hello", RequestID: "q", Since: since, Tail: 7, Follow: true}) {
		if err != nil {
			last = err
			break
		}
		if rec.Receipt != nil {
			got = append(got, rec.Receipt.ID)
			cancel() // all has come while the stream is still open
		} else {
			got = append(got, rec.Text)
		}
	}
	if !slices.Equal(got, []string{"one", "two", "r1"}) || !errors.Is(last, context.Canceled) {
		t.Fatalf("got %q, then %v", got, last)
	}
	waitFor(t, r.recorder.ended)
	if q := r.recorder.query.Load(); q.Namespace != "default" || q.Function != "hello" || q.RequestID != "q" || !q.Since.Equal(since) || q.Tail != 7 || !q.Follow {
		t.Errorf("query %+v", q)
	}
}

func TestLogsEndWhenTheNodeShutsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.recorder.records = lines("one")
	var last error
	n := 0
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, err := range r.client(adminSecret).Logs(ctx, "default", api.LogQuery{Follow: true}) {
		if err != nil {
			last = err
			break
		}
		n++
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			_ = r.server.Shutdown(ctx)
		}()
	}
	if n != 1 {
		t.Fatalf("%d records", n)
	}
	refused(t, last, problem.Draining)
	waitFor(t, r.recorder.ended)
}

func TestLogsReportFailureAsTheLastLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.recorder.records = lines("one")
	r.recorder.err = &plantedError{}
	var errs []error
	for _, err := range r.client(adminSecret).Logs(t.Context(), "default", api.LogQuery{}) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) != 1 {
		t.Fatalf("errors: %v", errs)
	}
	if e := refused(t, errs[0], problem.Internal); strings.Contains(e.Error(), "planted") {
		t.Errorf("shows internal text: %v", e)
	}
	if q := r.recorder.query.Load(); q.Tail != defaultTail {
		t.Errorf("tail %d", q.Tail)
	}
}

func waitFor(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
		t.Fatal("the stream did not end")
	}
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.invoker.out = &invoke.Outcome{Status: 418, Headers: map[string][]string{"x": {"y"}}, Body: []byte{0, 255}, Receipt: audit.Receipt{ID: "r7"}, Log: []string{"said"}}
	out, err := r.client(adminSecret).Invoke(t.Context(), "default", "hello", api.Invocation{
		Qualifier: "live", Path: "/a/b", Query: "c=d", Headers: map[string][]string{"X-One": {"1", "2"}}, Body: []byte{1, 0, 254},
	})
	if err != nil || out.Status != 418 || string(out.Body) != "\x00\xff" || out.Receipt.ID != "r7" || out.Log[0] != "said" {
		t.Fatalf("got %+v, %v", out, err)
	}
	c := r.invoker.call
	if c.Ref.String() != "default/hello" || c.Trigger != invoke.TriggerInvoke || c.Method != "POST" || c.Path != "/a/b" || c.Query != "c=d" ||
		string(c.Body) != "\x01\x00\xfe" || c.Principal.ID != "admin" || c.RequestID == "" || c.KeepLog != keepLogLines || c.Public {
		t.Errorf("call %+v", c)
	}
	if !maps.EqualFunc(c.Headers, map[string][]string{"x-one": {"1", "2"}}, slices.Equal) {
		t.Errorf("headers %v", c.Headers)
	}
}

func TestInvokeWithAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.invoker.out = &invoke.Outcome{Status: 200}
	_, err := r.client(adminSecret).Invoke(t.Context(), "default", "hello", api.Invocation{
		Body:  []byte(`{}`),
		Event: &api.Event{ID: "e1", Type: "com.example.made", Subject: `a "ü"%`, DataContentType: "application/json", Extensions: map[string]string{"tenant": "t1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := r.invoker.call.Headers
	for name, want := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "e1", "ce-type": "com.example.made", "ce-source": "//casemate/key:admin",
		"ce-subject": "a%20%22%C3%BC%22%25", "content-type": "application/json", "ce-tenant": "t1",
	} {
		if len(h[name]) != 1 || h[name][0] != want {
			t.Errorf("%s: %q, want %q", name, h[name], want)
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, h["ce-time"][0]); err != nil {
		t.Error(err)
	}
}

func TestInvokeRefusesForgedAndMalformedInput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.invoker.out = &invoke.Outcome{Status: 200}
	c := r.client(adminSecret)
	head := func(k, v string) api.Invocation {
		return api.Invocation{Headers: map[string][]string{k: {v}}}
	}
	event := func(e api.Event) api.Invocation { return api.Invocation{Event: &e} }
	for name, tt := range map[string]struct {
		in   api.Invocation
		code problem.Code
	}{
		"forged source":             {head("CE-Source", "//casemate/key:other"), problem.InvalidHeader},
		"forged source, extension":  {event(api.Event{Type: "t", Extensions: map[string]string{"source": "//x"}}), problem.BadRequest},
		"injected header":           {head("x", "a\r\nce-source: b"), problem.InvalidHeader},
		"injected name":             {head("x\r\ny", "a"), problem.InvalidHeader},
		"credential":                {head("Authorization", "Bearer x"), problem.InvalidHeader},
		"hop by hop":                {head("Transfer-Encoding", "chunked"), problem.InvalidHeader},
		"one header in two cases":   {api.Invocation{Headers: map[string][]string{"a": {"1"}, "A": {"2"}}}, problem.InvalidHeader},
		"large headers":             {head("x", strings.Repeat("a", maxCallHeaders)), problem.HeadersTooLarge},
		"path that climbs":          {api.Invocation{Path: "/a/../b"}, problem.InvalidPath},
		"double slash":              {api.Invocation{Path: "//host/b"}, problem.InvalidPath},
		"relative path":             {api.Invocation{Path: "a"}, problem.InvalidPath},
		"method":                    {api.Invocation{Method: "GET / HTTP/1.1"}, problem.BadRequest},
		"query":                     {api.Invocation{Query: "a b\r\n"}, problem.BadRequest},
		"event without a type":      {event(api.Event{ID: "x"}), problem.BadRequest},
		"event injecting a header":  {event(api.Event{Type: "t\r\nx: y"}), problem.BadRequest},
		"content type with a break": {event(api.Event{Type: "t", DataContentType: "a/b\r\nx: y"}), problem.BadRequest},
		"large body":                {api.Invocation{Body: make([]byte, 6<<20+1)}, problem.BodyTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Invoke(t.Context(), "default", "hello", tt.in)
			refused(t, err, tt.code)
		})
	}
	if r.invoker.call != nil {
		t.Errorf("the function was called: %+v", r.invoker.call)
	}
}

func TestFailedInvocationNamesItsReceipt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.invoker.out = &invoke.Outcome{Receipt: audit.Receipt{ID: "r8"}}
	r.invoker.err = problem.New(problem.TooManyRequests, "busy").After(1500 * time.Millisecond).Because(&plantedError{})
	_, err := r.client(adminSecret).Invoke(t.Context(), "default", "hello", api.Invocation{})
	e := refused(t, err, problem.TooManyRequests)
	if e.Receipt != "r8" || e.RetryAfter != 2*time.Second || e.Status != 429 || e.RequestID == "" {
		t.Errorf("got %+v, retry after %v", e.Details, e.RetryAfter)
	}
}

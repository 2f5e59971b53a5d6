package gateway

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func TestDrainLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	started, release := make(chan struct{}), make(chan struct{})
	w.invoker.run = func(context.Context, *invoke.Call) (*invoke.Outcome, error) {
		close(started)
		<-release
		return outcome(200, "finished", nil), nil
	}
	under := make(chan string, 1)
	c := w.dial(t, "http/1.1")
	go func() {
		_, _ = io.WriteString(c, get1("/hello", bearer(goodKey)))
		b, _ := io.ReadAll(c)
		under <- string(b)
	}()
	<-started

	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Drain(short); err == nil || !strings.Contains(err.Error(), "1 requests") {
		t.Errorf("a drain that was cut short says %v", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- w.Drain(t.Context()) }()

	// New requests are sent away, health included, on both protocols.
	for _, path := range []string{"/hello", "/.casemate/healthz", "/nowhere"} {
		a := w.do(t, "GET", path, nil, bearer(goodKey))
		a.want(t, problem.Draining)
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	stream := w.raw(t, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if !strings.HasPrefix(stream, "HTTP/1.1 503 ") || !strings.Contains(stream, "Connection: close") {
		t.Errorf("got %q", stream)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a request under way: %v", err)
	default:
	}
	close(release)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if answer := <-under; !strings.HasSuffix(answer, "finished") {
		t.Errorf("the request under way got %q", answer)
	}
	if n := w.invoker.count.Load(); n != 1 {
		t.Errorf("functions were started %d times", n)
	}
	if err := w.Drain(t.Context()); err != nil { // again is harmless
		t.Error(err)
	}
}

package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/invoke"
)

// dripping sends bytes one by one until the other side has had enough, and
// returns what came back and how long it lasted.
func dripping(t *testing.T, c net.Conn, every time.Duration) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
	answer, _ := io.ReadAll(c)
	close(done)
	return string(answer), time.Since(start)
}

func TestAttackSlowHandshake(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{HeaderTime: 200 * time.Millisecond})
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, took := dripping(t, c, 20*time.Millisecond); took > 5*time.Second {
		t.Errorf("held for %v", took)
	}
}

func TestAttackSlowloris(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{HeaderTime: time.Second}) // for the handshake too
	c := w.dial(t, "http/1.1")
	if _, err := io.WriteString(c, "GET /open HTTP/1.1\r\nHost: localhost\r\nX: "); err != nil {
		t.Fatal(err)
	}
	if answer, took := dripping(t, c, 20*time.Millisecond); took > 5*time.Second || strings.Contains(answer, " 200 ") {
		t.Errorf("held for %v: %q", took, answer)
	}
}

func TestAttackSlowBody(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{BodyGrace: 200 * time.Millisecond, BodyTime: 2 * time.Second})
	for _, field := range []string{"Content-Length: 60000", "Transfer-Encoding: chunked"} {
		c := w.dial(t, "http/1.1")
		body := "x"
		if strings.HasPrefix(field, "T") {
			body = "EA60\r\nx" // a chunk of 60000
		}
		if _, err := io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"+bearer(goodKey)+"\r\n"+field+"\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		answer, took := dripping(t, c, 20*time.Millisecond)
		if took > 8*time.Second || !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "request_timeout") {
			t.Errorf("%s: held for %v: %q", field, took, answer)
		}
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

// TestSteadyBodyMayTakeLongerThanTheGrace: only what is too slow is cut.
func TestSteadyBodyMayTakeLongerThanTheGrace(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{BodyGrace: 1500 * time.Millisecond, MinRate: 1 << 10})
	c := w.dial(t, "http/1.1")
	const pieces, piece = 12, 5000 // 25 kB/s over 2.4 s
	if _, err := fmt.Fprintf(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", bearer(goodKey), pieces*piece); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range pieces {
		<-tick.C
		if _, err := io.WriteString(c, strings.Repeat("x", piece)); err != nil {
			t.Fatal(err)
		}
	}
	answer, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("got %q", answer)
	}
}

// TestSlowFunctionOutlivesTheBodyDeadline: the deadline for the body must not end
// the request of a function that works longer than the body took.
func TestSlowFunctionOutlivesTheBodyDeadline(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{BodyGrace: 500 * time.Millisecond, BodyTime: 500 * time.Millisecond})
	w.invoker.run = func(ctx context.Context, _ *invoke.Call) (*invoke.Outcome, error) {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(900 * time.Millisecond):
			return outcome(200, "", nil), nil
		}
	}
	for _, send := range []func() answer{
		func() answer {
			return w.rawAnswer(t, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"+bearer(goodKey)+"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		},
		func() answer { return w.do(t, "POST", "/echo", strings.NewReader("hi"), bearer(goodKey)) },
		func() answer { return w.do(t, "POST", "/echo", unsized{strings.NewReader("hi")}, bearer(goodKey)) },
	} {
		if a := send(); a.status != 200 {
			t.Errorf("got %s", a.text)
		}
	}
}

// TestAttackSlowReader asks for much and takes nothing.
func TestAttackSlowReader(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{AnswerGrace: 200 * time.Millisecond, MinRate: 64 << 20})
	w.invoker.answering(outcome(200, strings.Repeat("x", 32<<20), nil), nil)
	c := w.dial(t, "http/1.1")
	if _, err := io.WriteString(c, get1("/open")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer given up", func() bool {
		return strings.Contains(w.logs.String(), `"path":"/open"`)
	})
}

func TestIdleConnectionEnds(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{IdleTime: 100 * time.Millisecond})
	c := w.dial(t, "http/1.1")
	start := time.Now()
	if _, err := io.WriteString(c, "GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(c); len(statuses(t, string(answer))) != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("got %q after %v", answer, time.Since(start))
	}
}

func TestAttackConnectionFlood(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{Connections: 4, HeaderTime: time.Second})
	for range 12 { // each holds a place until it is cut
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
}

func TestListenerHoldsItsBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Connections: 1})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := w.Listener(inner)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("a second connection beyond the bound")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // twice gives back one place
	second := <-accepted
	if err := l.Close(); err != nil { // while Accept waits for a place
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Accept goes on")
	}
	_ = second.Close()
}

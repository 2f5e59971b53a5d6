package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/invoke"
)

// still runs a test on the real server, over pipes, in a bubble whose clock moves only
// while everybody waits: no machine is too slow for it, and hours take no time.
func still(t *testing.T, limits Limits, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	certificate := testCertificate()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, limits)
		w.pipes = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		// A ticket would be written into a pipe that nobody reads yet.
		server := w.Server(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true})
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(w.Listener(w.pipes), "", "") }()
		transport := &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				c := tls.Client(w.pipe(), clientTLS("h2"))
				return c, c.HandshakeContext(ctx)
			},
		}
		w.client, w.addr = &http.Client{Transport: transport}, "localhost"
		defer func() {
			transport.CloseIdleConnections()
			_ = server.Close()
			<-done
		}()
		test(t, w)
	})
}

// pipe opens a connection of which nothing has been said, once there is room for it.
func (w *world) pipe() net.Conn {
	ours, theirs := net.Pipe()
	w.pipes.conns <- theirs
	_ = ours.SetDeadline(time.Now().Add(time.Hour)) // so that who is never cut off fails
	return ours
}

// dripping sends bytes one by one until the other side has had enough, and
// returns what came back and how long it lasted.
func dripping(t *testing.T, c net.Conn, every time.Duration) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
		}
	}()
	answer, _ := io.ReadAll(c)
	took := time.Since(start)
	_ = c.Close()
	<-ended
	return string(answer), took
}

func TestAttackSlowHandshake(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.pipe()
		// The head of a record of 16 KiB with a handshake message in it (RFC 8446, section 5.1).
		if _, err := io.WriteString(c, "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"); err != nil {
			t.Fatal(err)
		}
		if _, took := dripping(t, c, 20*time.Millisecond); took != DefaultHeaderTime {
			t.Errorf("held for %v, want %v", took, DefaultHeaderTime)
		}
	})
}

func TestAttackSlowloris(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.dial(t, "http/1.1")
		if _, err := io.WriteString(c, "GET /open HTTP/1.1\r\nHost: localhost\r\nX: "); err != nil {
			t.Fatal(err)
		}
		if answer, took := dripping(t, c, 20*time.Millisecond); took > DefaultHeaderTime || strings.Contains(answer, " 200 ") {
			t.Errorf("held for %v: %q", took, answer)
		}
	})
}

func TestAttackSlowBody(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
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
			if took > DefaultBodyGrace+2*lingerTime || !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "request_timeout") {
				t.Errorf("%s: held for %v: %q", field, took, answer)
			}
		}
		if n := w.invoker.count.Load(); n != 0 {
			t.Errorf("functions were started %d times", n)
		}
	})
}

// TestSteadyBodyMayTakeLongerThanTheGrace: only what is too slow is cut.
func TestSteadyBodyMayTakeLongerThanTheGrace(t *testing.T) {
	still(t, Limits{MinRate: 1 << 10}, func(t *testing.T, w *world) {
		c := w.dial(t, "http/1.1")
		const pieces, piece, every = 12, 5000, 2 * time.Second // twice the rate, for longer than the grace
		if _, err := fmt.Fprintf(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", bearer(goodKey), pieces*piece); err != nil {
			t.Fatal(err)
		}
		for range pieces {
			<-time.After(every)
			if _, err := io.WriteString(c, strings.Repeat("x", piece)); err != nil {
				t.Fatal(err)
			}
		}
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
			t.Errorf("got %q", answer)
		}
	})
}

// TestSlowFunctionOutlivesTheBodyDeadline: the deadline for the body must not end
// the request of a function that works longer than the body took.
func TestSlowFunctionOutlivesTheBodyDeadline(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		w.invoker.run = func(ctx context.Context, _ *invoke.Call) (*invoke.Outcome, error) {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(2 * DefaultBodyTime):
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
	})
}

// TestAttackSlowReader asks for much and takes nothing.
func TestAttackSlowReader(t *testing.T) {
	still(t, Limits{MinRate: 1 << 20}, func(t *testing.T, w *world) {
		w.invoker.answering(outcome(200, strings.Repeat("x", 4<<20), nil), nil)
		c := w.dial(t, "http/1.1")
		if _, err := io.WriteString(c, get1("/open")); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * DefaultAnswerGrace) // 34 s for the answer, and some to take leave
		if !strings.Contains(w.logs.String(), `"path":"/open"`) {
			t.Error("the answer was not given up")
		}
	})
}

func TestIdleConnectionEnds(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.dial(t, "http/1.1")
		start := time.Now()
		if _, err := io.WriteString(c, "GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(c); len(statuses(t, string(answer))) != 1 || time.Since(start) != DefaultIdleTime {
			t.Errorf("got %q after %v", answer, time.Since(start))
		}
	})
}

func TestAttackConnectionFlood(t *testing.T) {
	still(t, Limits{Connections: 4}, func(t *testing.T, w *world) {
		for range 12 { // each holds a place until it is cut
			c := w.pipe()
			defer c.Close()
		}
		start := time.Now()
		if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 || time.Since(start) > DefaultHeaderTime {
			t.Errorf("got %d after %v", a.status, time.Since(start))
		}
	})
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

package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// clock is a clock that a test sets.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(1_000_000, c.now.Load()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }

// counted dials an address and counts.
func counted(addr net.Addr, n *atomic.Int64) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		n.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr.String())
	}
}

func serve(t testing.TB, h http.HandlerFunc) (*Client, *atomic.Int64, *clock) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	var dialled atomic.Int64
	now := &clock{}
	c := New(Options{Dial: counted(s.Listener.Addr(), &dialled), MaxResponse: 1 << 20, Clock: now.Now})
	t.Cleanup(c.Close)
	return c, &dialled, now
}

// raw serves each connection by hand.
func raw(t testing.TB, handle func(n int, c net.Conn, r *bufio.Reader)) (*Client, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				handle(n, c, bufio.NewReader(c))
			})
		}
	})
	var dialled atomic.Int64
	now := &clock{}
	c := New(Options{Dial: counted(l.Addr(), &dialled), MaxResponse: 1 << 20, Clock: now.Now})
	t.Cleanup(func() {
		c.Close()
		l.Close()
		all.Wait()
	})
	return c, &dialled
}

func request(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}

func TestInvoke(t *testing.T) {
	c, dialled, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", r.ContentLength, " ", r.TransferEncoding))
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		for _, name := range []string{"Ce-Id", "Connection", "Upgrade", "Expect", "X-Two"} {
			w.Header()["Got-"+name] = r.Header[name]
		}
		w.WriteHeader(http.StatusTeapot)
		w.Write(append([]byte("got "), b...))
	})
	h := &sandbox.Head{Method: "POST", Path: "/a b/ü", Query: "x=%41&y=1", Headers: map[string][]string{
		"host": {"shop.example"}, "ce-id": {"7"}, "connection": {"x-two"}, "upgrade": {"h2c"}, "expect": {"100-continue"},
		"content-length": {"99"}, "transfer-encoding": {"chunked"}, "x-two": {"1", "2"},
	}}
	for range 3 {
		head, body, err := c.Invoke(t.Context(), h, []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if head.Status != 418 || string(body) != "got hello" {
			t.Fatalf("got %d %q", head.Status, body)
		}
		for name, want := range map[string]string{
			"x-seen": "[POST /a%20b/%C3%BC?x=%41&y=1 shop.example 5 []]", "set-cookie": "[a=1 b=2]", "got-ce-id": "[7]",
			"got-connection": "[]", "got-upgrade": "[]", "got-expect": "[]", "got-x-two": "[1 2]",
		} {
			if got := fmt.Sprint(head.Headers[name]); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("dialled %d times for three requests in a row", n)
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	c, _, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	body := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // as large as an answer may be
	for range 3 {
		_, got, err := c.Invoke(t.Context(), &sandbox.Head{Method: "PUT", Path: "/"}, body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	_, _, err := c.Invoke(t.Context(), &sandbox.Head{Method: "PUT", Path: "/"}, append(body, 'x'))
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != TooLarge {
		t.Errorf("one byte more: %v", err)
	}
}

func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	release := make(chan struct{})
	c, dialled := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		<-release // the rest of the body stays unread
	})
	defer close(release)
	for range 2 {
		head, body, err := c.Invoke(t.Context(), &sandbox.Head{Method: "POST", Path: "/"}, make([]byte, 64<<20))
		if err != nil || head.Status != 413 || string(body) != "no" {
			t.Fatalf("got %d %q %v", head.Status, body, err)
		}
	}
	if n := dialled.Load(); n != 2 {
		t.Errorf("dialled %d times: a connection with half a request on it was used again", n)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var asked atomic.Int64
	c, _, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	})
	head, _, err := c.Invoke(t.Context(), &sandbox.Head{Method: "GET", Path: "/"}, nil)
	if err != nil || head.Status != 302 || head.Headers["location"][0] != "/elsewhere" || asked.Load() != 1 {
		t.Errorf("got %+v, %v, asked %d times", head, err, asked.Load())
	}
}

func TestIdleConnectionsAreNotTrusted(t *testing.T) {
	t.Run("too long", func(t *testing.T) {
		c, dialled, now := serve(t, func(http.ResponseWriter, *http.Request) {})
		for range 2 {
			if _, _, err := c.Invoke(t.Context(), &sandbox.Head{Method: "GET", Path: "/"}, nil); err != nil {
				t.Fatal(err)
			}
			now.advance(MaxIdle)
		}
		if dialled.Load() != 2 {
			t.Errorf("dialled %d times", dialled.Load())
		}
	})
	t.Run("said to close", func(t *testing.T) {
		c, dialled := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
			for request(r) == nil { // and does not
				io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}
		})
		for range 2 {
			if _, _, err := c.Invoke(t.Context(), &sandbox.Head{Method: "GET", Path: "/"}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if dialled.Load() != 2 {
			t.Errorf("dialled %d times", dialled.Load())
		}
	})
	for what, after := range map[string]func(c net.Conn){
		"closed":   func(c net.Conn) { c.Close() },
		"answered": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") },
	} {
		t.Run(what, func(t *testing.T) {
			done := make(chan struct{}, 2)
			again := make(chan struct{})
			c, dialled := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if request(r) != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				<-again // so that it is not part of the first answer
				after(c)
				done <- struct{}{}
				request(r)
			})
			if _, body, err := c.Invoke(t.Context(), &sandbox.Head{Method: "POST", Path: "/"}, nil); err != nil || string(body) != "ok" {
				t.Fatalf("got %q, %v", body, err)
			}
			close(again)
			<-done
			if _, body, err := c.Invoke(t.Context(), &sandbox.Head{Method: "POST", Path: "/"}, nil); err != nil || string(body) != "ok" {
				t.Errorf("got %q, %v", body, err)
			}
			if dialled.Load() != 2 {
				t.Errorf("dialled %d times", dialled.Load())
			}
		})
	}
}

// TestRequestsAreNotRepeated: what was sent may have been acted upon.
func TestRequestsAreNotRepeated(t *testing.T) {
	var asked atomic.Int64
	c, _ := raw(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for request(r) == nil {
			if asked.Add(1) == 2 {
				return // closes without an answer
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	for i, want := range []Kind{"", Closed, ""} {
		_, _, err := c.Invoke(t.Context(), &sandbox.Head{Method: "POST", Path: "/"}, nil)
		var failed *Error
		if errors.As(err, &failed) != (want != "") || failed != nil && failed.Kind != want {
			t.Errorf("request %d: %v, want %q", i, err, want)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("three requests were seen %d times", n)
	}
}

// brokenConn fails each write before a byte leaves.
type brokenConn struct{ net.Conn }

func (brokenConn) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestRequestOfWhichNothingWasSentIsRepeatedOnce(t *testing.T) {
	c, dialled, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	h := &sandbox.Head{Method: "POST", Path: "/"}
	if _, _, err := c.Invoke(t.Context(), h, nil); err != nil {
		t.Fatal(err)
	}
	c.conn.Conn = brokenConn{c.conn.Conn}
	if _, body, err := c.Invoke(t.Context(), h, nil); err != nil || string(body) != "ok" || dialled.Load() != 2 {
		t.Errorf("got %q, %v, dialled %d times", body, err, dialled.Load())
	}
	dial := c.o.Dial
	c.o.Dial = func(ctx context.Context) (net.Conn, error) {
		raw, err := dial(ctx)
		return brokenConn{raw}, err
	}
	c.conn.Conn = brokenConn{c.conn.Conn}
	_, _, err := c.Invoke(t.Context(), h, nil)
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != Closed || dialled.Load() != 3 {
		t.Errorf("got %v, dialled %d times", err, dialled.Load())
	}
}

func TestContextEndsARequest(t *testing.T) {
	why := errors.New("enough")
	for what, c := range map[string]struct {
		body   []byte
		answer string
	}{
		"no answer":      {nil, ""},
		"half an answer": {nil, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"},
		"nobody reads":   {make([]byte, 64<<20), ""},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := make(chan struct{})
			client, _ := raw(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				http.ReadRequest(r)
				io.WriteString(conn, c.answer)
				cancel(why)
				<-gone
			})
			defer close(gone)
			if _, _, err := client.Invoke(ctx, &sandbox.Head{Method: "POST", Path: "/"}, c.body); !errors.Is(err, why) {
				t.Errorf("got %v", err)
			}
			if client.conn != nil {
				t.Error("the connection is kept")
			}
			if _, _, err := client.Invoke(ctx, &sandbox.Head{Method: "GET", Path: "/"}, nil); !errors.Is(err, why) {
				t.Errorf("with a context that has ended: %v", err)
			}
		})
	}
}

func TestAwait(t *testing.T) {
	c, dialled, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	dial := c.o.Dial
	left := 5
	c.o.Dial = func(ctx context.Context) (net.Conn, error) {
		if left--; left >= 0 {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		return dial(ctx)
	}
	if err := c.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, body, err := c.Invoke(t.Context(), &sandbox.Head{Method: "GET", Path: "/"}, nil); err != nil || string(body) != "ok" {
		t.Errorf("got %q, %v", body, err)
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("dialled %d times: the connection that told so is not used", n)
	}
}

func TestAwaitEnds(t *testing.T) {
	broken := errors.New("no such sandbox")
	err := AwaitListening(t.Context(), func(context.Context) (net.Conn, error) { return nil, broken })
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != Unreachable || !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	tries := 0
	err = AwaitListening(ctx, func(context.Context) (net.Conn, error) {
		if tries++; tries == 4 {
			cancel(broken)
		}
		return nil, ErrNotListening
	})
	if !errors.Is(err, broken) || tries != 4 {
		t.Errorf("got %v after %d attempts", err, tries)
	}
}

func BenchmarkInvoke(b *testing.B) {
	for _, size := range []int{0, 1 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			answer := []byte(strings.Repeat("x", size))
			c, _, _ := serve(b, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Write(answer)
			})
			h := &sandbox.Head{Method: "POST", Path: "/orders/7", Query: "x=1", Headers: map[string][]string{
				"host": {"shop.example"}, "content-type": {"application/json"}, "x-request-id": {"1"}, "user-agent": {"curl/8"},
			}}
			body := []byte(strings.Repeat("x", size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := c.Invoke(b.Context(), h, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	in := "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"ok\": true }"
	s := strings.NewReader(in)
	r := bufio.NewReaderSize(s, maxLine)
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(in)
		r.Reset(s)
		if _, _, err := answer(r, "GET", 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

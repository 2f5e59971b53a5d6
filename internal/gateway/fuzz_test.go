package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzRequest sends bytes to the real server over a pipe. It must answer with
// what is HTTP, never with 500, and no function may be started without a key on
// a route that needs one.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		get1("/open"), get1("/hello", bearer(goodKey)), get1("/~shop/cart/1", "X-API-Key: "+goodKey),
		"POST /echo HTTP/1.1\r\nHost: a\r\n" + bearer(goodKey) + "\r\nContent-Length: 5\r\n\r\nhello",
		"POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
		"OPTIONS /open HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\nAccess-Control-Request-Method: GET\r\n\r\n",
		"GET /open HTTP/1.0\r\nHost: [::1]:1\r\nConnection: x, keep-alive\r\nCookie: a\r\nForwarded: for=x\r\n\r\n",
		"POST /open HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	w := newWorld(f, Limits{BodyGrace: 500 * time.Millisecond, HeaderTime: 500 * time.Millisecond})
	server := w.Server(nil)
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(w.Listener(l)) }()
	f.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	f.Fuzz(func(t *testing.T, request []byte) {
		client, other := net.Pipe()
		defer client.Close()
		l.conns <- other
		_ = client.SetDeadline(time.Now().Add(hang))
		before := w.invoker.count.Load()
		go func() {
			_, _ = client.Write(request)
			// What is incomplete becomes a request that ends the connection.
			_, _ = io.WriteString(client, "\r\n\r\nGET / HTTP/0.0\r\n\r\n")
		}()
		stream, _ := io.ReadAll(client)
		r := bufio.NewReader(bytes.NewReader(stream))
		for {
			if _, err := r.Peek(1); err != nil {
				break
			}
			method := http.MethodGet
			if bytes.HasPrefix(request, []byte("HEAD")) {
				method = http.MethodHead
			}
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				if method == http.MethodHead || bytes.Contains(request, []byte("HEAD")) {
					break // the answers of a pipeline have bodies or not
				}
				t.Fatalf("not HTTP: %v\n%q", err, stream)
			}
			if resp.StatusCode == 500 || resp.StatusCode == 502 {
				t.Fatalf("got %d\n%q", resp.StatusCode, stream)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		if w.invoker.count.Load() > before {
			if c := w.invoker.last(t); !c.Public && !bytes.Contains(request, []byte(goodKey)) {
				t.Fatalf("%s was called as %v", c.Route, c.Principal)
			}
		}
		w.invoker.mu.Lock()
		w.invoker.calls = w.invoker.calls[max(0, len(w.invoker.calls)-1):]
		w.invoker.mu.Unlock()
		w.logs.mu.Lock()
		logs := w.logs.b.String()
		w.logs.b.Reset()
		w.logs.mu.Unlock()
		if strings.Contains(logs, "panicked") || (strings.Contains(logs, keySecret) && bytes.Contains(request, []byte(goodKey))) {
			t.Fatalf("logged:\n%s", logs)
		}
	})
}

// FuzzAnswer lets a function answer with anything; what is sent stays HTTP, and
// holds no field of the function's making beyond the one it gave.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "x-a", "b", []byte("body"))
	f.Add(204, "connection", "x-a", []byte("body"))
	f.Add(304, "transfer-encoding", "chunked", []byte(""))
	f.Add(200, "x\r\ny", "b\r\n\r\n", []byte(""))
	f.Fuzz(func(t *testing.T, status int, name, value string, body []byte) {
		w := newWorld(t, Limits{})
		w.invoker.answering(outcome(status, string(body), map[string][]string{name: {value}}), nil)
		server := w.Server(nil)
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		client, other := net.Pipe()
		l.conns <- other
		_ = client.SetDeadline(time.Now().Add(hang))
		go func() { _, _ = io.WriteString(client, get1("/open")) }()
		stream, _ := io.ReadAll(client)
		_ = server.Close()
		<-done
		r := bufio.NewReader(bytes.NewReader(stream))
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
		if err != nil {
			t.Fatalf("not HTTP: %v\n%q", err, stream)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || r.Buffered() > 0 {
			t.Fatalf("%v, %d bytes beyond the answer\n%q", err, r.Buffered(), stream)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status && resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("%d became %d", status, resp.StatusCode)
		}
		if resp.StatusCode == status && !bodiless(status) && status != http.StatusBadGateway && !bytes.Equal(got, body) {
			t.Fatalf("the body changed: %q became %q", body, got)
		}
		for field := range resp.Header {
			switch {
			case strings.EqualFold(field, name):
			case field == "Date", field == "Content-Type", field == "Content-Length", field == headerRequestID, field == headerReceipt,
				field == "X-Content-Type-Options", field == "Connection", field == "Cache-Control":
			default:
				t.Fatalf("a field %q appeared\n%q", field, stream)
			}
		}
	})
}

// pipeListener hands out connections that never touch the network.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

package gateway

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/internal/invoke"
)

// Just enough of HTTP/2 (RFC 9113) to send what no client library would.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagEndHeaders = 0x4
)

func frame(kind, flags byte, stream uint32, payload string) string {
	head := make([]byte, 9)
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind)) //nolint:gosec // tests keep it short
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], stream)
	return string(head) + payload
}

// field encodes a header field as a literal without indexing (RFC 7541, section
// 6.2.2), without compression; both parts stay below 127 bytes.
func field(name, value string) string {
	return "\x00" + string([]byte{byte(len(name))}) + name + string([]byte{byte(len(value))}) + value
}

func head(method, path, authority string, fields ...string) string {
	return field(":method", method) + field(":scheme", "https") + field(":path", path) + field(":authority", authority) + strings.Join(fields, "")
}

type h2conn struct{ net.Conn }

// http2 opens a connection and says hello, with settings if any.
func (w *world) http2(t *testing.T, settings string) h2conn {
	t.Helper()
	c := h2conn{w.dial(t, "h2")}
	c.send(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(frameSettings, 0, 0, settings))
	return c
}

func (c h2conn) send(t *testing.T, frames string) {
	t.Helper()
	if _, err := io.WriteString(c, frames); err != nil {
		t.Fatal(err)
	}
}

// next reads one frame; ok is false when the connection has ended.
func (c h2conn) next() (kind byte, stream uint32, payload string, ok bool) {
	h := make([]byte, 9)
	if _, err := io.ReadFull(c, h); err != nil {
		return 0, 0, "", false
	}
	b := make([]byte, binary.BigEndian.Uint32(h)>>8)
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, 0, "", false
	}
	return h[3], binary.BigEndian.Uint32(h[5:]), string(b), true
}

// body reads until stream 1 has given data or was reset, or all has ended.
func (c h2conn) body() string {
	for {
		kind, stream, payload, ok := c.next()
		switch {
		case !ok:
			return "connection ended"
		case kind == frameData && stream == 1 && payload != "":
			return payload
		case kind == frameReset && stream == 1:
			return "stream reset"
		case kind == frameGoAway:
			return "goaway"
		}
	}
}

// TestAttackRapidReset opens and resets streams as fast as it can, on functions
// that do not stop at once (CVE-2023-44487).
func TestAttackRapidReset(t *testing.T) {
	t.Parallel()
	const streams = 20
	w := served(t, Limits{Streams: streams})
	var running, peak atomic.Int64
	release := make(chan struct{})
	w.invoker.run = func(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
		if c.Method == "GET" {
			now := running.Add(1)
			for {
				seen := peak.Load()
				if now <= seen || peak.CompareAndSwap(seen, now) {
					break
				}
			}
			<-release
			running.Add(-1)
		}
		return outcome(200, "x", nil), nil
	}
	c := w.http2(t, "")
	block := head("GET", "/open", "localhost")
	var flood strings.Builder
	for i := range uint32(5000) {
		flood.WriteString(frame(frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, block))
		flood.WriteString(frame(frameReset, 0, 2*i+1, "\x00\x00\x00\x08"))
	}
	go func() { _, _ = io.WriteString(c, flood.String()) }()
	for ok := true; ok; {
		_, _, _, ok = c.next() // until the server ends it
	}
	if a := w.do(t, "POST", "/open", nil); a.status != 200 {
		t.Errorf("another client gets %d", a.status)
	}
	close(release)
	eventually(t, "functions ended", func() bool { return running.Load() == 0 })
	if n := peak.Load(); n > streams || n == 0 {
		t.Errorf("%d functions ran at once, with %d streams", n, streams)
	}
}

// TestAttackContinuationFlood never ends a header block (CVE-2023-45288).
func TestAttackContinuationFlood(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	c := w.http2(t, "")
	go func() { _, _ = io.Copy(io.Discard, c) }()
	c.send(t, frame(frameHeaders, flagEndStream, 1, head("GET", "/open", "localhost")))
	more := frame(frameContinuation, 0, 1, strings.Repeat(field("x", strings.Repeat("y", 100)), 150))
	sent := 0
	for ; sent < 64<<20; sent += len(more) {
		if _, err := io.WriteString(c, more); err != nil {
			break
		}
	}
	if sent >= 64<<20 {
		t.Error("the server takes it without an end")
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

func TestAttackPingFlood(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.http2(t, "") // and never read the acknowledgements
		many := strings.Repeat(frame(framePing, 0, 0, "12345678"), 4096)
		for range 500 {
			if _, err := io.WriteString(c, many); err != nil {
				break
			}
		}
		if a := w.do(t, "GET", "/open", nil); a.status != 200 {
			t.Errorf("another client gets %d", a.status)
		}
	})
}

func TestAttackHTTP2Heads(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for name, c := range map[string]struct{ block, want string }{
		"two hosts":             {head("GET", "/open", "localhost", field("host", "evil")), "invalid_header"},
		"no authority":          {field(":method", "GET") + field(":scheme", "https") + field(":path", "/open"), "invalid_header"},
		"userinfo in authority": {head("GET", "/open", "a@localhost"), ""},
		"double slash":          {head("GET", "//open", "localhost"), "invalid_path"},
		"dot segment":           {head("GET", "/x/../open", "localhost"), "invalid_path"},
		"asterisk":              {head("OPTIONS", "*", "localhost"), "invalid_path"},
		"absolute path":         {head("GET", "https://evil/open", "localhost"), ""},
		"request in method":     {head("GET /open HTTP/1.1\r\nX: y", "/open", "localhost"), ""},
		"CRLF in path":          {head("GET", "/open\r\nX: y", "localhost"), ""},
		"CRLF in value":         {head("GET", "/open", "localhost", field("x", "y\r\nz: a")), ""},
		"CRLF in name":          {head("GET", "/open", "localhost", field("x\r\ny", "z")), ""},
		"upper-case name":       {head("GET", "/open", "localhost", field("X-API-KEY", goodKey)), ""},
		"connection":            {head("GET", "/open", "localhost", field("connection", "x-api-key")), ""},
		"transfer-encoding":     {head("GET", "/open", "localhost", field("transfer-encoding", "chunked")), ""},
		"upgrade":               {head("GET", "/open", "localhost", field("upgrade", "h2c")), ""},
		"two lengths":           {head("GET", "/open", "localhost", field("content-length", "0"), field("content-length", "7")), ""},
		"length without body":   {head("POST", "/open", "localhost", field("content-length", "7")), ""},
		"pseudo twice":          {head("GET", "/open", "localhost", field(":path", "/hello")), ""},
		"unknown pseudo":        {head("GET", "/open", "localhost", field(":x", "y")), ""},
		"connect":               {head("CONNECT", "/open", "localhost"), ""},
		"two keys":              {head("GET", "/hello", "localhost", field("x-api-key", goodKey), field("x-api-key", goodKey)), "unauthenticated"},
	} {
		conn := w.http2(t, "")
		conn.send(t, frame(frameHeaders, flagEndHeaders|flagEndStream, 1, c.block))
		got := conn.body()
		if n := w.invoker.count.Swap(0); n != 0 {
			t.Errorf("%s: the function was started", name)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %.300q, want %q", name, got, c.want)
		}
		_ = conn.Close()
	}
	conn := w.http2(t, "")
	conn.send(t, frame(frameHeaders, flagEndHeaders|flagEndStream, 1, head("GET", "/hello", "localhost", field("x-api-key", goodKey))))
	if got := conn.body(); got != "hello\n" {
		t.Errorf("a good request gets %.300q", got)
	}
}

func TestAttackSlowBodyHTTP2(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.http2(t, "")
		c.send(t, frame(frameHeaders, flagEndHeaders, 1, head("POST", "/open", "localhost"))+frame(frameData, 0, 1, "x"))
		if got := c.body(); !strings.Contains(got, "request_timeout") {
			t.Errorf("got %.300q", got)
		}
		if n := w.invoker.count.Load(); n != 0 {
			t.Errorf("functions were started %d times", n)
		}
	})
}

// TestAttackZeroWindow gives the server no room to answer in, so that each
// stream holds its answer.
func TestAttackZeroWindow(t *testing.T) {
	still(t, Limits{}, func(t *testing.T, w *world) {
		c := w.http2(t, "\x00\x04\x00\x00\x00\x00") // SETTINGS_INITIAL_WINDOW_SIZE 0
		c.send(t, frame(frameHeaders, flagEndHeaders|flagEndStream, 1, head("GET", "/open", "localhost")))
		if got := c.body(); got != "stream reset" {
			t.Errorf("got %.300q", got)
		}
	})
}

func TestHTTP2IsSpoken(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+w.addr+"/open", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.TLS.Version < 0x0304 {
		t.Errorf("got %s over %x", resp.Proto, resp.TLS.Version)
	}
	if !strings.HasPrefix(w.rawAnswer(t, get1("/open")).body, "hello") {
		t.Error("HTTP/1.1 is not spoken")
	}
}

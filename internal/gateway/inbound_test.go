package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
)

func TestFunctionSeesItsRequest(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	a := w.do(t, "GET", "/~shop/cart/caf%C3%A9?a=1&b=%2F", nil, bearer(goodKey), "X-Request-Id: trace-1", "Accept: a", "Accept: b", "Content-Type: text/x")
	if a.status != 200 || a.header.Get("X-Request-Id") != "trace-1" || a.header.Get("Casemate-Receipt") != "receipt-1" {
		t.Fatalf("got %s", a.text)
	}
	c := w.invoker.last(t)
	if c.Ref.String() != "shop/cart" || c.Path != "/cart/café" || c.Query != "a=1&b=%2F" || c.Params["id"] != "café" ||
		c.Route != "GET /cart/{id}" || c.RequestID != "trace-1" || c.Trigger != "http" || c.Method != "GET" || c.Body != nil {
		t.Errorf("got %+v", c)
	}
	for name, want := range map[string][]string{
		"accept": {"a", "b"}, "content-type": {"text/x"}, "host": {w.addr}, "x-request-id": {"trace-1"},
		"x-forwarded-for": {"127.0.0.1"}, "x-forwarded-proto": {"https"}, "x-forwarded-host": {w.addr},
	} {
		if got := c.Headers[name]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	a = w.do(t, "HEAD", "/files/a/b", nil, bearer(goodKey))
	if c := w.invoker.last(t); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "6" || c.Method != "HEAD" || c.Params["rest"] != "a/b" {
		t.Errorf("HEAD: %s, %+v", a.text, c)
	}
}

// TestAttackForgedHeaders claims to be what only the platform may say one is.
func TestAttackForgedHeaders(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	forged := []string{
		"Casemate-Receipt: forged", "Casemate-Principal: forged", "casemate-anything: forged", "Forwarded: for=forged",
		"X-Forwarded-For: forged", "X-Forwarded-Proto: forged", "X-Forwarded-Host: forged", "X-Forwarded-Prefix: forged",
		"X-Real-IP: forged", "Proxy: forged", "Proxy-Connection: forged", "X_Forwarded_For: forged", "X-Forwarded_For: forged",
		"X-HTTP-Method-Override: forged", "X-HTTP-Method: forged", "X-Method-Override: forged",
		"X-Original-URL: forged", "X-Rewrite-URL: forged", "TE: forged", "Keep-Alive: forged", "Trailer: Forged",
		"X-Request-Id: forged!", "X-Request-Id: forged",
	}
	for _, public := range []string{"/open", "/hello"} {
		a := w.rawAnswer(t, get1(public, append(forged, bearer(goodKey))...))
		if a.status != 200 {
			t.Fatalf("got %s", a.text)
		}
		if strings.Contains(strings.ToLower(a.text), "forged") {
			t.Errorf("the answer repeats a forged field:\n%s", a.text)
		}
		c := w.invoker.last(t)
		if text := strings.ToLower(fmt.Sprintf("%+v", c)); strings.Contains(text, "forged") {
			t.Errorf("the function sees a forged field: %s", text)
		}
		if got := c.Headers["x-forwarded-for"]; len(got) != 1 || got[0] != "127.0.0.1" {
			t.Errorf("x-forwarded-for is %q", got)
		}
	}
}

func TestAttackForgedRequestID(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for given, kept := range map[string]bool{
		"abc-DEF_1.2": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a\tb": false, "a;b": false, "é": false, `"}{"a":"`: false, "<script>": false, goodKey[:40]: false,
	} {
		a := w.do(t, "GET", "/hello", nil, bearer(goodKey), "X-Request-Id: "+given)
		if got := a.header.Get("X-Request-Id"); (got == given) != kept || got == "" {
			t.Errorf("%q: answered with %q", given, got)
		}
		if c := w.invoker.last(t); c.RequestID != a.header.Get("X-Request-Id") {
			t.Errorf("%q: called with %q, answered with %q", given, c.RequestID, a.header.Get("X-Request-Id"))
		}
	}
}

// TestAttackHopByHop abuses Connection to have fields removed that protect, or
// to let them through that do not belong.
func TestAttackHopByHop(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, option := range []string{"Authorization", "X-Api-Key", "x-api-key, authorization"} {
		w.rawAnswer(t, get1("/hello", "Connection: close, "+option)).want(t, problem.Unauthenticated)
		if a := w.rawAnswer(t, get1("/hello", "Connection: close, "+option, bearer(goodKey))); a.status != 200 {
			t.Errorf("%s: the key was not seen: %d", option, a.status)
		}
		w.rawAnswer(t, get1("/open", "Connection: close, "+option, bearer(unknownKey))).want(t, problem.Unauthenticated)
	}
	a := w.rawAnswer(t, get1("/hello", bearer(goodKey), "X-Mine: 1", "X-Other: 2",
		"Connection: x-mine,, X-Forwarded-For, X-Request-Id , Host, casemate-receipt", "Keep-Alive: 5", "TE: trailers"))
	if a.status != 200 || a.header.Get("Casemate-Receipt") == "" || a.header.Get("X-Request-Id") == "" {
		t.Fatalf("got %s", a.text)
	}
	h := w.invoker.last(t).Headers
	for _, name := range []string{"x-mine", "connection", "keep-alive", "te", "authorization"} {
		if _, has := h[name]; has {
			t.Errorf("the function sees %s", name)
		}
	}
	for _, name := range []string{"x-other", "x-forwarded-for", "x-request-id", "host"} {
		if len(h[name]) != 1 {
			t.Errorf("the function does not see %s", name)
		}
	}
}

func TestAttackHost(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	send := func(fields ...string) answer {
		return w.rawAnswer(t, "GET /open HTTP/1.1\r\n"+strings.Join(fields, "\r\n")+"\r\nConnection: close\r\n\r\n")
	}
	for _, host := range []string{
		"a/b", "a@b", "a b", "a\tb", "a?b", "a#b", "a\\b", ":443", "a:b", "a:", "a:99999", "a:123456", "[::1", "[x]", "[]", "[::1]x", "a..b", ".a", "a,b", "é", strings.Repeat("a", 256), "",
	} {
		if host == "a:" { // an empty port is allowed by RFC 3986
			continue
		}
		if a := send("Host: " + host); a.status != 400 {
			t.Errorf("host %q: got %d", host, a.status)
		}
	}
	for _, fields := range [][]string{{"Host: a", "Host: b"}, {"Host: a", "Host: a"}, {"X: y"}} {
		if a := send(fields...); a.status != 400 {
			t.Errorf("%q: got %d", fields, a.status)
		}
	}
	for _, host := range []string{"localhost", "a.example.", "127.0.0.1:8443", "[::1]:8443", "a_b"} {
		if a := send("Host: " + host); a.status != 200 {
			t.Errorf("host %q: got %d", host, a.status)
		}
		if got := w.invoker.last(t).Headers["host"]; len(got) != 1 || got[0] != host {
			t.Errorf("host %q: the function sees %q", host, got)
		}
	}
	old := w.rawAnswer(t, "GET /open HTTP/1.0\r\n\r\n")
	old.want(t, problem.InvalidHeader)
	// An absolute target would override Host.
	w.rawAnswer(t, "GET https://evil/open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").want(t, problem.InvalidPath)
}

func TestAttackHeaderFlood(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	many := make([]string, 0, 200)
	for i := range 200 {
		many = append(many, fmt.Sprintf("X-%d: y", i))
	}
	w.rawAnswer(t, get1("/open", many...)).want(t, problem.HeadersTooLarge)
	same := slices.Repeat([]string{"X-Same: y"}, 200)
	w.rawAnswer(t, get1("/open", same...)).want(t, problem.HeadersTooLarge)
	for _, huge := range []string{"X: " + strings.Repeat("y", 40<<10), strings.Repeat("X", 40<<10) + ": y"} {
		if a := w.rawAnswer(t, get1("/open", huge)); a.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %d", a.status)
		}
	}
	if a := w.rawAnswer(t, get1("/open?"+strings.Repeat("q", 40<<10))); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long target: got %d", a.status)
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

func TestOddHeadersAreRefused(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	w.rawAnswer(t, get1("/open", "X: \xff")).want(t, problem.InvalidHeader)
	w.rawAnswer(t, get1("/open", "Upgrade: websocket", "Connection: Upgrade")).want(t, problem.NotImplemented)
	w.rawAnswer(t, get1("/open", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")).want(t, problem.NotImplemented)
	for _, line := range []string{"X: a\x00b", "X\x00: a", "X : a", ": a", "X\r\n", " X: a", "X(: a"} {
		if a := w.rawAnswer(t, "GET /open HTTP/1.1\r\n"+line+"\r\nHost: localhost\r\nConnection: close\r\n\r\n"); a.status != 400 {
			t.Errorf("%q: got %d", line, a.status)
		}
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

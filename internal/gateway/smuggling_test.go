package gateway

import (
	"fmt"
	"strings"
	"testing"
)

// TestAttackRequestSmuggling sends shapes that two parsers cut at different
// places. A second request hidden in the first must never be answered, and no
// connection goes on after one whose end is in doubt.
func TestAttackRequestSmuggling(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	hidden := "GET /open HTTP/1.1\r\nHost: localhost\r\nX-Hidden: 1\r\n\r\n"
	post := "POST /open HTTP/1.1\r\nHost: localhost\r\n"
	chunked := "Transfer-Encoding: chunked\r\n"
	cl := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	for name, c := range map[string]struct {
		request string
		answers int // at most
	}{
		"CL.TE":               {post + cl(5+len(hidden)) + chunked + "\r\n0\r\n\r\n" + hidden, 1},
		"TE.CL":               {post + chunked + cl(4) + "\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden) + hidden, 1},
		"TE twice":            {post + chunked + chunked + "\r\n0\r\n\r\n" + hidden, 1},
		"TE obfuscated":       {post + cl(5+len(hidden)) + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 1},
		"TE identity":         {post + cl(5+len(hidden)) + "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, 1},
		"TE gzip, chunked":    {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, 1},
		"TE tab":              {post + cl(5+len(hidden)) + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + hidden, 1},
		"TE space colon":      {post + cl(5+len(hidden)) + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, 1},
		"TE over 1.0":         {"POST /open HTTP/1.0\r\nHost: localhost\r\n" + cl(5+len(hidden)) + chunked + "\r\n0\r\n\r\n" + hidden, 1},
		"two CL":              {post + cl(0) + cl(len(hidden)) + "\r\n" + hidden, 1},
		"CL list":             {post + "Content-Length: 0, " + fmt.Sprint(len(hidden)) + "\r\n\r\n" + hidden, 1},
		"CL plus":             {post + "Content-Length: +0\r\n\r\n" + hidden, 1},
		"CL minus":            {post + "Content-Length: -1\r\n\r\n" + hidden, 1},
		"CL hex":              {post + "Content-Length: 0x0\r\n\r\n" + hidden, 1},
		"CL huge":             {post + "Content-Length: 18446744073709551616\r\n\r\n" + hidden, 1},
		"CL obs-fold":         {post + "Content-Length:\r\n 0\r\nContent-Length: 5\r\n\r\n" + hidden, 1},
		"chunk size overflow": {post + chunked + "\r\n10000000000000000\r\n" + hidden, 1},
		"chunk size sign":     {post + chunked + "\r\n-1\r\n" + hidden, 1},
		"chunk bare LF":       {post + chunked + "\r\n0\n\n" + hidden, 1},
		"chunk ext":           {post + chunked + "\r\n0;" + strings.Repeat("x", 1<<17) + "\r\n\r\n" + hidden, 1},
		"chunk no CRLF":       {post + chunked + "\r\n1\r\naXX0\r\n\r\n" + hidden, 1},
		"CR in name":          {post + "X\rContent-Length: 5\r\n\r\n" + hidden, 1},
		"CR alone":            {post + "X: a\rContent-Length: 5\r\n\r\n" + hidden, 1},
		"NUL":                 {post + "X: a\x00\r\n\r\n" + hidden, 1},
		"GET with CL":         {"GET /open HTTP/1.1\r\nHost: localhost\r\n" + cl(len(hidden)) + "Connection: close\r\n\r\n" + hidden, 1},
		"method override":     {post + "X-HTTP-Method-Override: PUT\r\n" + cl(len(hidden)) + "Connection: close\r\n\r\n" + hidden, 1},
		"two request lines":   {"GET /open HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden, 1},
		"request line tab":    {"GET\t/open\tHTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden, 1},
		"unknown version":     {"GET /open HTTP/1.2\r\nHost: localhost\r\nConnection: close\r\n\r\n" + hidden, 1},
		"version 0.9":         {"GET /open\r\n\r\n" + hidden, 1},
		"trailers":            {post + chunked + "Trailer: X-Api-Key\r\n\r\n0\r\nX-Api-Key: " + goodKey + "\r\nX-Hidden: 1\r\n\r\n" + hidden, 1},
	} {
		t.Run(name, func(t *testing.T) {
			stream := w.raw(t, c.request)
			if got := statuses(t, stream); len(got) > c.answers {
				t.Errorf("answered %v", got)
			}
		})
	}
	w.invoker.mu.Lock()
	defer w.invoker.mu.Unlock()
	for _, c := range w.invoker.calls {
		if _, seen := c.Headers["x-hidden"]; seen {
			t.Errorf("a function saw the hidden request or a trailer: %+v", c)
		}
		if c.Method == "PUT" {
			t.Errorf("a method was overridden")
		}
	}
}

// TestAttackObsFoldMakesNoField folds a line; what follows stays a value, and is
// not a header field to anybody behind us either.
func TestAttackObsFoldMakesNoField(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	a := w.rawAnswer(t, get1("/open", "X-A: 1\r\n X-Api-Key: "+unknownKey, "X-B: 2"))
	if a.status == 400 {
		return
	}
	h := w.invoker.last(t).Headers
	if a.status != 200 || len(h["x-a"]) != 1 || strings.ContainsAny(h["x-a"][0], "\r\n") || h["x-api-key"] != nil {
		t.Errorf("got %d, %q", a.status, h)
	}
}

// TestAttackBareLF ends lines without CR: read as one request, or refused, and
// in both cases as the same number of requests.
func TestAttackBareLF(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	stream := w.raw(t, "GET /open HTTP/1.1\nHost: localhost\nX-A: 1\nConnection: close\n\nGET /open HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if got := statuses(t, stream); len(got) != 1 {
		t.Errorf("answered %v", got)
	}
}

// TestChunkedRequestEndsItsConnection: a Content-Length beside it is not visible
// any more when we see the request, so it has to be assumed.
func TestChunkedRequestEndsItsConnection(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	stream := w.raw(t, "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	if !strings.HasPrefix(stream, "HTTP/1.1 200 ") || !strings.Contains(stream, "\r\nConnection: close\r\n") || string(w.invoker.last(t).Body) != "hello" {
		t.Errorf("got %s", stream)
	}
}

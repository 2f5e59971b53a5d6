package gateway

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Clients of AWS write the whole request before they read. One that sends too much is
// to learn that, and not to find the connection broken.
func TestLambdaSaysThatABodyIsTooLargeToWhoWritesItAll(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	body := `"` + strings.Repeat("x", 16<<20) + `"`
	for name, send := range map[string]func(io.Writer, string) error{
		"announced": func(c io.Writer, head string) error {
			_, err := io.WriteString(c, head+"Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
			return err
		},
		"in chunks": func(c io.Writer, head string) error {
			_, err := fmt.Fprintf(c, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.signed(t, w.full, "POST", helloPath, body)
			c := w.dial(t, "http/1.1")
			defer c.Close()
			head := "POST " + helloPath + " HTTP/1.1\r\nHost: " + w.addr + "\r\nX-Amz-Date: " + r.Header.Get("X-Amz-Date") + "\r\nAuthorization: " + r.Header.Get("Authorization") + "\r\n"
			if err := send(c, head); err != nil {
				t.Fatalf("the connection broke: %v", err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), r)
			if err != nil {
				t.Fatal(err)
			}
			collect(t, resp).wantAWS(t, 413, "RequestTooLargeException")
		})
	}
	if w.invoker.count.Load() != 0 {
		t.Error("something ran")
	}
}

// Who waits to be asked for a body is not asked for one that is refused.
func TestLambdaAsksForNoBodyThatIsTooLarge(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	r := w.signed(t, w.full, "POST", helloPath, "")
	stream := w.raw(t, "POST "+helloPath+" HTTP/1.1\r\nHost: "+w.addr+"\r\nX-Amz-Date: "+r.Header.Get("X-Amz-Date")+"\r\nAuthorization: "+r.Header.Get("Authorization")+
		"\r\nContent-Length: 16000000\r\nExpect: 100-continue\r\n\r\n")
	if got := statuses(t, stream); len(got) != 1 || got[0] != 413 {
		t.Errorf("got %v: %q", got, stream)
	}
}

// What a caller says of itself has AWS's bound, and a trace that could be either of two is none.
func TestLambdaContextHasABoundAndOneTrace(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	context := func(n int) string {
		return "X-Amz-Client-Context: " + base64.StdEncoding.EncodeToString([]byte(`{"custom":{"a":"`+strings.Repeat("x", n)+`"}}`))
	}
	w.ask(t, w.full, "POST", helloPath, "{}", context(3000)).wantAWS(t, 400, "InvalidRequestContentException")
	if w.invoker.count.Load() != 0 {
		t.Error("something ran")
	}
	if a := w.ask(t, w.full, "POST", helloPath, "{}", context(2600), "X-Amzn-Trace-Id: Root=1", "X-Amzn-Trace-Id: Root=2"); a.status != 200 {
		t.Errorf("answer: %s", a.text)
	}
	if c := w.invoker.last(t); c.Headers["x-amz-client-context"] == nil || c.Headers["x-amzn-trace-id"] != nil {
		t.Errorf("call: %v", c.Headers)
	}
}

// AWS takes JSON, which is UTF-8: what is not never reaches a function that would fail on it.
func TestLambdaTakesOnlyUTF8(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	for _, body := range []string{"\"\xff\"", "{\"a\":\"\xc3\x28\"}", "\"\xed\xa0\x80\""} {
		w.ask(t, w.full, "POST", helloPath, body).wantAWS(t, 400, "InvalidRequestContentException")
	}
	if w.invoker.count.Load() != 0 {
		t.Error("something ran")
	}
}

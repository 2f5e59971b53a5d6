package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

// unsized hides the length of a body, so that the client sends it in chunks.
type unsized struct{ io.Reader }

func TestBodyArrivesWhole(t *testing.T) {
	t.Parallel()
	r := routeIn("default", "POST", "/echo")
	r.Trigger.BodyLimit = function.MaxBodyLimit
	w := served(t, Limits{}, r)
	for _, size := range []int{0, 1, 4095, 4096, 64 << 10, 64<<10 + 1, 1<<20 + 7, int(function.MaxBodyLimit)} {
		sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for name, body := range map[string]io.Reader{"sized": bytes.NewReader(sent), "unsized": unsized{bytes.NewReader(sent)}} {
			if a := w.do(t, "POST", "/echo", body, bearer(goodKey)); a.status != 200 || !bytes.Equal(w.invoker.last(t).Body, sent) {
				t.Errorf("%s, %d bytes: got %d, %d bytes", name, size, a.status, len(w.invoker.last(t).Body))
			}
		}
		// Over HTTP/1.1 too.
		request := fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: localhost\r\n%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", bearer(goodKey), size, sent)
		if a := w.rawAnswer(t, request); a.status != 200 || !bytes.Equal(w.invoker.last(t).Body, sent) {
			t.Errorf("HTTP/1.1, %d bytes: got %d", size, a.status)
		}
	}
	if held := w.bodyMemory.Load(); held != 0 {
		t.Errorf("%d bytes are held for nothing", held)
	}
}

func TestAttackHugeBody(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	const limit = 64 << 10 // of the routes for tests
	big := strings.Repeat("x", limit+1)
	head := "POST /echo HTTP/1.1\r\nHost: localhost\r\n" + bearer(goodKey) + "\r\n"
	// Announced: refused before a byte of it is sent.
	w.rawAnswer(t, head+fmt.Sprintf("Content-Length: %d\r\n\r\n", limit+1)).want(t, problem.BodyTooLarge)
	w.rawAnswer(t, head+"Content-Length: 9000000000000000000\r\n\r\n").want(t, problem.BodyTooLarge)
	w.do(t, "POST", "/echo", strings.NewReader(big), bearer(goodKey)).want(t, problem.BodyTooLarge)
	w.do(t, "POST", "/echo", unsized{strings.NewReader(big)}, bearer(goodKey)).want(t, problem.BodyTooLarge)
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

func TestAttackEndlessChunkedBody(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	c := w.dial(t, "http/1.1")
	if _, err := io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"+bearer(goodKey)+"\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	chunk := "400\r\n" + strings.Repeat("x", 1<<10) + "\r\n"
	sent := 0
	for ; sent < 64<<20; sent += 1 << 10 {
		if _, err := io.WriteString(c, chunk); err != nil {
			break
		}
	}
	if sent >= 64<<20 {
		t.Error("the server takes it without an end")
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// TestAttackUnauthenticatedBody sends a body that nobody may send: the answer
// comes without it, and what follows on the connection is not waited for.
func TestAttackUnauthenticatedBody(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{BodyGrace: time.Hour, BodyTime: time.Hour})
	for _, field := range []string{"Content-Length: 1048576", "Transfer-Encoding: chunked"} {
		c := w.dial(t, "http/1.1") // reading from it has an end long before the grace
		if _, err := io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"+field+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		stream, err := io.ReadAll(c)
		if got := statuses(t, string(stream)); errors.Is(err, os.ErrDeadlineExceeded) || len(got) != 1 || got[0] != 401 || !strings.Contains(string(stream), "Connection: close") {
			t.Errorf("%s: %q, %v", field, stream, err)
		}
	}
}

func TestAttackBodyAnnouncedAndNotSent(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	c := w.dial(t, "http/1.1")
	if _, err := io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"+bearer(goodKey)+"\r\nContent-Length: 60000\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	stream, _ := io.ReadAll(c)
	if got := statuses(t, string(stream)); len(got) != 1 || got[0] != 400 {
		t.Errorf("got %q", stream)
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

// TestAttackBodyMemory fills the memory for bodies from many requests at once.
// The next is refused, and served again when one has ended.
func TestAttackBodyMemory(t *testing.T) {
	t.Parallel()
	r := routeIn("default", "POST", "/echo")
	r.Trigger.BodyLimit = function.MaxBodyLimit
	w := served(t, Limits{BodyMemory: 2*function.MaxBodyLimit + 1000}, r)
	release := make(chan struct{})
	w.invoker.run = func(ctx context.Context, _ *invoke.Call) (*invoke.Outcome, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return outcome(200, "", nil), nil
	}
	whole := make([]byte, function.MaxBodyLimit)
	results := make(chan int, 2)
	for range 2 {
		go func() {
			r, _ := http.NewRequest("POST", "https://"+w.addr+"/echo", bytes.NewReader(whole)) //nolint:noctx // released below
			r.Header.Set("X-API-Key", goodKey)
			resp, err := w.client.Do(r)
			if err != nil {
				results <- 0
				return
			}
			_ = resp.Body.Close()
			results <- resp.StatusCode
		}()
	}
	eventually(t, "two bodies held", func() bool { return w.invoker.count.Load() == 2 })
	a := w.do(t, "POST", "/echo", bytes.NewReader(whole[:100_000]), bearer(goodKey))
	a.want(t, problem.Overloaded)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(release)
	for range 2 {
		if s := <-results; s != 200 {
			t.Errorf("got %d", s)
		}
	}
	eventually(t, "memory given back", func() bool { return w.bodyMemory.Load() == 0 })
	if a := w.do(t, "POST", "/echo", bytes.NewReader(whole), bearer(goodKey)); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

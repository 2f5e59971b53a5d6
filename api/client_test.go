package api

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/api/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "cm_secretsecretsecret"

// node is a TLS server that the client trusts.
func node(t *testing.T, h http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	ts := httptest.NewUnstartedServer(h)
	ts.EnableHTTP2 = true
	ts.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	c, err := NewClient(Options{URL: ts.URL, CA: ca(ts), Key: key, UserAgent: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, ts
}

func ca(ts *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw})
}

func TestRequestsCarryTheKeyOverHTTP2(t *testing.T) {
	t.Parallel()
	c, _ := node(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Authorization") != "Bearer "+key || r.Header.Get("User-Agent") != "test/1" {
			t.Errorf("got %s %v", r.Proto, r.Header)
		}
		_, _ = io.WriteString(w, `{"healthy":true,"a field of a later version":1}`)
	})
	s, err := c.Status(t.Context())
	if err != nil || !s.Healthy {
		t.Fatalf("got %+v, %v", s, err)
	}
}

func TestRefusalsAreTyped(t *testing.T) {
	t.Parallel()
	c, _ := node(t, func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.New(problem.TooManyRequests, "busy").At("x").After(3*time.Second), "r1")
	})
	_, err := c.Status(t.Context())
	var e *Error
	if !errors.As(err, &e) || !HasCode(err, problem.TooManyRequests) || e.RetryAfter != 3*time.Second || e.RequestID != "r1" || e.Status != 429 {
		t.Fatalf("got %#v", err)
	}
	if want := "Too many requests at once (x): busy\nhint: Wait for the time"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"html": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); _, _ = io.WriteString(w, "<html>") },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusFound)
		},
		"a problem of somebody else": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", problem.MediaType)
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"title":"x"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := node(t, h)
			_, err := c.Status(t.Context())
			var e *Error
			if !errors.As(err, &e) || e.Code != "" || !strings.Contains(err.Error(), "not from a Casemate node") {
				t.Fatalf("got %v", err)
			}
		})
	}
	c, _ := node(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "of one version") {
		t.Errorf("got %v", err)
	}
}

func TestConnectErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	_, ts := node(t, func(http.ResponseWriter, *http.Request) {})
	_, other := node(t, func(http.ResponseWriter, *http.Request) {})
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "https://" + ln.Addr().String()
	_ = ln.Close()
	self := otherAuthority(t)
	for name, tt := range map[string]struct {
		url, hint string
		ca        []byte
	}{
		"nobody there":      {closed, "casemate up", ca(ts)},
		"no TLS":            {strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS", ca(ts)},
		"another authority": {ts.URL, "ca.pem", self},
		"another name":      {strings.Replace(other.URL, "127.0.0.1", "localhost", 1), "name or address that its certificate covers", ca(other)},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := NewClient(Options{URL: tt.url, CA: tt.ca, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Status(t.Context())
			var ce *ConnectError
			if !errors.As(err, &ce) || ce.Address != tt.url || !strings.Contains(err.Error(), tt.hint) || !strings.Contains(err.Error(), tt.url) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), key) {
				t.Errorf("shows the key: %v", err)
			}
		})
	}
}

func TestContextsEndCalls(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c, _ := node(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	for _, err := range c.Logs(ctx, "default", LogQuery{Follow: true}) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
}

func TestLogsThatAreCutShortAreAnError(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string]string{"cut": "", "not JSON": "x\n", "problem": `{"error":{"code":"draining","title":"t"}}` + "\n"} {
		c, _ := node(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"text":"one"}`+"\n\n"+tail)
			if name == "cut" {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		})
		var texts []string
		var errs []error
		for rec, err := range c.Logs(t.Context(), "default", LogQuery{}) {
			if err != nil {
				errs = append(errs, err)
			} else {
				texts = append(texts, rec.Text)
			}
		}
		if len(texts) != 1 || len(errs) != 1 {
			t.Errorf("%s: %q, %v", name, texts, errs)
		}
		if name == "problem" && !HasCode(errs[0], problem.Draining) {
			t.Errorf("got %v", errs)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, ts := node(t, func(http.ResponseWriter, *http.Request) {})
	for name, o := range map[string]Options{
		"in the clear":    {URL: "http://127.0.0.1:1"},
		"no host":         {URL: "https://"},
		"password":        {URL: "https://u:hunter2@127.0.0.1:1"},
		"malformed":       {URL: "https://u:hunter2@[::1"},
		"query":           {URL: "https://127.0.0.1:1?k=hunter2"},
		"no authority":    {URL: ts.URL, CA: []byte("hunter2")},
		"key with a line": {URL: ts.URL, CA: ca(ts), Key: "hunter2\r\nx: y"},
	} {
		_, err := NewClient(o)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesCannotChangeThePath(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	c, _ := node(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.URL.EscapedPath()
		w.WriteHeader(http.StatusNoContent)
	})
	for name, want := range map[string]string{"..": "%2E%2E", ".": "%2E", "a/b": "a%2Fb", "": "%00", "a?b": "a%3Fb", "%2e": "%252e"} {
		if err := c.RevokeKey(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if p := <-got; p != "/v1/keys/"+want {
			t.Errorf("%q: %q", name, p)
		}
	}
}

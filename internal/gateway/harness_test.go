package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func TestMain(m *testing.M) {
	// A connection that was refused in the middle of its request is kept half open
	// for half a second, so that the peer can read why; it ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// Keys of the test world. None is real.
const (
	goodKey    = "cm_good000000000000_secretsecretsecretsecretsecretsecretsecr"
	otherKey   = "cm_other00000000000_secretsecretsecretsecretsecretsecretsecr"  // for shop only
	readKey    = "cm_read000000000000_secretsecretsecretsecretsecretsecretsecr"  // may read, not invoke
	ordersKey  = "cm_orders00000000000_secretsecretsecretsecretsecretsecretsecr" // publishes to shop/orders
	expiredKey = "cm_expired000000000_secretsecretsecretsecretsecretsecretsecr"
	revokedKey = "cm_revoked000000000_secretsecretsecretsecretsecretsecretsecr"
	unknownKey = "cm_unknown000000000_secretsecretsecretsecretsecretsecretsecr"
	keySecret  = "secretsecret" // in each of them
)

const planted = "planted-internal-string /var/lib/casemate 10.1.2.3"

type fakeKeys struct{ revoked sync.Map }

func (k *fakeKeys) Verify(presented string) (identity.Principal, error) {
	if _, gone := k.revoked.Load(presented); gone {
		return identity.Principal{}, errors.New("revoked: " + planted)
	}
	may := func(id string, scopes ...identity.Scope) (identity.Principal, error) {
		return identity.Principal{Kind: "key", ID: id, Scopes: scopes}, nil
	}
	switch presented {
	case goodKey:
		return may("good", identity.Scope{Action: identity.Invoke, Namespace: "*", Function: "*"})
	case otherKey:
		return may("other", identity.Scope{Action: identity.Invoke, Namespace: "elsewhere", Function: "*"})
	case ordersKey:
		return may("orders", identity.Scope{Action: identity.Publish, Namespace: "shop", Function: "orders"})
	case readKey:
		return may("read", identity.Scope{Action: identity.Read, Namespace: "*", Function: "*"})
	case expiredKey:
		return identity.Principal{}, errors.New("expired: " + planted)
	case revokedKey:
		return identity.Principal{}, errors.New("revoked: " + planted)
	}
	return identity.Principal{}, errors.New("unknown: " + planted)
}

// fakeInvoker keeps what it was called with.
type fakeInvoker struct {
	mu    sync.Mutex
	calls []*invoke.Call
	count atomic.Int64
	run   func(ctx context.Context, c *invoke.Call) (*invoke.Outcome, error)
}

func (f *fakeInvoker) Invoke(ctx context.Context, c *invoke.Call) (*invoke.Outcome, error) {
	n := f.count.Add(1)
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if f.run != nil {
		return f.run(ctx, c)
	}
	return &invoke.Outcome{
		Status: 200, Headers: map[string][]string{"content-type": {"text/plain"}}, Body: []byte("hello\n"),
		Receipt: audit.Receipt{ID: fmt.Sprintf("receipt-%d", n)},
	}, nil
}

func (f *fakeInvoker) last(t testing.TB) *invoke.Call {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		t.Fatal("the function was not called")
	}
	return f.calls[len(f.calls)-1]
}

// answering makes the invoker give one fixed outcome.
func (f *fakeInvoker) answering(o *invoke.Outcome, err error) {
	f.run = func(context.Context, *invoke.Call) (*invoke.Outcome, error) { return o, err }
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// world is a gateway, and everything around it.
type world struct {
	*Gateway
	keys    *fakeKeys
	invoker *fakeInvoker
	logs    *syncBuffer
	addr    string        // of the TLS server, once served
	pipes   *pipeListener // of the server in a bubble, instead
	client  *http.Client
}

// routesForTests has one of each kind.
func routesForTests() []Route {
	at := func(ns, name, method, path string, public bool) Route {
		return Route{Ref: function.Ref{Namespace: ns, Name: name}, Trigger: function.HTTPTrigger{Method: method, Path: path, Public: public, BodyLimit: 64 << 10}}
	}
	return []Route{
		at("default", "hello", "GET", "/hello", false),
		at("default", "echo", "POST", "/echo", false),
		at("default", "any", "ANY", "/any", false),
		at("default", "orders", "GET", "/orders/{id}", false),
		at("default", "files", "GET", "/files/{rest...}", false),
		at("default", "slash", "GET", "/slash/", false),
		at("default", "open", "GET", "/open", true),
		at("default", "open", "POST", "/open", true),
		at("shop", "cart", "GET", "/cart/{id}", false),
		at("shop", "cart", "POST", "/cart", false),
	}
}

func newWorld(t testing.TB, limits Limits, routes ...Route) *world {
	t.Helper()
	w := &world{keys: &fakeKeys{}, invoker: &fakeInvoker{}, logs: &syncBuffer{}}
	var ids atomic.Int64
	g, err := New(Config{
		Invoker: w.invoker, Keys: w.keys, Clock: time.Now, Limits: limits,
		Logger: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
		NewID:  func() string { return fmt.Sprintf("new-%d", ids.Add(1)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) == 0 {
		routes = routesForTests()
	}
	if err := g.SetRoutes(routes); err != nil {
		t.Fatal(err)
	}
	w.Gateway = g
	return w
}

var testCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// clientTLS trusts any server: what is tested is the server.
func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, MinVersion: tls.VersionTLS12} //nolint:gosec // a test's own server
}

// served starts the real server on a loopback socket.
func served(t testing.TB, limits Limits, routes ...Route) *world {
	t.Helper()
	for _, l := range []*time.Duration{&limits.HeaderTime, &limits.BodyGrace} {
		if *l == 0 {
			*l = hang // a busy machine is not a slow client
		}
	}
	w := newWorld(t, limits, routes...)
	w.serve(t)
	return w
}

func (w *world) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	server := w.Server(&tls.Config{Certificates: []tls.Certificate{testCertificate()}, MinVersion: tls.VersionTLS12})
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(w.Listener(l), "", "") }()
	transport := &http.Transport{TLSClientConfig: clientTLS(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64}
	w.client = &http.Client{
		Transport: transport, Timeout: hang,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving ended with %v", err)
		}
	})
}

// dial opens one TLS connection speaking HTTP/1.1, or another protocol.
func (w *world) dial(t testing.TB, protocol string) *tls.Conn {
	t.Helper()
	if w.pipes != nil {
		c := tls.Client(w.pipe(), clientTLS(protocol))
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	c, err := tls.Dial("tcp", w.addr, clientTLS(protocol))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(hang))
	return c
}

// raw sends bytes on a fresh connection and returns all that comes back until
// the server closes it.
func (w *world) raw(t testing.TB, request string) string {
	t.Helper()
	c := w.dial(t, "http/1.1")
	if _, err := io.WriteString(c, request); err != nil {
		t.Logf("sending: %v", err)
	}
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		t.Logf("reading: %v", err)
	}
	return string(answer)
}

// statuses lists the status of each answer in a raw stream.
func statuses(t testing.TB, stream string) []int {
	t.Helper()
	var all []int
	r := bufio.NewReader(strings.NewReader(stream))
	for {
		if _, err := r.Peek(1); err != nil {
			return all
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("the stream holds what is not an answer: %v\n%q", err, stream)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		all = append(all, resp.StatusCode)
	}
}

// get1 is a complete HTTP/1.1 request that ends its connection.
func get1(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

func bearer(key string) string { return "Authorization: Bearer " + key }

// answer is what a test looks at.
type answer struct {
	status int
	header http.Header
	body   string
	text   string // everything, to search for leaks
}

func (a answer) problem(t testing.TB) problem.Details {
	t.Helper()
	var d problem.Details
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatalf("not a problem: %v\n%s", err, a.text)
	}
	if ct := a.header.Get("Content-Type"); ct != problem.MediaType {
		t.Errorf("Content-Type is %q", ct)
	}
	if d.Status != a.status || d.RequestID == "" || d.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("problem does not fit its answer: %+v, status %d, id %q", d, a.status, a.header.Get("X-Request-Id"))
	}
	return d
}

func (a answer) want(t testing.TB, code problem.Code) {
	t.Helper()
	if d := a.problem(t); d.Code != code || a.status != problem.Lookup(code).Status {
		t.Errorf("got %d %s (%s), want %s", a.status, d.Code, d.Detail, code)
	}
}

// do sends a request through the client, with fields as "Name: value".
func (w *world) do(t testing.TB, method, path string, body io.Reader, fields ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+w.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, resp)
}

func collect(t testing.TB, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	_ = resp.Header.Write(&all)
	return answer{resp.StatusCode, resp.Header, string(b), all.String() + string(b)}
}

// rawAnswer sends one request as bytes and reads one answer.
func (w *world) rawAnswer(t testing.TB, request string) answer {
	t.Helper()
	stream := w.raw(t, request)
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(stream)), nil)
	if err != nil {
		t.Fatalf("no answer: %v\n%q", err, stream)
	}
	return collect(t, resp)
}

// hang is how long a test waits for what must come: only a failure reaches it.
const hang = 2 * time.Minute

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(hang)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

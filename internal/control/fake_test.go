package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/registry"
	"github.com/casemate-dev/casemate/internal/state"
)

func TestMain(m *testing.M) {
	// A connection that was refused in the middle of its request is kept half open
	// for half a second, so that the peer can read why; it ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// What node passes in.
var (
	_ Registry = (*registry.Registry)(nil)
	_ Keys     = (*identity.Keys)(nil)
	_ Recorder = (*audit.Recorder)(nil)
	_ Invoker  = (*invoke.Invoker)(nil)
)

// planted stands for text that only logs may see. It is in every internal error.
// mostReserved is how many places the fake node has to reserve.
const mostReserved = 10

const planted = "planted-internal-detail /var/lib/casemate/x.db"

// adminSecret is the key of the principal that may do everything.
const adminSecret = "admin-key"

type fakeKeys struct {
	mu      sync.Mutex
	known   map[string]identity.Principal
	created []identity.NewKey
	revoked []string
	err     error
}

func (f *fakeKeys) Verify(presented string) (identity.Principal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.known[presented]
	if !ok {
		return identity.Principal{}, errors.New(planted)
	}
	return p, nil
}

func (f *fakeKeys) Create(_ context.Context, in identity.NewKey) (string, identity.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", identity.Key{}, f.err
	}
	f.created = append(f.created, in)
	return "the-new-secret", identity.Key{ID: "k9", Kind: in.Kind, Name: in.Name, Scopes: in.Scopes, Creator: in.Creator, Expires: in.Expires}, nil
}

func (f *fakeKeys) Revoke(_ context.Context, id, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id != "k9" {
		return fmt.Errorf("revoking: %w", state.ErrNotFound)
	}
	f.revoked = append(f.revoked, id)
	return f.err
}

func (f *fakeKeys) List(context.Context) ([]identity.Key, error) {
	return []identity.Key{{ID: "k9", Scopes: []identity.Scope{{Action: identity.Admin, Namespace: "*", Function: "*"}}}}, f.err
}

type fakeInvoker struct {
	call *invoke.Call
	out  *invoke.Outcome
	err  error
}

func (f *fakeInvoker) Invoke(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
	f.call = c
	return f.out, f.err
}

type fakeRecorder struct {
	receipts map[string]audit.Receipt
	err      error
	query    atomic.Pointer[audit.Query]
	records  []audit.Record
	open     atomic.Int32
	ended    chan struct{} // receives when a stream has ended
}

func (f *fakeRecorder) Receipt(_ context.Context, id string) (audit.Receipt, error) {
	if f.err != nil {
		return audit.Receipt{}, f.err
	}
	r, ok := f.receipts[id]
	if !ok {
		return r, fmt.Errorf("reading receipt: %w", state.ErrNotFound)
	}
	return r, nil
}

func (f *fakeRecorder) Receipts(_ context.Context, q audit.Query) ([]audit.Receipt, error) {
	var out []audit.Receipt
	for _, r := range f.receipts {
		if r.Namespace == q.Namespace && r.Function == q.Function {
			out = append(out, r)
		}
	}
	return out, f.err
}

func (f *fakeRecorder) Stream(ctx context.Context, q audit.Query, fn func(audit.Record) bool) error {
	f.query.Store(&q)
	f.open.Add(1)
	defer func() {
		f.open.Add(-1)
		select {
		case f.ended <- struct{}{}:
		default:
		}
	}()
	for _, r := range f.records {
		if !fn(r) {
			return nil
		}
	}
	if q.Follow && f.err == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

// memory is a store and a place for blobs.
type memory struct {
	mu      sync.Mutex
	entries map[string]state.Entry
	blobs   map[string][]byte
	rev     uint64
	err     error
}

func (m *memory) Get(_ context.Context, key string) (state.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return e, state.ErrNotFound
	}
	return e, m.err
}

func (m *memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.entries[key]; ok {
		return 0, state.ErrConflict
	}
	m.rev++
	m.entries[key] = state.Entry{Key: key, Value: slices.Clone(value), Revision: m.rev}
	return m.rev, m.err
}

func (m *memory) Update(_ context.Context, key string, value []byte, rev uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[key].Revision != rev {
		return 0, state.ErrConflict
	}
	m.rev++
	m.entries[key] = state.Entry{Key: key, Value: slices.Clone(value), Revision: m.rev}
	return m.rev, m.err
}

func (m *memory) Delete(_ context.Context, key string, rev uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[key]; !ok {
		return state.ErrNotFound
	} else if e.Revision != rev {
		return state.ErrConflict
	}
	delete(m.entries, key)
	return m.err
}

func (m *memory) List(_ context.Context, prefix string) ([]state.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []state.Entry
	for k, e := range m.entries {
		if strings.HasPrefix(k, prefix) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b state.Entry) int { return strings.Compare(a.Key, b.Key) })
	return out, m.err
}

type blobs struct{ m *memory }

func (b blobs) Put(_ context.Context, name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.m.blobs[name] = data
	return b.m.err
}

func (b blobs) Get(_ context.Context, name string) ([]byte, error) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	data, ok := b.m.blobs[name]
	if !ok {
		return nil, state.ErrNotFound
	}
	return data, nil
}

func (b blobs) Has(_ context.Context, name string) (bool, error) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	_, ok := b.m.blobs[name]
	return ok, b.m.err
}

func (b blobs) Delete(_ context.Context, name string) error {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	delete(b.m.blobs, name)
	return nil
}

// buffer collects log lines from several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a door on a TLS listener over a real registry and fakes of the rest.
type rig struct {
	t        *testing.T
	keys     *fakeKeys
	invoker  *fakeInvoker
	recorder *fakeRecorder
	store    *memory
	registry *registry.Registry
	handler  *Handler
	server   *http.Server
	url      string
	ca       []byte
	log      *buffer
	prepared []function.Version
	prepErr  error
	events   *fakeEvents
}

func scopes(t *testing.T, texts ...string) (out []identity.Scope) {
	t.Helper()
	for _, s := range texts {
		sc, err := identity.ParseScope(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sc)
	}
	return out
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, log: &buffer{},
		keys: &fakeKeys{known: map[string]identity.Principal{
			adminSecret:     {Kind: "key", ID: "admin", Scopes: scopes(t, "admin")},
			"no-scope-key":  {Kind: "key", ID: "none"},
			"narrow-key":    {Kind: "key", ID: "narrow", Scopes: scopes(t, "invoke:other/else")},
			"wrong-ns-key":  {Kind: "key", ID: "wrongns", Scopes: scopes(t, "invoke:other/*", "read:other/*", "deploy:other/*")},
			"wrong-fn-key":  {Kind: "key", ID: "wrongfn", Scopes: scopes(t, "invoke:default/else", "read:default/else", "deploy:default/else")},
			"read-one-key":  {Kind: "key", ID: "one", Scopes: scopes(t, "read:default/hello")},
			"deploy-fn-key": {Kind: "key", ID: "dep", Scopes: scopes(t, "deploy:default/hello")},
			"work-fn-key":   {Kind: "key", ID: "work", Scopes: scopes(t, "read:default/hello", "deploy:default/hello", "publish:default/orders")},
			"reader-key":    {Kind: "key", ID: "reader", Scopes: scopes(t, "read:default/*")},
			"connector-key": {Kind: "key", ID: "conn", Scopes: scopes(t, "deploy:default/hello", "connect:default/rabbit")},
		}},
		invoker:  &fakeInvoker{},
		recorder: &fakeRecorder{receipts: map[string]audit.Receipt{}, ended: make(chan struct{}, 8)},
		store:    &memory{entries: map[string]state.Entry{}, blobs: map[string][]byte{}},
	}
	clock := func() time.Time { return time.Now() }
	r.events = newFakeEvents(r)
	var err error
	if r.registry, err = registry.Open(t.Context(), registry.Config{Store: r.store, Blobs: blobs{r.store}, Clock: clock}); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	if r.handler, err = New(Config{
		Registry: r.registry, Invoker: r.invoker, Keys: r.keys, Recorder: r.recorder,
		Status: func(context.Context) api.Status {
			return api.Status{Healthy: true, State: "ready", Listeners: []api.Listener{{Name: "gateway", URL: "https://127.0.0.1:8443"}}}
		},
		Posture:     func() api.SandboxPosture { return api.SandboxPosture{Tiers: []api.TierPosture{}} },
		Corruptions: func() int64 { return 3 },
		Reserve: func(vs []*function.Version) error {
			places := 0
			for _, v := range vs {
				places += v.Config.Limits.Reserved
			}
			if places > mostReserved {
				return problem.New(problem.InvalidManifest, "%d places are too many", places).At("concurrency.reserved")
			}
			return nil
		},
		Prepare: func(_ context.Context, v *function.Version) error {
			r.prepared = append(r.prepared, *v)
			return r.prepErr
		},
		CheckTriggers: r.events.checkTriggers, Events: r.events.config(),
		Clock: clock, Logger: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		NewID: func() string { return fmt.Sprintf("id-%d", n.Add(1)) },
	}); err != nil {
		t.Fatal(err)
	}
	r.serve()
	return r
}

// serve listens with the certificate that httptest has for 127.0.0.1.
func (r *rig) serve() {
	r.t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	cert := ts.TLS.Certificates[0]
	ts.Close()
	r.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	ln, err := new(net.ListenConfig).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.url = "https://" + ln.Addr().String()
	r.server = Server(r.handler, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.server.ServeTLS(ln, "", "")
	}()
	r.t.Cleanup(func() {
		_ = r.server.Close()
		<-done
		r.handler.Drain()
	})
}

// client calls the door with a key.
func (r *rig) client(key string) *api.Client {
	r.t.Helper()
	c, err := api.NewClient(api.Options{URL: r.url, CA: r.ca, Key: key})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// raw sends a request as it stands.
func (r *rig) raw(method, path, key, contentType, body string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

// deploy puts a function live whose code is the text given.
func (r *rig) deploy(ns, name, code string, cfg api.FunctionConfig) *api.Applied {
	r.t.Helper()
	c, ctx := r.client(adminSecret), r.t.Context()
	d := string(function.DigestOf([]byte(code)))
	if err := c.PutArtifact(ctx, d, int64(len(code)), strings.NewReader(code)); err != nil {
		r.t.Fatal(err)
	}
	specs := []api.FunctionSpec{{Name: name, Artifact: d, Config: cfg}}
	p, err := c.Plan(ctx, ns, api.PlanRequest{Functions: specs})
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := c.Apply(ctx, ns, api.ApplyRequest{Plan: *p, Functions: specs})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func hello(env ...string) api.FunctionConfig {
	c := api.FunctionConfig{Runtime: "go", HTTP: []api.HTTPTrigger{{Method: "GET", Path: "/hello"}}}
	if len(env) == 2 {
		c.Environment = map[string]string{env[0]: env[1]}
	}
	return c
}

// refused asserts the code of a node's refusal.
func refused(t *testing.T, err error, code problem.Code) *api.Error {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("want %s, got %v", code, err)
	}
	return e
}

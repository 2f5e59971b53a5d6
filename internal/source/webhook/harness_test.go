package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// instant is when requests come, unless a test says otherwise.
var instant = time.Unix(1_700_000_000, 0)

// secrets gives a connection whose secrets are these.
func secrets(all map[string]string) *source.Connection {
	return &source.Connection{Namespace: "shop", Name: "hook", Kind: "webhook", Secret: func(name string) ([]byte, error) {
		if s, ok := all[name]; ok {
			return []byte(s), nil
		}
		return nil, errors.New("there is none")
	}}
}

func trigger(settings string) *function.Trigger {
	return &function.Trigger{Name: "in", Kind: "webhook", Connection: "hook", Settings: json.RawMessage(settings)}
}

func verifier(t testing.TB, settings string, keys map[string]string) *Verifier {
	t.Helper()
	v, err := New(trigger(settings), secrets(keys))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mac(h func() hash.Hash, key string, parts ...string) []byte {
	m := hmac.New(h, []byte(key))
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

func mac256(key string, parts ...string) []byte { return mac(sha256.New, key, parts...) }

// post makes a request.
func post(body string, header ...string) Request {
	r := Request{Method: "POST", Header: make(map[string][]string), Body: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return r
}

// wantCode checks that a request is refused, and why.
func wantCode(t *testing.T, v *Verifier, now time.Time, r Request, want Code) {
	t.Helper()
	d, err := v.Verify(now, r)
	var no *Refusal
	if !errors.As(err, &no) || no.Code != want {
		t.Errorf("got %+v, %v; want code %s", d, err, want)
	}
}

// taken checks that a request holds one event, and gives it.
func taken(t *testing.T, v *Verifier, now time.Time, r Request) event.Message {
	t.Helper()
	d, err := v.Verify(now, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Messages) != 1 {
		t.Fatalf("got %d messages and answer %+v", len(d.Messages), d.Answer)
	}
	return d.Messages[0]
}

// memory is a store that can be told to fail.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
	fail   error
	gate   chan struct{} // when set, a Put waits for a word
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key], m.fail
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(value) > 64<<10 {
		return fmt.Errorf("%d bytes are more than the store takes", len(value))
	}
	if m.fail != nil {
		return m.fail
	}
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	m.puts++
	m.values[key] = append([]byte(nil), value...)
	return nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return m.fail
}

// sink keeps what it is given; like the real one it knows what it has by id.
type sink struct {
	mu     sync.Mutex
	events []event.Message
	ids    map[string]bool
	fail   error
}

func (s *sink) Accept(_ context.Context, all []event.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	for _, m := range all {
		if !s.ids[m.ID] {
			if s.ids == nil {
				s.ids = make(map[string]bool)
			}
			s.ids[m.ID] = true
			s.events = append(s.events, m)
		}
	}
	return nil
}

// forget is what happens when the sink's own window has passed.
func (s *sink) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.ids)
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// open runs a trigger until the test ends.
type open struct {
	hooks  *Hooks
	sink   *sink
	store  *memory
	health chan source.Health
	stop   func()

	mu  sync.Mutex
	now time.Time
}

func (o *open) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *open) wait(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

func opened(t *testing.T, settings string, c *source.Connection, store *memory) *open {
	t.Helper()
	o := &open{hooks: &Hooks{}, sink: &sink{}, store: store, health: make(chan source.Health, 16), now: instant}
	o.run(t, settings, c)
	return o
}

func (o *open) run(t *testing.T, settings string, c *source.Connection) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- o.hooks.Run(ctx, source.Binding{
			Ref: function.Ref{Namespace: "shop", Name: "f"}, Trigger: *trigger(settings), Connection: c, Sink: o.sink, Store: o.store,
			Log: slog.New(slog.DiscardHandler), Clock: o.clock, Report: func(h source.Health) { o.health <- h },
		})
	}()
	o.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(o.stop)
	select {
	case h := <-o.health:
		if h.State != source.Running {
			t.Fatalf("got %+v", h)
		}
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
}

func (o *open) receive(t *testing.T, r Request) (Answer, error) {
	t.Helper()
	return o.hooks.Receive(t.Context(), "shop", "/in", r)
}

// stopping is a store whose machine loses power after some writes.
type stopping struct {
	memory
	left int
}

func (s *stopping) Put(ctx context.Context, key string, value []byte) error {
	if s.left == 0 {
		return errors.New("no power")
	}
	s.left--
	return s.memory.Put(ctx, key, value)
}

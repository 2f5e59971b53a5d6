package servertest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Sink keeps what it accepts in memory.
type Sink struct {
	// Before, if set, is called by Accept with the events; what it fails with Accept
	// fails with. Set it before the sink is used, or by SetBefore.
	Before func(context.Context, []event.Message) error

	mu      sync.Mutex
	events  []event.Message
	changed chan struct{}
}

// Accept implements source.Sink. Events must be such as could be stored.
func (s *Sink) Accept(ctx context.Context, events []event.Message) error {
	s.mu.Lock()
	before := s.Before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, events); err != nil {
			return err
		}
	}
	for _, m := range events {
		m.Source = "/test"
		if err := m.Validate(); err != nil {
			panic(fmt.Sprintf("a source made an event that is not valid: %v", err))
		}
		if _, err := m.Encode(); err != nil {
			panic(fmt.Sprintf("a source made an event that cannot be stored: %v", err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	return nil
}

// SetBefore changes Before.
func (s *Sink) SetBefore(f func(context.Context, []event.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Before = f
}

// Events are all that were accepted, in order and with duplicates.
func (s *Sink) Events() []event.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Data are the data of all events, once each, in the order of their first coming.
func (s *Sink) Data() []string {
	var all []string
	seen := make(map[string]bool)
	for _, m := range s.Events() {
		if d := string(m.Data); !seen[d] {
			seen[d] = true
			all = append(all, d)
		}
	}
	return all
}

// Wait waits until enough says so.
func (s *Sink) Wait(t testing.TB, enough func(*Sink) bool) {
	t.Helper()
	after := time.NewTimer(Patience)
	defer after.Stop()
	for {
		s.mu.Lock()
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if enough(s) {
			return
		}
		select {
		case <-changed:
		case <-after.C:
			t.Fatalf("the sink did not get what it should within %v: it has %d events", Patience, len(s.Events()))
		}
	}
}

// Different waits until there are n events with different data.
func (s *Sink) Different(t testing.TB, n int) []string {
	t.Helper()
	s.Wait(t, func(s *Sink) bool { return len(s.Data()) >= n })
	return s.Data()
}

// Store is a source.Store in memory.
type Store struct {
	mu     sync.Mutex
	values map[string][]byte
}

// Get implements source.Store.
func (s *Store) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[key], nil
}

// Put implements source.Store.
func (s *Store) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = make(map[string][]byte)
	}
	s.values[key] = slices.Clone(value)
	return nil
}

// Delete implements source.Store.
func (s *Store) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

// Health keeps what a source reports.
type Health struct {
	mu      sync.Mutex
	all     []source.Health
	changed chan struct{}
}

// Report is for source.Binding.
func (h *Health) Report(r source.Health) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, r)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Wait waits until the source is in a state, now or after the first from reports, and
// gives that report and how many there were up to it.
func (h *Health) Wait(t testing.TB, from int, state source.State) (source.Health, int) {
	t.Helper()
	after := time.NewTimer(Patience)
	defer after.Stop()
	for {
		h.mu.Lock()
		for i := min(from, len(h.all)); i < len(h.all); i++ {
			if r := h.all[i]; r.State == state {
				h.mu.Unlock()
				return r, i + 1
			}
		}
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		all := slices.Clone(h.all)
		h.mu.Unlock()
		select {
		case <-changed:
		case <-after.C:
			t.Fatalf("the source was not %s within %v: %+v", state, Patience, all)
		}
	}
}

// Far is a binding under test.
type Far struct {
	Sink    *Sink
	Store   *Store
	Health  *Health
	Binding source.Binding
}

// Bind makes a binding. Settings are what JSON makes of them.
func Bind(t testing.TB, kind string, trigger, connection any, secrets map[string]string) *Far {
	t.Helper()
	f := &Far{Sink: &Sink{}, Store: &Store{}, Health: &Health{}}
	f.Binding = source.Binding{
		Ref:     function.Ref{Namespace: "shop", Name: "orders"},
		Trigger: function.Trigger{Name: "incoming", Kind: kind, Connection: "far", Settings: encode(t, trigger)},
		Connection: &source.Connection{
			Namespace: "shop", Name: "far", Kind: kind, Settings: encode(t, connection),
			Secret: func(name string) ([]byte, error) {
				if v, ok := secrets[name]; ok {
					return []byte(v), nil
				}
				return nil, fmt.Errorf("there is no secret %s", name)
			},
		},
		Sink: f.Sink, Store: f.Store, Log: slog.New(slog.DiscardHandler), Clock: time.Now, //nolint:forbidigo // tests of real servers run by the real clock
		Report: f.Health.Report,
	}
	return f
}

// Kind is a kind of source with connections.
type Kind interface {
	source.Kind
	source.ConnectionKind
}

// Run checks the settings as a deployment does and runs the source until the test ends or
// stop is called, which waits for its end.
func (f *Far) Run(t testing.TB, kind Kind, secrets map[string]string) (stop func()) {
	t.Helper()
	if err := kind.Check(&f.Binding.Trigger); err != nil {
		t.Fatal(err)
	}
	if err := kind.CheckConnection(f.Binding.Connection.Settings, slices.Collect(maps.Keys(secrets))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- kind.Run(ctx, f.Binding) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the source ended with: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func encode(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

// What node passes in.
var (
	_ Deliveries       = (*delivery.Engine)(nil)
	_ Replays          = (*delivery.Engine)(nil)
	_ DeadLetters      = (*delivery.Engine)(nil)
	_ Connections      = (*connection.Connections)(nil)
	_ connection.Store = (*bus.KV)(nil)
)

// fakeStream keeps records in memory, in the order of their sequences.
type fakeStream struct {
	mu      sync.Mutex
	records []delivery.Record
	err     error
	corrupt bool          // some are damaged
	more    chan struct{} // when not nil, following waits for it to be closed, or for ctx
	reads   int
	lost    uint64 // reported by Verify
}

func (s *fakeStream) add(ns, channel, id string, at time.Time, data []byte) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := uint64(len(s.records) + 1)
	s.records = append(s.records, delivery.Record{Namespace: ns, Channel: channel, ID: id, Sequence: seq, Time: at, Data: data})
	return seq
}

func (s *fakeStream) Read(ctx context.Context, f StreamFilter, fn func(delivery.Record) bool) error {
	s.mu.Lock()
	records, more, err := slices.Clone(s.records), s.more, s.err
	s.reads++
	s.mu.Unlock()
	if err != nil {
		return err
	}
	after := f.After
	pass := func() bool {
		for _, r := range records {
			if r.Sequence <= after || f.Namespace != "" && r.Namespace != f.Namespace || f.Channel != "" && r.Channel != f.Channel ||
				!f.Since.IsZero() && r.Time.Before(f.Since) || !f.Until.IsZero() && !r.Time.Before(f.Until) {
				continue
			}
			after = r.Sequence
			if !fn(r) {
				return false
			}
		}
		return true
	}
	if pass() && f.Follow && more != nil {
		select {
		case <-more:
			s.mu.Lock()
			records = slices.Clone(s.records)
			s.mu.Unlock()
			pass()
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	}
	if s.corrupt {
		return fmt.Errorf("reading: %w", state.ErrCorrupt)
	}
	return nil
}

// Get takes 0 for whatever is first: who asks for that must not be answered.
func (s *fakeStream) Get(_ context.Context, seq uint64) (delivery.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq == 0 && len(s.records) > 0 {
		return s.records[0], s.err
	}
	for _, r := range s.records {
		if r.Sequence == seq {
			return r, s.err
		}
	}
	if s.err != nil {
		return delivery.Record{}, s.err
	}
	return delivery.Record{}, fmt.Errorf("reading: %w", state.ErrNotFound)
}

func (s *fakeStream) Purge(_ context.Context, ns, channel string, upTo uint64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.records)
	s.records = slices.DeleteFunc(s.records, func(r delivery.Record) bool {
		return r.Namespace == ns && r.Channel == channel && r.Sequence <= upTo
	})
	return before - len(s.records), s.err
}

func (s *fakeStream) Verify(_ context.Context, progress func(done, of uint64)) (Verified, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	progress(1, 2)
	return Verified{Records: uint64(len(s.records)), Channels: 1, Missing: s.lost, Damaged: s.lost > 0}, s.err
}

// fakeEvents stands for delivery, the bus and the sources. Connections are real.
type fakeEvents struct {
	rig           *rig
	stream, deads fakeStream
	connections   *connection.Connections

	mu        sync.Mutex
	err       error
	status    map[delivery.Key]delivery.Status
	sources   map[delivery.Key]SourceHealth
	jobs      []delivery.Job
	dead      []delivery.Dead
	settled   []string // what was retried and purged
	published []event.Message
	principal string
	free      int64
	unsound   error
}

var (
	paid  = delivery.Key{Namespace: "default", Function: "hello", Trigger: "paid"}
	async = delivery.Key{Namespace: "default", Function: "hello"}
)

func newFakeEvents(r *rig) *fakeEvents {
	e := &fakeEvents{
		rig: r, free: 50 << 30, status: map[delivery.Key]delivery.Status{paid: {Key: paid, Running: true}, async: {Key: async, Running: true}},
		sources: map[delivery.Key]SourceHealth{paid: {State: "running", Lag: -1}},
	}
	e.connections = connection.New(r.store, anyKind{}, func() time.Time { return time.Unix(1000, 0) })
	return e
}

// anyKind knows amqp alone, and refuses passwords among settings.
type anyKind struct{}

func (anyKind) CheckConnection(kind string, settings json.RawMessage, _ []string) error {
	switch {
	case kind != "amqp":
		return &connection.FieldError{Field: "kind", Reason: "is not known"}
	case strings.Contains(string(settings), "password"):
		return &connection.FieldError{Field: "settings.password", Reason: "belongs into a file"}
	}
	return nil
}

func (e *fakeEvents) config() *EventsConfig {
	return &EventsConfig{
		Deliveries: e, Replays: e, DeadLetters: e, Events: &e.stream, Deads: &e.deads, Connections: e.connections,
		Source: func(k delivery.Key) (SourceHealth, bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			s, ok := e.sources[k]
			return s, ok
		},
		Publish: e.publish,
		Check:   func(context.Context) error { return e.unsound },
		Disk:    func() (int64, int64, error) { return e.free, 100 << 30, e.err },
	}
}

func (e *fakeEvents) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err, e.stream.err, e.deads.err, e.unsound = err, err, err, err
}

// checkTriggers refuses connections that the deployer may not use.
func (e *fakeEvents) checkTriggers(_ context.Context, who identity.Principal, ref function.Ref, ts []function.Trigger) *problem.Error {
	for _, t := range ts {
		if t.Connection != "" && !who.May(identity.Connect, function.Ref{Namespace: ref.Namespace, Name: t.Connection}) {
			return problem.New(problem.InvalidManifest, "there is no connection %s that you may use", t.Connection).At("triggers." + t.Name + ".connection")
		}
	}
	return nil
}

func (e *fakeEvents) Keys() []delivery.Key {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []delivery.Key
	for k := range e.status {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b delivery.Key) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (e *fakeEvents) Status(_ context.Context, k delivery.Key) (delivery.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return delivery.Status{}, e.err
	}
	st, ok := e.status[k]
	if !ok {
		return st, problem.New(problem.NotFound, "no trigger %s is in force", k)
	}
	return st, nil
}

func (e *fakeEvents) pause(k delivery.Key, paused bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.status[k]
	st.Paused = paused
	e.status[k] = st
	return e.err
}

func (e *fakeEvents) Pause(_ context.Context, k delivery.Key) error  { return e.pause(k, true) }
func (e *fakeEvents) Resume(_ context.Context, k delivery.Key) error { return e.pause(k, false) }

func (e *fakeEvents) Replay(_ context.Context, s delivery.Selector, qualifier string) (delivery.Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := delivery.Job{ID: fmt.Sprintf("job-%d", len(e.jobs)+1), Selector: s, Qualifier: qualifier, State: delivery.JobRunning}
	e.jobs = append(e.jobs, j)
	return j, e.err
}

func (e *fakeEvents) Jobs(ns string) (out []delivery.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if j.Selector.Namespace == ns {
			out = append(out, j)
		}
	}
	return out
}

func (e *fakeEvents) CancelReplay(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.jobs {
		if e.jobs[i].ID == id {
			e.jobs[i].State = delivery.JobCancelled
		}
	}
	return e.err
}

func (e *fakeEvents) each(k delivery.Key, f delivery.DeadFilter, fn func(*delivery.Dead) bool) error {
	e.mu.Lock()
	dead, err := slices.Clone(e.dead), e.err
	e.mu.Unlock()
	for i := range dead {
		d := &dead[i]
		if d.Key != k || f.Sequence != 0 && d.Sequence != f.Sequence || f.Reason != "" && d.Reason != f.Reason || f.Match != nil && !f.Match(d) {
			continue
		}
		if !fn(d) {
			break
		}
	}
	return err
}

func (e *fakeEvents) DeadLetters(_ context.Context, k delivery.Key, f delivery.DeadFilter, fn func(*delivery.Dead) bool) error {
	return e.each(k, f, fn)
}

func (e *fakeEvents) settle(verb string, k delivery.Key, f delivery.DeadFilter) (n int, err error) {
	err = e.each(k, f, func(d *delivery.Dead) bool {
		n++
		e.mu.Lock()
		e.settled = append(e.settled, fmt.Sprintf("%s %d", verb, d.Sequence))
		e.mu.Unlock()
		return true
	})
	return n, err
}

func (e *fakeEvents) RetryDead(_ context.Context, k delivery.Key, f delivery.DeadFilter) (retried, left int, err error) {
	n, err := e.settle("retry", k, f)
	return n, 1, err
}

func (e *fakeEvents) PurgeDead(_ context.Context, k delivery.Key, f delivery.DeadFilter) (int, error) {
	return e.settle("purge", k, f)
}

func (e *fakeEvents) publish(_ context.Context, ns, topic, principal string, events []event.Message) ([]delivery.Stored, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return nil, e.err
	}
	e.principal = principal
	var out []delivery.Stored
	for _, m := range events {
		e.published = append(e.published, m)
		out = append(out, delivery.Stored{Sequence: uint64(len(e.published))})
	}
	return out, nil
}

// bury adds a dead letter, and what the stream has of it.
func (e *fakeEvents) bury(k delivery.Key, reason delivery.Reason, ev uint64, m *event.Message) uint64 {
	seq := e.deads.add(k.Namespace, k.Channel(), "dead", time.Now(), nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dead = append(e.dead, delivery.Dead{Key: k, Sequence: seq, Reason: reason, Event: ev, Attempts: 3, Died: time.Now(), Message: m})
	return seq
}

// store adds an event as the intake writes it.
func (e *fakeEvents) store(ns, channel, id, kind string, at time.Time) uint64 {
	m := event.Message{
		Event: event.Event{ID: id, Source: "/namespaces/" + ns + "/" + channel, Type: kind, Extensions: map[string]string{"principal": "key:someone"}},
		Data:  []byte("the-data-of-" + id), Detail: map[string]string{"header.authorization": "hunter2"},
	}
	b, err := m.Encode()
	if err != nil {
		e.rig.t.Fatal(err)
	}
	return e.stream.add(ns, channel, id+".digest", at, b)
}

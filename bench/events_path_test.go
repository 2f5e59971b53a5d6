package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/delivery"
	envelope "github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/state"
)

// path is the way of an event as the node puts it together, in one process and without
// doors and sandboxes: intake, bus, delivery, the invoker with its receipt on record, and a
// runner that does nothing.
type path struct {
	bus    *bus.Bus
	engine *delivery.Engine
	intake *intake.Intake
	ended  atomic.Int64
	done   func(m *envelope.Message) // called when the receipt of an invocation is on record
}

var (
	benched = function.Ref{Namespace: "bench", Name: "sink"}
	inbox   = delivery.Key{Namespace: benched.Namespace, Function: benched.Name, Trigger: "inbox"}
)

// oneVersion is a registry that knows one version.
type oneVersion struct{ *function.Version }

func (o oneVersion) Resolve(function.Ref, string, func(int) int) (*function.Version, string, error) {
	return o.Version, function.LiveAlias, nil
}

// nodeBus is the bus's events in the types of delivery; see internal/node.
type nodeBus struct{ *bus.Events }

func (s nodeBus) Publish(ctx context.Context, entries []delivery.Entry) ([]delivery.Stored, error) {
	in := make([]bus.Entry, len(entries))
	for i, e := range entries {
		in[i] = bus.Entry(e)
	}
	stored, err := s.Events.Publish(ctx, in)
	out := make([]delivery.Stored, len(stored))
	for i, e := range stored {
		out[i] = delivery.Stored(e)
	}
	return out, err
}

func (s nodeBus) Read(ctx context.Context, f delivery.Filter, fn func(delivery.Record) bool) error {
	return s.Events.Read(ctx, bus.EventFilter{Namespace: f.Namespace, Channel: f.Channel, After: f.After, Since: f.Since, Until: f.Until},
		func(r bus.EventRecord) bool { return fn(asRecord(&r)) })
}

func (s nodeBus) Get(ctx context.Context, sequence uint64) (delivery.Record, error) {
	r, err := s.Events.Get(ctx, sequence)
	return asRecord(&r), err
}

func (s nodeBus) Consume(ctx context.Context, c delivery.ConsumerConfig, fn func(delivery.Delivered)) error {
	return s.Events.Consume(ctx, bus.ConsumerConfig{
		Name: asConsumer(c.Name), Namespace: c.Namespace, Channel: c.Channel, Window: c.Window, AckWait: c.AckWait, From: bus.From{Time: c.Since},
	}, func(d *bus.Delivered) {
		fn(delivery.Delivered{Record: asRecord(&d.EventRecord), Attempt: d.Attempt, Settler: d})
	})
}

func (s nodeBus) Prepare(ctx context.Context, c delivery.ConsumerConfig) error {
	return s.Events.Prepare(ctx, bus.ConsumerConfig{
		Name: asConsumer(c.Name), Namespace: c.Namespace, Channel: c.Channel, Window: c.Window, AckWait: c.AckWait, From: bus.From{Time: c.Since},
	})
}

func (s nodeBus) Backlog(ctx context.Context, name string) (waiting, underWay int64, err error) {
	return s.Events.Backlog(ctx, asConsumer(name))
}

func (s nodeBus) DropConsumer(ctx context.Context, name string) error {
	return s.Events.DropConsumer(ctx, asConsumer(name))
}

func asConsumer(name string) string {
	parts := strings.Split(name, "_")
	for i, p := range parts {
		parts[i] = "c" + p
	}
	return strings.Join(parts, ".")
}

func asRecord(r *bus.EventRecord) delivery.Record {
	return delivery.Record{Namespace: r.Namespace, Channel: r.Channel, ID: r.ID, Sequence: r.Sequence, Time: r.Time, Data: r.Data}
}

// nodeArrivals is the bus's events in the types of the intake.
type nodeArrivals struct{ *bus.Events }

func (a nodeArrivals) Publish(ctx context.Context, entries []intake.Entry) ([]intake.Stored, error) {
	in := make([]bus.Entry, len(entries))
	for i, e := range entries {
		in[i] = bus.Entry(e)
	}
	stored, err := a.Events.Publish(ctx, in)
	out := make([]intake.Stored, len(stored))
	for i, e := range stored {
		out[i] = intake.Stored(e)
	}
	return out, err
}

// noGraves stands where there are no dead letters.
type noGraves struct{}

func (noGraves) Bury(context.Context, []intake.DeadLetter) error {
	return fmt.Errorf("an event of the benchmark is not valid")
}

// openPath puts it together; its trigger is not in force yet. done may be nil.
func openPath(b *testing.B, done func(*envelope.Message)) *path {
	b.Helper()
	collect(b)
	dir := b.TempDir()
	p := &path{done: done}
	logger := slog.New(slog.DiscardHandler)
	var err error
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.Background()
	keyOf := func(c string) []byte { return []byte(strings.Repeat(c, bus.KeySize)) }
	p.bus, err = bus.Start(ctx, bus.Config{Dir: filepath.Join(dir, "bus"), Key: keyOf("b"), Name: "bench", Logger: logger, Clock: time.Now})
	must(err)
	// As internal/node has them.
	events, err := p.bus.Events(ctx, bus.EventsConfig{Name: "events", SubjectPrefix: "event", MaxAge: 8 * 24 * time.Hour, MaxBytes: 16 << 30, Dedup: 2 * time.Hour, Keep: time.Hour})
	must(err)
	deads, err := p.bus.Events(ctx, bus.EventsConfig{Name: "deads", SubjectPrefix: "dead", MaxAge: 90 * 24 * time.Hour, MaxBytes: 4 << 30, Dedup: 2 * time.Hour})
	must(err)
	kept, err := p.bus.KV(ctx, "delivery")
	must(err)
	receipts, err := p.bus.Log(ctx, bus.LogConfig{Name: "receipts", SubjectPrefix: "receipt", MaxAge: 90 * 24 * time.Hour, MaxBytes: 4 << 30})
	must(err)
	logs, err := p.bus.Log(ctx, bus.LogConfig{Name: "logs", SubjectPrefix: "log", MaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30})
	must(err)
	recorder, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "journal"), Key: keyOf("j"), Receipts: receipts, Logs: logs, Clock: time.Now, Logger: logger})
	must(err)
	admission, err := invoke.NewAdmission(invoke.DefaultCapacity)
	must(err)
	v := &function.Version{Ref: benched, ID: function.DigestOf([]byte("id")), Artifact: function.DigestOf([]byte("code")), Config: function.Config{
		Runtime: function.RuntimeWasm, Limits: function.Limits{Memory: 64 << 20, Timeout: 10 * time.Second, Output: 1 << 20, Log: 64 << 10, Concurrency: invoke.DefaultCapacity},
	}}
	ids := atomic.Uint64{}
	id := func() string { return fmt.Sprintf("018f3a2e-7c4d-7a1b-9c3d-%012x", ids.Add(1)) }
	invoker, err := invoke.New(invoke.Config{
		Versions: oneVersion{v}, Runner: noopRunner{}, Recorder: recorder, Admission: admission, Clock: time.Now, NewID: id, Roll: rand.IntN, Logger: logger,
	})
	must(err)
	p.engine, err = delivery.Open(ctx, delivery.Config{
		Events: nodeBus{events}, Consumers: nodeBus{events}, Deads: nodeBus{deads}, State: kept, Clock: time.Now, Random: rand.Float64, NewID: id, Logger: logger,
		Invoke: func(ctx context.Context, c delivery.Call) (delivery.Outcome, error) {
			return p.invoke(ctx, invoker, &c, id())
		},
	})
	must(err)
	p.intake, err = intake.New(intake.Config{
		Stream: nodeArrivals{events}, DeadLetters: noGraves{}, Clock: time.Now, Logger: logger,
		Backlog: func(string, string) (int64, error) {
			n, err := p.engine.Backlog(ctx, inbox)
			if problem.HasCode(err, problem.NotFound) { // the trigger is not in force yet
				return 0, nil
			}
			return n, err
		},
	})
	must(err)
	b.Cleanup(func() {
		stop, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := p.engine.Stop(stop); err != nil {
			b.Error(err)
		}
		if err := recorder.Close(stop); err != nil {
			b.Error(err)
		}
		if err := p.bus.Close(stop); err != nil {
			b.Error(err)
		}
	})
	return p
}

// invoke makes the request that a function gets for an event, as the node does.
func (p *path) invoke(ctx context.Context, invoker *invoke.Invoker, c *delivery.Call, id string) (delivery.Outcome, error) {
	m := c.Messages[0]
	call := &invoke.Call{
		Ref: c.Ref, RequestID: id, Method: "POST", Path: "/", Headers: m.Headers(), Body: m.Data, Trigger: invoke.TriggerEvent,
		Principal: identity.Principal{
			Kind: "trigger", ID: c.Ref.String() + "/" + c.Trigger,
			Scopes: []identity.Scope{{Action: identity.Invoke, Namespace: c.Ref.Namespace, Function: c.Ref.Name}},
		},
		Event: invoke.Event{ID: m.ID, Source: c.Trigger, Attempt: c.Attempt},
	}
	out, err := invoker.Invoke(ctx, call)
	if err != nil {
		return delivery.Outcome{}, err
	}
	p.ended.Add(1)
	if p.done != nil {
		p.done(m)
	}
	return delivery.Outcome{Status: out.Status, Headers: out.Headers, Body: out.Body, Version: out.Receipt.Version, Receipt: out.Receipt.ID}, nil
}

// bind puts the trigger in force.
func (p *path) bind(b *testing.B, concurrency int) {
	b.Helper()
	binding := delivery.Binding{Key: inbox, Delivery: function.Delivery{Concurrency: concurrency}}
	if err := p.engine.Set(context.Background(), []delivery.Binding{binding}); err != nil {
		b.Fatal(err)
	}
}

// door is where events of the trigger come in.
func (p *path) door(b *testing.B) *intake.Sink {
	b.Helper()
	sink, err := p.intake.For(benched, &function.Trigger{Name: inbox.Trigger, NoSchema: "they are of no form"})
	if err != nil {
		b.Fatal(err)
	}
	return sink
}

var _ source.Sink = (*intake.Sink)(nil)

// rowStore keeps a source's place in the bus's keys and values.
type rowStore struct{ *bus.KV }

func (s rowStore) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := s.KV.Get(ctx, "source."+key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return e.Value, err
}

func (s rowStore) Put(ctx context.Context, key string, value []byte) error {
	e, err := s.KV.Get(ctx, "source."+key)
	if errors.Is(err, state.ErrNotFound) {
		_, err = s.Create(ctx, "source."+key, value)
		return err
	}
	if err == nil {
		_, err = s.Update(ctx, "source."+key, value, e.Revision)
	}
	return err
}

func (s rowStore) Delete(ctx context.Context, key string) error {
	e, err := s.KV.Get(ctx, "source."+key)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = s.KV.Delete(ctx, "source."+key, e.Revision)
	}
	return err
}

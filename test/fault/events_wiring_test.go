package fault

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/state"
)

// The path of events as the node puts it together, without doors and sandboxes, so that a
// life takes milliseconds and hundreds of histories fit into minutes.

// ackWait replaces the engine's half minute, which every life after a kill would have to
// wait for.
const ackWait = 2500 * time.Millisecond

// onBus is the bus's events as delivery sees them.
type onBus struct{ *bus.Events }

func (s onBus) Publish(ctx context.Context, entries []delivery.Entry) ([]delivery.Stored, error) {
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

func (s onBus) Read(ctx context.Context, f delivery.Filter, fn func(delivery.Record) bool) error {
	return s.Events.Read(ctx, bus.EventFilter{Namespace: f.Namespace, Channel: f.Channel, After: f.After, Since: f.Since, Until: f.Until},
		func(r bus.EventRecord) bool { return fn(busRecord(&r)) })
}

func (s onBus) Get(ctx context.Context, sequence uint64) (delivery.Record, error) {
	r, err := s.Events.Get(ctx, sequence)
	return busRecord(&r), err
}

func (s onBus) Consume(ctx context.Context, c delivery.ConsumerConfig, fn func(delivery.Delivered)) error {
	return s.Events.Consume(ctx, bus.ConsumerConfig{
		Name: consumerOf(c.Name), Namespace: c.Namespace, Channel: c.Channel, Window: c.Window, AckWait: ackWait, From: bus.From{Time: c.Since},
	}, func(d *bus.Delivered) {
		fn(delivery.Delivered{Record: busRecord(&d.EventRecord), Attempt: d.Attempt, Settler: d})
	})
}

func (s onBus) Prepare(ctx context.Context, c delivery.ConsumerConfig) error {
	return s.Events.Prepare(ctx, bus.ConsumerConfig{
		Name: consumerOf(c.Name), Namespace: c.Namespace, Channel: c.Channel, Window: c.Window, AckWait: ackWait, From: bus.From{Time: c.Since},
	})
}

func (s onBus) Backlog(ctx context.Context, name string) (waiting, underWay int64, err error) {
	return s.Events.Backlog(ctx, consumerOf(name))
}

func (s onBus) DropConsumer(ctx context.Context, name string) error {
	return s.Events.DropConsumer(ctx, consumerOf(name))
}

func consumerOf(name string) string {
	parts := strings.Split(name, "_")
	for i, p := range parts {
		parts[i] = "c" + p
	}
	return strings.Join(parts, ".")
}

func busRecord(r *bus.EventRecord) delivery.Record {
	return delivery.Record{Namespace: r.Namespace, Channel: r.Channel, ID: r.ID, Sequence: r.Sequence, Time: r.Time, Data: r.Data}
}

// arrivals is the bus's events as the intake sees them.
type arrivals struct{ *bus.Events }

func (a arrivals) Publish(ctx context.Context, entries []intake.Entry) ([]intake.Stored, error) {
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

// graves writes what the intake refuses among the dead letters.
type graves struct{ *delivery.Engine }

func (g graves) Bury(ctx context.Context, letters []intake.DeadLetter) error {
	for i := range letters {
		l := &letters[i]
		k := delivery.Key{Namespace: l.Namespace, Function: l.Function, Trigger: l.Trigger}
		if err := g.Engine.Bury(ctx, k, &l.Message, delivery.ReasonInvalid, l.Field, l.Detail); err != nil {
			return err
		}
	}
	return nil
}

// positions is a source's part of the bus's keys and values.
type positions struct {
	*bus.KV
	prefix string
}

func (p positions) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := p.KV.Get(ctx, p.prefix+key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return e.Value, err
}

func (p positions) Put(ctx context.Context, key string, value []byte) error {
	for {
		e, err := p.KV.Get(ctx, p.prefix+key)
		switch {
		case err == nil:
			_, err = p.KV.Update(ctx, p.prefix+key, value, e.Revision)
		case errors.Is(err, state.ErrNotFound):
			_, err = p.KV.Create(ctx, p.prefix+key, value)
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

func (p positions) Delete(ctx context.Context, key string) error {
	e, err := p.KV.Get(ctx, p.prefix+key)
	if err == nil {
		err = p.KV.Delete(ctx, p.prefix+key, e.Revision)
	}
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/intake"
)

// This file hands the bus to those who declare what they need of it. It decides nothing.

// stream is the bus's events as delivery sees them.
type stream struct{ on *bus.Events }

func (s stream) Publish(ctx context.Context, entries []delivery.Entry) ([]delivery.Stored, error) {
	in := make([]bus.Entry, len(entries))
	for i, e := range entries {
		in[i] = bus.Entry(e)
	}
	stored, err := s.on.Publish(ctx, in)
	out := make([]delivery.Stored, len(stored))
	for i, e := range stored {
		out[i] = delivery.Stored(e)
	}
	return out, err
}

func (s stream) Read(ctx context.Context, f delivery.Filter, fn func(delivery.Record) bool) error {
	return s.on.Read(ctx, bus.EventFilter{Namespace: f.Namespace, Channel: f.Channel, After: f.After, Since: f.Since, Until: f.Until},
		func(r bus.EventRecord) bool { return fn(record(&r)) })
}

func (s stream) Get(ctx context.Context, sequence uint64) (delivery.Record, error) {
	r, err := s.on.Get(ctx, sequence)
	return record(&r), err
}

func (s stream) Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error) {
	return s.on.Purge(ctx, namespace, channel, upTo)
}

// Consume is one of delivery's own, whose names may hold underscores and empty parts.
func (s stream) Consume(ctx context.Context, c delivery.ConsumerConfig, fn func(delivery.Delivered)) error {
	return s.on.Consume(ctx, consumerConfig(&c), func(d *bus.Delivered) {
		fn(delivery.Delivered{Record: record(&d.EventRecord), Attempt: d.Attempt, Settler: d})
	})
}

func (s stream) Prepare(ctx context.Context, c delivery.ConsumerConfig) error {
	return s.on.Prepare(ctx, consumerConfig(&c))
}

func consumerConfig(c *delivery.ConsumerConfig) bus.ConsumerConfig {
	return bus.ConsumerConfig{
		Name: consumer(c.Name), Namespace: c.Namespace, Channel: c.Channel, Window: c.Window, AckWait: c.AckWait, From: bus.From{Time: c.Since},
	}
}

func (s stream) Backlog(ctx context.Context, name string) (waiting, underWay int64, err error) {
	return s.on.Backlog(ctx, consumer(name))
}

func (s stream) DropConsumer(ctx context.Context, name string) error {
	return s.on.DropConsumer(ctx, consumer(name))
}

// consumer is delivery's name of a consumer in the bus's form: labels joined by dots.
func consumer(name string) string {
	parts := strings.Split(name, "_")
	for i, p := range parts {
		parts[i] = "c" + p // none may be empty, or begin with a digit
	}
	return strings.Join(parts, ".")
}

func record(r *bus.EventRecord) delivery.Record {
	return delivery.Record{Namespace: r.Namespace, Channel: r.Channel, ID: r.ID, Sequence: r.Sequence, Time: r.Time, Data: r.Data}
}

// arrivals is the bus's events as the intake sees them.
type arrivals struct{ on *bus.Events }

func (a arrivals) Publish(ctx context.Context, entries []intake.Entry) ([]intake.Stored, error) {
	in := make([]bus.Entry, len(entries))
	for i, e := range entries {
		in[i] = bus.Entry(e)
	}
	stored, err := a.on.Publish(ctx, in)
	out := make([]intake.Stored, len(stored))
	for i, e := range stored {
		out[i] = intake.Stored(e)
	}
	return out, err
}

// graves writes what the intake finds invalid among delivery's dead letters.
type graves struct{ engine *delivery.Engine }

func (g graves) Bury(ctx context.Context, letters []intake.DeadLetter) error {
	for i := range letters {
		l := &letters[i]
		k := delivery.Key{Namespace: l.Namespace, Function: l.Function, Trigger: l.Trigger}
		if err := g.engine.Bury(ctx, k, &l.Message, delivery.ReasonInvalid, l.Field, l.Detail); err != nil {
			return fmt.Errorf("burying event %.80q of %s: %w", l.Message.ID, k, err)
		}
	}
	return nil
}

// cabinet is a source's own part of the store, or a trigger's.
type cabinet struct {
	store  *bus.KV
	prefix string
}

func (c cabinet) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.store.Get(ctx, c.prefix+key)
	if isNotFound(err) {
		return nil, nil
	}
	return e.Value, err
}

func (c cabinet) Put(ctx context.Context, key string, value []byte) error {
	for {
		e, err := c.store.Get(ctx, c.prefix+key)
		switch {
		case err == nil:
			_, err = c.store.Update(ctx, c.prefix+key, value, e.Revision)
		case isNotFound(err):
			_, err = c.store.Create(ctx, c.prefix+key, value)
		}
		if !isConflict(err) { // one process writes here, but an answer may have been lost
			return err
		}
	}
}

func (c cabinet) Delete(ctx context.Context, key string) error {
	e, err := c.store.Get(ctx, c.prefix+key)
	if err == nil {
		err = c.store.Delete(ctx, c.prefix+key, e.Revision)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}

// settleTime is how long counting what waits may take.
const settleTime = 5 * time.Second

package node

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/outcome"
	"github.com/casemate-dev/casemate/internal/source/webhook"
)

// This file hands the path of events to the gateway in the gateway's own words. It decides
// nothing.

// hookDoor is where web hooks go.
type hookDoor struct{ hooks *webhook.Hooks }

func (d hookDoor) Admit(namespace, path string, from netip.Addr, size int64) time.Duration {
	return d.hooks.Admit(namespace, path, from, size)
}

func (d hookDoor) Receive(ctx context.Context, r gateway.HookRequest) (gateway.HookAnswer, error) {
	a, err := d.hooks.Receive(ctx, r.Namespace, r.Path, webhook.Request{Method: r.Method, Header: r.Header, Body: r.Body, From: r.From})
	if err == nil {
		return gateway.HookAnswer{Status: a.Status, Header: a.Header, Body: a.Body}, nil
	}
	var refusal *webhook.Refusal
	if errors.As(err, &refusal) && refusal.Cause == nil {
		return gateway.HookAnswer{}, &gateway.HookRefusal{Status: refusal.Status(), Reason: refusal.Reason}
	}
	return gateway.HookAnswer{}, refused(err)
}

// eventDoor is where topics and asynchronous invocations go.
type eventDoor struct{ intake *intake.Intake }

func (d eventDoor) Publish(ctx context.Context, namespace, topic, principal string, events []event.Message) ([]gateway.StoredEvent, error) {
	stored, err := d.intake.Publish(ctx, namespace, topic, principal, events)
	if err != nil {
		return nil, refused(err)
	}
	out := make([]gateway.StoredEvent, len(stored))
	for i, s := range stored {
		out[i] = gateway.StoredEvent(s)
	}
	return out, nil
}

func (d eventDoor) Async(ctx context.Context, ref function.Ref, principal string, m event.Message) error {
	_, err := d.intake.Async(ctx, ref, principal, m)
	var e *gateway.EventError
	if err = refused(err); errors.As(err, &e) {
		e.Index = -1 // there is only one
	}
	return err
}

// refused is the intake's refusal in the gateway's words.
func refused(err error) error {
	var invalid *intake.InvalidError
	var busy *intake.BusyError
	switch {
	case errors.As(err, &invalid):
		return &gateway.EventError{Index: invalid.Index, Field: invalid.Field, Reason: invalid.Reason}
	case errors.As(err, &busy):
		return &gateway.BusyError{RetryAfter: busy.RetryAfter}
	}
	return err
}

// outcomes is what became of asynchronous invocations, for who asks and who knows.
type outcomes struct{ *outcome.Store }

func (o outcomes) Get(ctx context.Context, id string) (*gateway.Invocation, error) {
	i, err := o.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	out := gateway.Invocation(*i)
	return &out, nil
}

// results tells the outcomes what delivery knows.
type results struct{ store *outcome.Store }

func (r results) Done(ctx context.Context, ref function.Ref, id string, d delivery.Result) error {
	return r.store.Done(ctx, ref, id, outcome.Result{
		Succeeded: d.Succeeded, Reason: string(d.Reason), Code: string(d.Outcome.Code), Detail: d.Outcome.Detail, Attempts: d.Attempts,
		Receipt: d.Outcome.Receipt, Version: d.Outcome.Version, Status: d.Outcome.Status, Headers: d.Outcome.Headers, Body: d.Outcome.Body, Ended: d.Ended,
	})
}

// outcomeStream is the bus's events as the outcomes see them.
type outcomeStream struct{ on *bus.Events }

func (s outcomeStream) Publish(ctx context.Context, entries []outcome.Entry) ([]outcome.Stored, error) {
	in := make([]bus.Entry, len(entries))
	for i, e := range entries {
		in[i] = bus.Entry(e)
	}
	stored, err := s.on.Publish(ctx, in)
	out := make([]outcome.Stored, len(stored))
	for i, e := range stored {
		out[i] = outcome.Stored(e)
	}
	return out, err
}

func (s outcomeStream) Read(ctx context.Context, channel string, fn func(outcome.Record) bool) error {
	return s.on.Read(ctx, bus.EventFilter{Channel: channel}, func(r bus.EventRecord) bool { return fn(outcomeRecord(&r)) })
}

func (s outcomeStream) Get(ctx context.Context, sequence uint64) (outcome.Record, error) {
	r, err := s.on.Get(ctx, sequence)
	return outcomeRecord(&r), err
}

func (s outcomeStream) Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error) {
	return s.on.Purge(ctx, namespace, channel, upTo)
}

func outcomeRecord(r *bus.EventRecord) outcome.Record {
	return outcome.Record{Namespace: r.Namespace, Channel: r.Channel, ID: r.ID, Sequence: r.Sequence, Time: r.Time, Data: r.Data}
}

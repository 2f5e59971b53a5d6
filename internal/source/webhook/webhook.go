// Package webhook takes events from signed requests: Standard Webhooks, GitHub, Stripe,
// Slack, any sender that signs with an HMAC or a JSON Web Token, and CloudEvents.
//
// It may import source, event and cloudevent, and leaves. node hands Hooks.Receive to the
// gateway, which has the request; the source itself only waits.
//
// How many requests are looked at has a bound, for each address and for all strangers
// (Hooks.Admit), and so has how many are let in (pace). The raw body is verified before anything in it is read. Comparisons take the same time
// for a nearly right signature as for a wrong one, every active key is tried each time,
// and no answer says which of them was right. What decides about an event (its id, type,
// subject) is taken from what the sender signed wherever it signed it; what each
// provider signs, and what follows from it, stands at the head of its file.
//
// A request that comes again is answered as it was the first time and makes no second
// event: senders repeat what they got no answer to, so a refusal would only have them go
// on. Ids are remembered on disk (Replays), for as long as a signed time would let the
// request in again and usually longer; beyond that and for requests that arrive at the
// same moment the sink tells events apart by id. All methods may be used from many
// goroutines; requests are not ordered among each other.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Answer is what a request is answered with when it is not refused.
type Answer struct {
	Status int
	Header map[string]string // names in lower case
	Body   []byte
}

// Hooks is the kind of source "webhook", and the place where the gateway finds the
// trigger that a request is for. Its zero value is ready.
type Hooks struct {
	mu    sync.RWMutex
	doors map[address]*door
}

type address struct{ namespace, path string }

// door is a trigger that is running.
type door struct {
	verifier *Verifier
	pace     *pace
	replays  *Replays
	sink     source.Sink
	log      *slog.Logger
	clock    func() time.Time
	report   func(source.Health)
	failing  atomic.Bool
}

// Check implements source.Kind.
func (*Hooks) Check(t *function.Trigger) error {
	if t.Connection == "" {
		return &source.FieldError{Field: "connection", Reason: "must name a connection of kind webhook, whose secret is the key"}
	}
	_, err := readSettings(t.Settings)
	return err
}

// Run implements source.Kind: it opens the door for requests and waits. It fails when the
// keys cannot be read, and when another trigger of the namespace has the same path.
func (h *Hooks) Run(ctx context.Context, b source.Binding) error {
	v, err := New(&b.Trigger, b.Connection)
	if err != nil {
		return fmt.Errorf("opening web hook: %w", err)
	}
	if _, err := v.keys(); err != nil {
		return fmt.Errorf("opening web hook: %w", err)
	}
	r, err := OpenReplays(ctx, b.Store, v.settings.keep)
	if err != nil {
		return fmt.Errorf("opening web hook: %w", err)
	}
	at := address{b.Ref.Namespace, v.settings.Path}
	d := &door{verifier: v, pace: newPace(v.settings.Rate), replays: r, sink: b.Sink, log: b.Log, clock: b.Clock, report: b.Report}
	h.mu.Lock()
	if h.doors[at] != nil {
		h.mu.Unlock()
		return fmt.Errorf("opening web hook: another trigger of the namespace has the path %s", at.path)
	}
	if h.doors == nil {
		h.doors = make(map[address]*door)
	}
	h.doors[at] = d
	h.mu.Unlock()
	b.Report(source.Health{State: source.Running, Lag: -1})
	<-ctx.Done()
	h.mu.Lock()
	delete(h.doors, at)
	h.mu.Unlock()
	return nil
}

// Admit is asked before the body of a request is read, whose announced size is given, -1
// without one: how long its sender should wait before it comes again; zero lets it in. Who asks for a path that no trigger has learns
// that from Receive.
func (h *Hooks) Admit(namespace, path string, from netip.Addr, size int64) time.Duration {
	h.mu.RLock()
	d := h.doors[address{namespace, path}]
	h.mu.RUnlock()
	if d == nil {
		return 0
	}
	return d.pace.admit(d.clock(), from, size)
}

// Receive takes a request in for the trigger of a namespace with that path. It fails with
// a *Refusal. When it does not fail, the events are on disk, or there were none to take.
func (h *Hooks) Receive(ctx context.Context, namespace, path string, r Request) (Answer, error) {
	h.mu.RLock()
	d := h.doors[address{namespace, path}]
	h.mu.RUnlock()
	if d == nil {
		return Answer{}, refuse(NotFound, "no trigger has this path")
	}
	a, err := d.receive(ctx, r)
	if err != nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "web hook refused", slog.String("code", string(err.Code)), slog.String("reason", err.Reason))
		d.health(err)
		return Answer{}, err
	}
	d.health(nil)
	return a, nil
}

// health reports when what is ours to mend begins to fail, and when it works again.
func (d *door) health(err *Refusal) {
	ours := err != nil && (err.Code == NotReady || err.Code == Busy)
	if d.failing.Swap(ours) == ours {
		return
	}
	if ours {
		d.report(source.Health{State: source.Failing, Reason: err.Reason, Lag: -1})
	} else {
		d.report(source.Health{State: source.Running, Lag: -1})
	}
}

func (d *door) receive(ctx context.Context, r Request) (Answer, *Refusal) {
	now := d.clock()
	delivery, no := d.verifier.verify(now, r)
	if no != nil {
		return Answer{}, no
	}
	if delivery.Answer != nil {
		return *delivery.Answer, nil
	}
	accepted := Answer{Status: 202}
	fresh := make([]event.Message, 0, len(delivery.Messages))
	ids := make([]string, 0, len(delivery.Messages))
	for _, m := range delivery.Messages {
		if !d.replays.Taken(now, m.ID) {
			fresh = append(fresh, m)
			ids = append(ids, m.ID)
		}
	}
	if len(fresh) == 0 {
		return accepted, nil
	}
	d.pace.believe(now, r.From)
	if wait := d.pace.take(now); wait > 0 {
		return Answer{}, notTaken(&source.BusyError{RetryAfter: wait})
	}
	if !d.replays.Room(now, len(ids)) {
		return Answer{}, refuse(Busy, "more requests came than can be told from replays")
	}
	if err := d.sink.Accept(ctx, fresh); err != nil {
		return Answer{}, notTaken(err)
	}
	if err := d.replays.Record(ctx, now, delivery.Until, ids); err != nil {
		// The events are safe, and when they come again the sink knows their ids.
		return Answer{}, refuse(Busy, err.Error())
	}
	return accepted, nil
}

// notTaken is the refusal for what the sink failed with.
func notTaken(err error) *Refusal {
	var invalid *source.InvalidError
	var busy *source.BusyError
	switch {
	case errors.Is(err, source.ErrRefused):
		return refuse(Gone, "the trigger takes nothing in any more")
	case errors.As(err, &invalid):
		return &Refusal{Code: Invalid, Reason: invalid.Error(), Cause: invalid}
	case errors.As(err, &busy):
		return &Refusal{Code: Full, Reason: busy.Error(), Cause: busy}
	default:
		return refuse(Busy, "taking events in: "+err.Error())
	}
}

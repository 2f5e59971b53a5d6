package node

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/control"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/intake"
)

// operations is the operators' side of events. Dead letters are on a stream of their own.
func (n *node) operations(deads *bus.Events) *control.EventsConfig {
	return &control.EventsConfig{
		Deliveries: n.delivery, Replays: n.delivery, DeadLetters: n.delivery,
		Events: archive{n.events}, Deads: archive{deads}, Connections: n.connections,
		Source: func(k delivery.Key) (control.SourceHealth, bool) {
			h, since, ok := n.sources.healthOf(k)
			return control.SourceHealth{State: string(h.State), Reason: h.Reason, Lag: h.Lag, Since: since}, ok
		},
		Publish: n.publish, Check: n.bus.Check, Disk: func() (free, size int64, err error) { return disk(n.opts.DataDir) },
	}
}

// publish hands events of an operator to the intake.
func (n *node) publish(ctx context.Context, namespace, topic, principal string, events []event.Message) ([]delivery.Stored, error) {
	stored, err := n.intake.Publish(ctx, namespace, topic, principal, events)
	var invalid *intake.InvalidError
	var busy *intake.BusyError
	switch {
	case errors.As(err, &invalid):
		return nil, problem.New(problem.BadRequest, "event %d: %s %s", invalid.Index, invalid.Field, invalid.Reason).At("events." + invalid.Field).
			Fix("Correct the event; none of them was stored.")
	case errors.As(err, &busy):
		return nil, problem.New(problem.Overloaded, "too many events wait").After(busy.RetryAfter)
	case err != nil:
		return nil, err
	}
	out := make([]delivery.Stored, len(stored))
	for i, s := range stored {
		out[i] = delivery.Stored(s)
	}
	return out, nil
}

// disk is the space of a directory's file system, as those who are not root may use it.
func disk(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	block := int64(st.Bsize) //nolint:unconvert // its type differs between systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, nil
}

// archive is the bus's events as operators see them.
type archive struct{ on *bus.Events }

func (a archive) Read(ctx context.Context, f control.StreamFilter, fn func(delivery.Record) bool) error {
	return a.on.Read(ctx, bus.EventFilter{
		Namespace: f.Namespace, Channel: f.Channel, After: f.After, Since: f.Since, Until: f.Until, Follow: f.Follow,
	}, func(r bus.EventRecord) bool { return fn(record(&r)) })
}

func (a archive) Get(ctx context.Context, sequence uint64) (delivery.Record, error) {
	r, err := a.on.Get(ctx, sequence)
	return record(&r), err
}

func (a archive) Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error) {
	return a.on.Purge(ctx, namespace, channel, upTo)
}

func (a archive) Verify(ctx context.Context, progress func(done, of uint64)) (control.Verified, error) {
	r, err := a.on.Verify(ctx, progress)
	return control.Verified{Records: r.Events, Channels: r.Channels, Missing: r.Missing, Damaged: r.Damaged}, err
}

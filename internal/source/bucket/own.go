package bucket

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

const (
	cursorKey  = "cursor"
	cursorTime = 5 * time.Second // how often the position is written
)

// listener is a trigger that listens to a bucket of the own store.
type listener struct {
	b      source.Binding
	s      *Settings
	failed chan struct{} // gets one when an event was not taken
	missed atomic.Bool
}

// Changed hands a change of the own store to those who listen. When it returns nil, all
// of them have taken it. Those who have not will get it by Own.Changes.
func (k *Kind) Changed(ctx context.Context, namespace string, o Object) error {
	k.mu.Lock()
	var to []*listener
	for l := range k.subs {
		if l.b.Ref.Namespace == namespace && l.s.Bucket == o.Bucket {
			to = append(to, l)
		}
	}
	k.mu.Unlock()
	var failure error
	for _, l := range to {
		if err := l.hand(ctx, o); err != nil {
			failure = err
			l.missed.Store(true)
			select {
			case l.failed <- struct{}{}:
			default:
			}
		}
	}
	return failure
}

func (l *listener) hand(ctx context.Context, o Object) error {
	removed := strings.HasPrefix(o.Operation, "ObjectRemoved:")
	if !l.s.wants(&o, removed) {
		return nil
	}
	m, err := message(&o, removed)
	if err != nil {
		return err
	}
	return l.b.Sink.Accept(ctx, []event.Message{m})
}

// listen first makes itself known, then catches up: no change falls in between, and one
// that comes both ways has the same id.
func (k *Kind) listen(ctx context.Context, b source.Binding, s *Settings) error {
	l := &listener{b: b, s: s, failed: make(chan struct{}, 1)}
	cursor, err := k.position(ctx, b, s)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.subs[l] = struct{}{}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.subs, l)
	}()
	// Before the look at what was missed: later changes come by themselves.
	settled := k.own.Settled()
	if err := k.own.Changes(ctx, b.Ref.Namespace, s.Bucket, cursor, func(o Object) error { return l.hand(ctx, o) }); err != nil {
		return err
	}
	b.Report(source.Health{State: source.Running, Lag: -1})
	tick := time.NewTicker(cursorTime)
	defer tick.Stop()
	for {
		if l.missed.Load() { // after settled was read, so that the position stays before it
			return fmt.Errorf("an event was not taken")
		}
		if settled > cursor {
			if err := b.Store.Put(context.WithoutCancel(ctx), cursorKey, []byte(strconv.FormatUint(settled, 10))); err != nil {
				return fmt.Errorf("writing the position: %w", err)
			}
			cursor = settled
		}
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-l.failed:
		}
		settled = k.own.Settled()
	}
}

// Forget drops the position of a trigger that is gone: one of its name that comes later
// is told nothing of what was in between.
func (k *Kind) Forget(ctx context.Context, b source.Binding) error {
	if err := b.Store.Delete(ctx, cursorKey); err != nil {
		return fmt.Errorf("forgetting the position: %w", err)
	}
	return nil
}

// position reads from where on changes are to be told.
func (k *Kind) position(ctx context.Context, b source.Binding, s *Settings) (uint64, error) {
	raw, err := b.Store.Get(ctx, cursorKey)
	if err != nil {
		return 0, fmt.Errorf("reading the position: %w", err)
	}
	if raw != nil {
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the position: it is malformed")
		}
		return n, nil
	}
	var from uint64
	if !s.Existing {
		from = k.own.Settled()
	}
	if err := b.Store.Put(ctx, cursorKey, []byte(strconv.FormatUint(from, 10))); err != nil {
		return 0, fmt.Errorf("writing the position: %w", err)
	}
	return from, nil
}

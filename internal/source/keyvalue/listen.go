package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/state"
)

// Reasons of an alert.
const (
	alertGap     = "changes were given up before they were told: the trigger was behind for longer than they are kept"
	alertMaybe   = "the trigger was behind for longer than changes are kept: some may have been given up before they were told"
	alertDamaged = "changes are damaged in the log and could not be told"
)

// listener is a trigger at work.
type listener struct {
	own    Own
	b      source.Binding
	s      *Settings
	cursor uint64 // all up to it has been taken, or is not wanted
	stored uint64 // the position as it is written
	saved  time.Time
	seen   uint64 // revision of the last change read
	alert  string
	told   source.Health // reported last

	batch []event.Message
	bytes int
}

func (l *listener) run(ctx context.Context) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		changed := l.own.Changed(l.b.Ref.Namespace, l.s.Bucket) // before the look, so that nothing falls in between
		if err := l.round(ctx); err != nil {
			return errors.Join(err, l.save(ctx))
		}
		l.report()
		if err := l.wait(ctx, changed); err != nil {
			return err
		}
	}
	return l.save(ctx)
}

// load reads the position. A new trigger begins now.
func (l *listener) load(ctx context.Context) error {
	raw, err := l.b.Store.Get(ctx, cursorKey)
	if err != nil {
		return fmt.Errorf("reading the position: %w", err)
	}
	l.saved = l.b.Clock()
	settled := l.own.Settled()
	if raw == nil {
		l.cursor = settled
		return l.write(ctx)
	}
	if l.cursor, err = strconv.ParseUint(string(raw), 10, 64); err != nil {
		return fmt.Errorf("reading the position: it is malformed")
	}
	l.stored = l.cursor
	oldest, err := l.own.Oldest(ctx)
	if err != nil {
		return fmt.Errorf("looking for the oldest change: %w", err)
	}
	if l.cursor < settled && (oldest == 0 || oldest > l.cursor+1) {
		l.warn(alertMaybe)
	}
	return nil
}

// round hands in all changes that there are.
func (l *listener) round(ctx context.Context) error {
	l.batch, l.bytes, l.seen = l.batch[:0], 0, l.cursor
	upTo, err := l.own.Changes(ctx, l.b.Ref.Namespace, l.s.Bucket, l.cursor, func(c Change) error { return l.take(ctx, &c) })
	switch {
	case errors.Is(err, state.ErrCorrupt):
		l.b.Log.Error("changes could not be told", "error", err)
		l.warn(alertDamaged)
	case err != nil:
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.cursor = max(l.cursor, upTo)
	return nil
}

func (l *listener) take(ctx context.Context, c *Change) error {
	if c.Previous > l.seen { // it was between the last one and this one
		l.warn(alertGap)
	}
	l.seen = c.Revision
	if l.s.wants(c) {
		m, err := message(l.s.Bucket, c)
		if err != nil {
			return err
		}
		l.batch, l.bytes = append(l.batch, m), l.bytes+len(m.Data)
	}
	if len(l.batch) > 0 && len(l.batch) < maxBatch && l.bytes < batchBytes {
		return nil
	}
	return l.flush(ctx)
}

// flush hands in what has been read.
func (l *listener) flush(ctx context.Context) error {
	if len(l.batch) > 0 {
		if err := l.b.Sink.Accept(ctx, l.batch); err != nil {
			return err
		}
		clear(l.batch)
		l.batch, l.bytes = l.batch[:0], 0
	}
	l.cursor = l.seen
	if since := l.b.Clock().Sub(l.saved); since >= 0 && since < cursorTime {
		return nil
	}
	return l.save(ctx)
}

// wait returns when the bucket has changed, or ctx has ended.
func (l *listener) wait(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTimer(cursorTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			return nil
		case <-tick.C:
		}
		settled := l.own.Settled()
		select {
		case <-changed:
			return nil
		default: // so none of the changes up to that was of this bucket
			l.cursor = max(l.cursor, settled)
		}
		if err := l.save(ctx); err != nil {
			return err
		}
		tick.Reset(cursorTime)
	}
}

// save writes the position if it has moved, also when ctx has ended.
func (l *listener) save(ctx context.Context) error {
	if l.cursor == l.stored {
		return nil
	}
	return l.write(context.WithoutCancel(ctx))
}

func (l *listener) write(ctx context.Context) error {
	if err := l.b.Store.Put(ctx, cursorKey, strconv.AppendUint(nil, l.cursor, 10)); err != nil {
		return fmt.Errorf("writing the position: %w", err)
	}
	l.stored, l.saved = l.cursor, l.b.Clock()
	return nil
}

// warn sets an alert, which stays until the source starts again.
func (l *listener) warn(reason string) {
	if l.alert == "" {
		l.alert = reason
		l.report()
	}
}

func (l *listener) report() {
	h := source.Health{State: source.Running, Lag: -1}
	if l.alert != "" {
		h.State, h.Reason = source.Alert, l.alert
	}
	if h != l.told {
		l.told = h
		l.b.Report(h)
	}
}

package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// Pauses while what must be written cannot be.
const (
	insistFirst = 100 * time.Millisecond
	insistMost  = 10 * time.Second
)

// settle carries out verdicts, in this order: dead letters are written; then, all at once
// or not at all, what goes to destinations and what the retry log must know; results are
// told; and only then the events are let go. A crash in between repeats the rest. out is
// nil for events that were not run.
func (t *trigger) settle(s *session, b *Binding, verdicts []verdict, out *Outcome) {
	var deads, entries []Entry
	var err error
	now := t.e.cfg.Clock()
	for _, v := range verdicts {
		if v.end == endDead {
			var e Entry
			if e, err = t.obituary(v, now); err != nil {
				break
			}
			deads = append(deads, e)
		}
		var more []Entry
		if more, err = t.outcomes(b, v, out, now); err != nil {
			break
		}
		entries = append(entries, more...)
	}
	logged := 0
	t.mu.Lock()
	for _, v := range verdicts {
		if err == nil && (v.it.logged || v.end == endAgain) {
			var e Entry
			e, err = t.entry(v.it, v.tried, v.end != endAgain)
			entries = append(entries, e)
			logged++
		}
	}
	write := t.log.begun()
	t.mu.Unlock()
	var settlers []Settler
	ok := err == nil
	if ok && len(deads) > 0 {
		ok = t.insist("dead letters cannot be written", func(ctx context.Context) error {
			_, err := t.e.cfg.Deads.Publish(ctx, deads)
			return err
		})
	}
	if ok {
		ok = t.insist("the end of events cannot be told", func(ctx context.Context) error { return t.tell(ctx, verdicts, out) })
	}
	if ok {
		ok = t.insist("the end of events cannot be written", func(ctx context.Context) error {
			return t.write(ctx, write, entries, logged, func() { settlers = t.carryOut(s, verdicts) })
		})
	}
	if !ok {
		if err != nil {
			t.failing("the end of events cannot be encoded", err)
		}
		t.mu.Lock()
		t.gate = t.e.cfg.Clock().Add(insistMost)
		t.mu.Unlock()
		items := make([]*item, 0, len(verdicts))
		for _, v := range verdicts {
			items = append(items, v.it)
		}
		t.handBack(items)
		return
	}
	for _, w := range settlers {
		t.said(w.Ack())
	}
	t.tidy(s)
}

// carryOut changes the queues as the verdicts say. t.mu is held.
func (t *trigger) carryOut(s *session, verdicts []verdict) (settlers []Settler) {
	now := t.e.cfg.Clock()
	for _, v := range verdicts {
		it := v.it
		switch v.end {
		case endAgain:
			it.tried = v.tried
			if w := t.nowParked(it); w != nil {
				settlers = append(settlers, w)
			}
			t.queues.end(it, now)
			if l := t.lanes[it.key]; it.key != "" && t.stuck(l, now) {
				t.relieve(s, l)
			}
			t.counts.retried.add(now, 1)
		case endDone, endDead:
			if it.settler != nil {
				settlers = append(settlers, it.settler)
				t.letGo(it)
			}
			t.remove(it, now)
			t.over.add(it.seq)
			if v.end == endDone {
				t.counts.done.add(now, 1)
			} else {
				t.counts.dead.add(now, 1)
			}
		}
	}
	return settlers
}

// tell reports the ends of asynchronous invocations.
func (t *trigger) tell(ctx context.Context, verdicts []verdict, out *Outcome) error {
	if t.e.cfg.Results == nil || t.key.Trigger != "" {
		return nil
	}
	ref := function.Ref{Namespace: t.key.Namespace, Name: t.key.Function}
	for _, v := range verdicts {
		if v.end == endAgain || v.it.msg == nil || v.it.rerun.Replay {
			continue
		}
		r := Result{Succeeded: v.end == endDone, Reason: v.reason, Attempts: v.tried.Attempts, Stored: v.it.stored, Ended: t.e.cfg.Clock()}
		if out != nil {
			r.Outcome = *out
		}
		if err := t.e.cfg.Results.Done(ctx, ref, v.it.msg.ID, r); err != nil {
			return err
		}
	}
	return nil
}

// insist tries until fn succeeds, or until the engine stops: then once more, and it is
// false if that failed too. A session that ends waits for it. What it holds up holds a place of the trigger's concurrency,
// so a full disk stops the trigger and loses nothing.
func (t *trigger) insist(what string, fn func(context.Context) error) bool {
	for n := 0; ; n++ {
		last := t.e.soft.Err() != nil
		err := fn(t.e.hard)
		if err == nil {
			return true
		}
		t.failing(what, err)
		if last {
			return false
		}
		pause(t.e.soft, doubled(insistFirst, insistMost, n))
	}
}

// failing logs and remembers that something on our side does not work.
func (t *trigger) failing(what string, err error) {
	t.e.cfg.Logger.Error(what, slog.String("trigger", t.key.String()), slog.Any("error", err)) //nolint:sloglint // what is one of a few constants
	t.counts.note(t.e.cfg.Clock(), "", what)
}

// tidy compacts the retry log when that is due.
func (t *trigger) tidy(s *session) {
	t.mu.Lock()
	due := !s.stopping && t.compactDue()
	if due {
		t.log.compacting = true
		s.workers.Go(func() { t.compact(s) })
	}
	t.mu.Unlock()
}

package delivery

import (
	"slices"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

// pump starts workers for all that may run now, and sets the alarm for what may later.
// t.mu is held.
func (t *trigger) pump() {
	s := t.sess
	if s == nil || s.stopping {
		return
	}
	now := t.e.cfg.Clock()
	// First, whatever take says: what is due already must not set the alarm again.
	t.awake(now)
	for {
		items := t.take(now)
		if items == nil {
			break
		}
		s.workers.Go(func() { t.work(s, items) })
	}
	if at := t.waiting.first(); at != nil {
		t.wake(now, at.tried.Due)
	}
	if t.held > 0 {
		t.wake(now, t.beat)
	}
}

// work is a worker: it does one piece after the other until there is none.
func (t *trigger) work(s *session, items []*item) {
	for items != nil {
		t.process(s, items)
		t.mu.Lock()
		t.running--
		items = nil
		if !s.stopping {
			items = t.take(t.e.cfg.Clock())
			t.pump()
		}
		t.mu.Unlock()
	}
}

// take picks what is to run next and counts it as running, or returns nil. t.mu is held.
func (t *trigger) take(now time.Time) []*item {
	if t.sess.recovering || !t.sess.loaded || t.running >= t.b.Delivery.Concurrency {
		return nil
	}
	t.awake(now)
	if at, ok := t.filling(now); ok {
		t.wake(now, at)
		return nil
	}
	it := t.next()
	if it == nil {
		return nil
	}
	items := []*item{it}
	// Whoever is too old is not run, so neither gate nor rate hold him up.
	if !t.expired(it, now) {
		if now.Before(t.gate) {
			t.putBack(now, items...)
			t.wake(now, t.gate)
			return nil
		}
		if t.b.Delivery.Batch > 1 && !it.tried.Alone {
			var full bool
			items, full = t.gather(it, now)
			if at := it.arrived.Add(t.b.Delivery.BatchWindow); !full && at.After(now) {
				t.putBack(now, items...)
				t.wake(now, at)
				return nil
			}
		}
		if t.limiter != nil {
			r := t.limiter.ReserveN(now, 1)
			if d := r.DelayFrom(now); d > 0 {
				r.CancelAt(now)
				t.putBack(now, items...)
				t.wake(now, now.Add(d))
				return nil
			}
		}
	}
	for _, it := range items {
		t.queues.begin(it)
	}
	t.running++
	return items
}

// filling says until when a batch that is clearly not full may wait. It spares taking
// the queue apart for each event that comes.
func (t *trigger) filling(now time.Time) (time.Time, bool) {
	d := &t.b.Delivery
	if d.Batch < 2 || d.BatchWindow == 0 || t.retries.Len() > 0 || t.fresh.Len() >= d.Batch || t.bytes >= event.MaxData {
		return time.Time{}, false
	}
	it := t.fresh.first()
	if it == nil || t.expired(it, now) {
		return time.Time{}, false
	}
	at := it.arrived.Add(d.BatchWindow)
	return at, at.After(now)
}

func (t *trigger) putBack(now time.Time, items ...*item) {
	for _, it := range items {
		t.enqueue(it, now)
	}
}

func (t *trigger) expired(it *item, now time.Time) bool {
	return now.Sub(it.stored) >= t.b.Delivery.MaxAge
}

// gather adds to a batch what may run together with its first event, and says whether
// it can grow no more.
func (t *trigger) gather(first *item, now time.Time) (items []*item, full bool) {
	items = []*item{first}
	size := first.size
	var apart []*item
	for len(items) < t.b.Delivery.Batch {
		it := t.next()
		if it == nil {
			break
		}
		if it.tried.Alone || it.rerun != first.rerun || t.expired(it, now) {
			apart = append(apart, it)
			continue
		}
		if size+it.size > event.MaxData {
			apart, full = append(apart, it), true
			break
		}
		size += it.size
		items = append(items, it)
	}
	t.putBack(now, apart...)
	// Two heads of one key cannot be: next gives the first of each lane alone.
	slices.SortFunc(items, func(a, b *item) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return items, full || len(items) == t.b.Delivery.Batch
}

// wake sets the alarm, unless it rings before. t.mu is held.
func (t *trigger) wake(now, at time.Time) {
	if !t.armed.IsZero() && !at.Before(t.armed) {
		return
	}
	t.armed = at
	d := max(at.Sub(now), 0)
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.tick)
		return
	}
	t.timer.Reset(d)
}

// tick is the alarm.
func (t *trigger) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = time.Time{}
	if t.sess == nil || t.sess.stopping {
		return
	}
	if now := t.e.cfg.Clock(); t.held > 0 && !now.Before(t.beat) {
		t.beat = now.Add(AckWait / 3)
		for _, it := range t.items {
			if it.settler != nil {
				t.said(it.settler.Working())
			}
		}
	}
	t.pump()
}

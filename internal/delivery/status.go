package delivery

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/state"
)

// backlogFresh is how old an answer of Backlog may be.
const backlogFresh = 100 * time.Millisecond

// rateOver is the time over which rates are averaged; older events fade.
const rateOver = time.Minute

// Status is how a trigger is doing.
type Status struct {
	Key       Key
	Running   bool          // false when it is paused or just changing
	Paused    bool          // by an operator, or by its version
	Held      bool          // turned away for now: throttled, or nothing is there to run
	Waiting   int64         // not begun
	UnderWay  int           // invocations
	Retrying  int           // events parked until another attempt, or behind one that is
	OldestAge time.Duration // of events in hand or parked
	LastError LastError
	Done      Count // events
	Dead      Count
	Retried   Count // attempts that failed and were not the last
	Filtered  int64 // events that a filter kept away
}

// LastError is the last thing that went wrong.
type LastError struct {
	Time   time.Time
	Code   string // empty when the function answered, or for a fault of ours
	Detail string
}

// Count is a number since the start, and a rate.
type Count struct {
	Total     int64
	PerSecond float64 // over the last minute or so
}

// counts of one trigger; they outlive its sessions.
type counts struct {
	done, dead, retried meter
	filtered            atomic.Int64
	mu                  sync.Mutex
	last                LastError
}

func (c *counts) note(at time.Time, code, detail string) {
	c.mu.Lock()
	c.last = LastError{Time: at, Code: code, Detail: clip(detail)}
	c.mu.Unlock()
}

// meter counts, and fades.
type meter struct {
	mu    sync.Mutex
	total int64
	level float64
	at    time.Time
}

func (m *meter) add(now time.Time, n int64) {
	m.mu.Lock()
	m.level = m.faded(now) + float64(n)
	m.at = now
	m.total += n
	m.mu.Unlock()
}

func (m *meter) faded(now time.Time) float64 {
	return m.level * math.Exp(-max(now.Sub(m.at), 0).Seconds()/rateOver.Seconds())
}

func (m *meter) count(now time.Time) Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Count{Total: m.total, PerSecond: m.faded(now) / rateOver.Seconds()}
}

type cachedBacklog struct {
	asking sync.Mutex
	at     time.Time
	n      int64
}

func (e *Engine) trigger(k Key) (*trigger, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.triggers[k]
	if t == nil {
		return nil, problem.New(problem.NotFound, "no trigger %s is in force", k)
	}
	return t, nil
}

// Keys lists the triggers in force.
func (e *Engine) Keys() []Key {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Key, 0, len(e.triggers))
	for k := range e.triggers {
		if !e.webhooks[k] {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b Key) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	return out
}

// Status fails with a *problem.Error when the trigger is not in force.
func (e *Engine) Status(ctx context.Context, k Key) (Status, error) {
	t, err := e.trigger(k)
	if err != nil {
		return Status{}, err
	}
	backlog, err := e.Backlog(ctx, k)
	if err != nil {
		return Status{}, err
	}
	now := e.cfg.Clock()
	st := Status{
		Key: k, Done: t.counts.done.count(now), Dead: t.counts.dead.count(now), Retried: t.counts.retried.count(now),
		Filtered: t.counts.filtered.Load(),
	}
	t.counts.mu.Lock()
	st.LastError = t.counts.last
	t.counts.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Running = t.sess != nil && !t.sess.stopping
	st.Paused = t.b.Paused || e.marks.has(pauseMark(k))
	st.Held = now.Before(t.gate)
	st.UnderWay, st.Retrying = t.running, t.parked
	begun := 0
	for _, it := range t.items {
		st.OldestAge = max(st.OldestAge, now.Sub(it.stored))
		if it.running && it.settler != nil {
			begun++
		}
	}
	st.Waiting = max(0, backlog-int64(t.parked)-int64(begun))
	return st, nil
}

// Backlog is how many events the trigger has yet to settle, those that are parked or
// under way among them. It may be up to 100 ms old, and is cheap.
func (e *Engine) Backlog(ctx context.Context, k Key) (int64, error) {
	t, err := e.trigger(k)
	if err != nil {
		return 0, err
	}
	t.cached.asking.Lock()
	defer t.cached.asking.Unlock()
	now := e.cfg.Clock()
	if !t.cached.at.IsZero() && now.Sub(t.cached.at) < backlogFresh && !now.Before(t.cached.at) {
		return t.cached.n, nil
	}
	t.mu.Lock()
	n, channel := int64(t.parked), t.b.Channel
	t.mu.Unlock()
	names := []string{k.consumer(channel)}
	if e.marks.has(k.replaysMark()) {
		names = append(names, k.consumer(k.side("replay")))
	}
	for _, name := range names {
		waiting, underWay, err := e.cfg.Consumers.Backlog(ctx, name)
		if err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
			return 0, err
		}
		n += waiting + underWay
	}
	t.cached.at, t.cached.n = now, n
	return n, nil
}

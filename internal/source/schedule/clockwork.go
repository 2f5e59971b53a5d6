package schedule

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
)

// The longest the goroutine sleeps. Timers follow a clock that nobody can set, ticks the
// one on the wall: a wall clock that is put forward is noticed after this time at the
// latest.
const longestSleep = 10 * time.Second

// Pauses after a tick that could not be handed in.
const (
	firstPause   = time.Second
	lastPause    = time.Minute
	refusedPause = 10 * time.Minute
)

// Clockwork runs schedules on one goroutine. Make one with NewClockwork.
type Clockwork struct {
	clock func() time.Time
	wake  chan struct{} // of capacity 1

	mu    sync.Mutex
	queue queue
	last  time.Time // the wall clock when it was last looked at
}

// NewClockwork returns a Clockwork that runs nothing yet. The clock is the wall's.
func NewClockwork(clock func() time.Time) *Clockwork {
	return &Clockwork{clock: clock, wake: make(chan struct{}, 1)}
}

// entry is a schedule that is being run.
type entry struct {
	binding  source.Binding
	spec     *Spec
	ctx      context.Context
	stop     context.CancelFunc
	position time.Time     // ticks up to it are done with
	due      time.Time     // when to look at it; zero for never again
	pause    time.Duration // after the failure just now
	owed     []time.Time   // ticks that could not be handed in and that no policy drops any more
	index    int           // in the queue; -1 when not in it
	done     sync.WaitGroup
}

// Add has a schedule run, as long as Run does, until ctx ends or the function that it
// returns is called; that one waits until nothing of it is under way. It reads where the
// schedule was left. It fails with a *source.FieldError for settings that Check refuses.
func (c *Clockwork) Add(ctx context.Context, b source.Binding) (remove func(), err error) {
	spec, err := Parse(b.Trigger.Settings)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	position, err := restore(ctx, b.Store, spec, now)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	e := &entry{binding: b, spec: spec, ctx: ctx, stop: stop, position: position, index: -1}
	c.mu.Lock()
	c.place(e, now)
	c.mu.Unlock()
	c.look()
	if e.spec.Next(position).IsZero() {
		report(b, source.Health{State: source.Running, Reason: "its time has passed: it does not fire again"})
	} else {
		report(b, source.Health{State: source.Running})
	}
	return func() {
		c.mu.Lock()
		stop()
		if e.index >= 0 {
			heap.Remove(&c.queue, e.index)
		}
		c.mu.Unlock()
		e.done.Wait()
	}, nil
}

func report(b source.Binding, h source.Health) {
	if b.Report != nil {
		b.Report(h)
	}
}

// look wakes the goroutine.
func (c *Clockwork) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// place puts an entry where its next tick has it. The lock is held.
func (c *Clockwork) place(e *entry, now time.Time) {
	if e.ctx.Err() != nil {
		return
	}
	if e.position.Sub(now) > MaxBack {
		e.position = now
		report(e.binding, source.Health{State: source.Alert, Reason: fmt.Sprintf("the clock was put back by more than %s: ticks that fired before may fire again", MaxBack)})
	}
	switch e.due = e.spec.Next(e.position); {
	case len(e.owed) > 0:
		e.due = now.Add(e.pause)
	case e.due.IsZero():
		return
	case e.pause > 0:
		e.due = later(e.due, now.Add(e.pause))
	}
	heap.Push(&c.queue, e)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Run looks after the schedules until ctx ends. What is being handed in then is waited for;
// end the contexts of Add to cut that short. It is run once.
func (c *Clockwork) Run(ctx context.Context) error {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	t := time.NewTimer(longestSleep)
	defer t.Stop()
	for {
		t.Reset(c.turn(&underWay))
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-c.wake:
		}
	}
}

// turn starts what is due and says how long nothing else will be.
func (c *Clockwork) turn(underWay *sync.WaitGroup) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	if now.Before(c.last) {
		c.back(now)
	}
	c.last = now
	for len(c.queue) > 0 {
		e := c.queue[0]
		if e.due.After(now) {
			return min(e.due.Sub(now), longestSleep)
		}
		heap.Pop(&c.queue)
		e.done.Add(1)
		underWay.Go(func() {
			defer e.done.Done()
			c.fire(e, now)
		})
	}
	return longestSleep
}

// back is called when the clock was put back: the ends of pauses lie too far away then, and
// who fired too far ahead begins anew. The lock is held.
func (c *Clockwork) back(now time.Time) {
	old := c.queue
	c.queue = nil
	for _, e := range old {
		e.index = -1
		c.place(e, now)
	}
}

// fire hands in what is due of one schedule, and puts it back into the queue. Nobody else
// touches the entry meanwhile, because it is in no queue.
func (c *Clockwork) fire(e *entry, now time.Time) {
	ticks, done := e.owed, e.position
	if len(ticks) == 0 {
		var missed int
		if ticks, missed = e.pending(now); missed > 0 && e.binding.Log != nil {
			e.binding.Log.Warn("ticks of a schedule were missed", slog.Int("atLeast", missed), slog.String("policy", string(e.spec.missed)))
		}
	}
	var err error
	for len(ticks) > 0 && err == nil {
		if err = e.hand(ticks[0]); err != nil {
			break
		}
		done = ticks[0]
		if err = e.settle(done); err == nil {
			ticks = ticks[1:]
		}
	}
	if err == nil && done.Equal(e.position) { // all that was due was missed
		done = now.Truncate(time.Second)
		err = e.settle(done)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.position, e.owed = later(e.position, done), ticks
	if err != nil {
		c.failed(e, err)
	} else if e.pause > 0 {
		e.pause = 0
		report(e.binding, source.Health{State: source.Running})
	}
	c.place(e, c.clock())
	c.look()
}

// failed sets the pause after a failure. The lock is held.
func (c *Clockwork) failed(e *entry, err error) {
	switch {
	case errors.Is(err, source.ErrRefused):
		e.pause = refusedPause
	case e.pause == 0:
		e.pause = firstPause
	default:
		e.pause = min(2*e.pause, lastPause)
	}
	if e.ctx.Err() == nil {
		report(e.binding, source.Health{State: source.Failing, Reason: err.Error()})
	}
}

// pending gives the ticks to hand in now, oldest first, and whether others were missed (a
// lower bound of their number).
func (e *entry) pending(now time.Time) (ticks []time.Time, missed int) {
	inTime := now.Add(-Grace)
	if inTime.After(e.position) {
		late := e.spec.latest(e.position, inTime, MaxMissed)
		missed = len(late)
		switch {
		case e.spec.missed == All:
			ticks = late
		case e.spec.missed == Once && missed > 0:
			ticks = late[missed-1:]
		}
	}
	for t := e.spec.Next(later(e.position, inTime)); !t.IsZero() && !t.After(now); t = e.spec.Next(t) {
		ticks = append(ticks, t)
	}
	return ticks, missed
}

// queue is ordered by due.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for the package heap.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop is for the package heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.index = -1
	return e
}

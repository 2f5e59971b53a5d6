package native

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pool holds the instances of one version. With instance isolation they are used one
// after the other, the one used last first, so that those that nobody needs grow old
// and end. With invocation isolation they are started ahead and used once.
//
// Lock order: pool.mu is taken alone; no callback runs while it is held.
type pool struct {
	start  func(ctx context.Context, wanted bool) (*instance, error) // wanted: somebody waits
	clock  func() time.Time
	single bool // each instance serves one invocation
	most   int  // instances that may be kept ahead
	tasks  *sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	idle     []*instance // used last, or ready last, at the end
	waiting  []*waiter
	starting int
	served   int // of those starting, how many are for somebody who waits
	alive    int // instances that have started and not been told to end
	demand   demand
}

// waiter wants an instance.
type waiter struct {
	got chan handout // room for one
}

type handout struct {
	instance *instance
	cold     bool
	err      error
}

// errClosed is why nothing more is handed out.
var errClosed = errors.New("the version is being retired")

// startTimeout bounds how long code may take until it waits for its first work: what
// AWS gives it, and something for a busy machine.
const startTimeout = 15 * time.Second

// take hands out an instance for one invocation; cold says that it had to be waited
// for until it had started. Whoever takes one gives it back or destroys it.
func (p *pool) take(ctx context.Context) (i *instance, cold bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, errClosed
	}
	p.demand.note(p.clock())
	for len(p.idle) > 0 {
		last := len(p.idle) - 1
		i = p.idle[last]
		if p.single { // the one that waits longest, since all are equally warm
			last, i = 0, p.idle[0]
		}
		p.idle = append(p.idle[:last:last], p.idle[last+1:]...)
		if i.usable(p.clock()) {
			p.refill()
			p.mu.Unlock()
			i.awaken()
			return i, false, nil
		}
		p.destroy(i)
	}
	w := &waiter{got: make(chan handout, 1)}
	p.waiting = append(p.waiting, w)
	p.refill()
	p.mu.Unlock()
	select {
	case h := <-w.got:
		if h.err == nil && !h.cold {
			h.instance.awaken()
		}
		return h.instance, h.cold, h.err
	case <-ctx.Done():
		p.leave(w)
		return nil, true, ctx.Err()
	}
}

// leave takes back a wish; what was handed out already goes to the next one.
func (p *pool) leave(w *waiter) {
	p.mu.Lock()
	for i, other := range p.waiting {
		if other == w {
			p.waiting = append(p.waiting[:i:i], p.waiting[i+1:]...)
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	if h := <-w.got; h.err == nil {
		p.put(h.instance)
	}
}

// put gives an instance back after use, or brings a new one.
func (p *pool) put(i *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || !i.usable(p.clock()) || p.single && i.uses > 0:
		p.destroy(i)
		p.refill() // whoever waits for it still needs one
	case len(p.waiting) > 0:
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.got <- handout{instance: i, cold: i.uses == 0}
	default:
		i.rest(p.clock())
		p.idle = append(p.idle, i)
	}
}

// refill starts what those who wait need, and what demand says will be needed. The
// mutex is held.
func (p *pool) refill() {
	if p.closed {
		return
	}
	wanted := len(p.waiting)
	if p.single {
		wanted += max(0, p.demand.ahead(p.most)-len(p.idle))
	}
	for p.starting < wanted {
		p.starting++
		p.tasks.Go(p.startOne)
	}
}

func (p *pool) startOne() {
	// Not the caller's context: when the caller leaves, somebody else can use it.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p.mu.Lock()
	wanted := p.served < len(p.waiting)
	if wanted {
		p.served++
	}
	p.mu.Unlock()
	i, err := p.start(ctx, wanted)
	p.mu.Lock()
	p.starting--
	if wanted {
		p.served--
	}
	if err != nil {
		// Nobody is told while as many others are starting as wait.
		if len(p.waiting) > p.starting {
			w := p.waiting[0]
			p.waiting = p.waiting[1:]
			w.got <- handout{err: err, cold: true}
		}
		p.mu.Unlock()
		return
	}
	p.demand.took(i.started)
	p.alive++
	p.mu.Unlock()
	p.put(i)
}

// destroy ends an instance without waiting for it. The mutex is held.
func (p *pool) destroy(i *instance) {
	p.alive--
	p.tasks.Go(i.end)
}

// count gives how many instances there are, and how many of them wait for work.
func (p *pool) count() (alive, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive, len(p.idle)
}

// sweep ends instances that nobody has used for a while, and reports how many are
// left, in use or not counted.
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.demand.sweep(now)
	ahead := p.demand.ahead(p.most)
	kept := p.idle[:0:0]
	for k, i := range p.idle {
		surplus := p.single && len(p.idle)-k > ahead && now.Sub(i.rested) > surplusAge
		if surplus || !i.usable(now) || !p.single && now.Sub(i.rested) > idleAge {
			p.destroy(i)
			continue
		}
		kept = append(kept, i)
	}
	p.idle = kept
}

// evict ends the idle instance that rested longest; false means there is none.
func (p *pool) evict() bool {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return false
	}
	i := p.idle[0]
	p.idle = append(p.idle[:0:0], p.idle[1:]...)
	p.alive--
	p.mu.Unlock()
	i.end() // at once: somebody waits for its room
	return true
}

// rested says since when the longest resting instance rests.
func (p *pool) rested() (since time.Time, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return time.Time{}, false
	}
	return p.idle[0].rested, true
}

// close ends the idle instances; those in use end when they are given back.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, i := range p.idle {
		p.destroy(i)
	}
	p.idle = nil
	for _, w := range p.waiting {
		w.got <- handout{err: errClosed}
	}
	p.waiting = nil
}

// demand learns how many instances to keep ready: as many as were taken within the
// time that it takes to start one, at the busiest, and one.
type demand struct {
	takes    []time.Time // within the last start's time
	startup  time.Duration
	peak     int
	lastTake time.Time
}

// Bounds of what demand learns.
const (
	firstStartup = 100 * time.Millisecond // until one was seen
	surplusAge   = 10 * time.Second       // how long an instance too many is kept
	quietAfter   = time.Minute            // without a call, nothing is kept ready
)

func (d *demand) note(now time.Time) {
	window := max(d.startup, firstStartup)
	kept := d.takes[:0]
	for _, t := range d.takes {
		if now.Sub(t) < window {
			kept = append(kept, t)
		}
	}
	d.takes = append(kept, now)
	d.peak = max(d.peak, len(d.takes))
	d.lastTake = now
}

func (d *demand) took(startup time.Duration) { d.startup = startup }

func (d *demand) ahead(most int) int {
	if d.lastTake.IsZero() {
		return 0
	}
	return min(d.peak+1, most)
}

// sweep forgets slowly what was needed once.
func (d *demand) sweep(now time.Time) {
	if now.Sub(d.lastTake) > quietAfter {
		*d = demand{startup: d.startup}
		return
	}
	d.peak -= (d.peak - len(d.takes) + 3) / 4
}

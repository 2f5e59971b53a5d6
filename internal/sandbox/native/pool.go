package native

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// pool holds the instances of one version. With instance isolation they are used one
// after the other, the one used last first, so that those that nobody needs grow old
// and end. With invocation isolation they are started ahead and used once.
//
// Lock order: pool.mu is taken alone; no callback runs while it is held.
type pool struct {
	start      func(ctx context.Context, wanted bool) (*instance, error) // wanted: somebody waits
	clock      func() time.Time
	single     bool // each instance serves one invocation
	most       int  // instances that may be kept ahead
	processors int  // of the machine
	tasks      *sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	idle     []*instance // used last, or ready last, at the end
	waiting  []*waiter
	starting int
	served   int // of those starting, how many are for somebody who waits
	// refilling says that a refill is put off, looking that those who wait are looked after.
	refilling bool
	looking   bool
	service   time.Duration // how long an instance is in use, on average; 0: not known
	compute   time.Duration // for how much of that it computes
	alive     int           // instances that have started and not been told to end
	demand    demand
	setback   setback
}

// waiter wants an instance.
type waiter struct {
	got   chan handout // room for one
	since time.Time
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
	if p.single {
		p.demand.note(p.clock())
	}
	for len(p.idle) > 0 {
		last := len(p.idle) - 1
		i = p.idle[last]
		if p.single { // the one that waits longest, since all are equally warm
			last, i = 0, p.idle[0]
		}
		p.idle = append(p.idle[:last:last], p.idle[last+1:]...)
		if i.usable(p.clock()) {
			p.refillSoon()
			i.taken = p.clock()
			p.mu.Unlock()
			i.awaken()
			return i, false, nil
		}
		p.destroy(i)
	}
	w := &waiter{got: make(chan handout, 1), since: p.clock()}
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
	now := p.clock()
	switch {
	case i.broken:
		p.setback.died(now, now.Sub(i.born))
	case i.uses > 0:
		p.setback.answered()
		p.learn(now.Sub(i.taken), i.computed)
	}
	passed := p.give(i)
	p.mu.Unlock()
	if passed {
		// Until whoever has it now has called the code, the sandbox has nothing to do; all
		// that is left to us is to pass on an answer.
		runtime.Gosched()
	}
}

// give is put with the mutex held. It reports whether somebody waited.
func (p *pool) give(i *instance) (passed bool) {
	now := p.clock()
	switch {
	case p.closed || !i.usable(now) || p.single && i.uses > 0:
		p.destroy(i)
		p.refill() // whoever waits for it still needs one
	case len(p.waiting) > 0:
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		i.taken = now
		w.got <- handout{instance: i, cold: i.uses == 0}
		return true
	default:
		i.rest(now)
		p.idle = append(p.idle, i)
	}
	return false
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
	} else if needed := p.needed(); needed < wanted {
		wanted = needed
		p.lookAgain()
	}
	for p.starting < wanted {
		p.starting++
		p.tasks.Go(p.startOne)
	}
}

// needed gives how many more there must be for those who wait, when one may be used by
// one after the other: as many as serve all of them within the time that a start takes,
// for so long they would wait anyhow. Who has waited for twice as long gets one of his
// own: what is in use now may take its time. The mutex is held.
func (p *pool) needed() int {
	if p.service <= 0 {
		return len(p.waiting)
	}
	startup := p.patience()
	all := int((time.Duration(len(p.waiting))*p.service + startup - 1) / startup)
	more := min(max(all-p.alive, p.overdue(2*startup)), max(p.enough()-p.alive, 0))
	return max(more, p.overdue(mostPatience))
}

// overdue is how many have waited for so long. The mutex is held.
func (p *pool) overdue(wait time.Duration) (n int) {
	now := p.clock()
	for n < len(p.waiting) && now.Sub(p.waiting[n].since) >= wait { // the oldest come first
		n++
	}
	return n
}

// mostPatience is after how long whoever waits gets an instance of his own even where more
// of them make all slower: a short call should not wait for the end of many long ones.
const mostPatience = 5 * time.Second

// enough is how many keep three quarters of the processors busy, by how much of its time
// in use the code computes. With more of them all take longer, and each has code of its
// own to compile. Then each computes for a smaller part of its time, so this grows, but
// not beyond how many there are. The mutex is held.
func (p *pool) enough() int {
	if p.compute <= 0 {
		return math.MaxInt
	}
	most := time.Duration(3*p.processors) * p.service
	return int((most + 4*p.compute - 1) / (4 * p.compute))
}

// lookAgain has refill look at those who wait when a start's time is over. The mutex is
// held.
func (p *pool) lookAgain() {
	if p.looking {
		return
	}
	p.looking = true
	time.AfterFunc(p.patience(), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.looking = false
		p.refill()
	})
}

// patience is how long somebody waits for an instance in use before another is started:
// as long as a start takes. The mutex is held.
func (p *pool) patience() time.Duration { return max(p.demand.startup, leastPatience) }

// leastPatience is for programs that start at once: a start takes the processors from
// what runs.
const leastPatience = 20 * time.Millisecond

// serviceWeight is how slowly pool.service and pool.compute follow.
const serviceWeight = 8

// learn takes note of how long an instance was in use, and computed. The mutex is held.
func (p *pool) learn(took, computed time.Duration) {
	if p.service == 0 {
		p.service, p.compute = took, computed
	}
	p.service += (took - p.service) / serviceWeight
	p.compute += (computed - p.compute) / serviceWeight
}

// refillSoon is refill when nobody waits: what is handed out now goes first, for a start
// takes the processors and the broker for some milliseconds. The mutex is held.
func (p *pool) refillSoon() {
	if !p.single || p.refilling {
		return
	}
	p.refilling = true
	time.AfterFunc(refillAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refilling = false
		p.refill()
	})
}

// refillAfter is how long the start of an instance that nobody waits for is put off.
const refillAfter = 3 * time.Millisecond

func (p *pool) startOne() {
	p.backOff()
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
		if codeFailed(err) {
			p.setback.died(p.clock(), 0)
		}
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
	p.give(i) // in the same breath, or a refill in between would start one more
	p.mu.Unlock()
}

// backOff waits while starts are put off. Who waits for an instance may get one meanwhile
// that somebody else gives back.
func (p *pool) backOff() {
	p.mu.Lock()
	rest := p.setback.rest(p.clock())
	p.mu.Unlock()
	if rest > 0 {
		<-time.After(rest)
	}
}

// codeFailed reports whether a start failed by the code, and not for want of room.
func codeFailed(err error) bool {
	var known *sandbox.Error
	return errors.As(err, &known) && (known.Kind == sandbox.BadModule || known.Kind == sandbox.Memory)
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

package process

import (
	"runtime/debug"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// sweepEvery is how often unused versions and processes are looked for, at the most.
const sweepEvery = 5 * time.Second

// sight is what the sweep saw of something last: how far its uses had come, and since
// when they have not gone on. So that a use costs a number and no look at the clock.
type sight struct {
	last  int64
	since time.Time
}

// idle takes note of the number of the last use and says for how long there was none.
func (s *sight) idle(last int64, now time.Time) time.Duration {
	if s.last != last || s.since.IsZero() {
		s.last, s.since = last, now
	}
	return now.Sub(s.since)
}

// heavy is how much code must have passed through the node's memory for the garbage
// to be given back, in bytes.
const heavy = 4 << 20

// sweep unloads versions that nobody used for a while, and ends the processes of
// namespaces that nobody called. What comes back finds its compiled code stored and a
// process waiting.
func (r *Runner) sweep() {
	now := r.clock()
	r.mu.Lock()
	all := make([]*process, 0, len(r.all))
	for p := range r.all {
		all = append(all, p)
	}
	r.mu.Unlock()
	for _, p := range all {
		if p.sweep(now) {
			p.endIdle()
		}
	}
	r.pool.refill() // one that waits may have ended
	if r.carried.Load() >= heavy {
		// The node keeps little alive and collects rarely; code that has passed through
		// would stay for long.
		r.carried.Store(0)
		debug.FreeOSMemory()
	}
}

// sweep unloads what is unused in a process that serves a namespace, and reports
// whether the process is.
func (p *process) sweep(now time.Time) bool {
	var unload []*load
	p.mu.Lock()
	if p.dead || p.namespace == "" {
		p.mu.Unlock()
		return false
	}
	idle := p.active.Load() == 0 && p.seen.idle(p.used.Load(), now) >= p.runner.idleProcess
	type victim struct {
		id function.Digest
		l  *load
	}
	var victims []victim
	for id, l := range p.loads {
		if !l.finished || l.uses > 0 {
			l.seen = sight{}
			continue
		}
		if l.seen.idle(l.last, now) >= p.runner.idleVersion {
			victims = append(victims, victim{id, l})
		}
	}
	for _, v := range victims {
		v.l.retired = true
		if p.drop(v.id, v.l) {
			unload = append(unload, v.l)
		}
	}
	p.mu.Unlock()
	if idle {
		return true
	}
	p.unload(unload...)
	return false
}

// endIdle ends the process unless somebody uses it. Who acquires is counted under the
// mutex, so nobody can have begun.
func (p *process) endIdle() bool {
	p.mu.Lock()
	idle := !p.dead && p.active.Load() == 0
	if idle {
		p.dead, p.reason = true, reasonIdle
	}
	p.mu.Unlock()
	if idle {
		p.end()
	}
	return idle
}

// endedAlone reports whether the process ended for a reason of its own: neither
// because it was not needed nor with the runner.
func (p *process) endedAlone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead && p.reason != reasonIdle && p.reason != errEnded.Error()
}

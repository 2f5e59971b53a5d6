package process

import (
	"fmt"
	"time"
)

// watchEvery is how often busy processes are looked at. Guests are bounded from
// within; this catches what is not, like a compiler gone wild, or a guest that its
// process does not stop.
const watchEvery = 100 * time.Millisecond

// watch kills processes that take more memory or time than they may, while there is
// work, and now and then sweeps away what nobody uses.
func (r *Runner) watch() {
	defer close(r.watching)
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	sweeper := time.NewTicker(min(sweepEvery, max(min(r.idleVersion, r.idleProcess)/4, watchEvery)))
	defer sweeper.Stop()
	for {
		select {
		case <-r.busy:
		case <-sweeper.C:
			r.sweep()
			continue
		case <-r.ended:
			return
		}
		for r.active.Load() > 0 {
			select {
			case <-ticker.C:
			case <-sweeper.C:
				r.sweep()
				continue
			}
			tick := r.ticks.Add(1)
			for _, p := range r.working() {
				p.overdue(tick)
				most := r.mostMemory
				if p.compiles.Load() {
					most = min(most, compileMemory)
				}
				if got := p.resident(); got > most {
					p.kill(fmt.Sprintf("it holds %d bytes of memory, the most is %d", got, most))
				}
			}
		}
	}
}

// resident gives the memory that the process holds, in bytes, or 0 when it cannot be
// told.
func (p *process) resident() int64 {
	pid := p.pid.Load()
	if pid == 0 {
		pid = int64(p.child.life.pid())
		p.pid.Store(pid)
	}
	return resident(int(pid))
}

// due gives the tick of the watch before which d has certainly not passed: one tick
// may have been waiting since there was work last, and another come at once.
func (r *Runner) due(d time.Duration) int64 {
	return r.ticks.Load() + int64((d+watchEvery-1)/watchEvery) + 2
}

func (r *Runner) working() []*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	var busy []*process
	for p := range r.all {
		if p.active.Load() > 0 {
			busy = append(busy, p)
		}
	}
	return busy
}

// begin counts a piece of work for the watch, end ends that.
func (r *Runner) begin() {
	if r.active.Add(1) == 1 {
		select {
		case r.busy <- struct{}{}:
		default:
		}
	}
}

func (r *Runner) end() { r.active.Add(-1) }

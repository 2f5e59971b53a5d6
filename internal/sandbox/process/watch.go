package process

import (
	"fmt"
	"time"
)

// watchEvery is how often the memory of busy processes is looked at. Guests are
// bounded from within; this catches what is not, like a compiler gone wild.
const watchEvery = 100 * time.Millisecond

// watch kills processes that take more memory than they may, while there is work.
func (r *Runner) watch() {
	defer close(r.watching)
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.busy:
		case <-r.ended:
			return
		}
		for r.active.Load() > 0 {
			<-ticker.C
			for _, p := range r.working() {
				if got := resident(p.child.cmd.Process.Pid); got > r.mostMemory {
					p.kill(fmt.Sprintf("it holds %d bytes of memory, the most is %d", got, r.mostMemory))
				}
			}
		}
	}
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

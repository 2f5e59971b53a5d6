package process

import (
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Waits before something is tried again that ended a process.
const (
	leastPatience = 2 * time.Second
	mostPatience  = 10 * time.Minute
)

// maxRefusals bounds what is remembered. Forgetting costs one more attempt.
const maxRefusals = 4096

// refusals remembers what failed and would fail again, so that asking for it again
// costs nothing: for good when the answer cannot change, for a while that doubles each
// time when a process ended over it. The mutex guards the map.
type refusals struct {
	clock func() time.Time

	mu   sync.Mutex
	held map[function.Digest]refusal
}

type refusal struct {
	failure *sandbox.Error
	lasting bool
	until   time.Time
	times   int
}

func newRefusals(clock func() time.Time) *refusals {
	return &refusals{clock: clock, held: map[function.Digest]refusal{}}
}

// find gives the failure that still counts, or nil.
func (r *refusals) find(key function.Digest) *sandbox.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.held[key]; ok && (f.lasting || r.clock().Before(f.until)) {
		return f.failure
	}
	return nil
}

// keep remembers a failure for good.
func (r *refusals) keep(key function.Digest, failure *sandbox.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room(key)
	r.held[key] = refusal{failure: failure, lasting: true}
}

// delay remembers a failure for a while. The first so many of them have no effect
// besides being counted.
func (r *refusals) delay(key function.Digest, failure *sandbox.Error, free int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room(key)
	times := r.held[key].times + 1
	f := refusal{failure: failure, times: times}
	if times > free {
		wait := mostPatience
		if doublings := times - free - 1; doublings < 10 {
			wait = min(leastPatience<<doublings, mostPatience)
		}
		f.until = r.clock().Add(wait)
	}
	r.held[key] = f
}

// clear forgets.
func (r *refusals) clear(key function.Digest) {
	r.mu.Lock()
	delete(r.held, key)
	r.mu.Unlock()
}

// room makes room for one more. The mutex is held.
func (r *refusals) room(key function.Digest) {
	if _, ok := r.held[key]; ok || len(r.held) < maxRefusals {
		return
	}
	for other := range r.held { // any one
		delete(r.held, other)
		return
	}
}

package wasm

import (
	"sync"
	"sync/atomic"
	"time"
)

// What a version may compute before its next invocation makes way for others.
const (
	// countedFrom is the shortest invocation that counts, in time on a processor: those
	// below are what all others wait for, and they are not worth the clock.
	countedFrom = 100 * time.Microsecond
	// freely is what a version may have computed beyond its share.
	freely = 10 * time.Millisecond
	// mostBurden bounds what it has to live down.
	mostBurden = 2 * freely
	// shareOf is its share: this part of one processor.
	shareOf = 4
	// mostOwed is the longest rest before an invocation.
	mostOwed = 25 * time.Millisecond
	// lately is for how long a version counts as one that runs beside others after two
	// were invoked in turn.
	lately = 50 * time.Millisecond
)

// burden is what a version's invocations have computed lately, beyond a share of one
// processor, and the rest that they owe for it. One that ends soon looks harmless by
// itself; when it is called again and again it takes as much from its neighbours as
// one that never ends.
type burden struct {
	any atomic.Bool // whether there may be any

	mu   sync.Mutex
	cpu  time.Duration
	at   time.Time // when it was that much
	owed time.Duration
}

// add counts an invocation that ended now, and the rest that it leaves to the next.
func (b *burden) add(now time.Time, cpu, rest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	b.cpu = min(b.cpu+cpu, mostBurden)
	if b.cpu > freely {
		b.owed = min(b.owed+rest, mostOwed)
	}
	b.any.Store(true)
}

// heavy reports whether the version has had more than its share, and takes over the
// rest that it owes.
func (b *burden) heavy(now time.Time) (yes bool, owed time.Duration) {
	if !b.any.Load() {
		return false, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	owed, b.owed = b.owed, 0
	return b.cpu > freely, owed
}

// settle lets the share of the time that has passed go. The mutex is held.
func (b *burden) settle(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.cpu = max(b.cpu-passed/shareOf, 0)
		b.at = now
	}
	if b.cpu <= freely {
		b.owed = 0
	}
	if b.cpu == 0 {
		b.any.Store(false)
	}
}

// company tells whether several versions are invoked in one process. Where one is by
// itself, nobody is disturbed but its own callers, and resting would only cost them.
type company struct {
	last  atomic.Pointer[version] // the one invoked last
	mixed atomic.Int64            // when another was invoked before it, in nanoseconds since 1970
}

// invoked notes that a version is invoked now.
func (c *company) invoked(v *version, now time.Time) {
	if c.last.Load() != v {
		if c.last.Swap(v) != nil {
			c.mixed.Store(now.UnixNano())
		}
	}
}

// forget lets go of a version.
func (c *company) forget(v *version) { c.last.CompareAndSwap(v, nil) }

// kept reports whether it is one of several.
func (c *company) kept(now time.Time) bool {
	return now.UnixNano()-c.mixed.Load() < int64(lately)
}

package wasm

import "time"

// How guests that compute for long share the processors with those that answer quickly.
const (
	// longAfter is what a guest computes before anything is asked of it.
	longAfter = 2 * time.Millisecond
	// longTurn is what it then computes before it looks whether others wanted to.
	longTurn = 250 * time.Microsecond
	// crowded is by how many times the wait that it saw it rests.
	crowded = 64
	// mostRest is the longest rest, in turns: what is left is the least share of a
	// processor that it gets while the machine is busy.
	mostRest = 9
	// leastRest is the shortest that is worth a timer.
	leastRest = 100 * time.Microsecond
)

// pace has a guest that computes for long rest while others want the processor. What
// it waited for a processor during its turn tells whether they do: nobody waits on a
// machine that has one to spare, and there it goes on at once. So whoever holds up one
// that answers quickly, in the kernel or in the runtime of Go, does so for a turn and
// not for a slice of the kernel's.
type pace struct {
	free  time.Duration // that the guest computes before it is asked
	turns bool          // it takes turns
	cpu   time.Duration // that the guest had computed when the turn began
	wall  time.Time     // when the turn began, or the guest before its first
}

// rest is told how far the guest is, and says how long it should rest now.
func (p *pace) rest(now time.Time, cpu time.Duration) time.Duration {
	turn := cpu - p.cpu
	if !p.turns || cpu < p.free || turn < longTurn {
		return 0
	}
	return p.left(now, cpu)
}

// left is the rest for what the guest has computed since its turn began.
func (p *pace) left(now time.Time, cpu time.Duration) time.Duration {
	turn := cpu - p.cpu
	wait := max(now.Sub(p.wall)-turn, 0)
	return min(crowded*wait, mostRest*turn)
}

// away tells that the guest waited for something other than a processor.
func (p *pace) away(d time.Duration) { p.wall = p.wall.Add(d) }

// begin is told when the next turn begins.
func (p *pace) begin(now time.Time, cpu time.Duration) {
	p.turns, p.wall, p.cpu = true, now, cpu
}

// pause waits for d, or until something comes by wake.
func pause(d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	}
}

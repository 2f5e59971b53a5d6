package native

import "time"

// How an invocation that computes for long shares processors with others.
const (
	// longAfter is when an invocation is looked at first. Most are over by then.
	longAfter = 8 * time.Millisecond
	// paceEvery is how often it is looked at after that.
	paceEvery = 100 * time.Millisecond
	// longCompute is what it may have computed by the first look without making way.
	longCompute = 6 * time.Millisecond
	// leastShare is how much of a processor it gets at least, in percent, over two looks:
	// who makes way for everybody would get nothing while the machine is busy.
	leastShare = 20
)

// manners has an invocation that computes for long make way for those that answer
// quickly: whoever wakes up beside it runs at once, and does not wait for the end of its
// turn. It loses little by that, since the others want little. When it would be starved,
// it competes again for a while.
type manners struct {
	cell    cell
	yields  bool
	refused bool
	looked  bool
	seen    time.Duration
}

// look is told what the invocation has computed so far.
func (m *manners) look(used time.Duration) {
	first, got := !m.looked, used-m.seen
	m.looked, m.seen = true, used
	if first {
		m.set(got >= longCompute)
		return
	}
	starved := m.yields && got < paceEvery*leastShare/100
	m.set(!starved && got >= longCompute)
}

func (m *manners) set(yields bool) {
	if m.refused || yields == m.yields {
		return
	}
	do := m.cell.Compete
	if yields {
		do = m.cell.Yield
	}
	if do() != nil {
		m.refused = true // this machine has no such thing: turns are as long as the kernel's
		return
	}
	m.yields = yields
}

// end leaves the sandbox as any other.
func (m *manners) end() { m.set(false) }

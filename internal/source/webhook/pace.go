package webhook

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Defaults and bounds of how many requests of a trigger are looked at and let in.
const (
	DefaultRate = 500 // requests a second
	MaxRate     = 100_000
	// strangersTimes the rate is what is read and verified for all strangers together.
	strangersTimes = 4
	maxSenders     = 1024 // strangers that are told apart, and senders that are known
	// maxAnnounced is the most that a request is taken to have, in bytes.
	maxAnnounced = 1 << 20
	ordinary     = 64 << 10 // bytes of a request that counts once; a larger one counts oftener
)

// pace bounds how many requests of one trigger are read and verified, and how many are let
// in. Anybody can have us read a body of a megabyte, and it costs what it costs also when
// its signature is wrong; so before that the address decides. An address is a stranger's
// until something new came from it that was verified: strangers have half of the rate
// each, and strangersTimes the rate together. Who is known has a share that no stranger
// can use up, and keeps it when strangers are many. What was verified then counts against
// the trigger's rate, and nothing else does.
type pace struct {
	rate     rate.Limit
	verified *rate.Limiter // what is let in
	all      *rate.Limiter // strangers, together

	mu      sync.Mutex
	senders map[netip.Prefix]*rate.Limiter // strangers
	others  *rate.Limiter                  // of those that found no place among them
	known   map[netip.Prefix]*familiar
}

// familiar is an address that something verified came from.
type familiar struct {
	*rate.Limiter
	last time.Time
}

func newPace(perSecond int) *pace {
	r := rate.Limit(perSecond)
	return &pace{
		rate: r, verified: rate.NewLimiter(r, perSecond), all: rate.NewLimiter(strangersTimes*r, strangersTimes*perSecond),
		senders: map[netip.Prefix]*rate.Limiter{}, others: rate.NewLimiter(r/2, max(1, perSecond/2)),
		known: map[netip.Prefix]*familiar{},
	}
}

// admit says how long a request from an address should have waited before it is read; zero
// lets it in. Its size is in bytes, below zero when it was not announced.
func (p *pace) admit(now time.Time, from netip.Addr, size int64) time.Duration {
	if size < 0 {
		size = maxAnnounced
	}
	n := 1 + int(min(size, maxAnnounced)/ordinary)
	p.mu.Lock()
	defer p.mu.Unlock()
	who, ok := network(from)
	if s := p.known[who]; ok && s != nil {
		return wait(s.Limiter, now, n)
	}
	one := p.others
	if ok {
		one = p.stranger(now, who)
	}
	// Where little is let in at all, the largest request takes everything there is.
	n = min(n, one.Burst())
	r := one.ReserveN(now, n)
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		return d
	}
	if d := wait(p.all, now, n); d > 0 {
		r.CancelAt(now) // it was not used
		return d
	}
	return 0
}

// wait takes n from a limiter, or says how long that would have to wait and takes nothing.
func wait(l *rate.Limiter, now time.Time, n int) time.Duration {
	r := l.ReserveN(now, min(n, l.Burst()))
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// take says how long a request that was verified should have waited before it is let in;
// zero lets it in.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return wait(p.verified, now, 1)
}

// believe notes an address that something verified and new came from: a copy of what
// somebody recorded makes nobody known. When there are too many, the one goes from which
// nothing came for longest.
func (p *pace) believe(now time.Time, from netip.Addr) {
	who, ok := network(from)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.known[who]; s != nil {
		s.last = now
		return
	}
	if len(p.known) >= maxSenders {
		var oldest netip.Prefix
		var at time.Time
		for k, s := range p.known {
			if !oldest.IsValid() || s.last.Before(at) {
				oldest, at = k, s.last
			}
		}
		delete(p.known, oldest)
	}
	delete(p.senders, who)
	p.known[who] = &familiar{rate.NewLimiter(p.rate, p.verified.Burst()), now}
}

// network is what is told apart. Who has a network of IPv6 has all of its addresses.
func network(from netip.Addr) (netip.Prefix, bool) {
	from = from.Unmap()
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	who, err := from.Prefix(bits)
	return who, err == nil && from.IsValid()
}

// stranger is an address's own limiter.
func (p *pace) stranger(now time.Time, who netip.Prefix) *rate.Limiter {
	if l := p.senders[who]; l != nil {
		return l
	}
	if len(p.senders) >= maxSenders {
		for k, l := range p.senders { // one that has its whole share is as good as new
			if l.TokensAt(now) >= float64(l.Burst()) {
				delete(p.senders, k)
			}
		}
		if len(p.senders) >= maxSenders {
			return p.others
		}
	}
	l := rate.NewLimiter(p.rate/2, p.others.Burst())
	p.senders[who] = l
	return l
}

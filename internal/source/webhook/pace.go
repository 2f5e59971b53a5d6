package webhook

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Defaults and bounds of how many requests of a trigger are looked at.
const (
	DefaultRate = 500 // requests a second
	MaxRate     = 100_000
	maxSenders  = 1024 // addresses that are told apart
	// maxAnnounced is the most that a request is taken to have, in bytes.
	maxAnnounced = 1 << 20
	ordinary     = 64 << 10 // bytes of a request that counts once; a larger one counts oftener
)

// pace bounds how many requests of one trigger are read and verified: who sends them is
// not known before, and a body of a megabyte costs what it costs also when its signature
// is wrong. One address gets half of it at most, so that a single stranger does not keep
// the provider out.
type pace struct {
	each rate.Limit // of one address, a second
	all  *rate.Limiter

	mu      sync.Mutex
	senders map[netip.Prefix]*rate.Limiter
	others  *rate.Limiter // of those that found no place among them
}

func newPace(perSecond int) *pace {
	half := rate.Limit(perSecond) / 2
	return &pace{
		each: half, all: rate.NewLimiter(rate.Limit(perSecond), perSecond),
		senders: map[netip.Prefix]*rate.Limiter{}, others: rate.NewLimiter(half, max(1, perSecond/2)),
	}
}

// admit says how long a request from an address should have waited; zero lets it in. Its
// size is in bytes, below zero when it was not announced.
func (p *pace) admit(now time.Time, from netip.Addr, size int64) time.Duration {
	if size < 0 {
		size = maxAnnounced
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.of(now, from)
	// Where little is let in at all, the largest request takes everything there is.
	n := min(1+int(min(size, maxAnnounced)/ordinary), one.Burst())
	r := one.ReserveN(now, n)
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		return d
	}
	whole := p.all.ReserveN(now, n)
	if d := whole.DelayFrom(now); d > 0 {
		whole.CancelAt(now)
		r.CancelAt(now) // it was not used
		return d
	}
	return 0
}

// of is an address's own limiter. Who has a network of IPv6 has all of its addresses.
func (p *pace) of(now time.Time, from netip.Addr) *rate.Limiter {
	from = from.Unmap()
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	who, err := from.Prefix(bits)
	if err != nil {
		return p.others // no address
	}
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
	l := rate.NewLimiter(p.each, p.others.Burst())
	p.senders[who] = l
	return l
}

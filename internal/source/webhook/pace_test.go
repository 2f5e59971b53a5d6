package webhook

import (
	"net/netip"
	"testing"
	"time"
)

func address4(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) //nolint:gosec // of tests, small
}

// admitted counts how many of n requests are let in at once.
func admitted(p *pace, now time.Time, from netip.Addr, size int64, n int) int {
	in := 0
	for range n {
		if p.admit(now, from, size) == 0 {
			in++
		}
	}
	return in
}

func TestAttackOneAddressGetsHalfOfTheRate(t *testing.T) {
	t.Parallel()
	p := newPace(100)
	if n := admitted(p, instant, address4(1), 10, 1000); n != 50 {
		t.Errorf("a stranger: %d", n)
	}
	if n := admitted(p, instant, address4(2), 10, 1000); n != 50 {
		t.Errorf("the provider beside it: %d", n)
	}
	if n := admitted(p, instant, address4(3), 10, 1000); n != 0 {
		t.Errorf("beyond the whole: %d", n)
	}
	if wait := p.admit(instant, address4(3), 10); wait <= 0 || wait > time.Second {
		t.Errorf("it is to wait %v", wait)
	}
	later := instant.Add(time.Second)
	if n := admitted(p, later, address4(3), 10, 1000); n != 50 {
		t.Errorf("a second later: %d", n)
	}
}

func TestAttackLargeBodiesCountOftener(t *testing.T) {
	t.Parallel()
	for size, want := range map[int64]int{0: 50, ordinary - 1: 50, ordinary: 25, 1 << 20: 2, 1 << 40: 2, -1: 2} {
		if n := admitted(newPace(100), instant, address4(1), size, 1000); n != want {
			t.Errorf("%d bytes: %d, want %d", size, n, want)
		}
	}
	// The slowest trigger takes the largest request all the same.
	if n := admitted(newPace(1), instant, address4(1), 1<<20, 10); n != 1 {
		t.Errorf("at one a second: %d", n)
	}
}

func TestAttackAddressesWithoutEnd(t *testing.T) {
	t.Parallel()
	p := newPace(MaxRate)
	network := netip.MustParseAddr("2001:db8::1").As16()
	for i := range 4 * MaxRate { // all of one network
		network[15], network[14], network[13] = byte(i), byte(i>>8), byte(i>>16)
		p.admit(instant, netip.AddrFrom16(network), 1)
	}
	if len(p.senders) != 1 {
		t.Errorf("one network has %d places", len(p.senders))
	}
	if p.admit(instant, netip.AddrFrom16(network), 1) == 0 {
		t.Error("one network gets all there is")
	}
	for i := range 4 * maxSenders {
		p.admit(instant, address4(i), 1)
	}
	if len(p.senders) > maxSenders {
		t.Errorf("%d places", len(p.senders))
	}
	// Those who have been quiet make room.
	p.admit(instant.Add(time.Hour), address4(1<<20), 1)
	if len(p.senders) > 2 {
		t.Errorf("%d places after an hour", len(p.senders))
	}
	if p.admit(instant.Add(time.Hour), netip.Addr{}, 1) != 0 {
		t.Error("who has no address is let in like others")
	}
	if p.admit(instant.Add(time.Hour), netip.MustParseAddr("::ffff:10.0.0.1"), 1) != 0 {
		t.Error("an address in the other family's form is let in like others")
	}
}

func TestHooksAdmitByTheTriggersRate(t *testing.T) {
	t.Parallel()
	o := opened(t, `{"path":"/in","provider":"github","rate":4}`, secrets(map[string]string{"key": testKey}), &memory{})
	in := 0
	for range 10 {
		if o.hooks.Admit("shop", "/in", address4(1), 1) == 0 {
			in++
		}
	}
	if in != 2 {
		t.Errorf("%d were let in", in)
	}
	if o.hooks.Admit("shop", "/none", address4(1), 1) != 0 || o.hooks.Admit("default", "/in", address4(1), 1) != 0 {
		t.Error("another path has a rate")
	}
	o.wait(time.Second)
	if wait := o.hooks.Admit("shop", "/in", address4(1), 1); wait != 0 {
		t.Errorf("a second later: it is to wait %v", wait)
	}
}

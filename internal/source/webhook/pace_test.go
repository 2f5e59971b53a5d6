package webhook

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
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

func TestAttackStrangersKeepOutNobodyWhoIsKnown(t *testing.T) {
	t.Parallel()
	p := newPace(100)
	provider := address4(0)
	if n := admitted(p, instant, provider, 10, 1000); n != 50 {
		t.Errorf("the provider as a stranger: %d", n)
	}
	p.believe(instant, provider)
	now := instant.Add(time.Hour)
	strangers := 0
	for i := range 100 {
		n := admitted(p, now, address4(1+i), 10, 1000)
		if strangers += n; n > 50 {
			t.Errorf("one stranger: %d", n)
		}
	}
	if strangers != strangersTimes*100 {
		t.Errorf("all strangers: %d", strangers)
	}
	if wait := p.admit(now, address4(200), 10); wait <= 0 || wait > time.Second {
		t.Errorf("one more is to wait %v", wait)
	}
	if n := admitted(p, now, provider, 10, 1000); n != 100 {
		t.Errorf("the provider beside them: %d", n)
	}
	if wait := p.admit(now, provider, 10); wait <= 0 || wait > time.Second {
		t.Errorf("the provider is to wait %v", wait)
	}
	if n := admitted(p, now.Add(time.Second), provider, 10, 1000); n != 100 {
		t.Errorf("a second later: %d", n)
	}
}

func TestAttackKnownAddressesWithoutEnd(t *testing.T) {
	t.Parallel()
	p := newPace(10)
	for i := range 2 * maxSenders {
		p.believe(instant.Add(time.Duration(i)*time.Second), address4(i))
		p.believe(instant.Add(time.Duration(i)*time.Second), address4(0)) // comes all the time
	}
	if len(p.known) != maxSenders {
		t.Errorf("%d are known", len(p.known))
	}
	for i, want := range map[int]bool{0: true, 1: false, 2*maxSenders - 1: true} {
		who, _ := network(address4(i))
		if got := p.known[who] != nil; got != want {
			t.Errorf("address %d is known: %v", i, got)
		}
	}
	p.believe(instant, netip.Addr{})
	if len(p.known) != maxSenders {
		t.Error("who has no address is known")
	}
}

// The trigger's rate is for what was verified: neither what is refused nor what comes a
// second time uses it up, nor does either make its sender known.
func TestAttackOnlyWhatIsVerifiedAndNewCounts(t *testing.T) {
	t.Parallel()
	o := opened(t, strings.Replace(timedSettings, `{"path"`, `{"rate":2,"path"`, 1), secrets(map[string]string{"key": testKey}), &memory{})
	send := func(from int, r Request) error {
		r.From = address4(from)
		_, err := o.receive(t, r)
		return err
	}
	known := func(from int) bool {
		who, _ := network(address4(from))
		return o.hooks.doors[address{"shop", "/in"}].pace.known[who] != nil
	}
	forged := timed("x", instant, "x")
	forged.Body = []byte("y")
	for range 10 {
		if send(1, forged) == nil {
			t.Error("what nobody signed was taken")
		}
	}
	first := timed("a", instant, "x")
	if err := send(2, first); err != nil {
		t.Error(err)
	}
	for range 10 {
		if err := send(3, first); err != nil {
			t.Errorf("a copy: %v", err)
		}
	}
	if known(1) || !known(2) || known(3) {
		t.Errorf("known are %v, %v and %v; want the second alone", known(1), known(2), known(3))
	}
	if err := send(4, timed("b", instant, "x")); err != nil {
		t.Error(err)
	}
	var no *Refusal
	var busy *source.BusyError
	if err := send(2, timed("c", instant, "x")); !errors.As(err, &no) || no.Status() != 429 || !errors.As(err, &busy) || busy.RetryAfter <= 0 {
		t.Errorf("beyond the rate: %v", err)
	}
	o.wait(time.Second)
	if err := send(2, timed("c", instant, "x")); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if o.sink.count() != 3 {
		t.Errorf("%d events", o.sink.count())
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

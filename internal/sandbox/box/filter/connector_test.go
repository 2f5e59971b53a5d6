package filter

import (
	"maps"
	"slices"
	"testing"
)

// TestConnectorsMayNoMoreThanNativeGuests holds the two lists against each other: what
// is refused to a guest must not come in by this one.
func TestConnectorsMayNoMoreThanNativeGuests(t *testing.T) {
	t.Parallel()
	native := nativePolicy()
	for _, start := range []bool{false, true} {
		p := connectorPolicy(start)
		for _, name := range p.allow {
			if !slices.Contains(native.allow, name) {
				t.Errorf("start %t: %s is allowed", start, name)
			}
		}
		for name := range p.check {
			if native.check[name] == nil && (start || name != "prlimit64") {
				t.Errorf("start %t: %s is allowed for some arguments", start, name)
			}
		}
		if !maps.Equal(p.refuse, native.refuse) {
			t.Errorf("start %t: other refusals", start)
		}
		for _, a := range []arch{amd64(), arm64()} {
			m, numbers := boot(t, p, a), all(t, a)
			for name, c := range map[string]struct {
				args    []uint64
				allowed bool
			}{
				"ptrace": {nil, false}, "mount": {nil, false}, "bpf": {nil, false}, "unshare": {nil, false}, "process_vm_readv": {nil, false},
				"listen": {nil, false}, "bind": {nil, false}, "fchmodat": {nil, false}, "unlinkat": {nil, false}, "pidfd_open": {nil, false},
				"connect": {nil, true}, "openat": {nil, true}, "execve": {nil, start}, "kill": {nil, start}, "execveat": {nil, false},
			} {
				number, known := numbers[name]
				if got := known && m.ask(number, c.args...) == actAllow; got != c.allowed {
					t.Errorf("start %t, %s: %s allowed %t", start, a.name, name, got)
				}
			}
			for _, c := range []struct {
				name    string
				args    []uint64
				allowed bool
			}{
				{"socket", []uint64{afUnix, sockStream}, false},
				{"socket", []uint64{16, 3}, false}, // netlink
				{"socket", []uint64{17, 3}, false}, // packets
				{"socket", []uint64{afInet, 3, 1}, false},
				{"socket", []uint64{afInet, sockStream | 0x80800, protoTCP}, true},
				{"socket", []uint64{afInet6, sockDgram, 0}, true},
				{"clone", []uint64{cloneVM | cloneSighand | cloneThread}, true},
				{"clone", []uint64{0x4111 /* vfork */}, start},
				{"clone", []uint64{17 /* fork */}, start},
				{"clone", []uint64{0x10000000 | 17 /* a user namespace */}, false},
				{"clone", []uint64{0x28000000 | 0x4111}, start},
				{"clone", []uint64{cloneThread | 0x10000000}, false},
				{"prlimit64", []uint64{0, 7}, true},
				{"prlimit64", []uint64{4711, 7}, start},
			} {
				if got := m.ask(numbers[c.name], c.args...) == actAllow; got != c.allowed {
					t.Errorf("start %t, %s: %s%x allowed %t", start, a.name, c.name, c.args, got)
				}
			}
		}
	}
}

func all(t testing.TB, a arch) map[string]uint32 {
	t.Helper()
	known, err := numbersFor(a)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint32{}
	for name, n := range known {
		if n >= 0 {
			out[name] = uint32(n)
		}
	}
	return out
}

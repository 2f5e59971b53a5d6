package inner

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/sandbox/box/machine"
)

// order asks for everything that there is.
func order() *Order {
	return &Order{
		Program: "/var/task/bootstrap", Args: []string{"bootstrap"}, Env: []string{"A=1"}, Dir: "/var/task",
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9001"), netip.MustParseAddrPort("[::1]:9001")},
		Proc:   true, UsualTimes: true, Tmp: 1 << 20, TmpInodes: 64, Filter: make([]byte, 8), Stdout: true, Stderr: true, Files: 2, Code: true,
		Limits: []Limit{{"open files", unix.RLIMIT_NOFILE, 16}}, Capabilities: 41,
		Landlock: &landlock.Prepared{Attributes: make([]byte, 24), Paths: []landlock.PreparedRule{{Path: "/"}, {Path: "/tmp"}}},
	}
}

func frame(numbers ...uint64) []byte {
	var out []byte
	for _, n := range numbers {
		out = binary.NativeEndian.AppendUint64(out, n)
	}
	return out
}

func TestRead(t *testing.T) {
	steps := Steps{"first", "second"}
	second := uint64(machine.Place(1).At())
	minus := func(e syscall.Errno) uint64 { return -uint64(e) }
	for name, c := range map[string]struct {
		frame []byte
		want  Said
	}{
		"started":             {frame(saysStarted, 0, 0, 0), Said{Started: true}},
		"answer":              {frame(saysAnswer, 7, 3, 9), Said{Answer: 7}},
		"error":               {frame(saysAnswer, 7, minus(unix.ESRCH), 9), Said{Answer: 7, Err: unix.ESRCH}},
		"exited":              {frame(saysExited, 1, 0x0900, 1), Said{Exited: true, Status: 0x0900}},
		"failed":              {frame(saysFailed, 0, second, minus(unix.EPERM)), Said{Failed: "second", Why: unix.EPERM}},
		"other than planned":  {frame(saysFailed, 0, second, 5), Said{Failed: "second"}},
		"short":               {frame(saysStarted, 0, 0), Said{}},
		"long":                {frame(saysStarted, 0, 0, 0, 0), Said{}},
		"nothing":             {nil, Said{}},
		"no kind":             {frame(0, 0, 0, 0), Said{}},
		"unknown kind":        {frame(saysFailed+1, 0, 0, 0), Said{}},
		"answer to nothing":   {frame(saysAnswer, 0, 0, 0), Said{}},
		"failed at no step":   {frame(saysFailed, 0, 0, 0), Said{}},
		"failed after it all": {frame(saysFailed, 0, uint64(machine.Place(2).At()), 0), Said{}},
	} {
		got, err := Read(c.frame, steps)
		if got != c.want || (err != nil) != (c.want == Said{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(frame(saysStarted, 0, 0, 0))
	f.Add(frame(saysFailed, 0, uint64(machine.Place(1).At()), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(b, Steps{"first", "second"})
		kinds := 0
		for _, is := range []bool{s.Started, s.Answer != 0, s.Exited, s.Failed != ""} {
			if is {
				kinds++
			}
		}
		if err != nil && s != (Said{}) || err == nil && kinds != 1 {
			t.Errorf("%x: %+v, %v", b, s, err)
		}
	})
}

// What does not fit is refused before there is a box.
func TestOrdersThatCannotBeMade(t *testing.T) {
	for name, spoil := range map[string]func(*Order){
		"program":     func(o *Order) { o.Program = "/a\x00b" },
		"argument":    func(o *Order) { o.Args = []string{"a", "b\x00"} },
		"environment": func(o *Order) { o.Env = []string{"A=\x00"} },
		"directory":   func(o *Order) { o.Dir = "/\x00" },
		"size":        func(o *Order) { o.Env = []string{strings.Repeat("x", 1<<20)} },
	} {
		o := order()
		if _, err := Make(o); err != nil {
			t.Fatal(err)
		}
		spoil(o)
		if l, err := Make(o); err == nil || errors.Is(err, unix.E2BIG) != (name == "size") {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func BenchmarkMake(b *testing.B) {
	o := order()
	b.ReportAllocs()
	for b.Loop() {
		l, err := Make(o)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(l.Packet)), "packet-B")
	}
}

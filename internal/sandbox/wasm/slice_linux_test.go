package wasm

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/function"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// sliceOf is the slice of a thread, 0 for the calling one.
func sliceOf(t *testing.T, thread int) time.Duration {
	t.Helper()
	a, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(a.Runtime)
}

// wantSlices skips where the kernel gives threads no slices of their own.
func wantSlices(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	s := newSlice()
	s.lengthen(longSlice)
	if sliceOf(t, 0) != longSlice {
		t.Skip("this kernel gives threads no slices of their own")
	}
	s.restore()
}

// TestLongGuestMakesWay sees a guest's thread have the long slice once it takes long,
// by its ticks or by its calls of the host, and the one it had before when it has ended and is cleared away. A guest
// that ends soon never has the long one.
func TestLongGuestMakesWay(t *testing.T) {
	t.Parallel()
	wantSlices(t)
	e := newEngine(t, "")
	before := sliceOf(t, 0)
	// The guest's own thread asks for the time: at each tick, and when it answers.
	var running *invocation
	long := false
	e.srv.clock = func() time.Time {
		if running != nil && sliceOf(t, 0) == longSlice {
			long = true
			running.cancel()
		}
		return time.Now()
	}
	reading := func(times int32) []byte {
		body := st.Seq(st.Times(times, 0, move(1, 0, atBody, 4)), reply(0))
		return guest([]st.Func{fdRead}, st.Func{Name: "handle", Body: body, Locals: 2}).Encode()
	}
	limits := generous
	limits.CPU = 10 * time.Second
	for _, c := range []struct {
		name  string
		code  []byte
		entry function.Entry
		want  bool
	}{
		{"ticking", st.Spin(), function.EntryCommand, true},
		{"calling", reading(manyCalls + 1), function.EntryHandle, true},
		{"soon over", reading(2), function.EntryHandle, false},
	} {
		v, f := e.tryLoad(c.code, c.entry, limits)
		if f != nil {
			t.Fatal(f)
		}
		running, long = e.srv.takeInvocation(v), false
		running.begin(limits.Timeout, limits.CPU, noLimit)
		_ = running.enter()
		if kept := sliceOf(t, 0) == longSlice; kept != c.want {
			t.Errorf("%s: while it is cleared away, long is %v", c.name, kept)
		}
		running.leave()
		e.srv.giveInvocation(running)
		running = nil
		v.unload()
		if long != c.want {
			t.Errorf("%s: long is %v", c.name, long)
		}
		if d := sliceOf(t, 0); d != before {
			t.Errorf("%s: its thread has a slice of %v afterwards", c.name, d)
		}
	}
}

// TestSliceKeepsRank sets a slice in a thread of a lower rank, which stays what it is;
// threads of another policy are left alone.
func TestSliceKeepsRank(t *testing.T) {
	t.Parallel()
	wantSlices(t)
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Nice: 7}, 0); err != nil {
		t.Fatal(err)
	}
	s := newSlice()
	s.lengthen(longSlice)
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil || a.Nice != 7 || time.Duration(a.Runtime) != longSlice {
		t.Errorf("%+v, %v", a, err)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: 7}, 0); err != nil {
		t.Fatal(err)
	}
	s = newSlice()
	s.lengthen(longSlice)
	if a, err = unix.SchedGetAttr(0, 0); err != nil || a.Policy != unix.SCHED_BATCH || time.Duration(a.Runtime) == longSlice {
		t.Errorf("%+v, %v", a, err)
	}
}

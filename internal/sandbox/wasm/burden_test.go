package wasm

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

func TestBurdenIsLivedDown(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	want := func(b *burden, yes bool, owed time.Duration) {
		t.Helper()
		if y, o := b.heavy(now); y != yes || o != owed {
			t.Errorf("heavy is %v and owes %v, want %v and %v", y, o, yes, owed)
		}
	}
	b := &burden{}
	want(b, false, 0)
	b.add(now, freely, time.Millisecond)
	want(b, false, 0) // as much as it may
	b.add(now, 1, time.Millisecond)
	b.add(now, 1, time.Millisecond)
	want(b, true, 2*time.Millisecond)
	want(b, true, 0) // one invocation rests for all before it
	b.add(now, time.Hour, time.Hour)
	want(b, true, mostOwed)
	now = now.Add(shareOf*(mostBurden-freely) - shareOf)
	want(b, true, 0)
	b.add(now, 0, time.Millisecond)
	now = now.Add(shareOf)
	want(b, false, 0)
	now = now.Add(time.Hour)
	want(b, false, 0)
	if b.any.Load() {
		t.Error("it has lived down all and is still asked")
	}
	now = now.Add(-time.Hour) // a clock that goes back gives nothing
	b.add(now, mostBurden, 0)
	want(b, true, 0)
}

// taking is an engine whose clock goes by the time that the calling thread has computed,
// twice as fast, as if it waited for a processor half of the time, and ahead by idle.
func taking(t *testing.T, idle *time.Duration) *engine {
	t.Helper()
	e := newEngine(t, "")
	e.srv.out = wire.NewWriter(io.Discard)
	began := time.Now()
	e.srv.clock = func() time.Time { return began.Add(2*threadCPU() + *idle) }
	return e
}

// TestManyShortRunsMakeWay calls a guest again and again that ends before it is ever asked
// to rest. It rests before its next run, unless it is by itself or seldom called.
func TestManyShortRunsMakeWay(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		name   string
		idle   time.Duration // after each call
		beside bool
		want   bool
	}{
		{"beside another", 0, true, true},
		{"by itself", 0, false, false},
		{"seldom", time.Second, true, false},
	} {
		var idle time.Duration
		e := taking(t, &idle)
		rests := 0
		e.srv.pause = func(d time.Duration, _ <-chan struct{}) {
			if d < leastRest {
				t.Errorf("%s: it rests for %v", c.name, d)
			}
			rests++
		}
		often, other := e.load(st.Recurse(), function.EntryCommand), e.load(st.Hello(), function.EntryCommand)
		var computed time.Duration
		for computed < 20*freely {
			if c.beside {
				i := e.srv.takeInvocation(other)
				i.worker = &worker{crew: newCrew(e.srv, nil)}
				i.run()
				e.srv.giveInvocation(i)
			}
			i := e.srv.takeInvocation(often)
			i.worker = &worker{crew: newCrew(e.srv, nil)}
			before := rests
			i.run()
			if rested := rests > before; rested != (i.pace.free == 0) && rested {
				t.Errorf("%s: it rested and does not take turns", c.name)
			}
			computed += threadCPU() - i.cpuStart
			e.srv.giveInvocation(i)
			idle += c.idle
		}
		if (rests > 0) != c.want {
			t.Errorf("%s: it rested %d times", c.name, rests)
		}
	}
}

// TestCanceledWhileItRestsNeverBegins has the caller go while an invocation rests for those
// before it.
func TestCanceledWhileItRestsNeverBegins(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := taking(t, new(time.Duration))
	v, other := e.load(st.Recurse(), function.EntryCommand), e.load(st.Hello(), function.EntryCommand)
	for _, gone := range []bool{false, true} {
		now := e.srv.clock()
		e.srv.company.invoked(v, now)
		e.srv.company.invoked(other, now)
		v.burden.add(now, mostBurden, mostOwed)
		i := e.srv.takeInvocation(v)
		i.worker = &worker{crew: newCrew(e.srv, nil)}
		rested := false
		e.srv.pause = func(time.Duration, <-chan struct{}) {
			rested = true
			if gone {
				i.cancel()
			}
		}
		i.run()
		if !rested || (i.fuelSpent == 0) != gone {
			t.Errorf("gone %v: rested %v, and then it spent %d", gone, rested, i.fuelSpent)
		}
		e.srv.giveInvocation(i)
	}
}

// TestWaitingForAnswersIsNoWaitForAProcessor lets a guest wait in its host calls, on a
// clock that goes on by a second whenever it is read.
func TestWaitingForAnswersIsNoWaitForAProcessor(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	now := time.Now()
	e.srv.clock = func() time.Time { now = now.Add(time.Second); return now }
	v := e.load(st.Hello(), function.EntryCommand)
	for name, wait := range map[string]func(*invocation){
		"sleeping":              func(i *invocation) { i.Sleep(time.Microsecond) },
		"waiting for operation": func(i *invocation) { i.wake <- struct{}{}; i.operations().await(i) },
	} {
		i := e.srv.takeInvocation(v)
		began := i.begin(time.Hour, time.Hour, noLimit)
		wait(i)
		if d := i.pace.wall.Sub(began); d != time.Second {
			t.Errorf("%s: its turn began %v later", name, d)
		}
		e.srv.giveInvocation(i)
	}
}

package wasm

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

func TestPaceFollowsWhatTheGuestWaitedFor(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	const from = 10 * time.Millisecond
	for name, c := range map[string]struct {
		turn, wait, want time.Duration
	}{
		"a processor to itself":   {longTurn, 0, 0},
		"a clock that went back":  {longTurn, -time.Second, 0},
		"kept waiting for little": {longTurn, 10 * time.Microsecond, crowded * 10 * time.Microsecond},
		"kept waiting for long":   {longTurn, time.Second, mostRest * longTurn},
		"a long turn":             {4 * longTurn, time.Second, mostRest * 4 * longTurn},
		"in the middle of a turn": {longTurn - 1, time.Second, 0},
	} {
		p := pace{free: longAfter}
		if got := p.rest(began, from); got != 0 {
			t.Errorf("%s: it rests for %v before its first turn", name, got)
		}
		p.begin(began, from)
		if got := p.rest(began.Add(c.turn+c.wait), from+c.turn); got != c.want {
			t.Errorf("%s: it rests for %v, want %v", name, got, c.want)
		}
	}
	short := pace{free: longAfter}
	short.begin(began, 0)
	if got := short.rest(began.Add(time.Second), longAfter-1); got != 0 {
		t.Errorf("a guest that has computed for less than %v rests for %v", longAfter, got)
	}
}

// TestLongGuestRestsWhileOthersWant has a clock that runs ahead of the processor's, as on
// a machine where everybody waits: the guest rests again and again, yet computes as much as its limit
// allows. One that is cancelled while it rests ends.
func TestLongGuestRestsWhileOthersWant(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := newEngine(t, "")
	var ahead atomic.Int64
	e.srv.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Add(int64(5 * time.Millisecond)))) }
	rests := 0
	e.srv.pause = func(d time.Duration, _ <-chan struct{}) {
		if d < leastRest {
			t.Errorf("it rests for %v, less than is worth a timer", d)
		}
		rests++
	}
	limits := generous
	limits.Timeout = time.Hour
	limits.CPU = 20 * time.Millisecond
	v, f := e.tryLoad(st.Spin(), function.EntryCommand, limits)
	if f != nil {
		t.Fatal(f)
	}
	if o := e.run(v, ""); o.f == nil || o.f.kind != sandbox.CPU {
		t.Fatalf("it ended with %v", o.f)
	}
	if rests == 0 {
		t.Error("it never rested")
	}
	i := e.srv.takeInvocation(v)
	defer e.srv.giveInvocation(i)
	e.srv.pause = func(time.Duration, <-chan struct{}) { i.cancel() }
	i.begin(time.Hour, time.Hour, noLimit)
	if f := i.explain(i.enter(), false); f == nil || f.kind != sandbox.Canceled {
		t.Errorf("cancelled while it rested, it ended with %v", f)
	}
	i.leave()
}

package wasm

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// turns is code that goes round a loop as often as a word of the input says.
func turns(read int) []byte {
	return st.Seq(move(read, 0, atBody, 4),
		[]byte{0x03, 0x40}, st.Put32(600, st.Seq(st.Load(600), st.Const(1), []byte{0x6a})),
		st.Load(600), st.Load(atBody), []byte{0x49, 0x0d, 0, 0x0b}, reply(4))
}

// byEntry is one body in each form in which a guest can run it.
func byEntry(imports []st.Func, body []byte) map[string]struct {
	code  []byte
	entry function.Entry
} {
	command := guest(imports, st.Func{Name: "_start", Body: body, Locals: 2})
	handle := guest(imports, st.Func{Name: "handle", Body: body, Locals: 2})
	return map[string]struct {
		code  []byte
		entry function.Entry
	}{
		"command": {command.Encode(), function.EntryCommand}, "handle": {handle.Encode(), function.EntryHandle},
		"command, anew": {anew(command).Encode(), function.EntryCommand}, "handle, anew": {anew(handle).Encode(), function.EntryHandle},
	}
}

func word(n int) string { return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) }

// TestFuelIsTheSame runs one input twenty times, while others keep the machine busy:
// the fuel is the same each time, and grows with the work and nothing else.
func TestFuelIsTheSame(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	var done atomic.Bool
	var work sync.WaitGroup
	defer work.Wait()
	defer done.Store(true)
	for range runtime.GOMAXPROCS(0) + 1 {
		work.Go(func() {
			for b := []byte(nil); !done.Load(); b = append(b[:0], make([]byte, 1<<16)...) {
			}
		})
	}
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		v := e.load(c.code, c.entry)
		if strings.Contains(name, "anew") != (v.ready == nil) {
			t.Fatalf("%s: %s", name, v.why)
		}
		fuel := func(n int) int64 {
			o := e.run(v, word(n))
			if o.f != nil {
				t.Fatalf("%s: %v", name, o.f)
			}
			return o.fuel
		}
		const many = 200_000 // some ticks' worth
		first := fuel(many)
		for range 19 {
			if got := fuel(many); got != first {
				t.Errorf("%s: the fuel is %d, then %d", name, first, got)
			}
		}
		if a, b := fuel(2*many)-first, fuel(3*many)-fuel(2*many); a != b || a <= many {
			t.Errorf("%s: the same work takes %d and %d more", name, a, b)
		}
	}
}

// TestComputingIsBounded ends a guest that computes for too long, and counts no time
// in which it sleeps.
func TestComputingIsBounded(t *testing.T) {
	t.Parallel()
	if threadCPU() == 0 {
		t.Skip("this system does not tell what a thread has used")
	}
	e := newEngine(t, "")
	limits := generous
	limits.CPU = 200 * time.Millisecond // where a machine is shared, it may count its neighbours' too
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		v, f := e.tryLoad(c.code, c.entry, limits)
		if f != nil {
			t.Fatal(f)
		}
		for range 2 {
			if o := e.run(v, word(-1)); o.f == nil || o.f.kind != sandbox.CPU || !strings.Contains(o.f.public, "200ms") {
				t.Errorf("%s: computing without end gave %v", name, o.f)
			}
			if o := e.run(v, word(5)); o.f != nil {
				t.Errorf("%s: after that, a little gave %v", name, o.f)
			}
		}
		v.unload()
	}
	sleep := st.Seq(st.Put32(4096+16, st.Const(1)), st.Const(4096+24), st.Const64(int64(300*time.Millisecond)), []byte{0x37, 3, 0},
		st.Call(1, st.Const(4096), st.Const(4096+128), st.Const(1), st.Const(atCount)), st.Drop, reply(0))
	v, f := e.tryLoad(guest([]st.Func{pollOneoff}, st.Func{Name: "handle", Body: sleep}).Encode(), function.EntryHandle, limits)
	if f != nil {
		t.Fatal(f)
	}
	defer v.unload()
	e.want(v, "", "")
}

// TestBudgetIsUp has somebody else hold all memory: nothing begins, the failure says
// that it is not the function's, and afterwards all goes on.
func TestBudgetIsUp(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	loaded := map[string]*version{}
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		loaded[name] = e.load(c.code, c.entry)
	}
	hog, err := e.srv.memory.New(DefaultMemory)
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	for range 2 {
		if !hog.Begin(DefaultMemory - 3*pageSize) { // a guest has four pages
			t.Fatal("something is in use already")
		}
		for name, v := range loaded {
			for range 2 {
				if o := e.run(v, word(3)); o.f == nil || o.f.kind != sandbox.Unavailable {
					t.Errorf("%s: without memory it gave %v", name, o.f)
				}
			}
		}
		for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
			if _, f := e.tryLoad(c.code, c.entry, generous); !strings.Contains(name, "anew") && (f == nil || f.kind != sandbox.Unavailable) {
				t.Errorf("%s: loading without memory gave %v", name, f)
			}
		}
		hog.End()
		for _, v := range loaded {
			e.want(v, word(3), word(3))
		}
	}
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// TestMoreThanItsLimitToStart is refused before anything is laid out for it.
func TestMoreThanItsLimitToStart(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for _, pages := range []uint32{1025, 40_000} {
		_, f := e.tryLoad(st.Greedy(pages), function.EntryCommand, generous)
		if f == nil || f.kind != sandbox.Memory || !strings.Contains(f.public, "64 MiB") {
			t.Errorf("%d pages gave %v", pages, f)
		}
	}
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// TestDeepestStack sees how much a guest that calls itself for ever holds when it is
// stopped. Fuel decides when that is, so it is the same each time.
func TestDeepestStack(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	v := e.load(st.Recurse(), function.EntryCommand)
	i := e.srv.takeInvocation(v)
	defer e.srv.giveInvocation(i)
	i.begin(generous.Timeout, time.Minute, noLimit)
	f := i.explain(i.enter(), false)
	size := i.inst.stack.size()
	i.leave()
	if f == nil || f.kind != sandbox.Stack {
		t.Fatalf("it ended with %v", f)
	}
	if size <= maxStack || size > deepestStack {
		t.Errorf("its stack had %d bytes when it was stopped", size)
	}
}

// deepestStack is what a guest may have taken, in bytes, before a tick looks.
const deepestStack = 8 << 20

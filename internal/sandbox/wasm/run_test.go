package wasm

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// Functions that the guests of these tests import.
var (
	i32x4      = []byte{st.I32, st.I32, st.I32, st.I32}
	one        = []byte{st.I32}
	fdRead     = st.Func{Name: "fd_read", Params: i32x4, Results: one}
	fdWrite    = st.Func{Name: "fd_write", Params: i32x4, Results: one}
	fdClose    = st.Func{Name: "fd_close", Params: one, Results: one}
	clockGet   = st.Func{Name: "clock_time_get", Params: []byte{st.I32, st.I64, st.I32}, Results: one}
	randomGet  = st.Func{Name: "random_get", Params: []byte{st.I32, st.I32}, Results: one}
	procExit   = st.Func{Name: "proc_exit", Params: one}
	pollOneoff = st.Func{Name: "poll_oneoff", Params: i32x4, Results: one}
	opCall     = st.Func{Name: "call", From: importModule, Params: i32x4, Results: one}
	opSubmit   = st.Func{Name: "submit", From: importModule, Params: i32x4, Results: one}
	opPoll     = st.Func{Name: "poll", From: importModule, Results: one}
	opSize     = st.Func{Name: "size", From: importModule, Params: one, Results: one}
	opRead     = st.Func{Name: "read", From: importModule, Params: []byte{st.I32, st.I32, st.I32}, Results: one}
)

// Where the guests keep things.
const (
	atVector = 0
	atCount  = 8
	atHead   = 64
	atBody   = 1024
)

const headLine = "{\"status\":200}\n"

// move is code that has function fn, fd_read or fd_write, move n bytes.
func move(fn int, fd, at, n int32) []byte {
	return st.Seq(st.Put32(atVector, st.Const(at)), st.Put32(atVector+4, st.Const(n)),
		st.Call(fn, st.Const(fd), st.Const(atVector), st.Const(1), st.Const(atCount)), st.Drop)
}

// reply answers with n bytes of body; function 0 is fd_write.
func reply(n int32) []byte {
	return st.Seq(move(0, 1, atHead, int32(len(headLine))), move(0, 1, atBody, n))
}

// guest is a module whose function 0 is fd_write, before what else it imports.
func guest(imports []st.Func, funcs ...st.Func) st.Module {
	return st.Module{
		Imports: append([]st.Func{fdWrite}, imports...), Memory: 4, Globals: 2, Funcs: funcs,
		Data: []st.Data{{At: atHead, Bytes: []byte(headLine)}},
	}
}

// anew makes a module that changes its table, so that its instances are used once.
func anew(m st.Module) st.Module {
	m.Table = 1
	m.Funcs = append(m.Funcs, st.Func{Body: st.Seq([]byte{0xd0, 0x70}, st.Const(0), []byte{0xfc, 15, 0}, st.Drop)})
	return m
}

// testClock is a clock that the test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// withClock gives an engine whose time the test moves.
func withClock(t *testing.T) (*engine, *testClock) {
	t.Helper()
	e := newEngine(t, "")
	c := &testClock{now: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)}
	e.srv.clock, e.srv.epoch = c.read, c.read()
	return e, c
}

// prepared loads a version with a preparation.
func (e *engine) prepared(code []byte, entry function.Entry, limits function.Limits, input string) (*version, *failure) {
	e.tb.Helper()
	machine, f := compileOnce(code)
	if f != nil {
		e.tb.Fatal(f)
	}
	v, f := e.srv.load(wire.LoadSpec{
		Name: "guest", Digest: function.DigestOf(code), Size: int64(len(machine) + len(input)), Entry: entry, Limits: limits,
		Prepare: int64(len(input)),
	}, append(machine, input...))
	if f == nil {
		e.tb.Cleanup(v.unload)
	}
	return v, f
}

// outcome is what is seen of one run.
type outcome struct {
	body, log   string
	fuel, calls int64
	f           *failure
}

// run runs the version once, and leaves the head line out of what it answers.
func (e *engine) run(v *version, input string) outcome {
	o := e.runWhole(v, input)
	o.body = strings.TrimPrefix(o.body, headLine)
	return o
}

// runWhole runs the version once.
func (e *engine) runWhole(v *version, input string) (o outcome) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	i := e.srv.takeInvocation(v)
	defer e.srv.giveInvocation(i)
	i.input = append(i.input[:0], input...)
	limits := &v.spec.Limits
	i.begin(limits.Timeout, limits.ComputeTime(), noLimit)
	err := i.enter()
	o.f = i.explain(err, i.inst != nil && i.inst.memory != nil && i.inst.memory.Denied())
	o.body = string(i.out.buf)
	o.log = string(i.log.frame) + string(i.log.line)
	o.fuel, o.calls = i.fuelSpent, i.calls
	i.leave()
	return o
}

// want runs the version and fails unless it answers with body.
func (e *engine) want(v *version, input, body string) {
	e.tb.Helper()
	if o := e.run(v, input); o.f != nil || o.body != body {
		e.tb.Errorf("got %q, %v, want %q", o.body, o.f, body)
	}
}

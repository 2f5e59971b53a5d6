package wasm

import (
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// engine is a server without a connection: versions are called directly.
type engine struct {
	tb  testing.TB
	srv *server
}

func newEngine(tb testing.TB, restore memory.Strategy) *engine {
	tb.Helper()
	pagemap, err := memory.OpenPagemap()
	if err == nil {
		tb.Cleanup(func() { _ = pagemap.Close() })
	}
	s, err := newServer(io.Discard, Options{Clock: time.Now, Pagemap: pagemap, Restore: restore})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.stop()
		s.discard()
	})
	return &engine{tb, s}
}

var generous = function.Limits{Memory: 64 << 20, Timeout: never, CPU: never, Output: 1 << 20, Log: 64 << 10}

func (e *engine) load(code []byte, entry function.Entry) *version {
	e.tb.Helper()
	v, f := e.tryLoad(code, entry, generous)
	if f != nil {
		e.tb.Fatal(f)
	}
	e.tb.Cleanup(v.unload)
	return v
}

// machines holds what compiling gave, by digest: Go's guests take seconds, and many
// under the race detector.
var machines sync.Map

type compilation struct {
	once    sync.Once
	machine []byte
	failure *failure
}

// compileOnce compiles each module once for all tests. The result must not be changed.
func compileOnce(code []byte) ([]byte, *failure) {
	if len(code) < 64<<10 { // those that are drawn at random are not worth keeping
		return compile(code, function.DigestOf(code))
	}
	v, _ := machines.LoadOrStore(function.DigestOf(code), &compilation{})
	c := v.(*compilation)
	c.once.Do(func() { c.machine, c.failure = compile(code, function.DigestOf(code)) })
	return c.machine, c.failure
}

func (e *engine) tryLoad(code []byte, entry function.Entry, limits function.Limits) (*version, *failure) {
	machine, f := compileOnce(code)
	if f != nil {
		return nil, f
	}
	return e.srv.load(wire.LoadSpec{
		Name: "guest", Digest: function.DigestOf(code), Size: int64(len(machine)), Entry: entry, Limits: limits,
		Environment: map[string]string{"GREETING": "hello"},
	}, machine)
}

// call runs the version once and gives its standard output.
func (e *engine) call(v *version, input string) (string, *failure) {
	i := e.srv.takeInvocation(v)
	defer e.srv.giveInvocation(i)
	i.input = append(i.input[:0], input...)
	limits := &v.spec.Limits
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	i.begin(limits.Timeout, limits.ComputeTime(), noLimit)
	err := i.enter()
	denied := i.inst != nil && i.inst.memory != nil && i.inst.memory.Denied()
	f := i.explain(err, denied)
	out := string(i.out.buf)
	i.leave()
	return out, f
}

func BenchmarkCall(b *testing.B) {
	guests, err := sandboxtest.BuildGo()
	if err != nil {
		b.Fatal(err)
	}
	input := `{"id":"1","method":"GET","path":"/hello","headers":{"a":["b"]},"trigger":"http"}` + "\n"
	cases := []struct {
		name  string
		code  []byte
		entry function.Entry
	}{
		{"wat-handle", sandboxtest.HelloHandle(0), function.EntryHandle},
		{"wat-command", sandboxtest.Hello(), function.EntryCommand},
		{"wat-echo-command", sandboxtest.Echo(), function.EntryCommand},
		{"go-handle", guests.Handle, function.EntryHandle},
		{"go-command", guests.Command, function.EntryCommand},
	}
	if extra := os.Getenv("GUEST"); extra != "" {
		code, err := os.ReadFile(extra)
		if err != nil {
			b.Fatal(err)
		}
		entry := function.EntryCommand
		if os.Getenv("ENTRY") == "handle" {
			entry = function.EntryHandle
		}
		cases = append(cases[:0], struct {
			name  string
			code  []byte
			entry function.Entry
		}{"extra", code, entry})
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			e := newEngine(b, "")
			v := e.load(c.code, c.entry)
			if v.why != "" {
				b.Log(v.why)
			}
			if out, f := e.call(v, input); f != nil {
				b.Fatalf("%q %v", out, f)
			}
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				if _, f := e.call(v, input); f != nil {
					b.Fatal(f)
				}
			}
			// On a machine that does other things the processor's time says more.
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

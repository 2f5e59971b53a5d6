package wasm

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// count adds one to a word of memory and to a global: what is done before a
// checkpoint is done once, and seen by all.
func count(at int32) []byte {
	return st.Seq(st.Put32(at, st.Seq(st.Load(at), st.Const(1), []byte{0x6a})), []byte{0x23, 0}, st.Const(1), []byte{0x6a, 0x24, 0})
}

func command(imports []st.Func, body ...[]byte) []byte {
	return guest(imports, st.Func{Name: "_start", Body: st.Seq(body...), Locals: 4}).Encode()
}

// TestCommandStopsBeforeItSees has commands look at each thing that differs between
// invocations: what they see is never what was there when they were loaded.
func TestCommandStopsBeforeItSees(t *testing.T) {
	t.Parallel()
	const digits = atBody + 8
	// The counters are given as digits behind eight bytes of what was seen.
	seen := st.Seq(
		st.Put8(digits, st.Seq(st.Load(512), st.Const('0'), []byte{0x6a})),
		st.Put8(digits+1, st.Seq([]byte{0x23, 0}, st.Const('0'), []byte{0x6a})), count(512), reply(10))
	for name, look := range map[string]struct {
		imports []st.Func
		body    []byte
		differs bool
	}{
		"realtime":  {[]st.Func{clockGet}, st.Seq(st.Call(1, st.Const(0), st.Const64(1), st.Const(atBody)), st.Drop), true},
		"monotonic": {[]st.Func{clockGet}, st.Seq(st.Call(1, st.Const(1), st.Const64(1), st.Const(atBody)), st.Drop), true},
		"entropy":   {[]st.Func{randomGet}, st.Seq(st.Call(1, st.Const(atBody), st.Const(8)), st.Drop), true},
		"input":     {[]st.Func{fdRead}, move(1, 0, atBody, 8), true},
		"output":    {nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, clock := withClock(t)
			v := e.load(command(look.imports, count(512), look.body, seen), function.EntryCommand)
			if v.ready == nil || v.idle[0].resume == nil {
				t.Fatalf("there is no checkpoint: %s", v.why)
			}
			before := map[string]bool{}
			for k := range 4 {
				clock.move(time.Second)
				o := e.run(v, fmt.Sprintf("input %d!", k))
				if o.f != nil || len(o.body) != 10 || !strings.HasSuffix(o.body, "11") {
					t.Fatalf("run %d gave %q, %v", k, o.body, o.f)
				}
				if look.differs && before[o.body] {
					t.Errorf("run %d sees %q once more", k, o.body)
				}
				before[o.body] = true
				if word := binary.LittleEndian.Uint64([]byte(o.body)); name == "realtime" && word != uint64(clock.read().UnixNano()) {
					t.Errorf("the time is %d, want %d", word, clock.read().UnixNano())
				}
				wantReady(t, v)
			}
			// A second instance, booted for itself, is like the first.
			first, f := v.acquire(e.srv.takeInvocation(v))
			if f != nil {
				t.Fatal(f)
			}
			if o := e.run(v, "input 9!"); o.f != nil || !strings.HasSuffix(o.body, "11") || len(v.idle) != 1 {
				t.Errorf("a second instance gave %q, %v", o.body, o.f)
			}
			v.keep(first)
			v.release()
			wantReady(t, v)
		})
	}
}

// TestEarlyLogIsRepeated: a command's beginning is part of each of its runs; what a
// handler says while it is initialised is not.
func TestEarlyLogIsRepeated(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for entry, code := range map[function.Entry][]byte{
		function.EntryCommand: st.Log("first\n", "second"),
		function.EntryHandle: func() []byte {
			m := guest(nil, st.Func{Name: "handle", Body: reply(0)},
				st.Func{Name: "_initialize", Body: st.Seq(move(0, 2, atBody, 12))})
			m.Data = append(m.Data, st.Data{At: atBody, Bytes: []byte("first\nsecond")})
			return m.Encode()
		}(),
	} {
		v := e.load(code, entry)
		if v.ready == nil {
			t.Fatal(v.why)
		}
		for range 3 {
			o := e.run(v, "")
			if entry == function.EntryHandle {
				if o.f != nil || o.log != "" {
					t.Errorf("%s: the log is %q, %v", entry, o.log, o.f)
				}
				continue
			}
			if o.f != nil || !strings.Contains(o.log, "first") || !strings.HasSuffix(o.log, "second") || strings.Count(o.log, "first") != 1 {
				t.Errorf("%s: the log is %q, %v", entry, o.log, o.f)
			}
		}
	}
	// It counts against the limit as if it had been written then.
	limits := generous
	limits.Log = 8
	v, f := e.tryLoad(st.Log("first\n", "second"), function.EntryCommand, limits)
	if f != nil {
		t.Fatal(f)
	}
	defer v.unload()
	if o := e.run(v, ""); o.f != nil || !strings.HasSuffix(o.log, "se") {
		t.Errorf("with a limit of 8 bytes the log is %q, %v", o.log, o.f)
	}
}

// TestCommandsThatNeverLook start anew each time, and end as they would.
func TestCommandsThatNeverLook(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for name, c := range map[string]struct {
		code []byte
		kind sandbox.Kind
	}{
		"returns": {command(nil, count(512)), ""},
		"traps":   {command(nil, count(512), st.Unreachable), sandbox.Trap},
		"exits":   {command([]st.Func{procExit}, st.Call(1, st.Const(3))), sandbox.Exit},
		"exits 0": {command([]st.Func{procExit}, st.Call(1, st.Const(0))), ""},
		"spins":   {command(nil, st.Loop()), sandbox.CPU},
	} {
		limits := generous
		if c.kind == sandbox.CPU {
			limits.CPU = 5_000_000
		}
		v, f := e.tryLoad(c.code, function.EntryCommand, limits)
		if f != nil {
			t.Errorf("%s: %v", name, f)
			continue
		}
		if v.ready != nil || v.why == "" {
			t.Errorf("%s: it is ready", name)
		}
		for range 2 {
			if o := e.run(v, "x"); (o.f == nil) != (c.kind == "") || o.f != nil && o.f.kind != c.kind || o.body != "" {
				t.Errorf("%s: it ends with %q, %v, want %q", name, o.body, o.f, c.kind)
			}
		}
		v.unload()
	}
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// TestEntropyInInitialisation has a handler keep what it drew while it was
// initialised: no two invocations may have the same.
func TestEntropyInInitialisation(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	code := guest([]st.Func{randomGet}, st.Func{Name: "handle", Body: reply(8)},
		st.Func{Name: "_initialize", Body: st.Seq(st.Call(1, st.Const(atBody), st.Const(8)), st.Drop)}).Encode()
	v := e.load(code, function.EntryHandle)
	if v.ready != nil || !strings.Contains(v.why, "random numbers") {
		t.Fatalf("it is ready: %q", v.why)
	}
	seen := map[string]bool{}
	for range 5 {
		o := e.run(v, "")
		if o.f != nil || seen[o.body] {
			t.Errorf("it has %q once more, %v", o.body, o.f)
		}
		seen[o.body] = true
	}
}

// TestClockGoesOn has a handler read both clocks while it is initialised and sleep:
// later they have not gone back.
func TestClockGoesOn(t *testing.T) {
	t.Parallel()
	e, _ := withClock(t)
	now := func(at int32) []byte { return st.Seq(st.Call(1, st.Const(1), st.Const64(1), st.Const(at)), st.Drop) }
	sleep := st.Seq(st.Put32(4096+16, st.Const(1)), st.Const(4096+24), st.Const64(3e9), []byte{0x37, 3, 0},
		st.Call(2, st.Const(4096), st.Const(4096+128), st.Const(1), st.Const(atCount)), st.Drop)
	code := guest([]st.Func{clockGet, pollOneoff}, st.Func{Name: "handle", Body: st.Seq(now(atBody+16), reply(24))},
		st.Func{Name: "_initialize", Body: st.Seq(now(atBody), sleep, now(atBody+8))}).Encode()
	v := e.load(code, function.EntryHandle)
	if v.ready == nil {
		t.Fatal(v.why)
	}
	o := e.run(v, "") // the clock stands still between
	if o.f != nil || len(o.body) != 24 {
		t.Fatalf("%q %v", o.body, o.f)
	}
	at := func(k int) int64 { return int64(binary.LittleEndian.Uint64([]byte(o.body[8*k:]))) }
	if slept := at(1) - at(0); slept < 3e9 || slept > 3e9+1e6 || at(2) < at(1) || at(0) <= 0 {
		t.Errorf("the clock says %d, after sleeping %d, and later %d", at(0), at(1), at(2))
	}
}

// keeper reads its preparation, which handle then answers with. A preparation that
// begins with "!" fails with its text on standard error.
func keeper(end []byte) st.Module {
	bang := st.Seq(st.Const(atBody), []byte{0x2d, 0, 0}, st.Const('!'), []byte{0x46})
	return guest([]st.Func{fdRead, procExit},
		st.Func{Name: "handle", Body: st.Seq(move(1, 0, 8192, 100), reply(16))},
		st.Func{Name: "prepare", Results: one, Body: st.Seq(move(1, 0, atBody, 16),
			bang, []byte{0x04, 0x40}, move(0, 2, atBody, 16), end, st.Const(5), []byte{0x0f, 0x0b}, st.Const(0))})
}

func TestPreparation(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	const words = "what it is given"
	for name, m := range map[string]st.Module{"ready": keeper(nil), "anew": anew(keeper(nil))} {
		v, f := e.prepared(m.Encode(), function.EntryHandle, generous, words)
		if f != nil {
			t.Fatal(f)
		}
		if (v.ready != nil) != (name == "ready") {
			t.Fatalf("%s: %q", name, v.why)
		}
		for range 3 {
			e.want(v, "a request that is something else", words)
		}
	}
}

func TestFailedPreparation(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	limits := generous
	limits.Memory = 1 << 20
	for name, c := range map[string]struct {
		end  []byte
		kind sandbox.Kind
		says string
	}{
		"by its result": {nil, sandbox.BadModule, ""},
		"by a trap":     {st.Unreachable, sandbox.BadModule, "unreachable"},
		"by leaving":    {st.Call(2, st.Const(4)), sandbox.BadModule, "exited with code 4"},
		"for lack of memory": {
			st.Seq(st.Const(100), st.MemoryGrow, st.Const(0), []byte{0x48, 0x04, 0x40}, st.Unreachable, []byte{0x0b}),
			sandbox.Memory, "1 MiB of memory",
		},
	} {
		_, f := e.prepared(keeper(c.end).Encode(), function.EntryHandle, limits, "! line 7 is odd ")
		if f == nil || f.kind != c.kind || !strings.Contains(f.public, "! line 7 is odd") || !strings.Contains(f.public, c.says) {
			t.Errorf("%s: got %v", name, f)
		}
	}
	// What is written on standard output belongs to nobody.
	early := guest(nil, st.Func{Name: "handle", Body: reply(0)}, st.Func{Name: "_initialize", Body: reply(0)})
	if _, f := e.prepared(early.Encode(), function.EntryHandle, limits, ""); f == nil || f.kind != sandbox.BadModule || !strings.Contains(f.public, "before it had a request") {
		t.Errorf("an answer before the request: %v", f)
	}
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// TestClosedBeforeTheCheckpoint closes a descriptor on the way: it stays closed.
func TestClosedBeforeTheCheckpoint(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	look := st.Seq( // the errors of reading and of closing, as letters
		st.Put32(atVector, st.Const(8192)), st.Put32(atVector+4, st.Const(4)),
		st.Put8(atBody, st.Seq(st.Call(1, st.Const(0), st.Const(atVector), st.Const(1), st.Const(atCount)), st.Const('A'), []byte{0x6a})),
		st.Put8(atBody+1, st.Seq(st.Call(2, st.Const(0)), st.Const('A'), []byte{0x6a})), reply(2))
	shut := st.Seq(st.Call(2, st.Const(0)), st.Drop)
	imports := []st.Func{fdRead, fdClose}
	handler := guest(imports, st.Func{Name: "handle", Body: look}, st.Func{Name: "_initialize", Body: shut})
	next := e.load(anew(guest(imports, st.Func{Name: "handle", Body: look})).Encode(), function.EntryHandle)
	for name, c := range map[string]struct {
		code  []byte
		entry function.Entry
	}{
		"command":       {command(imports, shut, look), function.EntryCommand},
		"handler":       {handler.Encode(), function.EntryHandle},
		"handler, anew": {anew(handler).Encode(), function.EntryHandle},
	} {
		v := e.load(c.code, c.entry)
		for range 2 {
			if o := e.run(v, "input"); o.f != nil || o.body != "II" { // 8, bad descriptor
				t.Errorf("%s: after closing its input a guest gets %q, %v", name, o.body, o.f)
			}
		}
		if o := e.run(next, "input"); o.f != nil || o.body != "AA" { // 0, success
			t.Errorf("after a %s, another function gets %q, %v", name, o.body, o.f)
		}
		// A second one, where instances are booted for themselves.
		if v.ready != nil {
			first, _ := v.acquire(nil)
			if o := e.run(v, "input"); o.f != nil || o.body != "II" {
				t.Errorf("%s: a second instance gets %q, %v", name, o.body, o.f)
			}
			v.keep(first)
		}
	}
}

// TestShapesOfTheEngine pretends that the engine has another form: then functions
// start anew, or instances are thrown away, and the answers stay right.
func TestShapesOfTheEngine(t *testing.T) {
	t.Parallel()
	grow := st.Seq(st.Const(1), st.MemoryGrow, st.Drop)
	e := newEngine(t, "")
	for entry, code := range map[function.Entry][]byte{
		function.EntryCommand: command([]st.Func{fdRead}, move(1, 0, atBody, 4), grow, reply(4)),
		function.EntryHandle:  guest([]st.Func{fdRead}, st.Func{Name: "handle", Body: st.Seq(move(1, 0, atBody, 4), grow, reply(4))}).Encode(),
	} {
		v := e.load(code, entry)
		for k := range 3 {
			if v.ready == nil || len(v.idle) != 1 && k == 0 {
				t.Fatal(v.why)
			}
			for _, in := range v.idle {
				in.resize = nil // memory that grew cannot shrink
			}
			e.want(v, fmt.Sprintf("in %d", k), fmt.Sprintf("in %d", k))
			if len(v.idle) != 0 {
				t.Errorf("%s: an instance that cannot be restored is kept", entry)
			}
			e.want(v, "next", "next")
		}
	}
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// TestDeepStackIsNotKept lets go of a call stack that has become large, and keeps the
// instance, but for a command that goes on in that very call.
func TestDeepStackIsNotKept(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	// It goes as deep as its first byte says, in thousands.
	deep := st.Func{Params: one, Results: one, Body: st.Seq([]byte{0x20, 0}, []byte{0x45, 0x04, 0x40}, st.Const(0), []byte{0x0f, 0x0b},
		[]byte{0x20, 0}, st.Const(1), []byte{0x6b, 0x10, 3}, st.Const(1), []byte{0x6a})}
	body := st.Seq(move(1, 0, atBody, 1), st.Const(atBody), []byte{0x2d, 0, 0}, st.Const(1000), []byte{0x6c, 0x10, 3}, st.Drop, reply(1))
	for entry, name := range map[function.Entry]string{function.EntryHandle: "handle", function.EntryCommand: "_start"} {
		m := guest([]st.Func{fdRead}, st.Func{Name: name, Body: body}, deep)
		v := e.load(m.Encode(), entry)
		for _, input := range []string{"\x01", "\x20", "\x01"} {
			e.want(v, input, input)
			if input == "\x20" && entry == function.EntryCommand {
				if len(v.idle) != 0 {
					t.Errorf("%s: the instance is kept after calls 32,000 deep", entry)
				}
				continue
			}
			if len(v.idle) != 1 {
				t.Fatalf("%s: %d instances are kept after calls %d,000 deep", entry, len(v.idle), input[0])
			}
			if size := v.idle[0].stack.size(); size > maxKeptStack {
				t.Errorf("%s: a stack of %d bytes is kept", entry, size)
			}
		}
	}
}

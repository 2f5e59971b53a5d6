package wasm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
)

// strategies are the ways to restore memory that must all be the same.
var strategies = []memory.Strategy{memory.Scan, memory.Advise, memory.Copy}

// eachStrategy runs a test with each way to restore that this machine has.
func eachStrategy(t *testing.T, test func(*testing.T, memory.Strategy)) {
	for _, s := range strategies {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			pagemap, _ := memory.OpenPagemap()
			if pagemap != nil {
				defer func() { _ = pagemap.Close() }()
			}
			if _, err := memory.Open(memory.NewBudget(1<<30), pagemap, s); err != nil {
				if s != memory.Scan || !strings.Contains(err.Error(), "scanning pages") && pagemap != nil {
					t.Fatal(err)
				}
				t.Skipf("this machine cannot: %v", err)
			}
			test(t, s)
		})
	}
}

// wantReady fails unless every idle instance of the version is in its ready state, to
// the bit: memory, its size, what would be found above it, and globals.
func wantReady(t interface {
	Helper()
	Fatalf(string, ...any)
}, v *version,
) {
	t.Helper()
	for _, in := range v.idle {
		for i, g := range in.globals {
			if g.Get() != v.ready.globals[i] {
				t.Fatalf("global %d is %#x, was %#x", i, g.Get(), v.ready.globals[i])
			}
		}
		if in.memory == nil {
			continue
		}
		want := v.ready.image.Bytes()
		if uint64(len(want)) != in.memory.Size() || uint32(len(want)) != in.module.Memory().Size() {
			t.Fatalf("memory has %d bytes, for the engine %d, had %d", in.memory.Size(), in.module.Memory().Size(), len(want))
		}
		if got := in.memory.Bytes(); !bytes.Equal(got, want) {
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("byte %#x of memory is %#x, was %#x", i, got[i], want[i])
				}
			}
		}
		if !in.memory.Begin(0) {
			t.Fatalf("no budget")
		}
		above := in.memory.Resize(uint64(v.spec.Limits.Memory))[len(want):]
		for i, c := range above {
			if c != 0 {
				t.Fatalf("byte %#x above the memory is %#x", i, c)
			}
		}
		in.memory.Restore()
		in.memory.End()
	}
}

// scribbler draws a guest that does one of several things, as its input says: it
// scribbles over memory and globals, grows, and ends in some way.
func scribbler(t *rapid.T) (code []byte, entry function.Entry) {
	entry = rapid.SampledFrom([]function.Entry{function.EntryCommand, function.EntryHandle}).Draw(t, "entry")
	const pages = 3
	read := st.Func{Name: "fd_read", Params: []byte{st.I32, st.I32, st.I32, st.I32}, Results: []byte{st.I32}}
	ends := map[string][]byte{
		"return": {}, "trap": st.Unreachable, "spin": st.Loop(), "recurse": st.Call(2), "leave": {0x0f},
	}
	scribble := func(label string) []byte {
		var body []byte
		for range rapid.IntRange(0, 12).Draw(t, label+" steps") {
			switch rapid.SampledFrom([]string{"store", "store", "fill", "grow", "global"}).Draw(t, label) {
			case "store":
				at := rapid.Int32Range(32, pages<<16-4).Draw(t, label+" at")
				body = append(body, st.Put32(at, st.Const(rapid.Int32().Draw(t, label+" value")))...)
			case "fill":
				at := rapid.Int32Range(32, 2<<16).Draw(t, label+" from")
				n := rapid.Int32Range(0, 1<<16).Draw(t, label+" length")
				body = append(body, st.Seq(st.Const(at), st.Const(rapid.Int32Range(0, 255).Draw(t, label+" byte")), st.Const(n), []byte{0xfc, 11, 0})...)
			case "grow":
				// What it grows by it writes to, through the new size.
				body = append(body, st.Seq(
					st.Const(rapid.Int32Range(0, 5).Draw(t, label+" pages")), st.MemoryGrow, st.Drop,
					[]byte{0x3f, 0}, st.Const(16), []byte{0x74}, st.Const(8), []byte{0x6b}, st.Const(-1), []byte{0x36, 0, 0})...)
			case "global":
				body = append(body, st.Seq(st.Const(rapid.Int32().Draw(t, label+" global")), []byte{0x24, byte(rapid.IntRange(0, 2).Draw(t, label+" index"))})...)
			}
		}
		return body
	}
	before := scribble("before")
	run := st.Seq(st.Put32(0, st.Const(16)), st.Put32(4, st.Const(1)), st.Call(0, st.Const(0), st.Const(0), st.Const(1), st.Const(8)), st.Drop)
	for k := range int32(3) {
		name := rapid.SampledFrom([]string{"return", "return", "trap", "spin", "recurse", "leave"}).Draw(t, "end")
		run = append(run, st.Seq(st.Const(16), []byte{0x2d, 0, 0}, st.Const('0'+k), []byte{0x46, 0x04, 0x40},
			scribble(fmt.Sprint("run ", k)), ends[name], []byte{0x0b})...)
	}
	deep := st.Func{Body: st.Call(2)}
	m := st.Module{Imports: []st.Func{read}, Memory: pages, Globals: 3, Data: []st.Data{{At: 70_000, Bytes: []byte("data that was there before")}}}
	switch entry {
	case function.EntryCommand:
		m.Funcs = []st.Func{{Name: "_start", Body: st.Seq(before, run)}, deep}
	default:
		m.Funcs = []st.Func{{Name: "handle", Body: run}, deep, {Name: "_initialize", Body: before}}
	}
	return m.Encode(), entry
}

// TestStateComesBack runs random programs, each for several times, and compares the
// whole state afterwards with that before.
func TestStateComesBack(t *testing.T) {
	t.Parallel()
	eachStrategy(t, func(t *testing.T, s memory.Strategy) {
		e := newEngine(t, s)
		rapid.Check(t, func(rt *rapid.T) {
			code, entry := scribbler(rt)
			limits := generous
			limits.Memory, limits.CPU = 2<<20, 2_000_000
			v, failure := e.tryLoad(code, entry, limits)
			if failure != nil {
				return // its initialisation traps, say
			}
			defer v.unload()
			if v.why != "" {
				rt.Fatalf("it starts anew each time: %s", v.why)
			}
			for range 20 {
				input := rapid.StringOfN(rapid.RuneFrom([]rune("012")), 0, 1, -1).Draw(rt, "input")
				_, _ = e.call(v, input)
				wantReady(rt, v)
			}
		})
	})
}

// TestStateComesBackInGo does the same with a program of Go's, whose runtime collects
// garbage, grows its memory, panics and runs out of it.
func TestStateComesBackInGo(t *testing.T) {
	t.Parallel()
	guests, err := st.BuildGo()
	if err != nil {
		t.Fatal(err)
	}
	eachStrategy(t, func(t *testing.T, s memory.Strategy) {
		e := newEngine(t, s)
		for entry, code := range map[function.Entry][]byte{
			function.EntryCommand: guests.Command, function.EntryHandle: guests.Handle,
		} {
			v := e.load(code, entry)
			if v.why != "" {
				t.Fatalf("%s: it starts anew each time: %s", entry, v.why)
			}
			for range 3 {
				for _, c := range []struct {
					path string
					kind sandbox.Kind
				}{{"/kept", ""}, {"/panic", "any"}, {"/kept", ""}, {"/fail", sandbox.Exit}, {"/hoard", ""}, {"/recurse", ""}, {"/kept", ""}} {
					out, f := e.call(v, `{"path":"`+c.path+`"}`+"\nbody")
					switch {
					case c.path == "/kept" && (f != nil || !bytes.HasSuffix([]byte(out), []byte("\n1"))):
						t.Fatalf("%s %s: got %q, %v", entry, c.path, out, f)
					case c.kind == "any" && f == nil || c.kind != "" && c.kind != "any" && (f == nil || f.kind != c.kind):
						t.Fatalf("%s %s: got %q, %v", entry, c.path, out, f)
					}
					wantReady(t, v)
				}
			}
		}
	})
}

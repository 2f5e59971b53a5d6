package wasm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	builtin "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// Random programs that use what a guest has, and show what came of it, must do the
// same under the engine as it is, with its own WASI, and in all ways in which we run
// them: begun anew, and from the ready state, time after time.

// What the programs import, by index.
const (
	doWrite = iota
	doRead
	doClose
	doArgs
	doEnviron
	doResolution
	doExit
	doSeek
	doPoll
)

var programImports = []st.Func{
	fdRead, fdClose,
	{Name: "args_get", Params: []byte{st.I32, st.I32}, Results: one},
	{Name: "environ_sizes_get", Params: []byte{st.I32, st.I32}, Results: one},
	{Name: "clock_res_get", Params: []byte{st.I32, st.I32}, Results: one},
	procExit,
	{Name: "fd_seek", Params: []byte{st.I32, st.I64, st.I32, st.I32}, Results: one},
	pollOneoff,
}

// author writes programs.
type author struct {
	t     *rapid.T
	reads bool // standard input may be looked at
}

func (a *author) below(n int32) int32 { return rapid.Int32Range(0, n-1).Draw(a.t, "n") }

// place is an address in the first three pages, mostly near others.
func (a *author) place() int32 {
	if a.below(3) == 0 {
		return 2048 + a.below(3<<16-4096)
	}
	return 2048 + 4*a.below(20)
}

// steps gives code that leaves nothing on the stack.
func (a *author) steps(most int32, depth int) (b []byte) {
	for range 1 + a.below(most) {
		b = append(b, a.step(depth)...)
	}
	return b
}

func (a *author) step(depth int) []byte {
	global := byte(a.below(2))
	errno := func(call []byte) []byte { return st.Put32(a.place(), call) } // shown with the memory
	switch a.below(15) {
	case 0:
		return st.Put32(a.place(), st.Const(rapid.Int32().Draw(a.t, "value")))
	case 1:
		return st.Put32(a.place(), st.Seq(st.Load(a.place()), []byte{0x23, global, 0x6a}))
	case 2:
		return st.Seq([]byte{0x23, global}, st.Load(a.place()), st.Const(7), []byte{0x6a, 0x6a, 0x24, global})
	case 3: // grow, and write through the new size
		return st.Seq(st.Const(a.below(3)), st.MemoryGrow, st.Drop,
			[]byte{0x3f, 0}, st.Const(16), []byte{0x74}, st.Const(8), []byte{0x6b, 0x22, 0, 0x20, 0},
			[]byte{0x28, 0, 0}, st.Const(3), []byte{0x6a, 0x36, 0, 0},
			errno([]byte{0x20, 0, 0x28, 0, 0}))
	case 4:
		return st.Seq(st.Const(a.place()), st.Const(a.below(256)), st.Const(a.below(3000)), []byte{0xfc, 11, 0})
	case 5:
		return st.Seq(st.Const(a.place()), st.Const(a.place()), st.Const(a.below(3000)), []byte{0xfc, 10, 0, 0})
	case 6, 7:
		return move(doWrite, 1, a.place(), a.below(200))
	case 8:
		return move(doWrite, 2, a.place(), a.below(50))
	case 9:
		if a.reads {
			return st.Seq(move(doRead, 0, a.place(), a.below(9)), errno(st.Load(atCount)))
		}
		return errno(st.Call(doResolution, st.Const(a.below(4)), st.Const(100)))
	case 10:
		return errno(st.Call(doClose, st.Const(a.below(4))))
	case 11:
		return errno([][]byte{
			st.Call(doArgs, st.Const(a.place()), st.Const(a.place())), st.Call(doEnviron, st.Const(a.place()), st.Const(a.place())),
			st.Call(doSeek, st.Const(4+a.below(9)), st.Const64(0), st.Const(0), st.Const(100)),
			st.Seq(st.Put32(1500, st.Const(0)), st.Put32(1508, st.Const(0)), st.Put32(1516, st.Const(1)), st.Put32(1524, st.Const(0)), st.Put32(1528, st.Const(0)), st.Put32(1540, st.Const(0)),
				st.Call(doPoll, st.Const(1500), st.Const(1600), st.Const(1), st.Const(100))),
			st.Call(doWrite, st.Const(7), st.Const(0), st.Const(1), st.Const(atCount)),
		}[a.below(5)])
	case 12:
		if depth > 0 {
			counter := byte(1 + depth)
			return st.Seq(st.Const(0), []byte{0x21, counter}, st.Times(1+a.below(6), counter, a.steps(4, depth-1)))
		}
	case 13: // on what the input says, end or do something else
		if depth > 0 {
			end := [][]byte{{}, st.Unreachable, st.Call(doExit, st.Const(a.below(3))), {0x0f}}[a.below(4)]
			return st.Seq(st.Load(a.place()), st.Const(a.below(4)), []byte{0x6a}, st.Const(3), []byte{0x71, 0x45, 0x04, 0x40}, a.steps(4, depth-1), end, []byte{0x0b})
		}
	}
	return nil
}

// drawProgram draws one, for an entry.
func drawProgram(t *rapid.T) (st.Module, function.Entry) {
	a := &author{t: t}
	entry := rapid.SampledFrom([]function.Entry{function.EntryCommand, function.EntryHandle}).Draw(t, "entry")
	show := st.Seq(move(doWrite, 1, 2048, 120), st.Put32(4096, []byte{0x23, 0}), st.Put32(4100, []byte{0x23, 1}), move(doWrite, 1, 4096, 8))
	before := a.steps(8, 2)
	a.reads = true
	after := st.Seq(move(doRead, 0, 2048+4*a.below(20), 2), a.steps(12, 2), show)
	m := guest(programImports)
	m.Data = append(m.Data, st.Data{At: 2060, Bytes: []byte("what was there before")})
	if entry == function.EntryCommand {
		m.Funcs = []st.Func{{Name: "_start", Body: st.Seq(before, after), Locals: 6}}
	} else {
		a.reads = false
		m.Funcs = []st.Func{{Name: "handle", Body: after, Locals: 6}, {Name: "_initialize", Body: a.quiet(), Locals: 6}}
	}
	return m, entry
}

// quiet is what a handler may do while it is initialised: all but ending and writing
// an answer, which is refused.
func (a *author) quiet() (b []byte) {
	for range a.below(8) {
		at := a.place()
		b = append(b, [][]byte{
			st.Put32(at, st.Const(rapid.Int32().Draw(a.t, "value"))),
			st.Seq(st.Load(at), []byte{0x24, 1}),
			st.Seq(st.Const(1), st.MemoryGrow, st.Drop, st.Put32(4<<16+32, st.Const(5))),
			st.Put32(at, st.Call(doClose, st.Const(2))),
			move(doWrite, 2, at, 20),
		}[a.below(5)]...)
	}
	return b
}

// plain is the engine as it is.
type plain struct {
	r wazero.Runtime
	m wazero.CompiledModule
}

// run gives what the program wrote, and how it ended.
func (p *plain) run(entry function.Entry, input string) (out, end string) {
	ctx := context.Background()
	var b bytes.Buffer
	m, err := p.r.InstantiateModule(ctx, p.m, wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithArgs("guest").WithEnv("GREETING", "hello").WithStdin(strings.NewReader(input)).WithStdout(&b))
	if err != nil {
		return "", err.Error()
	}
	defer func() { _ = m.Close(ctx) }()
	names := []string{exportStart}
	if entry == function.EntryHandle {
		names = []string{exportInitialize, exportHandle}
	}
	var f api.Function
	for _, name := range names {
		if f = m.ExportedFunction(name); f == nil {
			continue
		}
		if _, err = f.Call(ctx); err != nil {
			break
		}
	}
	var exit *sys.ExitError
	switch {
	case err == nil, errors.As(err, &exit) && exit.ExitCode() == 0:
		return b.String(), ""
	case exit != nil:
		return b.String(), string(sandbox.Exit)
	default:
		return b.String(), string(sandbox.Trap)
	}
}

func newPlain(t *rapid.T, code []byte) *plain {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(uint32(generous.Memory/pageSize)))
	builtin.MustInstantiate(ctx, r)
	m, err := r.CompileModule(ctx, code)
	if err != nil {
		t.Fatalf("the program is not valid: %v", err)
	}
	return &plain{r, m}
}

// sameAsPlain is the property.
func sameAsPlain(t *rapid.T, e *engine, stats *[3]int) {
	m, entry := drawProgram(t)
	code := m.Encode()
	p := newPlain(t, code)
	defer func() { _ = p.r.Close(context.Background()) }()
	forms := map[string]*version{}
	for name, code := range map[string][]byte{"ready": code, "anew": anew(m).Encode()} {
		v, f := e.tryLoad(code, entry, generous)
		if f != nil {
			t.Fatalf("%s: loading: %v", name, f)
		}
		defer v.unload()
		forms[name] = v
	}
	if forms["ready"].ready != nil {
		stats[0]++
	}
	for k := range rapid.IntRange(2, 5).Draw(t, "runs") {
		input := rapid.StringOfN(rapid.RuneFrom([]rune("012")), 0, 12, -1).Draw(t, "input")
		want, end := p.run(entry, input)
		if end == "" {
			stats[1]++
		} else {
			stats[2]++
		}
		for name, v := range forms {
			o := e.runWhole(v, input)
			got := ""
			if o.f != nil {
				got = string(o.f.kind)
			}
			if o.body != want || got != end {
				t.Fatalf("%s, run %d of the %s (%s):\n%q, ends %q %v\nwant\n%q, ends %q", name, k, entry, v.why, o.body, got, o.f, want, end)
			}
		}
	}
}

func TestSameAsTheEngineAsItIs(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	var stats [3]int
	alike := func() bool { return stats[0] == 0 || stats[1] == 0 || stats[2] == 0 }
	for round := 0; round < 1 || alike() && round < 20; round++ {
		rapid.Check(t, func(rt *rapid.T) { sameAsPlain(rt, e, &stats) })
	}
	if alike() {
		t.Errorf("the programs are too much alike: %d ready, %d runs ended well, %d did not", stats[0], stats[1], stats[2])
	}
	t.Log(stats)
}

func FuzzSameAsTheEngineAsItIs(f *testing.F) {
	e := newEngine(f, "")
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { sameAsPlain(t, e, &[3]int{}) }))
}

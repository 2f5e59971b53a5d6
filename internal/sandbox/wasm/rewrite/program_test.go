package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// Random programs with memory, globals of each type, a table, data of each kind,
// growth, calls, loops and traps. An original, its rewritten module and its stub
// must show the same state after each call; and a restorable one, once its memory
// and globals are put back, must do all of it again.

// generator writes a valid module. Values which could be NaN are moved and turned
// into bits, never computed with: their payload is the engine's choice.
type generator struct {
	t         *rapid.T
	globals   []variable // the first one is imported
	calls     []int      // functions that may be called: those with a greater index
	importing bool
	count     bool // the module has a data count section
	loops     int
	data      []bool // passive
}

type variable struct {
	typ     byte
	mutable bool
}

// Each function takes an i32 and an i64, gives an i64, and has locals of each type.
const (
	argI32 = iota
	argI64
	locI32
	locI64
	locF32
	locF64
	counter // and further ones, for nested loops
	maxNest = 2
)

func (g *generator) below(n int) int {
	return rapid.IntRange(0, n-1).Draw(g.t, "choice")
}

// address gives an i32, mostly of the first pages.
func (g *generator) address(room int) []byte {
	if g.below(8) == 0 {
		return g.value(i32, room)
	}
	return cat([]byte{0x41}, leb(int64([]int{0, 1, 7, 8, 100, 4096, 65_520, 65_535, 65_536, 131_064}[g.below(10)])))
}

func leb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// value gives code that leaves a value of a numeric type.
func (g *generator) value(typ byte, room int) []byte {
	choice := g.below(7)
	if room <= 0 {
		choice = g.below(3)
	}
	switch choice {
	case 0: // a constant
		switch typ {
		case i32:
			return cat([]byte{0x41}, leb(int64(rapid.Int32().Draw(g.t, "i32"))))
		case i64:
			return cat([]byte{0x42}, leb(rapid.Int64().Draw(g.t, "i64")))
		case f32:
			return []byte{0x43, byte(g.below(256)), 0, 0x80, 0x3f}
		default:
			return []byte{0x44, byte(g.below(256)), 0, 0, 0, 0, 0, 0xf0, 0x3f}
		}
	case 1: // a local
		local := map[byte][]int{i32: {argI32, locI32}, i64: {argI64, locI64}, f32: {locF32}, f64: {locF64}}[typ]
		return []byte{0x20, byte(local[g.below(len(local))])}
	case 2: // a global
		if i, ok := g.global(typ, false); ok {
			return []byte{0x23, byte(i)}
		}
		return g.value(typ, 0)
	case 3: // a load
		load := map[byte][]byte{i32: {0x28, 0x2d, 0x2f}, i64: {0x29, 0x31, 0x34}, f32: {0x2a}, f64: {0x2b}}[typ]
		return cat(g.address(room-1), []byte{load[g.below(len(load))], 0}, u([]int{0, 4, 65_536}[g.below(3)]))
	case 4: // of the other sort
		switch typ {
		case i32:
			return cat(g.value(i64, room-1), []byte{0xa7})
		case i64:
			return cat(g.value(f64, room-1), []byte{0xbd})
		case f32:
			return cat(g.value(i32, room-1), []byte{0xbe})
		default:
			return cat(g.value(i64, room-1), []byte{0xbf})
		}
	case 5: // an operation
		switch typ {
		case i32:
			if g.below(6) == 0 {
				return []byte{0x3f, 0} // memory.size
			}
			ops := []byte{0x6a, 0x6b, 0x6c, 0x6d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x76, 0x46, 0x48}
			return cat(g.value(typ, room-1), g.value(typ, room-2), []byte{ops[g.below(len(ops))]})
		case i64:
			ops := []byte{0x7c, 0x7d, 0x7e, 0x7f, 0x82, 0x83, 0x84, 0x85, 0x86, 0x88}
			return cat(g.value(typ, room-1), g.value(typ, room-2), []byte{ops[g.below(len(ops))]})
		case f32:
			return cat(g.value(typ, room-1), []byte{0x8c}) // neg
		default:
			return cat(g.value(typ, room-1), []byte{0x9a})
		}
	default: // a call
		if typ != i64 || len(g.calls) == 0 {
			return g.value(typ, room-1)
		}
		if g.below(3) == 0 { // through the table, maybe out of bounds, of another type or null
			return cat(g.value(i32, room-2), g.value(i64, room-2), []byte{0x41, byte(g.below(8)), 0x11, 0, 0})
		}
		return cat(g.value(i32, room-2), g.value(i64, room-2), []byte{0x10}, u(g.calls[g.below(len(g.calls))]))
	}
}

func (g *generator) global(typ byte, mutable bool) (int, bool) {
	var fit []int
	for i, v := range g.globals {
		if v.typ == typ && (v.mutable || !mutable) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return 0, false
	}
	return fit[g.below(len(fit))], true
}

// statements gives code which leaves nothing.
func (g *generator) statements(room int) []byte {
	var b []byte
	for range 1 + g.below(4) {
		b = append(b, g.statement(room)...)
	}
	return b
}

func (g *generator) statement(room int) []byte {
	typ := []byte{i32, i64, f32, f64}[g.below(4)]
	switch choice := g.below(11); {
	case choice <= 1: // set a global
		if i, ok := g.global(typ, true); ok {
			return cat(g.value(typ, room), []byte{0x24, byte(i)})
		}
		fallthrough
	case choice <= 4: // a store
		store := map[byte][]byte{i32: {0x36, 0x3a, 0x3b}, i64: {0x37, 0x3c, 0x3e}, f32: {0x38}, f64: {0x39}}[typ]
		return cat(g.address(room), g.value(typ, room), []byte{store[g.below(len(store))], 0, byte(g.below(100))})
	case choice == 5: // set a local
		return cat(g.value(typ, room), []byte{0x21, map[byte]byte{i32: locI32, i64: locI64, f32: locF32, f64: locF64}[typ]})
	case choice == 6 && room > 0:
		return cat(g.value(i32, room-1), []byte{0x04, 0x40}, g.statements(room-1), []byte{0x05}, g.statements(room-1), []byte{0x0b})
	case choice == 7 && room > 0 && g.loops < maxNest:
		c := byte(counter + g.loops)
		g.loops++
		inner := g.statements(room - 1)
		g.loops--
		return cat([]byte{0x41, byte(1 + g.below(20)), 0x21, c, 0x03, 0x40}, inner,
			[]byte{0x20, c, 0x41, 1, 0x6b, 0x22, c, 0x0d, 0, 0x0b})
	case choice == 8:
		return []byte{0x41, byte(g.below(2)), 0x40, 0, 0x21, locI32} // memory.grow
	case choice == 9: // bulk memory
		return g.bulk(room)
	case g.below(20) == 0:
		return []byte{0x00}
	}
	return []byte{0x01}
}

func (g *generator) bulk(room int) []byte {
	few := []byte{0x41, byte(g.below(40))}
	segment := g.below(len(g.data) + 1)
	switch choice := g.below(4); {
	case choice == 0:
		return cat(g.address(room), g.value(i32, room), few, []byte{0xfc, 11, 0})
	case choice == 1 || !g.count || segment == len(g.data):
		return cat(g.address(room), g.address(room), few, []byte{0xfc, 10, 0, 0})
	case !g.data[segment]:
		// The engine keeps an active segment readable, against the specification:
		// nothing of it is asked for but at its very beginning, where both agree.
		return cat(g.address(room), []byte{0x41, 0, 0x41, 0, 0xfc, 8, byte(segment), 0})
	case g.below(8) == 0:
		return []byte{0xfc, 9, byte(segment)}
	default:
		return cat(g.address(room), []byte{0x41, byte(g.below(4))}, few, []byte{0xfc, 8, byte(segment), 0})
	}
}

func (g *generator) dataSection() []byte {
	var segments []seg
	for _, passive := range g.data {
		offset := []int{0, 5, 64, 90, 4090, 65_500, 65_530, 65_536, -1}[g.below(7+g.below(3))]
		s := seg{u(0), cat([]byte{0x41}, leb(int64(offset))), rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(g.t, "data")}
		switch {
		case passive:
			s.flags, s.at = u(1), nil
		case g.importing && g.below(4) == 0:
			s.at = []byte{0x23, 0}
		case g.below(3) == 0:
			s.flags = cat(u(2), u(0))
		}
		segments = append(segments, s)
	}
	return data(segments...)
}

// drawModule gives a module which imports the global env.base.
func drawModule(t *rapid.T) []byte {
	g := &generator{t: t, globals: []variable{{i32, false}}, count: rapid.Bool().Draw(t, "count")}
	g.importing = g.below(6) == 0
	if !g.importing {
		g.globals = nil
	}
	var inits [][]byte
	for range g.below(8) {
		k := g.below(6)
		g.globals = append(g.globals, []variable{{i32, true}, {i64, true}, {f32, true}, {f64, true}, {i32, false}, {v128, true}}[k])
		inits = append(inits, [][]byte{mutI32, mutI64, mutF32, mutF64, conI32, mutVec}[k])
	}
	if rapid.Bool().Draw(t, "data") {
		for range 1 + g.below(4) {
			g.data = append(g.data, g.below(3) == 0)
		}
	}
	n := 1 + g.below(4)
	var indices []int
	var bodies [][]byte
	var exports [][]byte
	locals := cat(u(5), []byte{1, i32, 1, i64, 1, f32, 1, f64, maxNest, i32})
	for i := range n {
		g.calls = nil
		for k := i + 1; k < n; k++ {
			g.calls = append(g.calls, k)
		}
		b := cat(locals, g.statements(3), g.value(i64, 2), []byte{0x0b})
		bodies = append(bodies, cat(u(len(b)), b))
		indices = append(indices, 0)
		exports = append(exports, export(fmt.Sprintf("f%d", i), 0, i))
	}
	for i := range g.globals {
		if g.globals[i].typ != v128 {
			exports = append(exports, export(fmt.Sprintf("g%d", i), 3, i))
		}
	}
	parts := [][]byte{types(sig(vals(i32, i64), vals(i64)), sig(nil, nil))}
	if g.importing {
		parts = append(parts, section(2, vec(importOf("env", "base", 3, i32, 0))))
	}
	start := g.below(4) == 0
	if start {
		indices = append(indices, 1)
		bodies = append(bodies, body(0, 0, 0x41, 5, 0x42, 3, 0x10, 0, 0x1a))
	}
	parts = append(parts, functions(indices...), section(4, vec([]byte{fun, 0, 6})), memory(1, byte(1+g.below(2)), 4),
		globals(inits...), section(7, vec(exports...)))
	if start {
		parts = append(parts, section(8, u(n)))
	}
	parts = append(parts, section(9, vec(cat([]byte{0, 0x41, 1, 0x0b}, vec(u(0), u(n-1), u(len(indices)-1))))))
	if g.count {
		parts = append(parts, section(12, u(len(g.data))))
	}
	parts = append(parts, code(bodies...))
	if g.count || g.data != nil {
		parts = append(parts, g.dataSection())
	}
	return module(parts...)
}

// subject is a module of one of the three sorts, with the means to look at it.
type subject struct{ api.Module }

// look is all state that can be seen.
func (s subject) look(b *strings.Builder) {
	memory := s.Memory()
	all, _ := memory.Read(0, memory.Size())
	fmt.Fprintf(b, "%d pages %x", memory.Size()>>16, sum(all))
	for i := range 12 {
		if g := s.ExportedGlobal(fmt.Sprintf("g%d", i)); g != nil {
			fmt.Fprintf(b, " %x", g.Get())
		}
	}
	b.WriteByte('\n')
}

func sum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for len(b) >= 8 { // memory is a multiple
		h = (h ^ (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56)) * 1099511628211
		b = b[8:]
	}
	return h
}

type invocation struct {
	name string
	a    uint32
	b    uint64
}

var errUnfair = errors.New("stopped, or calls too deep: no comparison")

// run gives what is seen of the calls.
func (s subject) run(calls []invocation) (string, error) {
	var b strings.Builder
	s.look(&b)
	for _, c := range calls {
		got, err := call(s.Module, c.name, uint64(c.a), c.b)
		if errors.Is(err, errStopped) || strings.Contains(reason(err), "stack overflow") {
			return "", errUnfair
		}
		fmt.Fprintf(&b, "%s: %x %s ", c.name, got, reason(err))
		s.look(&b)
	}
	return b.String(), nil
}

// state is what the host puts back.
type state struct {
	memory  []byte
	globals []uint64
}

func save(m api.Module, o *rewrite.Output) (s state) {
	memory := m.ExportedMemory(rewrite.MemoryExport)
	all, _ := memory.Read(0, memory.Size())
	s.memory = bytes.Clone(all)
	for i := range o.Globals {
		s.globals = append(s.globals, m.ExportedGlobal(rewrite.GlobalName(i)).Get())
	}
	return s
}

// restore tells whether it could: a host without an allocator of its own cannot
// make memory smaller.
func restore(m api.Module, s state) bool {
	memory := m.ExportedMemory(rewrite.MemoryExport)
	if int(memory.Size()) != len(s.memory) {
		return false
	}
	memory.Write(0, s.memory)
	for i, v := range s.globals {
		m.ExportedGlobal(rewrite.GlobalName(i)).(api.MutableGlobal).Set(v)
	}
	return true
}

type programs struct {
	compared, trapped, refused, restored, kept int
}

// same is the property.
func (p *programs) same(rt *rapid.T, tb testing.TB, press *press) {
	m := drawModule(rt)
	calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) invocation {
		return invocation{"f0", rapid.Uint32().Draw(t, "a"), rapid.Uint64().Draw(t, "b")}
	}), 1, 4).Draw(rt, "calls")
	o, err := rewrite.Module(m)
	if err != nil {
		rt.Fatalf("refused: %v", err)
	}
	if err := agrees(o); err != nil {
		rt.Fatalf("the stub: %v", err)
	}
	ctx := context.Background()
	newTank := func() *tank { return &tank{allowance: 2000, refills: 200} }
	runtimes := []wazero.Runtime{newRuntime(tb, nil), newRuntime(tb, newTank()), press.runtimeOf(tb, newTank())}
	for _, r := range runtimes {
		defer func() { _ = r.Close(ctx) }()
		env := module(globals([]byte{i32, 0, 0x41, 40, 0x0b}), section(7, vec(export("base", 3, 0))))
		if _, err := r.InstantiateWithConfig(ctx, env, named("env")); err != nil {
			rt.Fatal(err)
		}
	}
	full, err := enter(tb, runtimes[1], o, "")
	if errors.Is(err, errStopped) || strings.Contains(reason(err), "stack overflow") {
		rt.Skip("the start function does not end")
	}
	stub, stubErr := press.enter(tb, runtimes[2], o, "")
	plain, plainErr := runtimes[0].InstantiateWithConfig(ctx, m, named(""))
	if (err == nil) != (plainErr == nil) || (err == nil) != (stubErr == nil) {
		rt.Fatalf("instantiating: %v, rewritten: %v, stub: %v", plainErr, err, stubErr)
	}
	if err != nil {
		p.refused++
		return
	}
	before := save(full, o)
	got, err := subject{full}.run(calls)
	if err != nil {
		rt.Skip(err.Error())
	}
	want, _ := subject{plain}.run(calls)
	ofStub, stubErr := subject{stub}.run(calls)
	if got != want || stubErr != nil || ofStub != want {
		rt.Fatalf("original:\n%s\nrewritten:\n%s\nstub:\n%s(%v)", want, got, ofStub, stubErr)
	}
	p.compared++
	if strings.Contains(got, "wasm error") {
		p.trapped++
	}
	if err := o.Restorable(); err != nil || !restore(full, before) {
		p.kept++
		return
	}
	full.ExportedGlobal(rewrite.GlobalExport).(api.MutableGlobal).Set(0)
	again, err := subject{full}.run(calls)
	if !errors.Is(err, errUnfair) && again != got {
		rt.Fatalf("at first:\n%s\nrestored:\n%s", got, again)
	}
	p.restored++
}

func TestProgramsBehaveTheSame(t *testing.T) {
	t.Parallel()
	p, press := &programs{}, newPress(t)
	oneSort := func() bool { return slices.Contains([]int{p.compared, p.trapped, p.refused, p.restored, p.kept}, 0) }
	for round := 0; round < 1 || oneSort() && round < 20; round++ {
		rapid.Check(t, func(rt *rapid.T) { p.same(rt, t, press) })
	}
	if oneSort() {
		t.Errorf("the programs are too much alike: %+v", *p)
	}
	t.Logf("%+v", *p)
}

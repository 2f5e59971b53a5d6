package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

const (
	f32  = byte(rewrite.F32)
	v128 = byte(rewrite.V128)
	ext  = byte(rewrite.ExternRef)
)

func memory(limits ...byte) []byte { return section(5, vec(limits)) }

func globals(g ...[]byte) []byte { return section(6, vec(g...)) }

func importOf(mod, name string, kind byte, typ ...byte) []byte {
	return cat(str(mod), str(name), []byte{kind}, typ)
}

// Globals of each type that a host can read and write.
var (
	mutI32 = []byte{i32, 1, 0x41, 11, 0x0b}
	mutI64 = []byte{i64, 1, 0x42, 12, 0x0b}
	mutF32 = []byte{f32, 1, 0x43, 0, 0, 0x80, 0x3f, 0x0b}
	mutF64 = []byte{f64, 1, 0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x0b}
	conI32 = []byte{i32, 0, 0x41, 99, 0x0b}
	mutVec = cat([]byte{v128, 1, 0xfd, 12}, make([]byte, 16), []byte{0x0b})
	mutRef = []byte{fun, 1, 0xd0, fun, 0x0b}
	mutExt = []byte{ext, 1, 0xd0, ext, 0x0b}
	conRef = []byte{fun, 0, 0xd0, fun, 0x0b}
)

func TestStateIsExported(t *testing.T) {
	t.Parallel()
	o := rewritten(t, module(memory(0, 2), globals(conI32, mutI64, mutVec, mutI32, mutRef, mutF64, conRef, mutF32, mutExt),
		section(7, vec(export("mine", 3, 3)))))
	if o.Globals != 4 || len(o.Exports) != 1 || o.Exports[0].Name != "mine" {
		t.Errorf("%d globals, exports %v", o.Globals, o.Exports)
	}
	mod := startRewritten(t, newRuntime(t, unlimited()), o)
	for i, want := range []struct {
		t api.ValueType
		v uint64
	}{{i64, 12}, {i32, 11}, {f64, api.EncodeF64(1)}, {f32, api.EncodeF32(1)}} {
		g, ok := mod.ExportedGlobal(rewrite.GlobalName(i)).(api.MutableGlobal)
		if !ok || g.Type() != want.t || g.Get() != want.v {
			t.Errorf("global %d is %v", i, g)
		}
	}
	if g := mod.ExportedGlobal(rewrite.GlobalName(4)); g != nil {
		t.Errorf("there is a fifth: %v", g)
	}
	mod.ExportedGlobal(rewrite.GlobalName(1)).(api.MutableGlobal).Set(77)
	if got := mod.ExportedGlobal("mine").Get(); got != 77 {
		t.Errorf("the module's own export gives %d", got)
	}
	if mem := mod.ExportedMemory(rewrite.MemoryExport); mem == nil || mem.Size() != 2<<16 {
		t.Errorf("the memory is %v", mem)
	}
	if rewrite.GlobalName(10) != "casemate_global_10" {
		t.Errorf("a name is %q", rewrite.GlobalName(10))
	}
}

// What is imported is another's to keep.
func TestImportedStateIsNotExported(t *testing.T) {
	t.Parallel()
	m := module(section(2, vec(importOf("env", "g", 3, i32, 1), importOf("env", "m", 2, 0, 1))), globals(mutI32))
	o := rewritten(t, m)
	if o.Globals != 1 {
		t.Errorf("%d globals", o.Globals)
	}
	r := newRuntime(t, unlimited())
	c, err := r.CompileModule(t.Context(), o.Module)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ExportedMemories()) != 0 {
		t.Error("an imported memory is exported")
	}
	provider := module(memory(0, 1), globals(mutI32), section(7, vec(export("g", 3, 0), export("m", 2, 0))))
	if _, err := r.InstantiateWithConfig(t.Context(), provider, named("env")); err != nil {
		t.Fatal(err)
	}
	mod, err := r.InstantiateModule(t.Context(), c, named(""))
	if err != nil {
		t.Fatal(err)
	}
	mod.ExportedGlobal(rewrite.GlobalName(0)).(api.MutableGlobal).Set(5)
	if got := r.Module("env").ExportedGlobal("g").Get(); got != 11 {
		t.Errorf("the exported global is the imported one: %d", got)
	}
}

func TestReservedNamesAreRefused(t *testing.T) {
	t.Parallel()
	all := func(name string, kind byte) []byte {
		return module(types(sig(nil, nil)), functions(0), section(4, vec([]byte{fun, 0, 1})), memory(0, 1), globals(mutI32),
			section(7, vec(export("other", 0, 0), export(name, kind, 0))), code(body(0, 0)))
	}
	for kind := range byte(4) {
		for _, name := range []string{
			"casemate_", "casemate_x", rewrite.GlobalExport, rewrite.MemoryExport, rewrite.StartExport, rewrite.GlobalName(0),
		} {
			refused(t, all(name, kind), "platform's own")
		}
		for _, name := range []string{"casemate", "Casemate_memory", "my_casemate_memory", ""} {
			rewritten(t, all(name, kind))
		}
	}
}

func TestStartFunctionWaits(t *testing.T) {
	t.Parallel()
	fn := types(sig(nil, nil), sig(nil, vals(i32)), sig(vals(i32), nil))
	set := func(n byte) []byte { return body(0, 0, 0x41, n, 0x24, 0) }
	local := module(fn, functions(0, 0, 0), globals(mutI32), section(8, u(1)), code(set(20), set(21), set(22)))
	o := rewritten(t, local)
	if !o.HasStart || len(o.Exports) != 0 {
		t.Errorf("start %v, exports %v", o.HasStart, o.Exports)
	}
	r := newRuntime(t, unlimited())
	mod := start(t, r, o.Module)
	value := func() uint64 { return mod.ExportedGlobal(rewrite.GlobalName(0)).Get() }
	if value() != 11 {
		t.Errorf("it ran by itself: %d", value())
	}
	if _, err := call(mod, rewrite.StartExport); err != nil || value() != 21 {
		t.Errorf("the start function gives %d (%v)", value(), err)
	}
	// With other exports, behind imports, and with an index in two bytes.
	many := make([]int, 200)
	bodies := slices.Repeat([][]byte{set(1)}, 200)
	bodies[150] = set(50)
	behind := module(fn, section(2, vec(importFunc("env", "f", 0))), functions(many...), globals(mutI32),
		section(7, vec(export("a", 0, 3), export("b", 0, 0))), section(0, str("custom")), section(8, u(151)), code(bodies...))
	calls := 0
	_, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() { calls++ }).Export("f").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod = startRewritten(t, r, rewritten(t, behind))
	if value() != 50 || calls != 0 || mod.ExportedFunction("a") == nil || mod.ExportedFunction("b") == nil {
		t.Errorf("the start function gives %d", value())
	}
	// The start function may be an imported one.
	startRewritten(t, r, rewritten(t, module(fn, section(2, vec(importFunc("env", "f", 0))), section(8, u(0)))))
	if calls != 1 {
		t.Errorf("an imported start function ran %d times", calls)
	}
	none := rewritten(t, module(fn, functions(0), code(body(0, 0))))
	if mod := startRewritten(t, r, none); none.HasStart || mod.ExportedFunction(rewrite.StartExport) != nil {
		t.Error("there is a start function")
	}
	// The engine would have refused these, and no longer sees them.
	refused(t, module(fn, functions(1), section(8, u(0)), code(body(0, 0, 0x41, 0))), "start function")
	refused(t, module(fn, functions(2), section(8, u(0)), code(body(0, 0))), "start function")
	refused(t, module(fn, functions(0), section(8, u(1)), code(body(0, 0))), "no function 1")
}

// The start function's export must not make a reference valid that was not.
func TestReferencesAreDeclared(t *testing.T) {
	t.Parallel()
	refer := code(body(0, 0), body(0, 0, 0xd2, 1, 0x1a))
	build := func(sections ...[]byte) []byte {
		return module(types(sig(nil, nil)), functions(0, 0), section(4, vec([]byte{fun, 0, 1})), cat(sections...), refer)
	}
	refused(t, build(section(8, u(1))), "not declared")
	refused(t, build(section(7, vec(export("f", 0, 0))), section(8, u(1))), "not declared")
	r := newRuntime(t, nil)
	for name, m := range map[string][]byte{
		"export":   build(section(7, vec(export("f", 0, 1))), section(8, u(1))),
		"element":  build(section(8, u(1)), section(9, vec(cat([]byte{3, 0}, vec(u(1)))))),
		"elements": build(section(8, u(1)), section(9, vec(cat([]byte{7, fun}, vec([]byte{0xd2, 1, 0x0b}))))),
		"global":   build(globals([]byte{fun, 0, 0xd2, 1, 0x0b}), section(8, u(1))),
	} {
		if !compiles(t, r, m) || !compiles(t, r, rewritten(t, m).Module) {
			t.Errorf("%s: not valid", name)
		}
	}
}

type seg struct {
	flags, at, data []byte
}

func data(segments ...seg) []byte {
	var parts [][]byte
	for _, s := range segments {
		if s.at != nil {
			s.at = cat(s.at, []byte{0x0b})
		}
		parts = append(parts, cat(s.flags, s.at, u(len(s.data)), s.data))
	}
	return section(11, vec(parts...))
}

func TestDataMovesOut(t *testing.T) {
	t.Parallel()
	at := func(offset ...byte) []byte { return cat([]byte{0x41}, offset) }
	for name, c := range map[string]struct {
		seg    seg
		offset uint32
	}{
		"zero":           {seg{u(0), at(0), []byte("ab")}, 0},
		"one byte":       {seg{u(0), at(0x3f), []byte("ab")}, 63},
		"two bytes":      {seg{u(0), at(0xc0, 0), []byte("ab")}, 64},
		"padded":         {seg{u(0), at(0x85, 0x80, 0x80, 0x80, 0), []byte("ab")}, 5},
		"with an index":  {seg{cat(u(2), u(0)), at(7), []byte("ab")}, 7},
		"empty":          {seg{u(0), at(9), nil}, 9},
		"minus one":      {seg{u(0), at(0x7f), []byte("ab")}, 1<<32 - 1},
		"minus 65536":    {seg{u(0), at(0x80, 0x80, 0x7c), []byte("ab")}, 1<<32 - 1<<16},
		"least":          {seg{u(0), at(0x80, 0x80, 0x80, 0x80, 0x78), []byte("ab")}, 1 << 31},
		"most":           {seg{u(0), at(0xff, 0xff, 0xff, 0xff, 0x07), nil}, 1<<31 - 1},
		"padded minus 1": {seg{u(0), at(0xff, 0xff, 0xff, 0xff, 0x7f), []byte("ab")}, 1<<32 - 1},
	} {
		m := module(memory(0, 1), data(c.seg))
		o := rewritten(t, m)
		if len(o.Segments) != 1 || o.Segments[0].Offset != c.offset || !bytes.Equal(o.Segments[0].Data, c.seg.data) || o.DataSegments != 1 {
			t.Errorf("%s: %v of %d", name, o.Segments, o.DataSegments)
		}
		if ids := sectionsOf(o.Module); slices.ContainsFunc(ids, func(s part) bool { return s.id == 11 }) {
			t.Errorf("%s: a data section is left", name)
		}
	}
	// Data is the input's.
	m := module(memory(0, 1), data(seg{u(0), at(0), []byte("needle")}))
	o := rewritten(t, m)
	m[bytes.Index(m, []byte("needle"))] = 'N'
	if string(o.Segments[0].Data) != "Needle" || cap(o.Segments[0].Data) != 6 {
		t.Errorf("data is %q, a copy", o.Segments[0].Data)
	}
}

// With a data count, instructions may name segments: each keeps its number.
func TestDataLeavesItsPlace(t *testing.T) {
	t.Parallel()
	zero, passive := []byte{0x41, 0}, seg{u(1), nil, []byte("passive")}
	init := func(segment byte) []byte { return body(0, 0, 0x41, 8, 0x41, 0, 0x20, 0, 0xfc, 8, segment, 0) }
	m := module(types(sig(vals(i32), nil), sig(nil, nil)), functions(0, 0, 1), memory(0, 1),
		section(7, vec(export("first", 0, 0), export("second", 0, 1), export("drop", 0, 2))), section(12, u(3)),
		code(init(0), init(1), body(0, 0, 0xfc, 9, 0)),
		data(seg{u(0), zero, []byte("active")}, passive, seg{u(0), zero, []byte("ACT")}))
	o := rewritten(t, m)
	if len(o.Segments) != 2 || string(o.Segments[1].Data) != "ACT" {
		t.Fatalf("segments %v", o.Segments)
	}
	mod := startRewritten(t, newRuntime(t, unlimited()), o)
	if got, _ := mod.ExportedMemory(rewrite.MemoryExport).Read(0, 7); string(got) != "ACTive\x00" {
		t.Errorf("memory begins with %q", got)
	}
	if _, err := call(mod, "second", 7); err != nil {
		t.Errorf("the passive segment: %v", err)
	}
	if got, _ := mod.ExportedMemory(rewrite.MemoryExport).Read(8, 7); string(got) != "passive" {
		t.Errorf("the passive segment gives %q", got)
	}
	// As the specification has it, an active segment is dropped after use.
	if _, err := call(mod, "first", 0); err != nil {
		t.Errorf("nothing of a dropped segment: %v", err)
	}
	if _, err := call(mod, "first", 1); err == nil || !strings.Contains(reason(err), "out of bounds") {
		t.Errorf("a byte of a dropped segment: %v", err)
	}
	if _, err := call(mod, "drop"); err != nil {
		t.Errorf("dropping it again: %v", err)
	}
	// Without the count no instruction can, and passive ones go too.
	o = rewritten(t, module(memory(0, 1), data(passive, seg{u(0), zero, []byte("a")})))
	if len(o.Segments) != 1 || bytes.Contains(o.Module, []byte("passive")) {
		t.Errorf("segments %v, a passive one is left", o.Segments)
	}
	// Where nothing is active, nothing moves.
	o = rewritten(t, module(memory(0, 1), data(passive)))
	if o.Segments != nil || !bytes.Contains(o.Module, []byte("passive")) || !bytes.Contains(o.Stub, []byte("passive")) {
		t.Errorf("segments %v", o.Segments)
	}
}

func TestDataStays(t *testing.T) {
	t.Parallel()
	constant := seg{u(0), []byte{0x41, 1}, []byte("constant")}
	computed := seg{u(0), []byte{0x23, 0}, []byte("computed")}
	imported := section(2, vec(importOf("env", "g", 3, i32, 0)))
	for name, m := range map[string][]byte{
		"offset first":    module(imported, memory(0, 1), section(12, u(2)), data(computed, constant)),
		"offset last":     module(imported, memory(0, 1), section(12, u(2)), data(constant, computed)),
		"no count":        module(imported, memory(0, 1), data(constant, computed)),
		"imported memory": module(section(2, vec(importOf("env", "m", 2, 0, 1))), data(constant)),
		"of wrong type":   module(memory(0, 1), data(constant, seg{u(0), []byte{0x42, 1}, nil})),
	} {
		o := rewritten(t, m)
		if o.Segments != nil {
			t.Errorf("%s: segments %v", name, o.Segments)
		}
		last := sectionsOf(m)
		want := last[len(last)-1]
		if !slices.ContainsFunc(sectionsOf(o.Module), func(p part) bool { return p.id == 11 && bytes.Equal(p.body, want.body) }) {
			t.Errorf("%s: the data section is not what it was", name)
		}
	}
	refused(t, module(data(constant)), "there is none")
	for _, long := range [][]byte{{0x80, 0x80, 0x80, 0x80, 0x80, 0}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0x80, 0x80, 0x80, 0x80, 0x70}} {
		refused(t, module(memory(0, 1), data(seg{u(0), cat([]byte{0x41}, long), nil})), "32 bits")
	}
	refused(t, module(memory(0, 1), section(11, []byte{1, 0, 0x41})), "too early")
	refused(t, module(memory(0, 1), section(11, []byte{1, 2, 0})), "too early")
	refused(t, module(memory(0, 1), data(seg{u(0), []byte{0x41, 1, 0x41, 2, 0x6a}, nil})), "extended constant")
	refused(t, module(data(seg{u(3), nil, nil})), "no flags")
	refused(t, module(memory(0, 1), data(seg{cat(u(2), u(1)), []byte{0x41, 0}, nil})), "multi-memory")
	refused(t, module(memory(0, 1), data(seg{u(0), []byte{0xd2, 0}, nil})), "not a number")
}

// A module whose data does not fit fails, as it would have at its start.
func TestSegmentsOutOfBounds(t *testing.T) {
	t.Parallel()
	page := []byte{0x41, 0x80, 0x80, 0x04} // 65536
	last := []byte{0x41, 0xff, 0xff, 0x03} // 65535
	for name, c := range map[string]struct {
		m    []byte
		fits bool
	}{
		"last byte":     {module(memory(0, 1), data(seg{u(0), last, []byte("a")})), true},
		"one beyond":    {module(memory(0, 1), data(seg{u(0), last, []byte("ab")})), false},
		"empty at end":  {module(memory(0, 1), data(seg{u(0), page, nil})), true},
		"byte at end":   {module(memory(0, 1), data(seg{u(0), page, []byte("a")})), false},
		"second page":   {module(memory(0, 2), data(seg{u(0), page, []byte("a")})), true},
		"no page":       {module(memory(0, 0), data(seg{u(0), []byte{0x41, 0}, nil})), true},
		"byte, no page": {module(memory(0, 0), data(seg{u(0), []byte{0x41, 0}, []byte("a")})), false},
		"minus one":     {module(memory(0, 1), data(seg{u(0), []byte{0x41, 0x7f}, nil})), false},
		"wraps round":   {module(memory(0, 1), data(seg{u(0), []byte{0x41, 0x7f}, []byte("ab")})), false},
		"second":        {module(memory(0, 1), data(seg{u(0), last, nil}, seg{u(0), page, []byte("a")})), false},
	} {
		r := newRuntime(t, unlimited())
		_, err := enter(t, r, rewritten(t, c.m), "")
		if (err == nil) != c.fits || err != nil && !errors.Is(err, errSegment) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = r.InstantiateWithConfig(context.Background(), c.m, named(""))
		if (err == nil) != c.fits {
			t.Errorf("%s: the engine says %v", name, err)
		}
	}
}

func TestRestorable(t *testing.T) {
	t.Parallel()
	fine := func(m []byte) {
		t.Helper()
		if err := rewritten(t, m).Restorable(); err != nil {
			t.Errorf("want none: %v", err)
		}
	}
	not := func(m []byte, why ...string) {
		t.Helper()
		err := rewritten(t, m).Restorable()
		for _, w := range why {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("want %q: %v", w, err)
			}
		}
	}
	fine(module())
	fine(handmade())
	fine(module(types(sig(nil, nil)), section(2, vec(importFunc("env", "f", 0))), memory(0, 1), globals(mutI32, mutI64, mutF32, mutF64, conI32, conRef),
		section(8, u(0))))
	fine(with(0x41, 0, 0x25, 0, 0x1a, 0xfc, 16, 0, 0x1a))                   // table.get, table.size
	fine(with(0x41, 1, 0x40, 0, 0x1a))                                      // memory.grow
	fine(with(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0))                    // memory.init
	not(with(0x41, 0, 0xd0, fun, 0x26, 0), "changes a table")               // table.set
	not(with(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, 0, 0), "changes a table") // table.init
	not(with(0xfc, 13, 0), "elem.drop")
	not(with(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 14, 0, 0), "changes a table") // table.copy
	not(with(0xd0, fun, 0x41, 0, 0xfc, 15, 0, 0x1a), "changes a table")     // table.grow
	not(with(0x41, 0, 0xd0, fun, 0x41, 0, 0xfc, 17, 0), "changes a table")  // table.fill
	not(with(0xfc, 9, 0), "data.drop")
	not(module(globals(mutVec)), "v128")
	not(module(globals(mutRef)), "reference")
	not(module(globals(mutExt)), "reference")
	not(module(section(2, vec(importOf("env", "mem", 2, 0, 1)))), `imports the memory "mem" from "env"`)
	not(module(section(2, vec(importOf("env", "tab", 1, fun, 0, 1)))), `imports the table "tab"`)
	not(module(section(2, vec(importOf("env", "glo", 3, i32, 1)))), `imports the global "glo"`)
	not(module(section(2, vec(importOf("env", "con", 3, i32, 0)))), `imports the global "con"`)
	not(module(types(sig(nil, nil)), section(2, vec(importFunc("env", "f", 0), importOf("env", "mem", 2, 0, 1)))), `"mem"`)
	// All that is in the way, at once.
	not(module(globals(mutRef, mutVec)), "v128", "reference")
}

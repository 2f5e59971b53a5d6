package rewrite_test

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

type sample struct {
	name  string
	bytes []byte
	args  []uint64
	want  []uint64 // of the export "f"
}

// samples are modules with two imported functions at least, wherever functions
// are numbered: so each index that is not moved points to another function.
func samples() []sample {
	numbers := types(sig(nil, vals(i32)), sig(vals(i32), vals(i32)), sig(nil, nil), sig(vals(i32, i32), vals(i32, i32)))
	imports := section(2, vec(importFunc("env", "seven", 0), importFunc("env", "eight", 0)))
	give := func(n byte) []byte { return body(0, 0, 0x41, n) }
	// Functions 2, 3 and 4 give 20, 30 and 40; function 5 is the test.
	test := func(t int, c []byte, sections ...[]byte) []byte {
		all := [][]byte{numbers, imports, functions(0, 0, 0, t)}
		all = append(all, sections...)
		all = append(all, code(give(20), give(30), give(40), c))
		return module(all...)
	}
	f := section(7, vec(export("g", 0, 2), export("f", 0, 5)))
	table := section(4, vec([]byte{fun, 0, 10}))
	pick := body(0, 0, 0x20, 0, 0x11, 0, 0) // calls what the table has at the argument
	fromTable := func(name string, segment []byte, at uint64, want uint64) sample {
		return sample{name, test(1, pick, table, f, section(9, vec(segment))), []uint64{at}, []uint64{want}}
	}
	// Takes elements of a passive segment first.
	initTable := body(0, 0, 0x41, 0, 0x41, 0, 0x41, 2, 0xfc, 12, 0, 0, 0x20, 0, 0x11, 0, 0)
	fromPassive := func(name string, segment []byte) sample {
		return sample{name, test(1, initTable, table, f, section(9, vec(segment))), []uint64{1}, []uint64{40}}
	}
	reference := body(0, 0, 0x41, 3, 0xd2, 4, 0x26, 0, 0x41, 3, 0x11, 0, 0)
	return []sample{
		{"call local", test(0, body(0, 0, 0x10, 3, 0x10, 4, 0x6a), f), nil, []uint64{70}},
		{"call imported", test(0, body(0, 0, 0x10, 0, 0x10, 1, 0x6a), f), nil, []uint64{15}},
		{"loop", test(1, body(1, i32,
			0x03, 0x40, 0x20, 1, 0x20, 0, 0x6a, 0x21, 1, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, 0x20, 1), f), []uint64{100}, []uint64{5050}},
		{"loop with a result", test(1, body(0, 0, 0x03, i32, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x04, 0x40, 0x0c, 1, 0x0b, 0x41, 9, 0x0b), f), []uint64{5}, []uint64{9}},
		{
			"loop with parameters", test(3, body(0, 0,
				0x20, 0, 0x20, 1, 0x03, 3, 0x21, 1, 0x41, 3, 0x6a, 0x20, 1, 0x41, 1, 0x6b, 0x22, 1, 0x20, 1, 0x0d, 0, 0x0b), f),
			[]uint64{1, 4},
			[]uint64{13, 0},
		},
		{"br_table in nested blocks", test(1, body(0, 0,
			0x02, 0x40, 0x02, 0x40, 0x02, 0x40, 0x20, 0, 0x0e, 2, 0, 1, 2, 0x0b, 0x41, 20, 0x0f, 0x0b, 0x41, 21, 0x0f, 0x0b, 0x41, 22), f), []uint64{1}, []uint64{21}},
		fromTable("elements 0", cat([]byte{0, 0x41, 0, 0x0b}, vec(u(0), u(2), u(3))), 2, 30),
		fromTable("elements 0, imported", cat([]byte{0, 0x41, 0, 0x0b}, vec(u(0), u(2), u(3))), 0, 7),
		fromTable("elements 2", cat([]byte{2, 0, 0x41, 1, 0x0b, 0}, vec(u(4))), 1, 40),
		fromTable("elements 4", cat([]byte{4, 0x41, 0, 0x0b}, vec([]byte{0xd0, fun, 0x0b}, []byte{0xd2, 3, 0x0b})), 1, 30),
		fromTable("elements 6", cat([]byte{6, 0, 0x41, 0, 0x0b, fun}, vec([]byte{0xd2, 4, 0x0b}, []byte{0xd2, 2, 0x0b})), 1, 20),
		fromPassive("elements 1", cat([]byte{1, 0}, vec(u(3), u(4)))),
		fromPassive("elements 5", cat([]byte{5, fun}, vec([]byte{0xd2, 3, 0x0b}, []byte{0xd2, 4, 0x0b}))),
		{"elements 3", test(0, reference, table, f, section(9, vec(cat([]byte{3, 0}, vec(u(4)))))), nil, []uint64{40}},
		{"elements 7", test(0, reference, table, f, section(9, vec(cat([]byte{7, fun}, vec([]byte{0xd2, 4, 0x0b}))))), nil, []uint64{40}},
		{"global with ref.func", test(0, body(0, 0, 0x41, 0, 0x23, 0, 0x26, 0, 0x41, 0, 0x11, 0, 0), table,
			section(6, vec([]byte{fun, 0, 0xd2, 3, 0x0b})), f), nil, []uint64{30}},
		{"exported import", test(0, body(0, 0, 0x41, 0), section(7, vec(export("g", 0, 5), export("f", 0, 1)))), nil, []uint64{8}},
		{"start", module(numbers, functions(2, 0), section(6, vec([]byte{i32, 1, 0x41, 0, 0x0b})), section(7, vec(export("f", 0, 1))),
			section(8, u(0)), code(body(0, 0, 0x41, 5, 0x24, 0), body(0, 0, 0x23, 0))), nil, []uint64{5}},
		{"data and bulk memory", module(numbers, functions(1), section(5, vec([]byte{0, 1})), section(7, vec(export("f", 0, 0))), section(12, u(1)),
			code(body(0, 0,
				0x41, 8, 0x41, 0, 0x41, 4, 0xfc, 8, 0, 0, // init
				0x41, 16, 0x41, 8, 0x41, 4, 0xfc, 10, 0, 0, // copy
				0x41, 17, 0x41, 1, 0x20, 0, 0xfc, 11, 0, // fill
				0xfc, 9, 0, 0x41, 1, 0x40, 0, 0x1a,
				0x41, 16, 0x28, 2, 0, 0x3f, 0, 0x6a)),
			section(11, vec(cat([]byte{1}, str("abcd"))))), []uint64{2}, []uint64{0x64010161 + 2}},
		{"vectors", module(numbers, functions(1), section(5, vec([]byte{0, 1})), section(7, vec(export("f", 0, 0))),
			code(body(0, 0,
				0x20, 0, 0xfd, 17, // i32x4.splat
				0xfd, 12, 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, // v128.const
				0xfd, 0xae, 0x01, // i32x4.add
				0xfd, 12, 0x0b, 0x03, 0x40, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // bytes like code
				0xfd, 0xae, 0x01, 0xfd, 27, 3))), []uint64{4}, []uint64{7}},
	}
}

func TestSameResults(t *testing.T) {
	t.Parallel()
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			for _, name := range []string{"original", "rewritten"} {
				k := &tank{allowance: 5, refills: -1}
				r := newRuntime(t, k)
				env := r.NewHostModuleBuilder("env")
				for name, n := range map[string]uint64{"seven": 7, "eight": 8} {
					env.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) { stack[0] = n }),
						nil, []api.ValueType{api.ValueTypeI32}).Export(name)
				}
				if _, err := env.Instantiate(t.Context()); err != nil {
					t.Fatal(err)
				}
				var mod api.Module
				if name == "original" {
					mod = start(t, r, s.bytes)
				} else {
					mod = startRewritten(t, r, rewritten(t, s.bytes))
				}
				got, err := call(mod, "f", s.args...)
				if err != nil || !slices.Equal(got, s.want) {
					t.Errorf("%s: got %v (%v), want %v", name, got, err, s.want)
				}
				if s.name != "exported import" && (k.ticks > 0) != (name == "rewritten") {
					t.Errorf("%s: %d ticks", name, k.ticks)
				}
			}
		})
	}
}

func TestFacts(t *testing.T) {
	t.Parallel()
	two := sig(vals(i32, i64), vals(f64))
	m := module(types(sig(nil, nil), two),
		section(2, vec(importFunc("env", "a", 1), cat(str("env"), str("m"), []byte{2, 1, 1, 9}))),
		functions(0, 0), section(4, vec([]byte{fun, 0, 1})), section(7, vec(export("run", 0, 1), export("table", 1, 0), export("a", 0, 0))),
		section(8, u(1)), section(9, vec([]byte{1, 0, 0})), section(12, u(1)),
		code(body(0, 0, 0x03, 0x40, 0x0b, 0x41, 1, 0x40, 0, 0x1a, 0xfc, 9, 0), body(0, 0, 0xfc, 13, 0, 0x41, 0, 0xd0, fun, 0x26, 0)),
		section(11, vec([]byte{1, 0})))
	f := rewritten(t, m).Facts
	if len(f.Imports) != 2 || f.Imports[0].Name != "a" || f.Imports[0].Kind != rewrite.KindFunc ||
		f.Imports[0].Signature.String() != "(i32, i64) -> (f64)" || f.Imports[1].Kind != rewrite.KindMemory || f.Imports[1].Module != "env" {
		t.Errorf("imports: %v", f.Imports)
	}
	if len(f.Exports) != 3 || f.Exports[0].Name != "run" || !f.Exports[0].Signature.Equal(rewrite.Signature{}) ||
		f.Exports[1].Kind != rewrite.KindTable || !f.Exports[2].Signature.Equal(f.Imports[0].Signature) {
		t.Errorf("exports: %v", f.Exports)
	}
	f.Imports, f.Exports = nil, nil
	want := rewrite.Facts{
		Functions: 2, Loops: 1, HasStart: true, MutatesTable: true, DropsData: true, DropsElements: true, GrowsMemory: true,
		HasMemory: true, HasMemoryMax: true, MemoryMin: 1, MemoryMax: 9, DataSegments: 1,
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got %v\nwant %v", f, want)
	}
	quiet := rewritten(t, with(0x41, 0, 0x25, 0, 0x1a, 0xfc, 16, 0, 0x1a)).Facts
	if quiet.MutatesTable || quiet.DropsData || quiet.DropsElements || quiet.GrowsMemory || quiet.HasStart {
		t.Errorf("reading a table is no change: %v", quiet)
	}
}

func TestTrapsTellNames(t *testing.T) {
	t.Parallel()
	names := cat(str("name"),
		section(0, str("guest")),
		section(1, vec(cat(u(0), str("imported")), cat(u(1), str("culprit")), cat(u(2), str("caller")))),
		section(2, vec(cat(u(1), vec(cat(u(0), str("local")))))))
	m := module(types(sig(nil, vals(i32)), sig(nil, nil)), section(2, vec(importFunc("env", "seven", 0))), functions(1, 1),
		section(7, vec(export("f", 0, 2))),
		section(0, str(".debug_info"), []byte("offsets")), section(0, names),
		code(body(0, 0, 0x00), body(0, 0, 0x10, 1)))
	out := rewritten(t, m)
	r := newRuntime(t, unlimited())
	_, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() uint32 { return 7 }).Export("seven").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = call(startRewritten(t, r, out), "f")
	if err == nil || !strings.Contains(err.Error(), "guest.culprit()") || !strings.Contains(err.Error(), "guest.caller()") {
		t.Errorf("the trace has not the names: %v", err)
	}
	if strings.Contains(string(out.Module), "debug_info") {
		t.Error("a section with stale offsets was kept")
	}
	// What cannot be read is left out, and the module lives on.
	bad := module(section(0, str("name"), []byte{1, 3, 1, 9, 0}))
	if out := rewritten(t, bad); strings.Contains(string(out.Module), "name") {
		t.Error("a broken name section was kept")
	}
}

func TestSmallestModules(t *testing.T) {
	t.Parallel()
	for name, m := range map[string][]byte{
		"empty":         module(),
		"only types":    module(types(sig(nil, nil))),
		"only memory":   module(section(5, vec([]byte{0, 1}))),
		"only data":     module(section(12, u(0)), section(11, vec())),
		"no type":       module(section(3, vec()), section(10, vec())),
		"customs first": module(section(0, str("x")), types(sig(nil, nil)), section(0, str("y"))),
	} {
		mod := startRewritten(t, newRuntime(t, unlimited()), rewritten(t, m))
		if mod.ExportedGlobal(rewrite.GlobalExport) == nil {
			t.Errorf("%s: there is no fuel", name)
		}
	}
}

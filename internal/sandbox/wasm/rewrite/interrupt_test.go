package rewrite_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// endless are modules whose export "f" never returns by itself.
func endless() map[string][]byte {
	fn := types(sig(nil, nil), sig(nil, vals(i32)), sig(vals(i32), vals(i32)))
	f := section(7, vec(export("f", 0, 0)))
	one := func(c ...byte) []byte { return module(fn, functions(0), f, code(body(0, 0, c...))) }
	call1, call0 := body(0, 0, 0x10, 1), body(0, 0, 0x10, 0)
	return map[string][]byte{
		"loop":           one(0x03, 0x40, 0x0c, 0, 0x0b),
		"loop in a loop": one(0x03, 0x40, 0x03, 0x40, 0x0c, 1, 0x0b, 0x0b),
		"br_if":          one(0x03, 0x40, 0x41, 1, 0x0d, 0, 0x0b),
		"br_table":       one(0x03, 0x40, 0x02, 0x40, 0x41, 7, 0x0e, 1, 0, 1, 0x0b, 0x0c, 0, 0x0b),
		"from a block":   one(0x03, 0x40, 0x02, 0x40, 0x02, 0x40, 0x0c, 2, 0x0b, 0x0b, 0x0b),
		"from an else":   one(0x03, 0x40, 0x41, 0, 0x04, 0x40, 0x05, 0x0c, 1, 0x0b, 0x0b),
		"with a result":  one(0x03, i32, 0x0c, 0, 0x0b, 0x1a),
		"parameters":     one(0x41, 1, 0x03, 2, 0x0c, 0, 0x0b, 0x1a),
		"self":           one(0x10, 0),
		"mutual":         module(fn, functions(0, 0), f, code(call1, call0)),
		"through a table": module(fn, functions(0, 0), section(4, vec([]byte{fun, 0, 1})), f,
			section(9, vec(cat([]byte{0, 0x41, 0, 0x0b}, vec(u(1))))), code(body(0, 0, 0x41, 0, 0x11, 0, 0), call0)),
	}
}

func TestEndlessGuestsAreStopped(t *testing.T) {
	t.Parallel()
	for name, m := range endless() {
		k := &tank{allowance: 500, refills: 10}
		mod := startRewritten(t, newRuntime(t, k), rewritten(t, m))
		if _, err := call(mod, "f"); !errors.Is(err, errStopped) || k.ticks != 11 {
			t.Errorf("%s: %v after %d ticks", name, err, k.ticks)
		}
	}
}

func TestEndlessStartIsStopped(t *testing.T) {
	t.Parallel()
	m := module(types(sig(nil, nil)), functions(0), section(8, u(0)), code(body(0, 0, 0x03, 0x40, 0x0c, 0, 0x0b)))
	k := &tank{allowance: 500, refills: 10}
	_, err := enter(t, newRuntime(t, k), rewritten(t, m), "")
	if !errors.Is(err, errStopped) || k.ticks != 11 {
		t.Errorf("%v after %d ticks", err, k.ticks)
	}
}

// spend runs f with plenty and tells what it used.
func spend(t *testing.T, m []byte, args ...uint64) int64 {
	t.Helper()
	const plenty = 1 << 60
	mod := startRewritten(t, newRuntime(t, &tank{allowance: plenty, refills: -1}), rewritten(t, m))
	if _, err := call(mod, "f", args...); err != nil { // the first payment fills the tank
		t.Fatal(err)
	}
	before := leftIn(mod)
	if _, err := call(mod, "f", args...); err != nil {
		t.Fatal(err)
	}
	return before - leftIn(mod)
}

// A long body without loops inside a loop must not be had for the price of one.
func TestLongBodiesPayForTheirLength(t *testing.T) {
	t.Parallel()
	f := section(7, vec(export("f", 0, 0)))
	work := bytes.Repeat([]byte{0x20, 0, 0x67, 0x1a}, 667) // a unit and a half each
	countdown := []byte{0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b}
	loop := module(types(sig(vals(i32), nil)), functions(0), f, code(body(0, 0, cat([]byte{0x03, 0x40}, work, countdown)...)))
	if got := spend(t, loop, 10); got < 10_000 || got > 10_200 {
		t.Errorf("ten times a thousand instructions cost %d", got)
	}
	skipped := module(types(sig(vals(i32), nil)), functions(0), f,
		code(body(0, 0, cat(work, []byte{0x03, 0x40}, countdown, work)...)))
	if got := spend(t, skipped, 1000); got < 2000 || got > 12_000 {
		t.Errorf("a short loop in a long function costs %d", got)
	}
	locals := module(types(sig(vals(i32), nil)), functions(0), f, code(body(30_000, i64)))
	if got := spend(t, locals, 0); got < 30_000 { // each is cleared
		t.Errorf("thirty thousand locals cost %d", got)
	}
	// Type 1 is (i32 × 500) -> (i32 × 500).
	wide := bytes.Repeat([]byte{i32}, 500)
	values := bytes.Repeat([]byte{0x41, 0}, 500)
	drops := bytes.Repeat([]byte{0x1a}, 500)
	moved := module(types(sig(vals(i32), nil), sig(wide, wide)), functions(0), f,
		code(body(0, 0, cat(values, []byte{0x03, 1}, countdown, drops)...)))
	if got := spend(t, moved, 100); got < 100_000 {
		t.Errorf("a hundred times a thousand values moved cost %d", got)
	}
}

// One instruction of bulk memory may do the work of a million others.
func TestBulkOperationsPayForTheirSize(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	big := []byte{0x41, 0x80, 0x80, 0xc0, 0x00} // i32.const 1 MiB
	run := func(c ...byte) []byte {
		return module(types(sig(nil, nil)), functions(0),
			section(4, vec(cat([]byte{fun, 0}, u(2000)))), section(5, vec([]byte{0, 32})),
			section(7, vec(export("f", 0, 0))), section(9, vec(cat([]byte{5, fun}, u(1000), bytes.Repeat([]byte{0xd0, fun, 0x0b}, 1000)))),
			section(12, u(1)), code(body(0, 0, c...)),
			section(11, vec(cat([]byte{1}, u(mib), make([]byte, mib)))))
	}
	thousand := []byte{0x41, 0xe8, 0x07}
	for name, c := range map[string]struct {
		code  []byte
		least int64
	}{
		"memory.fill": {cat([]byte{0x41, 0, 0x41, 0}, big, []byte{0xfc, 11, 0}), mib / 16},
		"memory.copy": {cat([]byte{0x41, 0, 0x41, 9}, big, []byte{0xfc, 10, 0, 0}), mib / 16},
		"memory.init": {cat([]byte{0x41, 0, 0x41, 0}, big, []byte{0xfc, 8, 0, 0}), mib / 16},
		"memory.grow": {[]byte{0x41, 3, 0x40, 0, 0x1a}, 3 * 4096},
		"table.fill":  {cat([]byte{0x41, 0, 0xd0, fun}, thousand, []byte{0xfc, 17, 0}), 1000},
		"table.copy":  {cat([]byte{0x41, 0, 0x41, 9}, thousand, []byte{0xfc, 14, 0, 0}), 1000},
		"table.init":  {cat([]byte{0x41, 0, 0x41, 0}, thousand, []byte{0xfc, 12, 0, 0}), 1000},
		"table.grow":  {cat([]byte{0xd0, fun}, thousand, []byte{0xfc, 15, 0, 0x1a}), 1000},
	} {
		if got := spend(t, run(c.code...)); got < c.least || got > c.least+20 {
			t.Errorf("%s costs %d, want %d and a little", name, got, c.least)
		}
		// A row of them is stopped in the midst, without any loop.
		out := rewritten(t, run(bytes.Repeat(c.code, 100)...))
		k := &tank{allowance: c.least, refills: 20}
		if _, err := call(startRewritten(t, newRuntime(t, k), out), "f"); !errors.Is(err, errStopped) {
			t.Errorf("a hundred of %s: %v after %d ticks", name, err, k.ticks)
		}
	}
}

// Tables lie outside of linear memory: growing one must not take the host's.
func TestTablesGrowToTheirBound(t *testing.T) {
	t.Parallel()
	m := module(types(sig(vals(i32), vals(i32))), functions(0), section(4, vec([]byte{fun, 0, 5}, []byte{fun, 1, 5, 10})),
		section(7, vec(export("f", 0, 0), export("g", 0, 0))), code(body(0, 0, 0xd0, fun, 0x20, 0, 0xfc, 15, 0)))
	mod := startRewritten(t, newRuntime(t, unlimited()), rewritten(t, m))
	for _, c := range []struct {
		by   uint64
		want int32
	}{{rewrite.MaxTableElements, -1}, {1000, 5}, {rewrite.MaxTableElements / 2, -1}, {1, 1005}} {
		got, err := call(mod, "f", c.by)
		if err != nil || int32(got[0]) != c.want {
			t.Errorf("growing by %d gives %v (%v), want %d", c.by, got, err, c.want)
		}
	}
}

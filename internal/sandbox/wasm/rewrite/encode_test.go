package rewrite_test

// A small encoder of modules, independent of the package's own reading.

import (
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

const (
	i32 = byte(rewrite.I32)
	i64 = byte(rewrite.I64)
	f64 = byte(rewrite.F64)
	fun = byte(rewrite.FuncRef)
)

func u(v int) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func vec(parts ...[]byte) []byte { return cat(u(len(parts)), cat(parts...)) }

func str(s string) []byte { return cat(u(len(s)), []byte(s)) }

func section(id byte, body ...[]byte) []byte {
	b := cat(body...)
	return cat([]byte{id}, u(len(b)), b)
}

func module(sections ...[]byte) []byte {
	return cat([]byte("\x00asm\x01\x00\x00\x00"), cat(sections...))
}

func sig(params, results []byte) []byte {
	return cat([]byte{0x60}, u(len(params)), params, u(len(results)), results)
}

func vals(t ...byte) []byte { return t }

func types(t ...[]byte) []byte { return section(1, vec(t...)) }

func importFunc(mod, name string, t int) []byte {
	return cat(str(mod), str(name), []byte{0}, u(t))
}

func functions(t ...int) []byte {
	var parts [][]byte
	for _, x := range t {
		parts = append(parts, u(x))
	}
	return section(3, vec(parts...))
}

func export(name string, kind byte, index int) []byte {
	return cat(str(name), []byte{kind}, u(index))
}

// body is a function body without locals but for n of type t.
func body(n int, t byte, code ...byte) []byte {
	head := []byte{0}
	if n > 0 {
		head = cat([]byte{1}, u(n), []byte{t})
	}
	b := cat(head, code, []byte{0x0b})
	return cat(u(len(b)), b)
}

func code(bodies ...[]byte) []byte { return section(10, vec(bodies...)) }

// rewritten fails the test when the module is refused.
func rewritten(tb testing.TB, m []byte) *rewrite.Output {
	tb.Helper()
	before := slices.Clone(m)
	out, err := rewrite.Module(m)
	if err != nil {
		tb.Fatalf("rewriting: %v", err)
	}
	if !slices.Equal(before, m) {
		tb.Fatal("the input was changed")
	}
	return out
}

package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

func seeds(f *testing.F) {
	f.Helper()
	for _, s := range samples() {
		f.Add(s.bytes)
	}
	for _, m := range endless() {
		f.Add(m)
	}
	f.Add(handmade())
	for i := range 40 {
		f.Add(rapid.Custom(drawProgram).Example(i).encode())
		f.Add(rapid.Custom(drawModule).Example(i))
	}
	for _, m := range engineCases(f) {
		f.Add(m)
	}
}

// engineCases are the modules on which the engine once went wrong; they come with
// its source.
func engineCases(tb testing.TB) [][]byte {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(engineTests(tb), "fuzzcases", "testdata", "*.wasm"))
	if err != nil || len(paths) < 50 {
		tb.Fatalf("the engine has %d cases (%v)", len(paths), err)
	}
	var all [][]byte
	for _, path := range paths {
		m, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// withoutCustoms drops custom sections: the engine refuses some that the rewriter
// drops, as the specification has them ignored.
func withoutCustoms(m []byte) []byte {
	out := slices.Clone(m[:8])
	for at := 8; at < len(m); {
		size, shift, p := 0, 0, at+1
		for {
			size |= int(m[p]&0x7f) << shift
			shift += 7
			p++
			if m[p-1] < 0x80 {
				break
			}
		}
		if m[at] != 0 {
			out = append(out, m[at:p+size]...)
		}
		at = p + size
	}
	return out
}

// Whatever the bytes: no panic, and what is let through is valid to the engine
// after the rewriting just if it was before.
func FuzzModule(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, m []byte) {
		before := bytes.Clone(m)
		out, err := rewrite.Module(m)
		if !bytes.Equal(m, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if out != nil {
				t.Fatal("output besides an error")
			}
			return
		}
		if len(out.Module) > 4*len(m)+64<<10 || len(out.Stub) > 4*len(m)+64<<10 {
			t.Fatalf("%d bytes became %d and %d", len(m), len(out.Module), len(out.Stub))
		}
		for _, b := range [][]byte{out.Module, out.Stub} {
			if _, err := rewrite.Module(b); err == nil {
				t.Fatal("what pays already was let through")
			}
		}
		for _, s := range out.Segments {
			if len(s.Data) > 0 && !bytes.Contains(m, s.Data) {
				t.Fatal("a segment's data is not the input's")
			}
		}
		_ = out.Restorable()
		r := newRuntime(t, nil)
		_, was := r.CompileModule(context.Background(), withoutCustoms(m))
		_, is := r.CompileModule(context.Background(), out.Module)
		if (was == nil) != (is == nil) {
			t.Fatalf("before: %v\nafter: %v", was, is)
		}
		if _, stub := r.CompileModule(context.Background(), out.Stub); is == nil && stub != nil {
			t.Fatalf("the stub: %v", stub)
		}
		_ = r.Close(context.Background())
	})
}

// trace is what can be seen of a module's run: each export called in turn.
func trace(m api.Module, names []string, hasMemory bool) (string, bool) {
	var b strings.Builder
	for _, name := range names {
		f := m.ExportedFunction(name)
		args := make([]uint64, 0, 4)
		for i, p := range f.Definition().ParamTypes() {
			if args = append(args, uint64(i+3)); p == byte(rewrite.V128) {
				args = append(args, 1)
			} else if p == byte(rewrite.FuncRef) || p == byte(rewrite.ExternRef) {
				args[len(args)-1] = 0
			}
		}
		values, err := f.Call(context.Background(), args...)
		if errors.Is(err, errStopped) || strings.Contains(reason(err), "stack overflow") {
			return "", false
		}
		if slices.Contains(f.Definition().ResultTypes(), byte(rewrite.FuncRef)) {
			values = nil // addresses
		}
		fmt.Fprintln(&b, name, values, reason(err))
	}
	if hasMemory { // without one, Memory gives a nil pointer which is no nil interface
		memory := m.Memory()
		all, _ := memory.Read(0, memory.Size())
		sum := fnv.New64a()
		_, _ = sum.Write(all)
		fmt.Fprintln(&b, memory.Size(), sum.Sum64())
	}
	return b.String(), true
}

// The fuzzer chooses the programs.
func FuzzPrograms(f *testing.F) {
	f.Fuzz(func(t *testing.T, choices []byte) {
		press := newPress(t)
		rapid.MakeFuzz(func(rt *rapid.T) { (&programs{}).same(rt, t, press) })(t, choices)
	})
}

// What ends within its fuel does the same as the original does.
func FuzzDifferential(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, m []byte) {
		out, err := rewrite.Module(m)
		if err != nil || out.MemoryMin > 16 {
			return
		}
		// The engine keeps active segments readable, against the specification.
		if out.Segments != nil && bytes.Contains(m, []byte{0xfc, 8}) {
			return
		}
		ctx := context.Background()
		r := newRuntime(t, &tank{allowance: 1000, refills: 100})
		defer func() { _ = r.Close(ctx) }()
		env := r.NewHostModuleBuilder("env")
		for name, n := range map[string]uint32{"seven": 7, "eight": 8} {
			env.NewFunctionBuilder().WithFunc(func() uint32 { return n }).Export(name)
		}
		if _, err := env.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range out.Exports {
			if e.Kind == rewrite.KindFunc {
				names = append(names, e.Name)
			}
		}
		config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
		paying, err := enter(t, r, out, "")
		if errors.Is(err, errStopped) || strings.Contains(reason(err), "stack overflow") {
			return // the original's start function might run for ever
		}
		plain, plainErr := r.InstantiateWithConfig(ctx, withoutCustoms(m), config)
		if (err == nil) != (plainErr == nil) {
			t.Fatalf("instantiating: before %v, after %v", plainErr, err)
		}
		if err != nil {
			return
		}
		got, ended := trace(paying, names, out.HasMemory)
		if !ended {
			return
		}
		if want, _ := trace(plain, names, out.HasMemory); got != want {
			t.Fatalf("before:\n%s\nafter:\n%s", want, got)
		}
	})
}

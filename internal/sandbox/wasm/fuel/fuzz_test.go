package fuel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
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
	}
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
func FuzzInstrument(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, m []byte) {
		before := bytes.Clone(m)
		out, _, err := fuel.Instrument(m)
		if !bytes.Equal(m, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if out != nil {
				t.Fatal("output besides an error")
			}
			return
		}
		if len(out) > 4*len(m)+64<<10 {
			t.Fatalf("%d bytes became %d", len(m), len(out))
		}
		if _, _, err := fuel.Instrument(out); err == nil {
			t.Fatal("what pays already was let through")
		}
		r := newRuntime(t, nil)
		_, was := r.CompileModule(context.Background(), withoutCustoms(m))
		_, is := r.CompileModule(context.Background(), out)
		if (was == nil) != (is == nil) {
			t.Fatalf("before: %v\nafter: %v", was, is)
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
			if args = append(args, uint64(i+3)); p == byte(fuel.V128) {
				args = append(args, 1)
			} else if p == byte(fuel.FuncRef) || p == byte(fuel.ExternRef) {
				args[len(args)-1] = 0
			}
		}
		values, err := f.Call(context.Background(), args...)
		if errors.Is(err, errStopped) || strings.Contains(reason(err), "stack overflow") {
			return "", false
		}
		if slices.Contains(f.Definition().ResultTypes(), byte(fuel.FuncRef)) {
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

// What ends within its fuel does the same as the original does.
func FuzzDifferential(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, m []byte) {
		out, facts, err := fuel.Instrument(m)
		if err != nil || facts.MemoryMin > 16 || facts.HasStart {
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
		for _, e := range facts.Exports {
			if e.Kind == fuel.KindFunc {
				names = append(names, e.Name)
			}
		}
		config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
		paying, err := r.InstantiateWithConfig(ctx, out, config)
		plain, plainErr := r.InstantiateWithConfig(ctx, withoutCustoms(m), config)
		if (err == nil) != (plainErr == nil) {
			t.Fatalf("instantiating: before %v, after %v", plainErr, err)
		}
		if err != nil {
			return
		}
		got, ended := trace(paying, names, facts.HasMemory)
		if !ended {
			return
		}
		if want, _ := trace(plain, names, facts.HasMemory); got != want {
			t.Fatalf("before:\n%s\nafter:\n%s", want, got)
		}
	})
}

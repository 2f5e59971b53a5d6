package rewrite_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// goGuest compiles testdata/guest, a reactor.
func goGuest(tb testing.TB) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", path, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("compiling the guest: %v\n%s", err, out)
	}
	m, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// startGuest starts a guest, rewritten if k is set.
func startGuest(tb testing.TB, k *tank, m []byte) api.Module {
	tb.Helper()
	ctx := context.Background()
	r := newRuntime(tb, k)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	var mod api.Module
	if k == nil {
		mod = start(tb, r, m)
	} else {
		mod = startRewritten(tb, r, rewritten(tb, m))
	}
	if f := mod.ExportedFunction("_initialize"); f != nil {
		if _, err := f.Call(ctx); err != nil {
			tb.Fatal(err)
		}
	}
	return mod
}

// handmade has tight loops: "count" adds up to its argument, "walk" sums memory,
// "fib" recurses.
func handmade() []byte {
	count := body(1, i64,
		0x03, 0x40,
		0x20, 1, 0x20, 0, 0xad, 0x7c, 0x21, 1, // s += n
		0x20, 0, 0x41, 1, 0x6b, 0x22, 0, // n--
		0x0d, 0, 0x0b,
		0x20, 1)
	walk := body(1, i64,
		0x03, 0x40,
		0x20, 1, 0x20, 0, 0x41, 0xff, 0xff, 0x03, 0x71, 0x28, 2, 0, 0xad, 0x7c, 0x42, 3, 0x7e, 0x21, 1,
		0x20, 0, 0x41, 1, 0x6b, 0x22, 0,
		0x0d, 0, 0x0b,
		0x20, 1)
	fib := body(0, 0,
		0x20, 0, 0x41, 2, 0x48, 0x04, 0x7e, 0x20, 0, 0xad, 0x05,
		0x20, 0, 0x41, 1, 0x6b, 0x10, 2, 0x20, 0, 0x41, 2, 0x6b, 0x10, 2, 0x7c, 0x0b)
	return module(types(sig(vals(i32), vals(i64))), functions(0, 0, 0),
		section(5, vec([]byte{1, 2, 2})),
		section(7, vec(export("count", 0, 0), export("walk", 0, 1), export("fib", 0, 2))),
		code(count, walk, fib))
}

func BenchmarkGuest(b *testing.B) {
	hand, compiled := handmade(), goGuest(b)
	for _, g := range []struct {
		name string
		m    []byte
		arg  uint64
	}{
		{"count", hand, 1_000_000},
		{"walk", hand, 1_000_000},
		{"fib", hand, 25},
		{"hash", compiled, 10},
		{"order", compiled, 100_000},
		{"encode", compiled, 200},
	} {
		run := func(b *testing.B, m []byte, k *tank) {
			f := startGuest(b, k, m).ExportedFunction(g.name)
			b.ResetTimer()
			for b.Loop() {
				if _, err := f.Call(context.Background(), g.arg); err != nil {
					b.Fatal(err)
				}
			}
			if k != nil {
				b.ReportMetric(float64(k.ticks)/float64(b.N), "ticks/op")
			}
		}
		b.Run(g.name+"/plain", func(b *testing.B) { run(b, g.m, nil) })
		b.Run(g.name+"/fuel", func(b *testing.B) { run(b, g.m, &tank{allowance: 10_000_000, refills: -1}) })
	}
}

func BenchmarkModule(b *testing.B) {
	m := goGuest(b)
	out := rewritten(b, m)
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rewrite.Module(m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(out.Module))/float64(len(m)), "growth")
	b.ReportMetric(float64(out.Functions+out.Loops), "probes")
	b.ReportMetric(float64(len(out.Stub)), "stub-bytes")
}

// BenchmarkCompile shows what the payments cost the engine's compiler.
func BenchmarkCompile(b *testing.B) {
	m := goGuest(b)
	out := rewritten(b, m)
	for name, m := range map[string][]byte{"plain": m, "rewritten": out.Module, "stub": out.Stub} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r := newRuntime(b, nil)
				if !compiles(b, r, m) {
					b.Fatal("refused")
				}
				_ = r.Close(context.Background())
			}
		})
	}
}

// BenchmarkLoad shows what a stub saves when the native code is there already.
func BenchmarkLoad(b *testing.B) {
	o := rewritten(b, goGuest(b))
	p := newPress(b)
	p.add(b, o)
	name, code := p.compile(b, o.Module)
	if err := os.WriteFile(filepath.Join(p.cache, name), code, 0o600); err != nil {
		b.Fatal(err)
	}
	for name, m := range map[string][]byte{"module": o.Module, "stub": o.Stub} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cache, err := wazero.NewCompilationCacheWithDir(p.cache)
				if err != nil {
					b.Fatal(err)
				}
				r := wazero.NewRuntimeWithConfig(context.Background(), config().WithCompilationCache(cache))
				if !compiles(b, r, m) {
					b.Fatal("refused")
				}
				_ = r.Close(context.Background())
				_ = cache.Close(context.Background())
			}
		})
	}
}

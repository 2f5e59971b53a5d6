package fuel_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
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

func startGuest(tb testing.TB, k *tank, m []byte) api.Module {
	tb.Helper()
	ctx := context.Background()
	r := newRuntime(tb, k)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	mod, err := r.InstantiateWithConfig(ctx, m, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		tb.Fatal(err)
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
		out, _ := instrument(b, g.m)
		b.Run(g.name+"/fuel", func(b *testing.B) { run(b, out, &tank{allowance: 10_000_000, refills: -1}) })
	}
}

func BenchmarkInstrument(b *testing.B) {
	m := goGuest(b)
	out, facts := instrument(b, m)
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := fuel.Instrument(m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(out))/float64(len(m)), "growth")
	b.ReportMetric(float64(facts.Functions+facts.Loops), "probes")
}

// BenchmarkCompile shows what the payments cost the engine's compiler.
func BenchmarkCompile(b *testing.B) {
	m := goGuest(b)
	out, _ := instrument(b, m)
	for name, m := range map[string][]byte{"plain": m, "fuel": out} {
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

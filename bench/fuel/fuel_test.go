package fuel

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// tank is what a guest may use up before it asks the host again, in units of fuel: some
// milliseconds of work, as in a sandbox.
const tank = 10_000_000

// compile runs a compiler that writes a module to the path it is given.
func compile(b *testing.B, program string, args func(out string) []string, env ...string) []byte {
	b.Helper()
	out := filepath.Join(b.TempDir(), "guest.wasm")
	cmd := exec.Command(program, args(out)...)
	cmd.Env = append(os.Environ(), env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("compiling the guest with %s: %v\n%s", program, err, said)
	}
	m, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// start makes an instance of a module, with payment or as it is.
func start(b *testing.B, cache wazero.CompilationCache, m []byte, pays bool) api.Module {
	b.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).WithCompilationCache(cache))
	b.Cleanup(func() { _ = r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	out := &rewrite.Output{Module: m}
	if pays {
		_, err := r.NewHostModuleBuilder(rewrite.ImportModule).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(
			func(_ context.Context, m api.Module, _ []uint64) {
				m.ExportedGlobal(rewrite.GlobalExport).(api.MutableGlobal).Set(tank)
			}), nil, nil).Export(rewrite.ImportName).Instantiate(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if out, err = rewrite.Module(m); err != nil {
			b.Fatal(err)
		}
	}
	mod, err := r.InstantiateWithConfig(ctx, out.Module, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range out.Segments {
		if !mod.ExportedMemory(rewrite.MemoryExport).Write(s.Offset, s.Data) {
			b.Fatal("a data segment is out of bounds")
		}
	}
	for _, name := range []string{rewrite.StartExport, "_initialize"} {
		if f := mod.ExportedFunction(name); f != nil {
			if _, err := f.Call(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	return mod
}

// cpu is the time that this process has spent on a processor: on a machine that does
// other things it says more than a clock.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFuel runs the same work with and without payment; both must come to the
// same result.
func BenchmarkFuel(b *testing.B) {
	guests := []struct {
		name string
		code []byte
	}{
		{"c", compile(b, "clang", func(out string) []string {
			return []string{"--target=wasm32-wasi", "-O2", "-mexec-model=reactor", "-o", out, "testdata/work.c"}
		})},
		{"go", compile(b, "go", func(out string) []string {
			return []string{"build", "-buildmode=c-shared", "-o", out, "./testdata/work"}
		}, "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")},
	}
	cache := wazero.NewCompilationCache() // each module is compiled once
	b.Cleanup(func() { _ = cache.Close(context.Background()) })
	for _, g := range guests {
		for _, w := range []struct {
			name string
			size uint64
		}{{"hash", 4000}, {"sort", 50_000}, {"matrix", 100}, {"json", 1000}} {
			var want uint64
			for _, way := range []string{"plain", "fuel"} {
				b.Run(g.name+"-"+w.name+"/"+way, func(b *testing.B) {
					f := start(b, cache, g.code, way == "fuel").ExportedFunction(w.name)
					once := func() {
						got, err := f.Call(context.Background(), w.size)
						if err != nil {
							b.Fatal(err)
						}
						if want == 0 {
							want = got[0]
						}
						if got[0] == 0 || got[0] != want {
							b.Fatalf("%s gave %d, want %d", w.name, got[0], want)
						}
					}
					once()
					runtime.GC() // so that none falls into the loop, where nothing is allocated
					before := cpu(b)
					for b.Loop() {
						once()
					}
					b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

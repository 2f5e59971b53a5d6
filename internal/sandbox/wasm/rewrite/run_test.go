package rewrite_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

var (
	errStopped = errors.New("out of fuel")
	errSegment = errors.New("a data segment is out of bounds")
)

// tank is the host's side: it fills up to allowance, as often as refills says (or
// always, when negative), and stops the guest then.
type tank struct {
	allowance int64
	refills   int
	ticks     int
}

func (k *tank) tick(_ context.Context, m api.Module, _ []uint64) {
	k.ticks++
	if k.refills >= 0 && k.ticks > k.refills {
		panic(errStopped)
	}
	m.ExportedGlobal(rewrite.GlobalExport).(api.MutableGlobal).Set(uint64(k.allowance))
}

// leftIn is what a module has not used yet.
func leftIn(m api.Module) int64 { return int64(m.ExportedGlobal(rewrite.GlobalExport).Get()) }

func config() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).WithMemoryLimitPages(1 << 15)
}

func newRuntime(tb testing.TB, k *tank) wazero.Runtime {
	tb.Helper()
	return hosted(tb, k, config())
}

// hosted has the host's side of a tank, if there is one.
func hosted(tb testing.TB, k *tank, c wazero.RuntimeConfig) wazero.Runtime {
	tb.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, c)
	tb.Cleanup(func() { _ = r.Close(ctx) })
	if k == nil {
		return r
	}
	_, err := r.NewHostModuleBuilder(rewrite.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(k.tick), nil, nil).Export(rewrite.ImportName).Instantiate(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// unlimited never stops anything.
func unlimited() *tank { return &tank{allowance: 1_000_000, refills: -1} }

// named is the configuration of an instance that calls nothing by itself but its
// start function.
func named(name string) wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName(name).WithStartFunctions()
}

func start(tb testing.TB, r wazero.Runtime, m []byte) api.Module {
	tb.Helper()
	mod, err := r.InstantiateWithConfig(context.Background(), m, named(""))
	if err != nil {
		tb.Fatalf("instantiating: %v", err)
	}
	return mod
}

// startRewritten makes an instance as an engine does, or fails the test.
func startRewritten(tb testing.TB, r wazero.Runtime, o *rewrite.Output) api.Module {
	tb.Helper()
	mod, err := enter(tb, r, o, "")
	if err != nil {
		tb.Fatalf("instantiating: %v", err)
	}
	return mod
}

// enter makes an instance of a rewritten module and completes it.
func enter(tb testing.TB, r wazero.Runtime, o *rewrite.Output, name string) (api.Module, error) {
	tb.Helper()
	mod, err := r.InstantiateWithConfig(context.Background(), o.Module, named(name))
	if err != nil {
		return nil, err
	}
	return complete(mod, o)
}

// complete does what is left to the host of a new instance.
func complete(mod api.Module, o *rewrite.Output) (api.Module, error) {
	ctx := context.Background()
	fail := func(err error) (api.Module, error) {
		_ = mod.Close(ctx)
		return nil, err
	}
	for _, s := range o.Segments {
		if uint64(s.Offset)+uint64(len(s.Data)) > uint64(o.MemoryMin)<<16 {
			return fail(errSegment)
		}
		if !mod.ExportedMemory(rewrite.MemoryExport).Write(s.Offset, s.Data) {
			return fail(errors.New("a segment that fits could not be written"))
		}
	}
	if o.HasStart {
		if _, err := mod.ExportedFunction(rewrite.StartExport).Call(ctx); err != nil {
			return fail(err)
		}
	}
	return mod, nil
}

// call gives the results, or the reason of the trap.
func call(m api.Module, name string, args ...uint64) ([]uint64, error) {
	return m.ExportedFunction(name).Call(context.Background(), args...)
}

// reason is an error's text without the trace below, whose addresses and indices
// differ between the original and the rewritten module.
func reason(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\nwasm stack trace")
	return text
}

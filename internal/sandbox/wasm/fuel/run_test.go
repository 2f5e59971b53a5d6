package fuel_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
)

var errStopped = errors.New("out of fuel")

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
	m.ExportedGlobal(fuel.GlobalExport).(api.MutableGlobal).Set(uint64(k.allowance))
}

// leftIn is what a module has not used yet.
func leftIn(m api.Module) int64 { return int64(m.ExportedGlobal(fuel.GlobalExport).Get()) }

func newRuntime(tb testing.TB, k *tank) wazero.Runtime {
	tb.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).WithMemoryLimitPages(1 << 15)
	r := wazero.NewRuntimeWithConfig(ctx, config)
	tb.Cleanup(func() { _ = r.Close(ctx) })
	if k == nil {
		return r
	}
	_, err := r.NewHostModuleBuilder(fuel.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(k.tick), nil, nil).Export(fuel.ImportName).Instantiate(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// unlimited never stops anything.
func unlimited() *tank { return &tank{allowance: 1_000_000, refills: -1} }

func start(tb testing.TB, r wazero.Runtime, m []byte) api.Module {
	tb.Helper()
	mod, err := r.InstantiateWithConfig(context.Background(), m, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		tb.Fatalf("instantiating: %v", err)
	}
	return mod
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

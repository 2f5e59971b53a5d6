package wasm

import (
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/cpu"
)

// enginePath is the module that makes machine code.
const enginePath = "github.com/tetratelabs/wazero"

// CodeID names what compiled code depends on besides its module: its form, the
// release of the engine, and the processor. Code with another id is of no use here.
func CodeID() string {
	parts := []string{strings.TrimSpace(codeMagic), runtime.GOOS, runtime.GOARCH, engineRelease()}
	for _, processor := range []any{cpu.X86, cpu.ARM64} {
		v := reflect.ValueOf(processor)
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Bool && f.Bool() {
				parts = append(parts, v.Type().Field(i).Name)
			}
		}
	}
	return strings.Join(parts, " ")
}

// engineRelease is the engine's version and its sum, as the program was built.
func engineRelease() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == enginePath {
			return m.Version + " " + m.Sum
		}
	}
	return "unknown"
}

// Package jsengine holds the JavaScript engine: QuickJS-ng with the platform's
// globals, as one WebAssembly module that keeps the guest contract (reactor; exports
// prepare and handle; reads the bundled source in prepare). engine/js builds it.
//
// Only what hands guest code to a sandbox may import it. It imports the standard
// library alone, and its functions may be called from many goroutines.
package jsengine

import (
	"embed"
	"errors"
	"io/fs"
)

// Besides the module, which the build writes, the folder holds a README, so that
// the program compiles without it.
//
//go:embed all:dist
var dist embed.FS

// ErrMissing is what Module gives when the program was compiled without the engine.
var ErrMissing = errors.New("this binary was built without the JavaScript engine; run make build")

// Module gives the engine's module. Callers must not change the bytes.
func Module() ([]byte, error) {
	return module(dist)
}

func module(files fs.FS) ([]byte, error) {
	code, err := fs.ReadFile(files, "dist/engine.wasm")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing
	}
	return code, err
}

// Version names the engine, for receipts and `casemate version`. It changes with
// sources.lock.json.
func Version() string { return "quickjs-ng " + quickjs }

// quickjs is the version of QuickJS-ng in engine/js/sources.lock.json.
const quickjs = "0.16.2"

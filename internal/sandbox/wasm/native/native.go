// Package native takes the machine code that the engine made of a module out of
// it, and puts it back in later, perhaps in another process: so that a module is
// compiled once, by a process that does nothing else, and loaded in milliseconds by
// those that run it. Only internal/sandbox/wasm may import it.
//
// The engine keeps compiled code in a cache of files. This package stands in for
// that cache: what the engine would write to a file is handed to the caller, and
// what it would read comes from the caller. The engine offers no door for this, so
// the cache's one field is set by reflection, and New fails, with the reason, when
// a later release of the engine has another shape.
//
// Code that is put back is executed as it is. Whoever keeps it must make sure that
// nobody changes it.
//
// # Concurrency
//
// A Cache may be used by many goroutines; compiling and attaching take turns.
package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"unsafe"

	"github.com/tetratelabs/wazero"
)

// Cache is a compilation cache for runtimes, and the way in and out of it.
type Cache struct {
	engine wazero.CompilationCache
	turn   sync.Mutex
	files  *files
}

// Engine is what runtimes are configured with.
func (c *Cache) Engine() wazero.CompilationCache { return c.engine }

// Close lets go of all machine code. Runtimes that use it must be closed before.
func (c *Cache) Close(ctx context.Context) error { return c.engine.Close(ctx) }

// ErrMismatch means that machine code was made by another release of the engine,
// or for another processor, or is damaged. Compiling anew helps.
var ErrMismatch = errors.New("the machine code does not fit this engine")

// New gives an empty cache. Runtimes that are to share it are configured with it.
func New() (*Cache, error) {
	c := &Cache{engine: wazero.NewCompilationCache(), files: &files{}}
	v := reflect.ValueOf(c.engine)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("preparing the engine's cache: it is a %v", v.Type())
	}
	field := v.Elem().FieldByName("fileCache")
	if !field.IsValid() || field.Kind() != reflect.Interface || !reflect.TypeOf(c.files).Implements(field.Type()) {
		return nil, errors.New("preparing the engine's cache: this release of the engine keeps files in another way")
	}
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(c.files))
	return c, nil
}

// Compile compiles a module and gives its machine code.
func (c *Cache) Compile(ctx context.Context, r wazero.Runtime, module []byte) (wazero.CompiledModule, []byte, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.files.begin(nil)
	compiled, err := r.CompileModule(ctx, module)
	if err != nil {
		return nil, nil, err
	}
	if c.files.added == nil {
		_ = compiled.Close(ctx)
		return nil, nil, errors.New("compiling: the engine had the module already and gave no machine code")
	}
	return compiled, c.files.added, nil
}

// Attach gives a module the machine code that Compile gave for one of the same
// form. Modules with different code must differ from each other in some byte, since the
// engine knows them by their content. It fails with ErrMismatch when the code is not the
// engine's own, and then nothing has been loaded.
func (c *Cache) Attach(ctx context.Context, r wazero.Runtime, module, code []byte) (wazero.CompiledModule, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.files.begin(code)
	compiled, err := r.CompileModule(ctx, module)
	if c.files.added != nil || c.files.refused {
		// The engine did not want the code, and compiled what it was given instead: a
		// module without code. (When it neither compiled nor asked, it has the module
		// already, with its code.)
		if err == nil {
			_ = compiled.Close(ctx)
		}
		return nil, ErrMismatch
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMismatch, err)
	}
	return compiled, nil
}

// files is what the engine takes for its cache of files: it has one entry at most,
// whatever the key.
type files struct {
	code    []byte // to be read by the next Get
	added   []byte
	refused bool
}

func (f *files) begin(code []byte) { *f = files{code: code} }

// Get implements the engine's filecache.Cache.
func (f *files) Get([32]byte) (io.ReadCloser, bool, error) {
	if f.code == nil {
		return nil, false, nil
	}
	r := io.NopCloser(bytes.NewReader(f.code))
	f.code = nil
	return r, true, nil
}

// Add implements the engine's filecache.Cache.
func (f *files) Add(_ [32]byte, content io.Reader) error {
	b, err := io.ReadAll(content)
	f.added = b
	return err
}

// Delete implements the engine's filecache.Cache: the engine found the entry stale.
func (f *files) Delete([32]byte) error {
	f.refused = true
	return nil
}

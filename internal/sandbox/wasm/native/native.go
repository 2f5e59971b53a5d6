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
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
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
	c.files.begin(nil, nil)
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

// Place puts machine code where it is to be executed, instead of having it copied: at
// is where it begins in what Attach was given. It reports false, and has done nothing,
// when it cannot.
type Place func(into []byte, at int) bool

// MachineCode says where the machine code lies in what Compile gave, for whoever wants
// to keep it in a place from where it can be mapped. ok is false when the engine has
// another form now.
func MachineCode(code []byte) (from, to int, ok bool) {
	// The engine's own form, serializeCompiledModule: a magic, its release, where each
	// function begins, and the code with its length before it.
	const magic = "WAZEVO"
	at := len(magic)
	if len(code) <= at || string(code[:at]) != magic {
		return 0, 0, false
	}
	at += 1 + int(code[at])
	if len(code)-at < 4 {
		return 0, 0, false
	}
	functions := int64(binary.LittleEndian.Uint32(code[at:]))
	at += 4
	if functions > int64(len(code)-at)/8-1 {
		return 0, 0, false
	}
	at += int(functions) * 8
	size := binary.LittleEndian.Uint64(code[at:])
	at += 8
	if size > uint64(len(code)-at) {
		return 0, 0, false
	}
	return at, at + int(size), true
}

// Attach gives a module the machine code that Compile gave for one of the same
// form. place may be nil. Modules with different code must differ from each other in some byte, since the
// engine knows them by their content. It fails with ErrMismatch when the code is not the
// engine's own, and then nothing has been loaded.
func (c *Cache) Attach(ctx context.Context, r wazero.Runtime, module, code []byte, place Place) (wazero.CompiledModule, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.files.begin(code, place)
	defer c.files.forget()
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
	place   Place
	added   []byte
	refused bool
}

func (f *files) begin(code []byte, place Place) { *f = files{code: code, place: place} }

// forget lets go of the code, which is its owner's.
func (f *files) forget() { f.code, f.place = nil, nil }

// Get implements the engine's filecache.Cache.
func (f *files) Get([32]byte) (io.ReadCloser, bool, error) {
	if f.code == nil {
		return nil, false, nil
	}
	r := io.NopCloser(&source{code: f.code, place: f.place})
	f.code = nil
	return r, true, nil
}

// source is what the engine reads machine code from.
type source struct {
	code  []byte
	at    int
	place Place
}

// Read implements io.Reader. What the engine reads in one piece that begins a page is
// the memory that it made for the machine code, and will make executable: what is read
// may as well be put there in another way.
func (s *source) Read(p []byte) (int, error) {
	if s.at == len(s.code) {
		return 0, io.EOF
	}
	page := uintptr(os.Getpagesize())
	if s.place != nil && len(p) >= int(page) && len(p) <= len(s.code)-s.at &&
		uintptr(unsafe.Pointer(&p[0]))%page == 0 && s.isMachineCode(len(p)) && s.place(p, s.at) {
		s.at += len(p)
		return len(p), nil
	}
	n := copy(p, s.code[s.at:])
	s.at += n
	return n, nil
}

func (s *source) isMachineCode(n int) bool {
	from, to, ok := MachineCode(s.code)
	return ok && s.at == from && s.at+n == to
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

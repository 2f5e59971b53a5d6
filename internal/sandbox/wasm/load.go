package wasm

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// maxIdle is how many invocations' buffers and reserved addresses a version keeps.
const maxIdle = 16

// version is a module ready to run.
type version struct {
	srv      *server
	spec     wire.LoadSpec
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	start    uint64 // memory that an instance begins with, in bytes

	mu     sync.Mutex
	refs   int  // invocations under way
	gone   bool // unloaded: close when refs is 0
	idle   []*invocation
	closed bool
}

// failure is an error with what the caller may know.
type failure struct {
	kind   sandbox.Kind
	public string
	cause  string
}

// Error is for tests.
func (f *failure) Error() string { return fmt.Sprintf("%s: %s: %s", f.kind, f.public, f.cause) }

func badModule(format string, args ...any) *failure {
	return &failure{kind: sandbox.BadModule, public: fmt.Sprintf(format, args...)}
}

// load checks, rewrites and compiles a module. It may take seconds.
func (s *server) load(spec wire.LoadSpec, code []byte) (*version, *failure) {
	if got := function.DigestOf(code); got != spec.Digest {
		return nil, &failure{
			kind: sandbox.Tampered, public: "the stored code does not match its digest; deploy it again",
			cause: fmt.Sprintf("want %s, got %s", spec.Digest, got),
		}
	}
	metered, facts, err := fuel.Instrument(code)
	if err != nil {
		return nil, badModule("%v", err)
	}
	if f := checkImports(facts.Imports); f != nil {
		return nil, f
	}
	if f := checkEntry(facts.Exports, spec.Entry); f != nil {
		return nil, f
	}
	start := uint64(facts.MemoryMin) * pageSize
	if start > uint64(spec.Limits.Memory) {
		return nil, &failure{kind: sandbox.Memory, public: fmt.Sprintf(
			"the function needs %s of memory to start and its limit is %s; raise memory in the manifest",
			size(int64(start)), size(spec.Limits.Memory))}
	}
	v := &version{srv: s, spec: spec, start: start}
	if err := v.compile(metered); err != nil {
		return nil, badModule("the module is not valid: %v", wire.Cut(err.Error(), 512))
	}
	return v, nil
}

func (v *version) compile(code []byte) (err error) {
	ctx := context.Background()
	// The guest's own limit is held by its memory, which notices a refusal; this
	// one is the engine's, below the size at which 32-bit offsets wrap.
	v.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCompilationCache(v.srv.cache).
		WithMemoryLimitPages(1<<16-1).
		WithDebugInfoEnabled(false).
		WithCoreFeatures(api.CoreFeaturesV2))
	defer func() {
		if err != nil {
			_ = v.runtime.Close(ctx)
		}
	}()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, v.runtime); err != nil {
		return err
	}
	if err := v.srv.exportTick(ctx, v.runtime); err != nil {
		return err
	}
	// A Go module has thousands of functions; who has just saved a file waits.
	v.compiled, err = v.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), code)
	return err
}

// cost estimates what the loaded version keeps in memory: machine code and the
// decoded module take a few times the size of the code (measured: C 4, Go 5).
func (v *version) cost() int64 { return 6*v.spec.Size + 512<<10 }

// take gives an invocation of the version, new or used before, and counts it.
func (v *version) take() *invocation {
	v.mu.Lock()
	v.refs++
	if n := len(v.idle); n > 0 {
		i := v.idle[n-1]
		v.idle = v.idle[:n-1]
		v.mu.Unlock()
		return i
	}
	v.mu.Unlock()
	return newInvocation(v)
}

// give takes it back.
func (v *version) give(i *invocation) {
	i.reset()
	v.mu.Lock()
	v.refs--
	keep := !v.gone && len(v.idle) < maxIdle
	if keep {
		v.idle = append(v.idle, i)
	}
	last := v.gone && v.refs == 0 && !v.closed
	if last {
		v.closed = true
	}
	v.mu.Unlock()
	if !keep {
		i.close()
	}
	if last {
		v.close()
	}
}

// unload drops the version once nothing of it runs.
func (v *version) unload() {
	v.mu.Lock()
	v.gone = true
	idle := v.idle
	v.idle = nil
	last := v.refs == 0 && !v.closed
	if last {
		v.closed = true
	}
	v.mu.Unlock()
	for _, i := range idle {
		i.close()
	}
	if last {
		v.close()
	}
}

func (v *version) close() {
	ctx := context.Background()
	_ = v.compiled.Close(ctx)
	_ = v.runtime.Close(ctx)
}

// config is what every instance of the version gets: its name, its environment in
// a stable order, the real clocks, and no start function, since the engine calls
// the entry itself.
func (v *version) config() wazero.ModuleConfig {
	c := wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithArgs(v.spec.Name).WithSysWalltime().WithSysNanotime()
	for _, k := range slices.Sorted(maps.Keys(v.spec.Environment)) {
		c = c.WithEnv(k, v.spec.Environment[k])
	}
	return c
}

// checkImports allows WASI preview 1 and nothing else. Deny by default: what is
// not known here is named, with what to do.
func checkImports(imports []fuel.Import) *failure {
	for _, i := range imports {
		if i.Kind != fuel.KindFunc {
			return badModule("the module imports the %v %q from %q, and only functions can be provided; "+
				"link statically, without shared memory or tables", i.Kind, i.Name, i.Module)
		}
		if i.Module != wasi_snapshot_preview1.ModuleName {
			return badModule("the module imports %q from %q, which nobody provides; "+
				"build for wasm32-wasip1 (WASI preview 1), without bindings to a browser or another host", i.Name, i.Module)
		}
		if !slices.Contains(wasiFunctions, i.Name) {
			return badModule("the module imports %q, which WASI preview 1 does not have; "+
				"build for wasm32-wasip1", i.Name)
		}
	}
	return nil
}

// wasiFunctions are the functions of WASI preview 1, in alphabetical order. Those
// for files and sockets are here because runtimes import them whether they use
// them or not: with nothing open, they find nothing.
var wasiFunctions = []string{
	"args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get",
	"fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags",
	"fd_fdstat_set_rights", "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread",
	"fd_prestat_dir_name", "fd_prestat_get", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek",
	"fd_sync", "fd_tell", "fd_write", "path_create_directory", "path_filestat_get", "path_filestat_set_times",
	"path_link", "path_open", "path_readlink", "path_remove_directory", "path_rename", "path_symlink",
	"path_unlink_file", "poll_oneoff", "proc_exit", "proc_raise", "random_get", "sched_yield", "sock_accept",
	"sock_recv", "sock_send", "sock_shutdown",
}

// pageSize is that of WebAssembly memory, in bytes.
const pageSize = 64 << 10

// Names of the exports through which a guest is entered.
const (
	exportStart      = "_start"
	exportInitialize = "_initialize"
	exportHandle     = "handle"
)

func checkEntry(exports []fuel.Export, entry function.Entry) *failure {
	start, hasStart := exported(exports, exportStart)
	handle, hasHandle := exported(exports, exportHandle)
	nothing := fuel.Signature{}
	switch entry {
	case function.EntryCommand:
		if !hasStart && hasHandle {
			return badModule("the module exports handle and not _start; set entry: handle in the manifest")
		}
		if !hasStart {
			return badModule("the module does not export _start; build a program with a main function for wasm32-wasip1")
		}
		if !start.Equal(nothing) {
			return badModule("_start must take and return nothing")
		}
	case function.EntryHandle:
		if !hasHandle && hasStart {
			return badModule("the module exports _start and not handle; set entry: command in the manifest, or export handle")
		}
		if !hasHandle {
			return badModule("the module does not export a function named handle; export one that takes nothing")
		}
		if !handle.Equal(nothing) && !handle.Equal(fuel.Signature{Results: []fuel.ValueType{fuel.I32}}) {
			return badModule("handle must take nothing and return nothing or an i32")
		}
		if init, ok := exported(exports, exportInitialize); ok && !init.Equal(nothing) {
			return badModule("_initialize must take and return nothing")
		}
	default:
		return badModule("entry %q is not known; use command or handle", entry)
	}
	return nil
}

func exported(exports []fuel.Export, name string) (fuel.Signature, bool) {
	for _, e := range exports {
		if e.Name == name && e.Kind == fuel.KindFunc {
			return e.Signature, true
		}
	}
	return fuel.Signature{}, false
}

// size writes n bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

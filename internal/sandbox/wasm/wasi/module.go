package wasi

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// ModuleName is the name under which the functions are imported.
const ModuleName = "wasi_snapshot_preview1"

// Errno is a result of preview 1.
type Errno uint32

// The ones that are given.
const (
	Success Errno = 0
	Badf    Errno = 8
	Fault   Errno = 21
	Inval   Errno = 28
	Notsup  Errno = 58
	Spipe   Errno = 70
)

// Function is one function: it reads its parameters from params and gives its result.
type Function func(g Guest, mem api.Memory, params []uint64) Errno

// function is a Function with its type: one letter a parameter, i for i32 and l for i64.
type function struct {
	params string
	sight  func(params []uint64) (Sight, bool) // nil: the call shows nothing
	do     Function
}

func always(s Sight) func([]uint64) (Sight, bool) {
	return func([]uint64) (Sight, bool) { return s, true }
}

// functions lists preview 1, whole.
func functions() map[string]function {
	noFile := func(params string) function { return function{params: params, do: badFile} }
	return map[string]function{
		"args_get":          {params: "ii", do: argsGet},
		"args_sizes_get":    {params: "ii", do: argsSizesGet},
		"environ_get":       {params: "ii", do: environGet},
		"environ_sizes_get": {params: "ii", do: environSizesGet},

		"clock_res_get":  {params: "ii", do: clockResGet},
		"clock_time_get": {params: "ili", do: clockTimeGet, sight: clockSight},
		"random_get":     {params: "ii", do: randomGet, sight: always(Entropy)},
		"poll_oneoff":    {params: "iiii", do: pollOneoff, sight: always(Waiting)},
		"sched_yield":    {do: schedYield},
		"proc_raise":     {params: "i", do: notSupported},

		"fd_read":             {params: "iiii", do: fdRead, sight: readSight},
		"fd_write":            {params: "iiii", do: fdWrite, sight: writeSight},
		"fd_close":            {params: "i", do: fdClose},
		"fd_fdstat_get":       {params: "ii", do: fdStatGet},
		"fd_fdstat_set_flags": {params: "ii", do: fdStatSetFlags},
		"fd_filestat_get":     {params: "ii", do: fdFilestatGet},
		"fd_seek":             {params: "ilii", do: notSeekable},
		"fd_tell":             {params: "ii", do: notSeekable},
		"fd_pread":            {params: "iiili", do: notSeekable},
		"fd_pwrite":           {params: "iiili", do: notSeekable},

		"fd_advise":             noFile("illi"),
		"fd_allocate":           noFile("ill"),
		"fd_datasync":           noFile("i"),
		"fd_fdstat_set_rights":  noFile("ill"),
		"fd_filestat_set_size":  noFile("il"),
		"fd_filestat_set_times": noFile("illi"),
		"fd_prestat_get":        noFile("ii"),
		"fd_prestat_dir_name":   noFile("iii"),
		"fd_readdir":            noFile("iiili"),
		"fd_renumber":           noFile("ii"),
		"fd_sync":               noFile("i"),

		"path_create_directory":   noFile("iii"),
		"path_filestat_get":       noFile("iiiii"),
		"path_filestat_set_times": noFile("iiiilli"),
		"path_link":               noFile("iiiiiii"),
		"path_open":               noFile("iiiiillii"),
		"path_readlink":           noFile("iiiiii"),
		"path_remove_directory":   noFile("iii"),
		"path_rename":             noFile("iiiiii"),
		"path_symlink":            noFile("iiiii"),
		"path_unlink_file":        noFile("iii"),

		"sock_accept":   noFile("iii"),
		"sock_recv":     noFile("iiiiii"),
		"sock_send":     noFile("iiiii"),
		"sock_shutdown": noFile("ii"),
	}
}

// Has reports whether preview 1 has a function of this name.
func Has(name string) bool {
	if name == procExit {
		return true
	}
	_, ok := functions()[name]
	return ok
}

// procExit is the one function without a result.
const procExit = "proc_exit"

// Instantiate links the functions into a runtime.
func Instantiate(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(ModuleName)
	for name, f := range functions() {
		b.NewFunctionBuilder().
			WithGoModuleFunction(f.host(), types(f.params), []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	exit := func(ctx context.Context, _ api.Module, stack []uint64) {
		g := From(ctx)
		g.Called()
		g.Exit(api.DecodeU32(stack[0]))
	}
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(exit), types("i"), nil).Export(procExit)
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("linking %s: %v", ModuleName, err)
	}
	return nil
}

// host makes f what the engine calls.
func (f function) host() api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		g := From(ctx)
		g.Called()
		if f.sight != nil {
			if s, ok := f.sight(stack); ok {
				g.Observe(ctx, s, stack, f.do)
			}
		}
		stack[0] = uint64(f.do(g, mod.Memory(), stack))
	}
}

func types(letters string) []api.ValueType {
	t := make([]api.ValueType, len(letters))
	for i, l := range letters {
		t[i] = api.ValueTypeI32
		if l == 'l' {
			t[i] = api.ValueTypeI64
		}
	}
	return t
}

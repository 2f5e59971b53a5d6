package wasm

import (
	"context"
	"fmt"
	"reflect"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

const pageSize = memory.PageSize

// instance is a module with a state of its own: a memory, globals, and nothing else
// that could change. It serves one invocation at a time.
type instance struct {
	program *program
	module  api.Module
	memory  *memory.Linear // nil without one
	fuel    api.MutableGlobal
	globals []api.MutableGlobal
	entry   api.Function
	name    string // of entry
	stack   stackView
	// resize tells the engine that memory has another size, nil when this release of
	// the engine does not let us.
	resize func()
	resume *checkpoint // for a command that was stopped on its way
	once   bool        // it was used from its very start, and will not be again
	result [1]uint64
}

// config is what every instance gets: no name, since names must differ, and no
// start function, since the engine calls them itself.
func instanceConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions()
}

// allocator hands one reserved memory to the engine.
type allocator struct{ *memory.Linear }

// Allocate implements experimental.MemoryAllocator.
func (a allocator) Allocate(_, _ uint64) experimental.LinearMemory { return a }

// Reallocate implements experimental.LinearMemory.
func (a allocator) Reallocate(size uint64) []byte {
	// The memory may already be as large as its image: the engine is told later.
	return a.Resize(size)
}

// Free implements experimental.LinearMemory. The memory is its owner's to free.
func (a allocator) Free() {}

// errNoMemory means that an instance could not begin.
var errNoMemory = fmt.Errorf("the process has no memory left for another guest")

// instantiate makes an instance on a memory that has its image mapped and its budget
// taken. It calls no function of the module.
func (p *program) instantiate(mem *memory.Linear) (*instance, error) {
	ctx := context.Background()
	if mem != nil {
		ctx = experimental.WithMemoryAllocator(ctx, allocator{mem})
	}
	m, err := p.srv.runtime.InstantiateModule(ctx, p.module, p.srv.instanceConfig)
	if err != nil {
		return nil, fmt.Errorf("instantiating: %w", err)
	}
	in := &instance{program: p, module: m, memory: mem}
	in.fuel, _ = m.ExportedGlobal(rewrite.GlobalExport).(api.MutableGlobal)
	if in.fuel == nil {
		_ = m.Close(ctx)
		return nil, fmt.Errorf("instantiating: the module has no fuel")
	}
	for i := range p.code.Globals {
		g, ok := m.ExportedGlobal(rewrite.GlobalName(i)).(api.MutableGlobal)
		if !ok {
			_ = m.Close(ctx)
			return nil, fmt.Errorf("instantiating: global %d is not exported", i)
		}
		in.globals = append(in.globals, g)
	}
	if mem != nil {
		in.resize = resizer(m, mem)
	}
	return in, nil
}

// enter chooses the function that invocations call.
func (in *instance) enter(name string) {
	in.entry, in.name = in.module.ExportedFunction(name), name
	in.stack = viewStack(in.entry)
}

// resizer gives a function that makes the engine see the memory in the size that it
// has, smaller than before too. The engine has no method for that, so the exported
// fields that hold the memory are found by reflection.
func resizer(m api.Module, mem *memory.Linear) func() {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	held, engine := v.Elem().FieldByName("MemoryInstance"), v.Elem().FieldByName("Engine")
	if !held.IsValid() || held.Kind() != reflect.Pointer || held.IsNil() || !engine.IsValid() || !engine.CanInterface() {
		return nil
	}
	buffer := held.Elem().FieldByName("Buffer")
	if !buffer.IsValid() || !buffer.CanAddr() || !buffer.CanInterface() {
		return nil
	}
	to, ok := buffer.Addr().Interface().(*[]byte)
	told, ok2 := engine.Interface().(interface{ MemoryGrown() })
	if !ok || !ok2 {
		return nil
	}
	return func() {
		*to = mem.Bytes()
		told.MemoryGrown()
	}
}

// capture gives the state of the instance now.
func (in *instance) capture() (*state, error) {
	st := &state{globals: make([]uint64, len(in.globals))}
	for i, g := range in.globals {
		st.globals[i] = g.Get()
	}
	if in.memory == nil {
		return st, nil
	}
	var err error
	st.image, err = in.program.srv.memory.Freeze(in.memory)
	return st, err
}

// assume puts the instance into a state whose image is mapped already. It reports
// false when this release of the engine does not let us, and then the instance is
// of no use.
func (in *instance) assume(st *state) bool {
	if in.memory != nil && uint64(in.module.Memory().Size()) != in.memory.Size() {
		if in.resize == nil {
			return false
		}
		in.resize()
	}
	for i, g := range in.globals {
		g.Set(st.globals[i])
	}
	return true
}

// maxKeptStack bounds the call stack that an instance keeps, in bytes. An interpreter
// in a guest has large frames, so ordinary JavaScript takes several hundred kilobytes.
const maxKeptStack = 2 << 20

// restore brings the instance back to a state. It reports false when the instance
// must be thrown away instead.
func (in *instance) restore(st *state) bool {
	if in.module.IsClosed() {
		return false
	}
	if in.stack.size() > maxKeptStack {
		if in.resume != nil {
			return false // it goes on in the very call whose stack this is
		}
		in.enter(in.name) // which begins with a small one
	}
	if in.memory != nil {
		in.memory.Restore()
	}
	return in.assume(st)
}

func (in *instance) close() { _ = in.module.Close(context.Background()) }

// discard closes the instance and lets go of its memory.
func (in *instance) discard() {
	in.close()
	dropMemory(in.memory)
}

// stackView reads the size of a function's call stack. The engine offers no limit
// of its own, so this reads, never writes, the length of one of its fields.
type stackView struct{ field reflect.Value }

func viewStack(f api.Function) stackView {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return stackView{}
	}
	field := v.Elem().FieldByName("stack")
	if !field.IsValid() || field.Kind() != reflect.Slice || field.Type().Elem().Kind() != reflect.Uint8 {
		return stackView{}
	}
	return stackView{field}
}

// known reports whether this release of the engine tells.
func (s stackView) known() bool { return s.field.IsValid() }

// size is the size of the stack in bytes, or 0 when it is not known.
func (s stackView) size() int {
	if !s.known() {
		return 0
	}
	return s.field.Len()
}

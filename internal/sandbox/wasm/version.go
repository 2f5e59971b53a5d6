package wasm

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/goseed"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// memoryOf is the memory of an instance, nil without one.
type memoryOf = memory.Linear

// maxIdle is how many instances a version keeps ready.
const maxIdle = 16

// version is a function ready to run.
//
// When ready is set, an invocation runs on an instance in that state, which is put
// back into it afterwards. Otherwise it begins with an instance of its own, and the
// entry's whole way from nothing.
type version struct {
	srv     *server
	spec    wire.LoadSpec
	program *program
	prepare []byte // standard input of the preparation
	start   uint64 // memory that an instance begins with, in bytes
	args    []string
	environ []string
	seed    bootSeed

	ready  *state
	early  []byte        // what the guest logs on its way to ready, each time
	excess int64         // what it logs there beyond its limit, in bytes
	skew   time.Duration // how far its clock went on that way
	files  wasi.Files    // what it closed on that way
	random goseed.State  // in a Go program's memory
	reseed bool
	why    string // why there is no ready state
	said   string // on standard error, while it failed to become ready
	denied bool   // it asked for more memory than it has while it did

	burden  burden
	typical atomic.Int64 // how long invocations take, in nanoseconds

	mu     sync.Mutex
	refs   int  // invocations under way
	gone   bool // unloaded: close when refs is 0
	closed bool
	idle   []*instance
	spare  []*memoryOf // memories for instances that begin from nothing
}

// newVersion makes a version of a program whose reference it takes over.
func (s *server) newVersion(spec wire.LoadSpec, p *program, prepare []byte) *version {
	v := &version{srv: s, spec: spec, program: p, prepare: prepare, args: []string{spec.Name}, seed: newBootSeed(s.clock())}
	if p.base != nil {
		v.start = p.base.Size()
	}
	for _, k := range slices.Sorted(maps.Keys(spec.Environment)) {
		v.environ = append(v.environ, k+"="+spec.Environment[k])
	}
	return v
}

// resumable reports whether invocations continue a command from a checkpoint.
func (v *version) resumable() bool {
	return v.ready != nil && v.spec.Entry == function.EntryCommand
}

// newMemory gives memory with the image mapped, nil when the module has no memory.
func (v *version) newMemory(image *memory.Image) (*memoryOf, error) {
	if !v.program.code.HasMemory {
		return nil, nil
	}
	v.mu.Lock()
	var mem *memoryOf
	if n := len(v.spare); n > 0 {
		mem, v.spare = v.spare[n-1], v.spare[:n-1]
	}
	v.mu.Unlock()
	if mem == nil {
		var err error
		if mem, err = v.srv.memory.New(uint64(v.spec.Limits.Memory)); err != nil {
			return nil, err
		}
	}
	if err := mem.Map(image); err != nil {
		mem.Close()
		return nil, err
	}
	return mem, nil
}

func dropMemory(mem *memoryOf) {
	if mem != nil {
		mem.Close()
	}
}

// settle undoes what instantiating wrote over a mapped image.
func settle(mem *memoryOf) {
	if mem != nil {
		mem.Restore()
	}
}

func begin(mem *memoryOf, start uint64) bool { return mem == nil || mem.Begin(start) }

func end(mem *memoryOf) {
	if mem != nil {
		mem.End()
	}
}

// instantiate makes an instance while its memory counts.
func (v *version) instantiate(mem *memoryOf) (*instance, error) {
	if !begin(mem, v.start) {
		return nil, errNoMemory
	}
	defer end(mem)
	return v.program.instantiate(mem)
}

// acquire gives an instance in the ready state. i lends its buffers for booting one.
func (v *version) acquire(i *invocation) (*instance, error) {
	v.mu.Lock()
	if n := len(v.idle); n > 0 {
		in := v.idle[n-1]
		v.idle = v.idle[:n-1]
		v.mu.Unlock()
		return in, nil
	}
	v.mu.Unlock()
	return v.spawn(i)
}

// restored takes back an instance after an invocation: restored, or thrown away.
func (v *version) restored(in *instance) {
	if in.restore(v.ready) {
		v.keep(in)
		return
	}
	in.discard()
}

// keep adds a restored instance to those that are ready.
func (v *version) keep(in *instance) {
	v.mu.Lock()
	ok := !v.gone && len(v.idle) < maxIdle
	if ok {
		v.idle = append(v.idle, in)
	}
	v.mu.Unlock()
	if !ok {
		in.discard()
	}
}

// spent takes back the memory of an instance that was used once.
func (v *version) spent(in *instance) {
	in.close()
	if in.memory == nil {
		return
	}
	in.memory.Restore()
	v.mu.Lock()
	ok := !v.gone && len(v.spare) < maxIdle
	if ok {
		v.spare = append(v.spare, in.memory)
	}
	v.mu.Unlock()
	if !ok {
		in.memory.Close()
	}
}

// took takes note of how long an invocation was, usual gives the moving average.
func (v *version) took(d time.Duration) {
	old := v.typical.Load()
	v.typical.Store(old + (int64(d)-old)/8)
}

func (v *version) usual() time.Duration { return time.Duration(v.typical.Load()) }

// use counts an invocation, release ends that.
func (v *version) use() {
	v.mu.Lock()
	v.refs++
	v.mu.Unlock()
}

func (v *version) release() {
	v.mu.Lock()
	v.refs--
	last := v.leave()
	v.mu.Unlock()
	if last {
		v.close()
	}
}

// unload drops the version once nothing of it runs.
func (v *version) unload() {
	v.srv.company.forget(v)
	v.mu.Lock()
	v.gone = true
	idle, spare := v.idle, v.spare
	v.idle, v.spare = nil, nil
	last := v.leave()
	v.mu.Unlock()
	for _, in := range idle {
		in.discard()
	}
	for _, mem := range spare {
		mem.Close()
	}
	if last {
		v.close()
	}
}

// leave reports whether the version is to be closed now. The mutex is held.
func (v *version) leave() bool {
	last := v.gone && v.refs == 0 && !v.closed
	if last {
		v.closed = true
	}
	return last
}

func (v *version) close() {
	if !v.spec.Base {
		v.ready.close()
	}
	v.program.release()
}

// cost estimates what the version keeps in memory besides its program, in bytes.
func (v *version) cost() int64 {
	n := int64(128 << 10)
	if v.ready != nil && v.ready.image != nil {
		n += int64(v.ready.image.Size())
	}
	return n
}

// settleOn decides what an attempt to make the version ready means: nil when the
// version can run, ready or not.
func (v *version) settleOn(err error) *failure {
	if err == nil {
		return nil
	}
	if errors.Is(err, errUnready) {
		v.why = err.Error()
		return nil
	}
	return v.explainBoot(err)
}

// report says what loading the version came to.
func (v *version) report() wire.LoadReport {
	r := wire.LoadReport{Cost: v.cost(), Anew: v.why}
	if v.spec.From == 0 {
		r.Cost += v.program.cost()
	}
	return r
}

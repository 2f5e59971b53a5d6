package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// invocation is one run of a guest. The buffers and the addresses reserved for the
// guest's memory serve one run after another; the guest's state does not: its
// memory comes back zeroed and everything else is a new instance.
type invocation struct {
	srv    *server
	v      *version
	ctx    context.Context
	config wazero.ModuleConfig
	memory *linearMemory
	broken error // why there is no memory

	stream   uint32
	input    []byte // head line and body
	want     int    // length of the whole input
	running  bool   // set when the input is complete
	in       bytes.Reader
	out      answer
	log      logbook
	deadline time.Time
	canceled atomic.Bool
	wake     chan struct{}
	frame    []byte
}

type invocationKey struct{}

// guestContext carries the invocation to the host calls.
type guestContext struct {
	context.Context
	inv *invocation
}

// Value implements context.Context.
func (c guestContext) Value(key any) any {
	if _, ok := key.(invocationKey); ok {
		return c.inv
	}
	return c.Context.Value(key)
}

func newInvocation(v *version) *invocation {
	i := &invocation{srv: v.srv, v: v, wake: make(chan struct{}, 1)}
	i.out = answer{inv: i, limit: int(v.spec.Limits.Output)}
	i.log = logbook{inv: i, limit: v.spec.Limits.Log}
	i.config = v.config().WithStdin(&i.in).WithStdout(&i.out).WithStderr(&i.log).
		WithNanosleep(i.sleep).WithRandSource(&entropy{i})
	i.memory, i.broken = newLinearMemory(v.srv.memory, uint64(v.spec.Limits.Memory))
	if i.broken != nil {
		return i
	}
	ctx := experimental.WithMemoryAllocator(guestContext{context.Background(), i}, i.memory)
	i.ctx = experimental.WithSnapshotter(ctx)
	return i
}

// keepInput is the largest input buffer kept for the next run, in bytes.
const keepInput = 256 << 10

// reset forgets the run.
func (i *invocation) reset() {
	i.stream, i.want, i.running = 0, 0, false
	if cap(i.input) > keepInput {
		i.input = nil
	}
	i.input = i.input[:0]
	i.in.Reset(nil)
	i.out.reset()
	i.log.reset()
	i.canceled.Store(false)
	select {
	case <-i.wake:
	default:
	}
}

func (i *invocation) close() {
	if i.memory != nil {
		i.memory.close()
	}
}

// run enters the guest and sends what came of it.
func (i *invocation) run() {
	began := i.srv.clock()
	i.deadline = began.Add(i.v.spec.Limits.Timeout)
	i.in.Reset(i.input)
	cpu, err := i.enter()
	ended := i.srv.clock()

	i.log.finish(ended)
	o := wire.Outcome{
		Wall: max(ended.Sub(began), 0), CPU: cpu, BytesOut: int64(len(i.out.buf)),
		LogBytes: i.log.kept, LogDropped: i.log.dropped,
	}
	if i.memory != nil {
		o.MemoryPeak = int64(i.memory.peak)
	}
	i.frame = wire.AppendOutcome(i.frame[:0], o)
	if f := i.explain(err); f != nil {
		i.srv.sendFailed(i.stream, i.frame, f)
		return
	}
	first := i.out.buf[:min(len(i.out.buf), wire.MaxPayload-wire.OutcomeSize)]
	// A failed send means that the node has gone, and with it this process.
	if i.srv.out.Send(wire.Result, i.stream, i.frame, first) == nil {
		_ = i.srv.out.SendAll(wire.Answer, i.stream, i.out.buf[len(first):])
	}
}

// errNoMemory means that the guest could not start.
var errNoMemory = errors.New("the process has no memory left for another guest")

// exitCode is the failure that a handle reports by its result.
type exitCode uint32

// Error is for logs.
func (e exitCode) Error() string { return fmt.Sprintf("handle returned %d", int32(e)) }

// enter runs the guest on a new instance and gives the processor time it took.
func (i *invocation) enter() (time.Duration, error) {
	if i.broken != nil {
		return 0, fmt.Errorf("%w: %v", errNoMemory, i.broken)
	}
	if !i.memory.reserve(i.v.start) {
		return 0, errNoMemory
	}
	// The thread is the guest's for the while, so that its clock is.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadCPU()
	err := i.instance()
	// A guest that never had memory has freed nothing.
	i.memory.release()
	return max(threadCPU()-before, 0), err
}

func (i *invocation) instance() error {
	mod, err := i.v.runtime.InstantiateModule(i.ctx, i.v.compiled, i.config)
	if err != nil {
		return err
	}
	defer func() { _ = mod.Close(i.ctx) }()
	if i.v.spec.Entry == function.EntryCommand {
		_, err := mod.ExportedFunction(exportStart).Call(i.ctx)
		return err
	}
	if init := mod.ExportedFunction(exportInitialize); init != nil {
		if _, err := init.Call(i.ctx); err != nil {
			return err
		}
	}
	res, err := mod.ExportedFunction(exportHandle).Call(i.ctx)
	if err == nil && len(res) == 1 && api.DecodeU32(res[0]) != 0 {
		return exitCode(api.DecodeU32(res[0]))
	}
	return err
}

// explain says what the error of a run means, or nil when it means success.
func (i *invocation) explain(err error) *failure {
	if err == nil {
		return nil
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0 {
		return nil
	}
	limits := i.v.spec.Limits
	f := &failure{cause: wire.Cut(err.Error(), 2<<10)}
	var halt *stopped
	var code exitCode
	switch {
	case errors.As(err, &halt):
		f.kind = halt.kind
		switch halt.kind {
		case sandbox.Timeout:
			f.public = fmt.Sprintf("the function did not finish within %v", limits.Timeout)
		case sandbox.Canceled:
			f.public = "the caller has gone"
		case sandbox.Output:
			f.public = fmt.Sprintf("the answer exceeds the limit of %s", size(limits.Output))
		case sandbox.Stack:
			f.public = "the function's calls went too deep"
		default:
			f.public = fmt.Sprintf("the answer does not begin with a head line of at most %s", size(sandbox.MaxHeadLine))
		}
	case errors.Is(err, errNoMemory):
		f.kind, f.public = sandbox.Unavailable, "no memory is left for another invocation; try again later"
	case i.memory != nil && i.memory.denied:
		// The guest asked for more, was refused, and then failed.
		f.kind, f.public = sandbox.Memory, fmt.Sprintf("the function needed more than its %s of memory", size(limits.Memory))
	case strings.HasPrefix(err.Error(), "stack overflow"):
		f.kind, f.public = sandbox.Stack, "the function's calls went too deep"
	case errors.As(err, &exit):
		f.kind, f.public = sandbox.Exit, fmt.Sprintf("the function exited with code %d", exit.ExitCode())
	case errors.As(err, &code):
		f.kind, f.public = sandbox.Exit, code.Error()
	default:
		f.kind, f.public = sandbox.Trap, "the function crashed"
		if why, ok := trapReason(err); ok {
			f.public += ": " + why
		}
	}
	return f
}

// trapReason finds the engine's words for a trap, which say nothing of the code.
func trapReason(err error) (string, bool) {
	_, after, ok := strings.Cut(err.Error(), "wasm error: ")
	if !ok {
		return "", false
	}
	line, _, _ := strings.Cut(after, "\n")
	return line, true
}

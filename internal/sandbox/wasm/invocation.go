package wasm

import (
	"context"
	crand "crypto/rand"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/goseed"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// invocation is one run of a guest, and what its host calls act upon. The buffers
// serve one run after another, of any version.
type invocation struct {
	srv      *server
	v        *version
	worker   *worker         // who runs it
	guest    context.Context // carries the invocation
	snapshot context.Context // and lets the engine take snapshots
	ctx      context.Context // one of them
	inst     *instance
	boot     *boot // while an instance is brought to its ready state
	// preparing is set while a handler that begins from nothing is not yet handling.
	preparing bool
	long      bool // the thread has a long slice

	stream   uint32
	input    []byte // head line and body
	want     int    // length of the whole input
	running  bool   // set when the input is complete
	stdin    []byte // what is left to read
	files    wasi.Files
	out      answer
	log      logbook
	ops      *operations // nil until the guest uses one
	deadline time.Time
	canceled atomic.Bool
	wake     chan struct{}
	frame    []byte

	cpuStart, cpuLimit            time.Duration // of the thread that runs it
	pace                          pace
	fuelLimit, fuelSpent, granted int64
	callLimit, calls              int64
}

func newInvocation(s *server) *invocation {
	i := &invocation{srv: s, wake: make(chan struct{}, 1)}
	i.out.inv, i.log.inv = i, i
	i.guest = wasi.NewContext(context.Background(), i)
	i.snapshot = experimental.WithSnapshotter(i.guest)
	return i
}

// keepInput is the largest input buffer kept for the next run, in bytes.
const keepInput = 256 << 10

// bind makes the invocation one of a version's.
func (i *invocation) bind(v *version) {
	i.v = v
	i.out.limit, i.log.limit = int(v.spec.Limits.Output), v.spec.Limits.Log
	i.callLimit = v.spec.Limits.HostCalls()
	i.ctx = i.guest
	if v.spec.Entry == function.EntryCommand {
		i.ctx = i.snapshot
	}
}

// reset forgets the run.
func (i *invocation) reset() {
	i.v, i.inst, i.worker, i.preparing = nil, nil, nil, false
	i.stream, i.want, i.running = 0, 0, false
	if cap(i.input) > keepInput {
		i.input = nil
	}
	i.input, i.stdin = i.input[:0], nil
	i.files = wasi.Files{}
	i.out.reset()
	i.log.reset()
	if i.ops != nil {
		i.ops.stop()
		i.ops = nil
	}
	i.canceled.Store(false)
	select {
	case <-i.wake:
	default:
	}
}

// noLimit is more fuel than can be spent.
const noLimit = 1 << 60

// begin sets the limits of a run that starts now.
func (i *invocation) begin(timeout, cpu time.Duration, fuel int64) time.Time {
	now := i.srv.clock()
	i.deadline = now.Add(timeout)
	i.cpuStart, i.cpuLimit = threadCPU(), cpu
	i.fuelLimit, i.fuelSpent, i.granted, i.calls = fuel, 0, 0, 0
	i.pace = pace{free: longAfter, wall: now}
	i.stdin = i.input
	return now
}

// bounds is what begin set.
type bounds struct {
	deadline time.Time
	cpuStart time.Duration
	cpuLimit time.Duration
	fuel     int64
	stdin    []byte
}

func (i *invocation) limits() bounds {
	return bounds{i.deadline, i.cpuStart, i.cpuLimit, i.fuelLimit, i.stdin}
}

// forgetBoot makes the invocation as it was before it lent itself to a boot.
func (i *invocation) forgetBoot(b bounds) {
	i.deadline, i.fuelLimit, i.stdin = b.deadline, b.fuel, b.stdin
	i.cpuStart, i.cpuLimit = b.cpuStart, b.cpuLimit
	i.fuelSpent, i.granted, i.calls = 0, 0, 0
	i.files = wasi.Files{}
	i.out.reset()
	i.log.reset()
}

// run enters the guest, sends what came of it, and puts the instance back.
func (i *invocation) run() {
	limits := &i.v.spec.Limits
	heavy := i.giveWay()
	began := i.begin(limits.Timeout, limits.ComputeTime(), noLimit)
	i.srv.company.invoked(i.v, began)
	if heavy {
		i.takesLong()
		i.pace.free = 0
		i.pace.begin(began, 0)
	}
	var err error
	if i.canceled.Load() {
		err = &stopped{sandbox.Canceled}
	} else {
		err = i.enter()
	}
	cpu := max(threadCPU()-i.cpuStart, 0)
	ended := i.srv.clock()
	i.v.took(ended.Sub(began))

	i.log.finish(ended)
	o := wire.Outcome{
		Wall: max(ended.Sub(began), 0), CPU: cpu, BytesOut: int64(len(i.out.buf)),
		LogBytes: i.log.kept, LogDropped: i.log.dropped, Fuel: i.fuelSpent, Calls: i.calls,
	}
	denied := false
	if i.inst != nil && i.inst.memory != nil {
		o.MemoryPeak, denied = int64(i.inst.memory.Peak()), i.inst.memory.Denied()
	}
	i.frame = wire.AppendOutcome(i.frame[:0], o)
	if f := i.explain(err, denied); f != nil {
		i.srv.sendFailed(i.stream, i.frame, f)
	} else {
		first := i.out.buf[:min(len(i.out.buf), wire.MaxPayload-wire.OutcomeSize)]
		// A failed send means that the node has gone, and with it this process.
		if i.worker.send(wire.Result, i.stream, i.frame, first) == nil {
			_ = i.srv.out.SendAll(wire.Answer, i.stream, i.out.buf[len(first):])
		}
	}
	i.leave()
	i.account(cpu)
}

// enter runs the guest. leave is to follow.
func (i *invocation) enter() error {
	if i.v.ready != nil {
		return i.fromReady()
	}
	return i.fromNothing()
}

// leave gives the instance back for the next invocation.
func (i *invocation) leave() {
	defer i.endLong()
	in := i.inst
	if in == nil {
		return
	}
	i.inst = nil
	end(in.memory)
	if in.once {
		i.v.spent(in)
	} else {
		i.v.restored(in)
	}
}

// fromReady runs the guest on an instance that was made ready before.
func (i *invocation) fromReady() error {
	in, err := i.v.acquire(i)
	if errors.Is(err, errUnready) {
		// This command did not start as the first did, so it is nobody's copy.
		return i.fromNothing()
	}
	if err != nil {
		return err
	}
	i.inst = in
	if !begin(in.memory, 0) {
		return errNoMemory
	}
	i.files = i.v.files
	if len(i.v.early) > 0 {
		i.Log(i.v.early)
		i.log.dropped += i.v.excess
	}
	if i.v.reseed {
		var fresh [goseed.FreshSize]byte
		_, _ = crand.Read(fresh[:]) // it never fails
		i.v.random.Refresh(in.memory.Bytes(), fresh)
	}
	if in.resume != nil {
		in.fuel.Set(0) // the first payment is where the command goes on, see tick
	} else {
		i.refuel()
	}
	return i.call(in)
}

// fromNothing runs the guest on an instance of its own, from its very start.
func (i *invocation) fromNothing() error {
	mem, err := i.v.newMemory(i.v.program.base)
	if err != nil {
		return err
	}
	if !begin(mem, i.v.start) {
		dropMemory(mem)
		return errNoMemory
	}
	in, err := i.v.program.instantiate(mem)
	if err != nil {
		end(mem)
		dropMemory(mem)
		return err
	}
	in.once = true
	i.inst = in
	if i.v.spec.Entry == function.EntryCommand {
		if err := i.callPhase(in, rewrite.StartExport); err != nil {
			return err
		}
		in.enter(exportStart)
		return i.call(in)
	}
	i.stdin, i.preparing = i.v.prepare, true
	for _, name := range phases {
		if err := i.callPhase(in, name); err != nil {
			return err
		}
	}
	i.stdin, i.preparing = i.input, false
	in.enter(exportHandle)
	return i.call(in)
}

// call enters the guest by its entry.
func (i *invocation) call(in *instance) error {
	in.result[0] = 0
	err := in.entry.CallWithStack(i.ctx, in.result[:])
	i.spend()
	if err == nil && uint32(in.result[0]) != 0 && i.v.spec.Entry == function.EntryHandle {
		return exitCode(uint32(in.result[0]))
	}
	return err
}

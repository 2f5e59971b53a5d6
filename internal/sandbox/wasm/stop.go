package wasm

import (
	"context"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// stopped is what a host call panics with to end the guest. The engine below
// turns the panic into an error that errors.As finds it in.
type stopped struct{ kind sandbox.Kind }

// Error is for the trace that the engine builds around it.
func (s *stopped) Error() string { return "stopped: " + string(s.kind) }

// maxStack bounds the size to which a guest's call stack may have grown, in bytes. The
// engine doubles it from some 10 KiB, to 2.6 MB and then to 5.3, so 2.6 MB is what a
// guest can count on; what exceeds the bound is found by the next tick. The engine's own
// ceiling is some 84 MB. It gets there by copying, in one piece that nothing interrupts,
// and leaves garbage, so a guest that goes deep costs its neighbours.
const maxStack = 4 << 20

// flushEvery is how long log lines may wait in the sandbox while the guest runs.
const flushEvery = 100 * time.Millisecond

// allowance is what a guest may spend between two ticks: from some tens of
// microseconds to a millisecond, depending on the code, so that a tick costs it next
// to nothing and a neighbour waits little.
const allowance = 400_000

// turnAllowance is the same for a guest that takes turns with others.
const turnAllowance = allowance / 4

// exportTick gives modules the function that their ticks call.
func exportTick(ctx context.Context, r wazero.Runtime) error {
	tick := func(ctx context.Context, mod api.Module, _ []uint64) {
		if i, ok := wasi.From(ctx).(*invocation); ok {
			i.tick(mod)
		}
	}
	_, err := r.NewHostModuleBuilder(rewrite.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(tick), nil, nil).Export(rewrite.ImportName).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("linking the meter: %v", err)
	}
	return nil
}

// check ends the guest when its time is over or its caller has gone. Each host
// call that can take long makes it.
func (i *invocation) check() time.Time {
	if i.canceled.Load() {
		panic(&stopped{sandbox.Canceled})
	}
	now := i.srv.clock()
	if now.After(i.deadline) {
		panic(&stopped{sandbox.Timeout})
	}
	return now
}

// tick is what the guest calls when its fuel is spent. For a command that is to go
// on from its checkpoint, the very first one is where it is carried there.
func (i *invocation) tick(mod api.Module) {
	in := i.inst
	now := i.check()
	if i.granted > 0 {
		// First of all: to end a guest and clear away what it leaves takes long, too.
		i.takesLong()
	}
	if in.stack.size() > maxStack {
		panic(&stopped{sandbox.Stack})
	}
	if i.granted == 0 && i.boot == nil && in.resume != nil {
		i.refuel()
		c := in.resume
		i.Called()
		c.resumeFrom(c.again(i, mod.Memory(), append([]uint64(nil), c.params...)))
	}
	i.spend()
	used := threadCPU() - i.cpuStart
	if i.fuelSpent > i.fuelLimit || used > i.cpuLimit {
		panic(&stopped{sandbox.CPU})
	}
	i.log.flushAfter(now, flushEvery)
	i.makeWay(now, used)
	i.refuel()
}

// makeWay rests when the guest has had its turn and others want the processor. It ends
// the guest as any other host call does.
func (i *invocation) makeWay(now time.Time, used time.Duration) {
	if !i.long || used < i.pace.free || used-i.pace.cpu < longTurn {
		return
	}
	if rest := i.pace.rest(now, used); rest >= leastRest {
		i.srv.pause(min(rest, i.deadline.Sub(now)+1), i.wake)
		now = i.check()
	}
	i.pace.begin(now, used)
}

// takesLong makes way for others, once it is clear that the guest takes longer than
// most: somebody else reads, and the thread gives up the processor to whoever wakes.
func (i *invocation) takesLong() {
	i.worker.pass()
	if !i.long && i.boot == nil {
		i.long = true
		i.srv.slice.lengthen(longSlice)
	}
}

// giveWay rests for what the version's invocations before this one took from others,
// and reports whether this one is to take turns from its beginning.
func (i *invocation) giveWay() (heavy bool) {
	if !i.v.burden.any.Load() {
		return false
	}
	now := i.srv.clock()
	heavy, rest := i.v.burden.heavy(now)
	if !heavy || !i.srv.company.kept(now) {
		return false
	}
	if rest >= leastRest {
		i.worker.pass()
		i.srv.pause(rest, i.wake)
	}
	return true
}

// account counts what the guest took, clearing away included, for the version's next.
func (i *invocation) account(cpu time.Duration) {
	if cpu < countedFrom {
		return
	}
	now := i.srv.clock()
	cpu = max(threadCPU()-i.cpuStart, cpu)
	i.v.burden.add(now, cpu, i.pace.left(now, cpu))
}

// endLong makes the thread one that others wait for again.
func (i *invocation) endLong() {
	if i.long {
		i.long = false
		i.srv.slice.restore()
	}
}

// refuel grants the guest its next allowance, of what its limit leaves.
func (i *invocation) refuel() {
	grant := int64(allowance)
	if i.pace.turns {
		grant = turnAllowance
	}
	i.granted = min(grant, i.fuelLimit-i.fuelSpent+1)
	i.inst.fuel.Set(uint64(i.granted))
}

// spend books what the guest has used of its last allowance. It is used more than it
// had when its last payment was too large for the rest.
func (i *invocation) spend() {
	i.fuelSpent += i.granted - int64(i.inst.fuel.Get())
	i.granted = 0
}

// cancel asks the guest to end because its caller has gone.
func (i *invocation) cancel() {
	i.canceled.Store(true)
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

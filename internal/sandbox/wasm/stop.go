package wasm

import (
	"context"
	"reflect"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
)

// stopped is what a host call panics with to end the guest. The engine below
// turns the panic into an error that errors.As finds it in.
type stopped struct{ kind sandbox.Kind }

// Error is for the trace that the engine builds around it.
func (s *stopped) Error() string { return "stopped: " + string(s.kind) }

// maxStack bounds the guest's call stack, in bytes. The engine's own ceiling is
// some 84 MB, reached by doubling, which is too much to grant to each of many
// invocations at once; at the last tick before this one is noticed the stack has
// twice this size at the most.
const maxStack = 16 << 20

// flushEvery is how long log lines may wait in the sandbox while the guest runs.
const flushEvery = 100 * time.Millisecond

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

// tick is what the guest calls when its fuel is spent.
func (i *invocation) tick(ctx context.Context, mod api.Module) {
	now := i.check()
	if i.stackSize(ctx) > maxStack {
		panic(&stopped{sandbox.Stack})
	}
	i.log.flushAfter(now, flushEvery)
	refuel(mod)
}

// allowance is what a guest may spend between two ticks: some tenths of a
// millisecond, so that a tick costs it next to nothing and a neighbour waits little.
const allowance = 200_000

func refuel(mod api.Module) {
	if g, ok := mod.ExportedGlobal(fuel.GlobalExport).(api.MutableGlobal); ok {
		g.Set(allowance)
	}
}

// stackSize gives the size of the guest's call stack, in bytes, or 0 when this
// build of the engine does not tell. The engine offers no limit of its own, so
// this reads, never writes, the length of one of its fields.
func (i *invocation) stackSize(ctx context.Context) int {
	calls := reflect.ValueOf(experimental.GetSnapshotter(ctx))
	field := i.srv.stack.Load()
	if field == nil {
		field = findStack(calls.Type())
		i.srv.stack.Store(field)
	}
	if field.index == nil || calls.Type() != field.owner {
		return 0
	}
	return calls.Elem().FieldByIndex(field.index).Len()
}

// stackField says where the engine keeps a guest's stack.
type stackField struct {
	owner reflect.Type
	index []int // nil when it was not found
}

func findStack(owner reflect.Type) *stackField {
	field := &stackField{owner: owner}
	if owner.Kind() != reflect.Pointer || owner.Elem().Kind() != reflect.Struct {
		return field
	}
	f, ok := owner.Elem().FieldByName("stack")
	if ok && f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Uint8 {
		field.index = f.Index
	}
	return field
}

// sleep is the guest's way to wait: it ends early, with the guest, when the
// time is over or the caller has gone.
func (i *invocation) sleep(ns int64) {
	now := i.check()
	i.log.flush()
	wait := min(time.Duration(ns), i.deadline.Sub(now)+time.Millisecond)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-i.wake:
	}
	i.check()
}

// stop asks the guest to end because its caller has gone.
func (i *invocation) cancel() {
	i.canceled.Store(true)
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

package wasm

import (
	"context"
	"errors"
	"reflect"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// checkpoint is a command that was stopped within a call to its host: what its
// instance needs, besides memory and globals, to go on from there, any number of
// times. It belongs to the instance, since the stack holds addresses of it.
type checkpoint struct {
	snapshot experimental.Snapshot
	live     []byte // the snapshot's stack, from the stack pointer on
	pristine []byte // what live held when it was taken
	params   []uint64
	again    wasi.Function // the call that the command is in
}

// stoppedThere is what the host call panics with after the snapshot was taken.
type stoppedThere struct{}

// Error is for the trace that the engine builds around it.
func (stoppedThere) Error() string { return "checkpoint taken" }

// takeCheckpoint must be called from a host function that ctx belongs to.
func takeCheckpoint(ctx context.Context, params []uint64, again wasi.Function) (*checkpoint, error) {
	c := &checkpoint{
		snapshot: experimental.GetSnapshotter(ctx).Snapshot(), params: append([]uint64(nil), params...), again: again,
	}
	// The engine continues on the stack that the snapshot holds, and changes it
	// thereby. To continue from there twice, its content has to be put back; the
	// fields that say where it lies are read by reflection.
	v := reflect.ValueOf(c.snapshot)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, errNoSnapshot
	}
	stack, pointer := v.Elem().FieldByName("stack"), v.Elem().FieldByName("sp")
	if !stack.IsValid() || stack.Kind() != reflect.Slice || stack.Type().Elem().Kind() != reflect.Uint8 || stack.Len() == 0 ||
		!pointer.IsValid() || pointer.Kind() != reflect.Uintptr {
		return nil, errNoSnapshot
	}
	bottom, sp := stack.Pointer(), uintptr(pointer.Uint())
	if sp < bottom || sp >= bottom+uintptr(stack.Len()) {
		return nil, errNoSnapshot
	}
	c.live = stack.Bytes()[sp-bottom:]
	c.pristine = append([]byte(nil), c.live...)
	return c, nil
}

// errNoSnapshot means that this release of the engine keeps snapshots in a form that
// is not known here. Commands then start from their beginning each time.
var errNoSnapshot = errors.New("the engine's snapshots have another form")

// resumeFrom makes the engine continue after the host call that the checkpoint was
// taken in, with its result. It does not return.
func (c *checkpoint) resumeFrom(result wasi.Errno) {
	copy(c.live, c.pristine)
	c.snapshot.Restore([]uint64{uint64(result)})
}

package wasm

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/goseed"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// boot is the way of an instance from nothing to the state that all invocations
// begin with. What the guest sees of the world meanwhile is the same each time it is
// done: entropy from one seed, clocks that stand still but for the reading of them.
// So instances that are booted one after another are alike to the bit, and share
// one image.
type boot struct {
	command bool // stop at the first thing that differs between invocations
	trusted bool // what it draws of entropy it draws anew for each invocation
	goMade  bool
	rng     *rand.ChaCha8
	seed    [goseed.SeedSize]byte // what Go's runtime was given
	draws   int                   // of entropy that will be the same for all invocations
	seeded  bool                  // seed was given
	start   time.Time
	passed  time.Duration // on the guest's clocks, since start

	taken *checkpoint
	err   error
}

// bootSeed decides what every boot of one version sees.
type bootSeed struct {
	entropy [32]byte
	start   time.Time
}

func newBootSeed(now time.Time) bootSeed {
	s := bootSeed{start: now}
	_, _ = crand.Read(s.entropy[:]) // it never fails
	return s
}

// Bounds of a boot. A handler that exceeds them is refused. A command that has not
// looked at anything by then is left to start anew each time: perhaps it never does.
const (
	handlerFuel = 60_000_000_000
	commandFuel = 2_000_000_000
	bootTimeout = 60 * time.Second
	// clockStep is what reading a clock moves it by, so that a guest which waits for
	// time to pass is not held up for ever.
	clockStep = time.Microsecond
)

// fuel is what the boot may spend.
func (b *boot) fuel() int64 {
	if b.command {
		return commandFuel
	}
	return handlerFuel
}

// random fills p from the boot's own entropy.
func (b *boot) random(p []byte) {
	_, _ = b.rng.Read(p) // it never fails
	if b.goMade && !b.seeded && len(p) == goseed.SeedSize {
		b.seeded = true
		copy(b.seed[:], p)
		return
	}
	b.draws++
}

// observes reports whether a command has to be stopped before it sees this.
func (b *boot) observes(s wasi.Sight, params []uint64) bool {
	switch s {
	case wasi.Entropy:
		return !b.goMade || b.seeded || uint32(params[1]) != goseed.SeedSize
	case wasi.Monotonic:
		// Go's runtime reads it for its own purposes; a program that measures reads the
		// real time before.
		return !b.goMade
	default:
		return true
	}
}

// errUnready means that an instance cannot be used again and again, so that each
// invocation has to begin from nothing. The function runs all the same.
var errUnready = errors.New("starting anew each time")

// newBoot gives what a boot of the version sees.
func (v *version) newBoot() *boot {
	return &boot{
		command: v.spec.Entry == function.EntryCommand, trusted: v.spec.Engine, goMade: v.program.code.Go,
		rng: rand.NewChaCha8(v.seed.entropy), start: v.seed.start,
	}
}

// bring takes an instance whose module was just instantiated to the state that
// invocations begin with: a handler initialised, a command at its first look at the
// world. i lends its buffers. It fails with errUnready when there is no such state,
// and otherwise with what the guest did wrong.
func (v *version) bring(i *invocation, in *instance, b *boot, from phase) error {
	i.boot, i.inst = b, in
	defer func() { i.boot, i.inst = nil, nil }()
	if b.command {
		return v.bringCommand(i, in, b)
	}
	i.stdin = v.prepare
	for _, name := range phases[from:v.until()] {
		if err := i.callPhase(in, name); err != nil {
			return err
		}
	}
	if len(i.out.buf) > 0 {
		return errors.New("it wrote an answer before it had a request; write to standard error instead")
	}
	if b.draws > 0 && !b.trusted {
		return fmt.Errorf("%w: the function drew random numbers while it was initialised, which would be the same for all its invocations", errUnready)
	}
	in.enter(exportHandle)
	return nil
}

// phase is a step of initialising a handler.
type phase int

// phases are the exports that are called before a handler is ready, in order.
var phases = [...]string{rewrite.StartExport, exportInitialize, exportPrepare}

const (
	fromStart   phase = 0
	fromPrepare phase = 2
)

// until is where a boot ends: a base is shared by versions that each bring their own
// preparation.
func (v *version) until() phase {
	if v.spec.Base {
		return fromPrepare
	}
	return phase(len(phases))
}

// callPhase calls one of the functions that come before invocations, if there is one.
func (i *invocation) callPhase(in *instance, name string) error {
	f := in.module.ExportedFunction(name)
	if f == nil {
		return nil
	}
	in.stack = viewStack(f)
	res, err := f.Call(i.ctx)
	if err == nil && len(res) == 1 && uint32(res[0]) != 0 {
		err = exitCode(uint32(res[0]))
	}
	return err
}

func (v *version) bringCommand(i *invocation, in *instance, b *boot) error {
	if err := i.callPhase(in, rewrite.StartExport); err != nil {
		return err
	}
	in.enter(exportStart)
	if !in.stack.known() {
		return fmt.Errorf("%w: %v", errUnready, errNoSnapshot)
	}
	_, err := in.entry.Call(i.ctx)
	switch {
	case b.taken != nil:
		in.resume = b.taken
		return nil
	case b.err != nil:
		return fmt.Errorf("%w: %v", errUnready, b.err)
	default:
		// It ended, in whatever way, before it looked at anything. Each invocation
		// shall end like that.
		return fmt.Errorf("%w: the command ended without reading its input: %v", errUnready, err)
	}
}

// stopHere takes a checkpoint and leaves the guest. It does not return.
func (b *boot) stopHere(ctx context.Context, params []uint64, again wasi.Function) {
	b.taken, b.err = takeCheckpoint(ctx, params, again)
	panic(stoppedThere{})
}

// findSeed finds what has to be refreshed in a Go program before each invocation.
func (v *version) findSeed(in *instance, b *boot) error {
	if !b.seeded || b.trusted {
		return nil
	}
	at, ok := goseed.Find(in.memory.Bytes(), b.seed)
	if !ok {
		return fmt.Errorf("%w: the random numbers of this release of Go's runtime cannot be refreshed", errUnready)
	}
	v.random, v.reseed = at, true
	return nil
}

// bootFirst boots the version for the first time, and decides how invocations begin.
func (v *version) bootFirst() error {
	// As in an invocation, the thread's clock is the guest's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	from, image := fromStart, v.program.base
	if booted := v.program.booted; booted != nil {
		from, image = fromPrepare, booted.image
	}
	mem, err := v.newMemory(image)
	if err != nil {
		return err
	}
	i := v.srv.takeInvocation(v)
	defer v.srv.giveInvocation(i)
	in, err := v.first(i, mem, from)
	if err != nil {
		v.denied = mem != nil && mem.Denied()
		dropMemory(mem)
		return err
	}
	if v.spec.Base {
		v.program.booted = v.ready
		in.discard()
		return nil
	}
	v.keep(in)
	return nil
}

// first boots the first instance and freezes what came of it.
func (v *version) first(i *invocation, mem *memoryOf, from phase) (_ *instance, err error) {
	if !begin(mem, v.start) {
		return nil, errNoMemory
	}
	defer end(mem)
	in, err := v.program.instantiate(mem)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	if from == fromPrepare {
		settle(mem)
		if !in.assume(v.program.booted) {
			return nil, errors.New("this release of the engine does not let memory grow from outside")
		}
	}
	b := v.newBoot()
	i.begin(bootTimeout, bootTimeout, b.fuel())
	err = v.bring(i, in, b, from)
	v.said = string(bytes.TrimSpace(i.log.early))
	if err != nil {
		return nil, err
	}
	if err := v.findSeed(in, b); err != nil {
		return nil, err
	}
	if b.command {
		// A program's own beginning belongs to each of its runs; a handler is
		// initialised once, and what it says then is said then.
		v.early, v.excess = bytes.Clone(i.log.early), i.log.earlyDropped
	}
	v.skew, v.files = b.passed, i.files
	v.ready, err = in.capture()
	if err != nil {
		return nil, err
	}
	if mem != nil {
		if err := mem.Map(v.ready.image); err != nil {
			return nil, err
		}
	}
	if !in.restore(v.ready) {
		return nil, fmt.Errorf("%w: this release of the engine does not let memory shrink", errUnready)
	}
	return in, nil
}

// spawn makes a further instance in the ready state.
func (v *version) spawn(i *invocation) (*instance, error) {
	if v.resumable() {
		return v.spawnCommand(i)
	}
	mem, err := v.newMemory(v.ready.image)
	if err != nil {
		return nil, err
	}
	in, err := v.instantiate(mem)
	if err != nil {
		dropMemory(mem)
		return nil, err
	}
	settle(mem)
	if !in.assume(v.ready) {
		in.discard()
		return nil, errors.New("the engine does not let memory grow from outside")
	}
	in.enter(exportHandle)
	return in, nil
}

// spawnCommand boots a further instance of a command, since a checkpoint cannot move
// from one to another, and makes sure that it is like the first.
func (v *version) spawnCommand(i *invocation) (*instance, error) {
	mem, err := v.newMemory(v.program.base)
	if err != nil {
		return nil, err
	}
	in, err := v.instantiate(mem)
	if err != nil {
		dropMemory(mem)
		return nil, err
	}
	if err := v.alike(i, in); err != nil {
		in.discard()
		return nil, err
	}
	return in, nil
}

func (v *version) alike(i *invocation, in *instance) error {
	if !begin(in.memory, v.start) {
		return errNoMemory
	}
	defer end(in.memory)
	b := v.newBoot()
	limits := i.limits()
	i.begin(bootTimeout, bootTimeout, b.fuel())
	defer func() { i.forgetBoot(limits) }()
	if err := v.bring(i, in, b, fromStart); err != nil {
		return err
	}
	same := bytes.Equal(i.log.early, v.early)
	for n, g := range in.globals {
		same = same && g.Get() == v.ready.globals[n]
	}
	if in.memory != nil {
		same = same && bytes.Equal(in.memory.Bytes(), v.ready.image.Bytes())
		if same {
			if err := in.memory.Map(v.ready.image); err != nil {
				return err
			}
		}
	}
	if !same {
		return fmt.Errorf("%w: the command does not start twice in the same way", errUnready)
	}
	if !in.restore(v.ready) {
		return errors.New("the engine does not let memory shrink")
	}
	return nil
}

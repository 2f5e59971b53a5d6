package native

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// How long, and for how much, an instance is used again. A new one computes about
// twice as much for each of its first thousands of uses, until its code is compiled
// (functions-framework), so a load of some seconds should not make it begin anew.
const (
	maxUses = 100_000
	maxAge  = time.Hour
	idleAge = 5 * time.Minute
	// freezeAfter is how long an instance that waits for work keeps its processors:
	// long enough for what a runtime does after an answer, and for the next call of a
	// busy function to find it awake.
	freezeAfter = 200 * time.Millisecond
)

// cell is one running sandbox, as much as an instance needs of it.
type cell interface {
	Usage() (cpu time.Duration, peak int64, err error)
	ResetPeak() error
	Freeze() error
	Thaw() error
	// Yield has its processes make way for whatever else wants a processor, until
	// Compete.
	Yield() error
	Compete() error
	// Kill ends all processes at once and does not wait.
	Kill()
	// Done is closed when they have ended and nothing is left.
	Done() <-chan struct{}
	// Ended says how, after Done.
	Ended() Ending
	// Terminate asks the guest to end by itself.
	Terminate()
}

// Ending is how a sandbox ended.
type Ending struct {
	Code   int // of the guest's first process, or -1
	Signal string
	OOM    bool
	CPU    time.Duration // from its start to its end
	Peak   int64         // bytes of memory
}

func (e Ending) String() string {
	switch {
	case e.OOM:
		return "out of memory"
	case e.Signal != "":
		return "signal: " + e.Signal
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// errUntouched says that the code never saw the invocation, so that it may be given to
// another instance.
var errUntouched = errors.New("the code did not take the invocation")

// guest speaks the protocol of one runtime with the code in a cell, one invocation at
// a time.
type guest interface {
	// ready returns when the code waits for work, with a *sandbox.Error when it says
	// that it cannot, or with the context's error.
	ready(ctx context.Context) error
	// invoke hands one invocation over and waits for the answer. It fails with a
	// *sandbox.Error, the context's error, or one that matches errUntouched.
	invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error)
	// close ends what belongs to the node.
	close()
}

// instance is a sandbox with code that waits for work. It is used by one goroutine at a
// time; only what freezes it comes from another, and knows its turn.
type instance struct {
	id       string
	cell     cell
	guest    guest
	out      *output
	born     time.Time
	started  time.Duration // how long it took
	uses     int
	rested   time.Time
	taken    time.Time     // for the use under way
	computed time.Duration // by the last use
	broken   bool
	// ending is called when the end begins, onEnd when nothing is left.
	ending, onEnd func()
	// terminates says that the code expects to be asked to end (SIGTERM) before it is
	// killed.
	terminates bool
	frozen     atomic.Int32 // see rest
	timer      *time.Timer
	spent      atomic.Int64 // processor time, in ns, when it was looked at last; see look
	ended      atomic.Bool
}

// States of instance.frozen.
const (
	awake int32 = iota // and without work
	freezing
	asleep
	working
)

// usable reports whether an instance may serve another invocation.
func (i *instance) usable(now time.Time) bool {
	select {
	case <-i.cell.Done():
		return false
	default:
		return !i.broken && i.uses < maxUses && now.Sub(i.born) < maxAge
	}
}

// rest begins a time without work. Soon after, the processes get no processor until
// there is some: code that goes on by itself is not metered and would cost others. An
// instance that nobody has used holds nothing of anybody's, and stays awake for as long
// as it computes nothing: thawing takes a fifth of the time of handing it over.
func (i *instance) rest(now time.Time) {
	i.rested = now
	i.frozen.Store(awake)
	unused := i.uses == 0
	seen := i.spent.Load()
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(freezeAfter, func() {
		<-ready
		if unused && i.frozen.Load() == awake {
			cpu, _, err := i.look()
			if still := err == nil && int64(cpu)-seen < int64(stillness); still {
				seen = int64(cpu)
				timer.Reset(lookAgain)
				return
			}
		}
		i.freeze()
	})
	i.timer = timer
	close(ready)
}

// What an unused instance may compute between two looks at it, to be left alone.
const (
	lookAgain = time.Second
	stillness = 2 * time.Millisecond
)

func (i *instance) freeze() {
	if !i.frozen.CompareAndSwap(awake, freezing) {
		return
	}
	if i.cell.Freeze() != nil {
		i.frozen.CompareAndSwap(freezing, awake)
		return
	}
	if !i.frozen.CompareAndSwap(freezing, asleep) {
		_ = i.cell.Thaw() // it was wanted meanwhile
		return
	}
	// What it did after its answer is not the next invocation's.
	_, _, _ = i.look()
	_ = i.cell.ResetPeak()
}

// awaken ends a rest.
func (i *instance) awaken() {
	if i.timer != nil {
		i.timer.Stop()
	}
	if i.frozen.Swap(working) == asleep {
		_ = i.cell.Thaw() // a cell that stays frozen runs into its time limit
	}
}

// look asks what the sandbox has used so far, and keeps it: the next invocation begins
// to count there, so that it need not ask first.
func (i *instance) look() (cpu time.Duration, peak int64, err error) {
	cpu, peak, err = i.cell.Usage()
	for seen := i.spent.Load(); err == nil && int64(cpu) > seen; seen = i.spent.Load() {
		if i.spent.CompareAndSwap(seen, int64(cpu)) {
			break
		}
	}
	return cpu, peak, err
}

// consumed gives the processor time since it was before, and the peak of memory. Of a
// sandbox that is gone, its end tells.
func (i *instance) consumed(before time.Duration) (time.Duration, int64) {
	cpu, peak, err := i.look()
	if err != nil && !i.broken {
		return 0, 0
	}
	if err != nil {
		// It was killed, and its end is on its way.
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-i.cell.Done():
			how := i.cell.Ended()
			cpu, peak = how.CPU, how.Peak
		case <-timer.C:
			return 0, 0
		}
	}
	return max(0, cpu-before), peak
}

// grace is how long code may take to end when it was asked to.
const grace = 5 * time.Second

// end kills the sandbox and returns when nothing is left of it.
func (i *instance) end() {
	if i.ended.Swap(true) {
		<-i.cell.Done()
		return
	}
	i.ending()
	i.awaken()
	if i.terminates && !i.broken {
		i.cell.Terminate()
		timer := time.NewTimer(grace)
		select {
		case <-i.cell.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	i.cell.Kill()
	i.guest.close()
	<-i.cell.Done()
	i.out.close()
	i.onEnd()
}

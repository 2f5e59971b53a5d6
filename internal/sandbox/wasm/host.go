package wasm

import (
	"context"
	crand "crypto/rand"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// The methods below make an invocation the wasi.Guest of its host calls. Those that
// take long look at the time and at cancellation, as a tick does.

// Called counts a call of the host.
func (i *invocation) Called() {
	i.calls++
	if i.boot != nil {
		return
	}
	if i.calls > i.callLimit {
		panic(&stopped{sandbox.Calls})
	}
	// Fuel does not see what a call costs the host. Many calls take long, too.
	if i.calls%manyCalls == 0 {
		i.takesLong()
	}
}

// manyCalls is how many calls of the host are taken for as long as a tick.
const manyCalls = 512

// Observe stops a command that is being booted before it sees what differs between
// invocations.
func (i *invocation) Observe(ctx context.Context, s wasi.Sight, params []uint64, again wasi.Function) {
	if b := i.boot; b != nil && b.command && b.observes(s, params) {
		b.stopHere(ctx, params, again)
	}
}

// Read fills p from what is left of standard input.
func (i *invocation) Read(p []byte) int {
	n := copy(p, i.stdin)
	i.stdin = i.stdin[n:]
	return n
}

// Write takes p for the answer, which a handler must not begin before it is asked.
func (i *invocation) Write(p []byte) {
	if i.preparing {
		panic(&stopped{sandbox.BadAnswer})
	}
	i.out.write(p)
}

// Log takes p for the log; what is said during a boot is kept apart.
func (i *invocation) Log(p []byte) {
	if i.boot != nil {
		i.check()
		i.log.keepEarly(p)
		return
	}
	i.log.write(p)
}

// entropyPiece is how much randomness is drawn between two looks at the clock, in
// bytes: a guest may ask for as much as its memory holds.
const entropyPiece = 64 << 10

// Random fills p.
func (i *invocation) Random(p []byte) {
	if len(p) > entropyPiece {
		i.worker.pass()
	}
	for len(p) > 0 {
		i.check()
		piece := p[:min(len(p), entropyPiece)]
		if i.boot != nil {
			i.boot.random(piece)
		} else {
			_, _ = crand.Read(piece) // it never fails
		}
		p = p[len(piece):]
	}
}

// Realtime gives nanoseconds since 1970.
func (i *invocation) Realtime() int64 {
	if b := i.boot; b != nil {
		b.passed += clockStep
		return b.start.Add(b.passed).UnixNano()
	}
	return i.srv.clock().UnixNano()
}

// Monotonic gives nanoseconds since some moment before the process started. For a
// guest it goes on from where its boot left it.
func (i *invocation) Monotonic() int64 {
	if b := i.boot; b != nil {
		b.passed += clockStep
		return i.srv.sinceEpoch(b.start.Add(b.passed))
	}
	return i.srv.sinceEpoch(i.srv.clock().Add(i.v.skew))
}

// Sleep returns after d, or ends the run when its time is over or its caller has
// gone. In a boot, time passes on the guest's clocks alone.
func (i *invocation) Sleep(d time.Duration) {
	now := i.check()
	if b := i.boot; b != nil {
		b.passed += min(d, bootTimeout)
		if b.passed > bootTimeout {
			panic(&stopped{sandbox.Timeout})
		}
		return
	}
	i.worker.pass()
	i.log.flush()
	wait := min(d, i.deadline.Sub(now)+time.Millisecond)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-i.wake:
	}
	i.pace.away(i.check().Sub(now))
}

// Exit ends the run.
func (i *invocation) Exit(code uint32) { panic(sys.NewExitError(code)) }

// Strings gives the arguments and the environment.
func (i *invocation) Strings() (args, environ []string) { return i.v.args, i.v.environ }

// Files gives the state of the run's descriptors.
func (i *invocation) Files() *wasi.Files { return &i.files }

package native

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// departure is a call whose caller leaves after a second. The code would take work.
type departure struct {
	trigger   string
	isolation function.Isolation
	work      time.Duration
	stop      time.Duration // of the node; 0: none
}

// play gives what became of it, and how long that took.
func (d departure) play(t *testing.T) (res sandbox.Result, kind sandbox.Kind, took time.Duration, killed, usable bool) {
	t.Helper()
	i, c := newInstance(t, time.Now())
	defer i.end()
	i.guest = &fakeGuest{answer: func(ctx context.Context, _ *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
		select {
		case <-time.After(d.work):
			c.cpu.Add(int64(time.Millisecond))
			return sandbox.ResponseHead{Status: 200}, []byte("answer"), nil
		case <-ctx.Done():
			return sandbox.ResponseHead{}, nil, context.Cause(ctx)
		}
	}}
	stop := make(chan struct{})
	if d.stop > 0 {
		time.AfterFunc(d.stop, func() { close(stop) })
	}
	ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}, stop: stop}, v: &function.Version{Config: function.Config{
		Isolation: d.isolation, Limits: function.Limits{Timeout: time.Minute, CPU: time.Minute, Log: 100},
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	res, failure := ver.run(ctx, i, &sandbox.Invocation{Version: ver.v, Head: sandbox.Head{Trigger: d.trigger}})
	if failure != nil {
		kind = failure.Kind
	}
	return res, kind, time.Since(began), c.killed.Load(), i.usable(time.Now())
}

// A caller that leaves does not cost the instance, and the call lasts, and is metered,
// until the code has ended: who calls and leaves holds as much as who stays.
func TestWhoLeavesDoesNotEndTheCode(t *testing.T) {
	t.Parallel()
	for _, trigger := range []string{triggerHTTP, triggerLambda, triggerInvoke} {
		synctest.Test(t, func(t *testing.T) {
			d := departure{trigger: trigger, isolation: function.IsolationInstance, work: 10 * time.Second}
			res, kind, took, killed, usable := d.play(t)
			if kind != sandbox.Canceled || took != d.work || killed || !usable {
				t.Errorf("%s: %q after %v, killed %v, usable %v", trigger, kind, took, killed, usable)
			}
			if res.Usage.Wall != d.work || res.Usage.CPU != time.Millisecond || res.Body != nil {
				t.Errorf("%s: on record are %+v, and an answer of %d bytes", trigger, res.Usage, len(res.Body))
			}
		})
	}
}

func TestLimitsAndTheNodeEndWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d    departure
		took time.Duration
	}{
		"the time limit": {departure{trigger: triggerHTTP, isolation: function.IsolationInstance, work: time.Hour}, time.Minute},
		"the node":       {departure{trigger: triggerHTTP, isolation: function.IsolationInstance, work: time.Hour, stop: 5 * time.Second}, 5 * time.Second},
		// The sandbox would not be used again.
		"a sandbox for one": {departure{trigger: triggerHTTP, isolation: function.IsolationInvocation, work: time.Hour}, time.Second},
		// What delivers events waits until its calls have ended, with the node's stop behind it.
		"an event's delivery": {departure{trigger: "event", isolation: function.IsolationInstance, work: time.Hour}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, kind, took, killed, usable := c.d.play(t)
				if kind != sandbox.Canceled || took != c.took || !killed || usable {
					t.Errorf("%q after %v, want %v; killed %v, usable %v", kind, took, c.took, killed, usable)
				}
			})
		})
	}
}

// A caller that left while it waited for its turn does not reach the code.
func TestWhoLeftBeforeHisTurnIsNotServed(t *testing.T) {
	t.Parallel()
	i, c := newInstance(t, time.Now())
	defer i.end()
	i.guest = &fakeGuest{answer: func(context.Context, *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
		t.Error("the code was called")
		return sandbox.ResponseHead{}, nil, nil
	}}
	ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{Config: function.Config{
		Isolation: function.IsolationInstance, Limits: function.Limits{Timeout: time.Minute, CPU: time.Minute, Log: 100},
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, failure := ver.run(ctx, i, &sandbox.Invocation{Version: ver.v, Head: sandbox.Head{Trigger: triggerHTTP}})
	if failure == nil || failure.Kind != sandbox.Canceled || c.killed.Load() || !i.usable(time.Now()) {
		t.Errorf("%v, killed %v", failure, c.killed.Load())
	}
}

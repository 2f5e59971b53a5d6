package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Why an invocation was stopped.
var (
	errTimeout = errors.New("the time limit")
	errCPU     = errors.New("the limit on processor time")
	errStopped = errors.New("the node's end")
)

// called says that somebody waits for the answer, who may leave. Of the others, their
// cancellation is an order: what delivers events waits until its calls have ended.
func called(trigger string) bool {
	return trigger == triggerHTTP || trigger == triggerLambda || trigger == triggerInvoke
}

// triggerInvoke is what Head.Trigger says of a call by an operator.
const triggerInvoke = "invoke"

// leastCPUCheck bounds how often the processor time of an invocation is looked at.
const leastCPUCheck = 5 * time.Millisecond

// run has an instance serve one invocation. Whatever ends it early costs the instance:
// code that was stopped in the middle is in a state that nobody knows. So a caller that
// leaves does not end it where the instance would be used again: it goes on within its
// limits, and holds all it held, its place among the calls at once too, until it ends.
func (ver *version) run(ctx context.Context, i *instance, inv *sandbox.Invocation) (sandbox.Result, *sandbox.Error) {
	limits, clock := &ver.v.Config.Limits, ver.runner.cfg.Clock
	var res sandbox.Result
	res.Usage.Sandbox, res.Usage.Kind = i.id, ver.kind
	if ctx.Err() != nil { // before the code saw anything
		return res, &sandbox.Error{Kind: sandbox.Canceled, Cause: context.Cause(ctx)}
	}
	i.uses++
	i.out.begin(limits.Log, inv.Log)
	_ = i.cell.ResetPeak() // then the peak is the instance's, and said to be too large
	// What it used since the last look is counted too: what a runtime does after an answer.
	before := time.Duration(i.spent.Load())
	began := clock()
	inv.Head.Deadline = began.Add(limits.Timeout).UnixMilli() // waiting for a sandbox is not the function's time

	base, finishes := ctx, called(inv.Head.Trigger) && ver.v.Config.Isolation != function.IsolationInvocation
	if finishes {
		base = context.WithoutCancel(ctx)
	}
	within, cancel := context.WithCancelCause(base)
	unwatch := ver.watchSoon(within, cancel, i, before)
	head, body, err := i.guest.invoke(within, inv)
	cause := context.Cause(within)
	cancel(nil)
	unwatch()

	var failure *sandbox.Error
	if err != nil {
		failure = ver.explain(ctx, i, inv, err, cause)
	}
	u := &res.Usage
	u.Wall = clock().Sub(began)
	u.LogBytes, u.LogDropped = i.out.end()
	u.CPU, u.MemoryPeak = i.consumed(before)
	i.computed = u.CPU
	if failure == nil && u.CPU > limits.ComputeTime() {
		// It answered before anybody looked; the limit is a promise to its neighbours.
		failure = &sandbox.Error{Kind: sandbox.CPU, Cause: errCPU}
	}
	if failure == nil && finishes && ctx.Err() != nil {
		failure = &sandbox.Error{Kind: sandbox.Canceled, Cause: context.Cause(ctx)}
	}
	if failure != nil {
		return res, failure
	}
	u.BytesOut = int64(len(body))
	res.Response, res.Body = head, body
	return res, nil
}

// watchSoon has watch begin when there is something to decide for the first time, or when
// an invocation counts as long. Most are over by then, and need nobody who watches.
// Whoever ended the invocation's context calls what it returns, after which nobody
// watches.
func (ver *version) watchSoon(ctx context.Context, cancel context.CancelCauseFunc, i *instance, before time.Duration) (unwatch func()) {
	limits := &ver.v.Config.Limits
	late := min(longAfter, limits.Timeout, nextLook(limits.ComputeTime()))
	watched := make(chan struct{})
	timer := time.AfterFunc(late, func() {
		defer close(watched)
		ver.watch(ctx, cancel, i, before, late)
	})
	return func() {
		if !timer.Stop() {
			<-watched
		}
	}
}

// nextLook is when an invocation that may compute for so much longer is looked at.
func nextLook(left time.Duration) time.Duration {
	return max(left/time.Duration(runtime.NumCPU()), leastCPUCheck)
}

// watch ends the invocation, which began some time ago, when it may not go on.
func (ver *version) watch(ctx context.Context, cancel context.CancelCauseFunc, i *instance, before, ago time.Duration) {
	limits := &ver.v.Config.Limits
	end := time.NewTimer(limits.Timeout - ago)
	defer end.Stop()
	most := limits.ComputeTime()
	look := time.NewTimer(nextLook(most) - ago)
	defer look.Stop()
	m := manners{cell: i.cell}
	defer m.end()
	pace := time.NewTimer(longAfter - ago)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			cancel(errTimeout)
			return
		case <-ver.runner.stop:
			cancel(errStopped)
			return
		case <-i.cell.Done():
			cancel(errEnded)
			return
		case <-pace.C:
			if now, _, err := i.cell.Usage(); err == nil {
				m.look(now - before)
			}
			pace.Reset(paceEvery)
		case <-look.C:
			now, _, err := i.cell.Usage()
			if err == nil && now-before >= most {
				cancel(errCPU)
				return
			}
			look.Reset(nextLook(most - (now - before)))
		}
	}
}

// explain says why an invocation failed, and spares the instance if it is as good as
// before.
func (ver *version) explain(ctx context.Context, i *instance, inv *sandbox.Invocation, err, cause error) *sandbox.Error {
	var known *sandbox.Error
	if errors.As(err, &known) && known.Kind == sandbox.Fault {
		return known // the runtime reported it, and asks for the next one
	}
	i.broken = true
	switch {
	case ctx.Err() != nil:
		i.cell.Kill()
		return &sandbox.Error{Kind: sandbox.Canceled, Cause: fmt.Errorf("%w, and then %w", context.Cause(ctx), err)}
	case errors.Is(cause, errTimeout):
		i.cell.Kill()
		return &sandbox.Error{Kind: sandbox.Timeout, Cause: err, Fault: faultJSON("Sandbox.Timedout",
			fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", inv.Head.ID, ver.v.Config.Limits.Timeout.Seconds()))}
	case errors.Is(cause, errCPU):
		i.cell.Kill()
		return &sandbox.Error{Kind: sandbox.CPU, Cause: err}
	case known != nil && known.Kind != sandbox.Lost:
		return known
	}
	// The connection broke: it ended, or it will not go on.
	i.cell.Kill()
	<-i.cell.Done()
	how := i.cell.Ended()
	if how.OOM {
		return &sandbox.Error{Kind: sandbox.Memory, Cause: err, Fault: faultJSON("Runtime.OutOfMemory", "RequestId: "+inv.Head.ID+" Error: Runtime exited with error: signal: killed")}
	}
	return &sandbox.Error{Kind: sandbox.Exit, Cause: fmt.Errorf("%v: %w", how, err), Fault: faultJSON("Runtime.ExitError",
		fmt.Sprintf("RequestId: %s Error: Runtime exited with error: %s", inv.Head.ID, how))}
}

// faultJSON is what callers of the raw interface see of a failure that the code could
// not report itself, in the words that AWS has for it.
func faultJSON(kind, message string) []byte {
	b, err := json.Marshal(struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}{kind, message})
	if err != nil {
		return nil // two texts can always be encoded
	}
	return b
}

package native

import (
	"context"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// What failed in the middle is in a state that nobody knows, and serves nobody again,
// though its sandbox still runs. What reported its failure goes on.
func TestWhatFailedHalfWayServesNobodyAgain(t *testing.T) {
	t.Parallel()
	for kind, again := range map[sandbox.Kind]bool{sandbox.Output: false, sandbox.BadAnswer: false, sandbox.Fault: true} {
		i, c := newInstance(t, time.Now())
		i.guest = &fakeGuest{answer: func(context.Context, *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
			return sandbox.ResponseHead{}, nil, &sandbox.Error{Kind: kind}
		}}
		ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{Config: function.Config{
			Isolation: function.IsolationInstance, Limits: function.Limits{Timeout: time.Minute, CPU: time.Minute, Log: 100},
		}}}
		_, failure := ver.run(t.Context(), i, &sandbox.Invocation{Version: ver.v, Head: sandbox.Head{Trigger: triggerHTTP}})
		if failure == nil || failure.Kind != kind {
			t.Errorf("%s: %v", kind, failure)
		}
		select {
		case <-c.done:
			t.Errorf("%s: the sandbox ended, which says nothing of whether it would be used", kind)
		default:
		}
		if i.usable(time.Now()) != again {
			t.Errorf("%s: usable is %v", kind, !again)
		}
		i.end()
	}
}

// Who answers before anybody has looked at its processor time has its answer refused all
// the same: the limit is a promise to its neighbours.
func TestAnAnswerPastTheLimitOnProcessorTimeIsNone(t *testing.T) {
	t.Parallel()
	const limit = 50 * time.Millisecond
	for used, want := range map[time.Duration]sandbox.Kind{limit: "", limit + 1: sandbox.CPU} {
		i, c := newInstance(t, time.Now())
		i.guest = &fakeGuest{answer: func(context.Context, *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
			c.cpu.Add(int64(used))
			return sandbox.ResponseHead{Status: 200}, []byte("answer"), nil
		}}
		ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{Config: function.Config{
			Isolation: function.IsolationInstance, Limits: function.Limits{Timeout: time.Hour, CPU: limit, Log: 100},
		}}}
		res, failure := ver.run(t.Context(), i, &sandbox.Invocation{Version: ver.v, Head: sandbox.Head{Trigger: triggerHTTP}})
		got := sandbox.Kind("")
		if failure != nil {
			got = failure.Kind
		}
		if got != want || (res.Body == nil) != (want != "") || res.Usage.CPU != used {
			t.Errorf("after %v: %q, %d bytes, %v on record", used, got, len(res.Body), res.Usage.CPU)
		}
		i.end()
	}
}

// Waiting for a sandbox is not the function's time: its deadline counts from when it has one.
func TestTheDeadlineCountsFromTheTurn(t *testing.T) {
	t.Parallel()
	i, _ := newInstance(t, time.Now())
	defer i.end()
	before := time.Now()
	i.guest = &fakeGuest{answer: func(_ context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
		if least := before.Add(time.Hour).UnixMilli(); inv.Head.Deadline < least {
			t.Errorf("the deadline is %d, want %d at least", inv.Head.Deadline, least)
		}
		return sandbox.ResponseHead{Status: 200}, nil, nil
	}}
	ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{Config: function.Config{
		Isolation: function.IsolationInstance, Limits: function.Limits{Timeout: time.Hour, CPU: time.Hour, Log: 100},
	}}}
	waited := sandbox.Head{Trigger: triggerHTTP, Deadline: before.Add(time.Minute).UnixMilli()}
	if _, failure := ver.run(t.Context(), i, &sandbox.Invocation{Version: ver.v, Head: waited}); failure != nil {
		t.Error(failure)
	}
}

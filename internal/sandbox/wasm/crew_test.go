package wasm

import (
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// TestEveryInvocationIsAnswered sends many invocations of guests that answer at once,
// wait, spin and crash, mixed and all at the same time, some of them canceled, and
// sees each answered once and rightly.
func TestEveryInvocationIsAnswered(t *testing.T) {
	t.Parallel()
	n := serve(t, 0)
	short := testLimits
	short.Timeout = 20 * time.Millisecond
	long := testLimits // a busy machine is no reason for another answer
	kinds := []struct {
		code   []byte
		limits function.Limits
		want   []sandbox.Kind // how it may end
	}{
		{sandboxtest.Hello(), long, []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Hello(), long, []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Echo(), long, []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Spin(), short, []sandbox.Kind{sandbox.Timeout, sandbox.Canceled}},
		{sandboxtest.Sleep(), short, []sandbox.Kind{sandbox.Timeout, sandbox.Canceled}},
		{sandboxtest.Crash(), long, []sandbox.Kind{sandbox.Trap, sandbox.Canceled}},
	}
	streams := make([]uint32, len(kinds))
	for k := range kinds {
		stream, failure := n.load(kinds[k].code, kinds[k].limits)
		if failure.Kind != "" {
			t.Fatalf("loading %d: %+v", k, failure)
		}
		streams[k] = stream
	}
	const calls = 2000
	kindOf := make([]int, calls)
	for i := range kindOf {
		kindOf[i] = rand.IntN(len(kinds))
		if kindOf[i] >= 3 && rand.IntN(10) > 0 {
			kindOf[i] = 0 // those that take long are some of many
		}
	}
	const first = 1000
	go func() {
		for i, k := range kindOf {
			stream := uint32(first + i)
			input := []byte("some input\n")
			start := wire.AppendStart(nil, wire.Start{Version: streams[k], Input: uint32(len(input))})
			// Some inputs come in two pieces.
			cut := len(input)
			if i%5 == 0 {
				cut = 4
			}
			if n.out.Send(wire.Invoke, stream, start, input[:cut]) != nil {
				return
			}
			if cut < len(input) && n.out.Send(wire.Body, stream, input[cut:]) != nil {
				return
			}
			if i%17 == 0 && n.out.Send(wire.Cancel, stream) != nil {
				return
			}
		}
	}()
	left := map[uint32]int64{} // what is still to come of an answer
	done := map[uint32]bool{}
	for len(done) < calls {
		f := n.read()
		if f.Stream < first || done[f.Stream] {
			t.Fatalf("a %v frame on stream %d, which has ended or never began", f.Type, f.Stream)
		}
		kind := kinds[kindOf[f.Stream-first]]
		var got sandbox.Kind
		switch f.Type {
		case wire.Failed:
			_, rest, err := wire.ParseOutcome(f.Payload)
			if err != nil {
				t.Fatal(err)
			}
			failure, err := wire.ParseFailure(rest)
			if err != nil {
				t.Fatal(err)
			}
			got = failure.Kind
		case wire.Result:
			o, rest, err := wire.ParseOutcome(f.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if left[f.Stream] = o.BytesOut - int64(len(rest)); left[f.Stream] > 0 {
				continue
			}
		case wire.Answer:
			if left[f.Stream] -= int64(len(f.Payload)); left[f.Stream] > 0 {
				continue
			}
		default:
			continue
		}
		done[f.Stream] = true
		ok := false
		for _, w := range kind.want {
			ok = ok || got == w
		}
		if !ok {
			t.Errorf("stream %d ended with %q, want one of %q", f.Stream, got, kind.want)
		}
	}
}

// TestLeaderDoesNotKeepOthersWaiting runs guests by a leader. The lead is somebody
// else's by the end of one that goes deep and is stopped at its first tick, and of one
// of which it is known that it is slow; it stays where it is for any other.
func TestLeaderDoesNotKeepOthersWaiting(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	e.srv.out = wire.NewWriter(io.Discard)
	for _, c := range []struct {
		name  string
		code  []byte
		usual time.Duration
		leads bool
	}{
		{"deep", sandboxtest.Recurse(), 0, false},
		{"slow", sandboxtest.Hello(), 2 * slowGuest, false},
		{"quick", sandboxtest.Hello(), 0, true},
	} {
		v := e.load(c.code, function.EntryCommand)
		crew := newCrew(e.srv, wire.NewReader(strings.NewReader("")))
		w := &worker{crew: crew, leading: true}
		runtime.LockOSThread() // as a worker does
		for range 2 {          // the second on an instance that is there
			v.typical.Store(int64(c.usual))
			w.leading = true
			w.do(e.srv.takeInvocation(v))
			if w.leading != c.leads {
				t.Errorf("%s: leading is %v", c.name, w.leading)
			}
			if !w.leading {
				<-crew.ended // whoever got the lead finds nothing to read
				crew = newCrew(e.srv, wire.NewReader(strings.NewReader("")))
				w.crew = crew
			}
		}
		runtime.UnlockOSThread()
	}
	e.srv.work.Wait()
}

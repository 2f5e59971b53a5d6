package wasm

import (
	"math/rand/v2"
	"testing"
	"time"

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
	kinds := []struct {
		code []byte
		want []sandbox.Kind // how it may end
	}{
		{sandboxtest.Hello(), []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Hello(), []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Echo(), []sandbox.Kind{"", sandbox.Canceled}},
		{sandboxtest.Spin(), []sandbox.Kind{sandbox.Timeout, sandbox.Canceled}},
		{sandboxtest.Sleep(), []sandbox.Kind{sandbox.Timeout, sandbox.Canceled}},
		{sandboxtest.Crash(), []sandbox.Kind{sandbox.Trap, sandbox.Canceled}},
	}
	streams := make([]uint32, len(kinds))
	for k := range kinds {
		limits := testLimits
		if k >= 3 {
			limits = short
		}
		stream, failure := n.load(kinds[k].code, limits)
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

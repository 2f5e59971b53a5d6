package wasm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is the other end of a served connection.
type node struct {
	t    testing.TB
	out  *wire.Writer
	in   *wire.Reader
	conn net.Conn
	err  chan error
	next uint32
}

func serve(t testing.TB, memory int64) *node {
	t.Helper()
	ours, theirs := net.Pipe()
	n := &node{t: t, out: wire.NewWriter(ours), in: wire.NewReader(ours), conn: ours, err: make(chan error, 1)}
	go func() { n.err <- Serve(theirs, Options{Clock: time.Now, Memory: memory}) }()
	t.Cleanup(func() {
		_ = ours.Close()
		select {
		case <-n.err:
		case <-time.After(hang):
			t.Error("Serve did not return after its connection ended")
		}
	})
	if f := n.read(); f.Type != wire.Ready {
		t.Fatalf("the first frame is %v", f.Type)
	}
	return n
}

func (n *node) read() wire.Frame {
	n.t.Helper()
	_ = n.conn.SetReadDeadline(time.Now().Add(hang))
	f, err := n.in.Next()
	if err != nil {
		n.t.Fatalf("reading: %v", err)
	}
	return f
}

// load loads a module and gives its stream, or the failure.
func (n *node) load(code []byte, limits function.Limits) (uint32, wire.Failure) {
	n.t.Helper()
	machine, failure := compile(code, function.DigestOf(code))
	if failure != nil {
		return 0, failure.wire()
	}
	return n.loadCode(wire.LoadSpec{
		Name: "guest", Digest: function.DigestOf(code), Entry: function.EntryCommand, Limits: limits,
	}, machine)
}

// loadCode loads what was compiled.
func (n *node) loadCode(spec wire.LoadSpec, payload []byte) (uint32, wire.Failure) {
	n.t.Helper()
	n.next++
	stream := n.next
	spec.Size = int64(len(payload))
	message, err := wire.AppendJSON(nil, spec)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.out.Send(wire.Load, stream, message); err != nil {
		n.t.Fatal(err)
	}
	if err := n.out.SendAll(wire.Code, stream, payload); err != nil {
		n.t.Fatal(err)
	}
	f := n.read()
	if f.Type == wire.Loaded {
		return stream, wire.Failure{}
	}
	failure, err := wire.ParseFailure(f.Payload)
	if err != nil {
		n.t.Fatal(err)
	}
	return 0, failure
}

// invoke runs a loaded version and gives its answer, or the failure.
func (n *node) invoke(version uint32, input string) (string, wire.Failure) {
	n.t.Helper()
	n.next++
	stream := n.next
	start := wire.AppendStart(nil, wire.Start{Version: version, Input: uint32(len(input))})
	if err := n.out.Send(wire.Invoke, stream, start, []byte(input)); err != nil {
		n.t.Fatal(err)
	}
	var answer []byte
	want := int64(-1)
	for {
		f := n.read()
		if f.Stream != stream {
			n.t.Fatalf("a %v frame on stream %d", f.Type, f.Stream)
		}
		switch f.Type {
		case wire.Log:
			continue
		case wire.Failed:
			_, rest, err := wire.ParseOutcome(f.Payload)
			if err != nil {
				n.t.Fatal(err)
			}
			failure, err := wire.ParseFailure(rest)
			if err != nil {
				n.t.Fatal(err)
			}
			return "", failure
		case wire.Result:
			o, first, err := wire.ParseOutcome(f.Payload)
			if err != nil {
				n.t.Fatal(err)
			}
			want = o.BytesOut
			answer = append(answer, first...)
		default:
			answer = append(answer, f.Payload...)
		}
		if int64(len(answer)) == want {
			return string(answer), wire.Failure{}
		}
	}
}

// hang is how long a test waits for what must come: only a failure reaches it. What must
// not end by itself before that has a limit of never.
const (
	hang  = 2 * time.Minute
	never = 5 * hang
)

var testLimits = function.Limits{Memory: 64 << 20, Timeout: never, CPU: never, Output: 1 << 20, Log: 64 << 10}

func TestSpinningGuestIsStopped(t *testing.T) {
	t.Parallel()
	n := serve(t, 0)
	limits := testLimits
	limits.Timeout = 100 * time.Millisecond
	v, failure := n.load(sandboxtest.Spin(), limits)
	if failure.Kind != "" {
		t.Fatalf("loading: %+v", failure)
	}
	// Reading has an end, should the guest have none.
	if _, failure = n.invoke(v, ""); failure.Kind != sandbox.Timeout {
		t.Errorf("got %+v, want a timeout", failure)
	}
}

// TestNeverWaitsForASpinningGuest collects garbage while guests spin on every
// processor: without ticks this would wait until they end.
func TestNeverWaitsForASpinningGuest(t *testing.T) {
	t.Parallel()
	n := serve(t, 0)
	v, failure := n.load(sandboxtest.Spin(), testLimits)
	if failure.Kind != "" {
		t.Fatalf("loading: %+v", failure)
	}
	for i := range uint32(runtime.GOMAXPROCS(0) + 1) {
		if err := n.out.Send(wire.Invoke, 100+i, wire.AppendStart(nil, wire.Start{Version: v})); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for range 3 {
		runtime.GC()
	}
	if took := time.Since(began); took > hang {
		t.Errorf("three collections took %v", took)
	}
}

// TestStackIsBounded sees that the engine's stack is found, and that a deep guest is
// stopped long before the engine's own ceiling.
func TestStackIsBounded(t *testing.T) {
	t.Parallel()
	n := serve(t, 0)
	v, failure := n.load(sandboxtest.Recurse(), testLimits)
	if failure.Kind != "" {
		t.Fatalf("loading: %+v", failure)
	}
	_, failure = n.invoke(v, "")
	if failure.Kind != sandbox.Stack || !strings.Contains(failure.Cause, (&stopped{sandbox.Stack}).Error()) {
		t.Errorf("got %+v, want our own bound, not the engine's", failure)
	}
}

func TestTamperedModuleIsRefused(t *testing.T) {
	t.Parallel()
	code, another := sandboxtest.Hello(), function.DigestOf([]byte("another"))
	if _, f := compile(code, another); f == nil || f.kind != sandbox.Tampered {
		t.Errorf("compiling gave %v", f)
	}
	machine, f := compile(code, function.DigestOf(code))
	if f != nil {
		t.Fatal(f)
	}
	n := serve(t, 0)
	_, failure := n.loadCode(wire.LoadSpec{Name: "guest", Digest: another, Entry: function.EntryCommand, Limits: testLimits}, machine)
	if failure.Kind != sandbox.Tampered {
		t.Errorf("loading gave %+v", failure)
	}
}

func TestNodeThatBreaksTheProtocolIsRefused(t *testing.T) {
	t.Parallel()
	start := wire.AppendStart(nil, wire.Start{Version: 7, Input: 3})
	for name, f := range map[string]wire.Frame{
		"a sandbox's frame":       {Type: wire.Result},
		"a version nobody loaded": {Type: wire.Invoke, Stream: 1, Payload: start},
		"a short start":           {Type: wire.Invoke, Stream: 1, Payload: start[:5]},
		"a body without a call":   {Type: wire.Body, Stream: 1},
		"code without a load":     {Type: wire.Code, Stream: 1},
		"a load that is no JSON":  {Type: wire.Load, Stream: 1, Payload: []byte("{")},
		"a load beyond bounds":    {Type: wire.Load, Stream: 1, Payload: []byte(`{"size":99999999999}`)},
		"a load of negative size": {Type: wire.Load, Stream: 1, Payload: []byte(`{"size":-1}`)},
	} {
		n := serve(t, 0)
		if err := n.out.Send(f.Type, f.Stream, f.Payload); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-n.err:
			if !errors.Is(err, wire.ErrFrame) {
				t.Errorf("%s: Serve says %v", name, err)
			}
			n.err <- err
		case <-time.After(hang):
			t.Errorf("%s: Serve goes on", name)
		}
	}
}

// FuzzFromNode feeds the sandbox's side whatever could come, with a version loaded
// that answers.
func FuzzFromNode(f *testing.F) {
	s, err := newServer(io.Discard, Options{Clock: time.Now, Memory: 1 << 20})
	if err != nil {
		f.Fatal(err)
	}
	code := sandboxtest.Hello()
	machine, failure := compile(code, function.DigestOf(code))
	if failure != nil {
		f.Fatal(failure)
	}
	v, failure := s.load(wire.LoadSpec{
		Name: "guest", Digest: function.DigestOf(code), Size: int64(len(machine)), Entry: function.EntryCommand,
		Limits: function.Limits{Memory: 1 << 20, Timeout: time.Second, Output: 100, Log: 100},
	}, machine)
	if failure != nil {
		f.Fatal(failure)
	}
	f.Cleanup(s.discard)
	call := wire.AppendFrame(nil, wire.Invoke, 2, wire.AppendStart(nil, wire.Start{Version: 1, Input: 1}), []byte("x"))
	f.Add(call)
	f.Add(wire.AppendFrame(call, wire.Cancel, 2))
	f.Add(wire.AppendFrame(call, wire.Unload, 1))
	half := wire.AppendFrame(nil, wire.Invoke, 2, wire.AppendStart(nil, wire.Start{Version: 1, Input: 3}), []byte("x"))
	f.Add(wire.AppendFrame(half, wire.Cancel, 2))
	f.Add(wire.AppendFrame(half, wire.Body, 2, []byte("yz")))
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, wire.Load, 3, []byte(`{"size":2}`)), wire.Code, 3, []byte("ab")))
	f.Fuzz(func(t *testing.T, data []byte) {
		v.gone = false
		s.versions = map[uint32]*version{1: v}
		v.refs++ // so that an Unload leaves it for the next round
		_ = newCrew(s, wire.NewReader(bytes.NewReader(data))).run()
		s.stop()
		v.refs--
		if v.refs != 0 || len(s.invocations) != 0 || s.budget.Used() != 0 {
			t.Errorf("%d uses, %d invocations and %d bytes are left over", v.refs, len(s.invocations), s.budget.Used())
		}
	})
}

package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/native"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// DefaultMemory bounds the linear memory of all guests of a process together, in
// bytes, when the options are silent.
const DefaultMemory = 4 << 30

// collectAbove is the size of code, in bytes, after whose loading and unloading the
// garbage is given back at once.
const collectAbove = 4 << 20

// Options say how to serve. Clock is required.
type Options struct {
	Clock  func() time.Time
	Memory int64 // of all guests together, in bytes; 0 means DefaultMemory
	// Pagemap is what memory.OpenPagemap gave, opened before the process was locked
	// in; without it restoring is slower.
	Pagemap *os.File
	// Code is the file into which the node places compiled code: nobody else writes to
	// it. nil where there is none, and then code comes by the connection.
	Code *os.File
	// Restore chooses how memory is restored; "" means the best way there is.
	Restore memory.Strategy
	Hello   wire.Hello
}

// server is one connection's worth of versions and invocations. The mutex guards
// the maps below it and the field running of an invocation in them; it is never
// held while a frame is sent.
type server struct {
	clock   func() time.Time
	epoch   time.Time // where the guests' monotonic clock begins, but for a second
	out     *wire.Writer
	slice   slice
	pause   func(time.Duration, <-chan struct{}) // of a guest that makes way
	cache   *native.Cache
	runtime wazero.Runtime
	memory  *memory.System
	budget  *memory.Budget
	work    sync.WaitGroup

	instanceConfig wazero.ModuleConfig
	company        company
	placedCode     *os.File // nil without

	mu          sync.Mutex
	loading     map[uint32]*loading
	versions    map[uint32]*version
	invocations map[uint32]*invocation
	spare       []*invocation
}

// loading is a version whose code is still arriving or being compiled.
type loading struct {
	spec    wire.LoadSpec
	code    []byte
	dropped bool // unloaded before it was ready
}

// Serve runs what the node at the other end of conn asks for, until conn ends
// between two frames: then the guests are stopped and it returns nil. It returns an
// error that matches wire.ErrFrame when the node broke the protocol, and the
// connection's error otherwise. It closes conn.
func Serve(conn io.ReadWriteCloser, opts Options) error {
	if opts.Clock == nil {
		return errors.New("serving: Options.Clock is missing; give time.Now")
	}
	s, err := newServer(conn, opts)
	if err != nil {
		return err
	}
	opts.Hello.Protocol = wire.Version
	opts.Hello.Restore = string(s.memory.Strategy())
	err = s.sendJSON(wire.Ready, 0, opts.Hello)
	if err == nil {
		err = newCrew(s, wire.NewReader(conn)).run()
	}
	s.out.Close()
	_ = conn.Close()
	s.stop()
	s.discard()
	return err
}

func newServer(conn io.Writer, opts Options) (*server, error) {
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	s := &server{
		clock: opts.Clock, epoch: opts.Clock(), out: wire.NewWriter(conn), slice: newSlice(), pause: pause,
		budget: memory.NewBudget(uint64(opts.Memory)), instanceConfig: instanceConfig(), placedCode: opts.Code,
		loading: map[uint32]*loading{}, versions: map[uint32]*version{}, invocations: map[uint32]*invocation{},
	}
	var err error
	if s.memory, err = memory.Open(s.budget, opts.Pagemap, opts.Restore); err != nil {
		return nil, fmt.Errorf("serving: %v", err)
	}
	if s.cache, err = native.New(); err != nil {
		return nil, fmt.Errorf("serving: %v", err)
	}
	s.runtime = newRuntime(s.cache)
	ctx := context.Background()
	if err := errors.Join(
		wasi.Instantiate(ctx, s.runtime), exportTick(ctx, s.runtime), exportOperations(ctx, s.runtime),
	); err != nil {
		return nil, fmt.Errorf("serving: %v", err)
	}
	return s, nil
}

// sinceEpoch is a moment on the guests' monotonic clock, in nanoseconds.
func (s *server) sinceEpoch(t time.Time) int64 { return int64(t.Sub(s.epoch) + time.Second) }

// takeInvocation gives an invocation of the version, which it holds on to.
func (s *server) takeInvocation(v *version) *invocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(v)
}

func (s *server) takeLocked(v *version) *invocation {
	var i *invocation
	if n := len(s.spare); n > 0 {
		i, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		i = newInvocation(s)
	}
	v.use()
	i.bind(v)
	return i
}

// maxSpare is how many invocations' buffers are kept.
const maxSpare = 64

// giveInvocation takes it back.
func (s *server) giveInvocation(i *invocation) {
	v := i.v
	i.reset()
	s.mu.Lock()
	if len(s.spare) < maxSpare {
		s.spare = append(s.spare, i)
	}
	s.mu.Unlock()
	v.release()
}

// stop ends all guests and waits for them.
func (s *server) stop() {
	var waiting []*invocation
	s.mu.Lock()
	for _, i := range s.invocations {
		i.cancel()
		if !i.running {
			waiting = append(waiting, i)
		}
	}
	s.mu.Unlock()
	for _, i := range waiting {
		s.forget(i)
	}
	s.work.Wait()
}

// discard unloads everything.
func (s *server) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.versions {
		v.unload()
	}
	ctx := context.Background()
	_ = s.runtime.Close(ctx)
	_ = s.cache.Close(ctx)
}

// handle takes a frame, and gives the invocation that it completes, if it does.
func (s *server) handle(f wire.Frame) (*invocation, error) {
	switch f.Type {
	case wire.Invoke:
		return s.invoke(f.Stream, f.Payload)
	case wire.Body:
		return s.body(f.Stream, f.Payload)
	case wire.Cancel:
		s.cancel(f.Stream)
		return nil, nil
	case wire.Load:
		return nil, s.beginLoad(f.Stream, f.Payload)
	case wire.Code:
		return nil, s.code(f.Stream, f.Payload)
	case wire.Unload:
		s.unload(f.Stream)
		return nil, nil
	default:
		return nil, wire.ErrFrame
	}
}

func (s *server) beginLoad(stream uint32, payload []byte) error {
	var spec wire.LoadSpec
	if err := wire.ParseJSON(payload, &spec); err != nil {
		return err
	}
	if spec.Size < 0 || spec.Size > wire.MaxCompiled || spec.Placed < 0 || spec.Placed > wire.MaxCompiled || spec.At < 0 {
		return fmt.Errorf("code of %d bytes, and %d at %d: %w", spec.Size, spec.Placed, spec.At, wire.ErrFrame)
	}
	s.mu.Lock()
	_, known := s.versions[stream]
	if _, arriving := s.loading[stream]; known || arriving {
		s.mu.Unlock()
		return fmt.Errorf("stream %d is in use: %w", stream, wire.ErrFrame)
	}
	l := &loading{spec: spec, code: make([]byte, 0, spec.Size)}
	s.loading[stream] = l
	s.mu.Unlock()
	if spec.Size == 0 {
		s.finishLoad(stream, l)
	}
	return nil
}

func (s *server) code(stream uint32, piece []byte) error {
	s.mu.Lock()
	l := s.loading[stream]
	s.mu.Unlock()
	if l == nil || int64(len(l.code)+len(piece)) > l.spec.Size || int64(len(l.code)) == l.spec.Size {
		return fmt.Errorf("stream %d expects no code: %w", stream, wire.ErrFrame)
	}
	l.code = append(l.code, piece...)
	if int64(len(l.code)) == l.spec.Size {
		s.finishLoad(stream, l)
	}
	return nil
}

func (s *server) finishLoad(stream uint32, l *loading) {
	if l.spec.Compile {
		s.work.Go(func() { s.compile(stream, l) })
		return
	}
	s.work.Go(func() {
		v, f := s.load(l.spec, l.code)
		s.mu.Lock()
		delete(s.loading, stream)
		dropped := l.dropped
		if f == nil && !dropped {
			s.versions[stream] = v
		}
		s.mu.Unlock()
		switch {
		case f != nil:
			_ = s.sendJSON(wire.LoadFailed, stream, f.wire())
		case dropped:
			v.unload()
		default:
			_ = s.sendJSON(wire.Loaded, stream, v.report())
		}
		if len(l.code) > collectAbove {
			l.code = nil
			debug.FreeOSMemory()
		}
	})
}

// compile answers with compiled code.
func (s *server) compile(stream uint32, l *loading) {
	code, f := compile(l.code, l.spec.Digest)
	s.mu.Lock()
	delete(s.loading, stream)
	s.mu.Unlock()
	if f != nil {
		_ = s.sendJSON(wire.LoadFailed, stream, f.wire())
		return
	}
	if s.sendJSON(wire.Compiled, stream, wire.CompileReport{Size: int64(len(code))}) == nil {
		_ = s.out.SendAll(wire.Machine, stream, code)
	}
}

func (s *server) unload(stream uint32) {
	s.mu.Lock()
	v := s.versions[stream]
	delete(s.versions, stream)
	if l := s.loading[stream]; l != nil {
		l.dropped = true
	}
	s.mu.Unlock()
	if v == nil {
		return
	}
	large := v.program.size > collectAbove
	v.unload()
	if large || s.empty() {
		// A process that has nothing to do for a while shall not keep what it had.
		s.work.Go(debug.FreeOSMemory)
	}
}

// empty reports whether nothing is loaded but what others are made from.
func (s *server) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.versions {
		if !v.spec.Base {
			return false
		}
	}
	return true
}

func (s *server) invoke(stream uint32, payload []byte) (*invocation, error) {
	start, first, err := wire.ParseStart(payload)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	v := s.versions[start.Version]
	if _, taken := s.invocations[stream]; v == nil || taken {
		s.mu.Unlock()
		return nil, fmt.Errorf("version %d or stream %d: %w", start.Version, stream, wire.ErrFrame)
	}
	i := s.takeLocked(v)
	i.stream, i.want = stream, int(start.Input)
	s.invocations[stream] = i
	s.mu.Unlock()
	return s.feed(i, first)
}

func (s *server) body(stream uint32, piece []byte) (*invocation, error) {
	s.mu.Lock()
	i := s.invocations[stream]
	expected := i != nil && !i.running
	s.mu.Unlock()
	if !expected {
		return nil, fmt.Errorf("stream %d expects no body: %w", stream, wire.ErrFrame)
	}
	return s.feed(i, piece)
}

// feed takes a piece of the input and gives the invocation when it is complete.
func (s *server) feed(i *invocation, piece []byte) (*invocation, error) {
	if len(i.input)+len(piece) > i.want {
		return nil, fmt.Errorf("stream %d has more input than announced: %w", i.stream, wire.ErrFrame)
	}
	if cap(i.input) < i.want {
		i.input = append(make([]byte, 0, i.want), i.input...)
	}
	i.input = append(i.input, piece...)
	if len(i.input) < i.want {
		return nil, nil
	}
	s.mu.Lock()
	i.running = true
	s.mu.Unlock()
	return i, nil
}

func (s *server) forget(i *invocation) {
	s.mu.Lock()
	delete(s.invocations, i.stream)
	s.mu.Unlock()
	s.giveInvocation(i)
}

// cancel stops an invocation. One that has ended meanwhile is not an error.
func (s *server) cancel(stream uint32) {
	s.mu.Lock()
	i := s.invocations[stream]
	if i != nil {
		i.cancel()
	}
	waiting := i != nil && !i.running
	s.mu.Unlock()
	if waiting {
		// Its input never became complete, so no guest will answer for it.
		s.sendFailed(stream, wire.AppendOutcome(nil, wire.Outcome{}),
			&failure{kind: sandbox.Canceled, public: "the caller has gone"})
		s.forget(i)
	}
}

func (f *failure) wire() wire.Failure {
	return wire.Failure{Kind: f.kind, Public: f.public, Cause: f.cause}
}

// sendFailed sends an outcome with the reason of a failure.
func (s *server) sendFailed(stream uint32, outcome []byte, f *failure) {
	payload, err := wire.AppendJSON(outcome, f.wire())
	if err != nil {
		// Texts are bounded, so this cannot be; the node notices the silence.
		return
	}
	_ = s.out.Send(wire.Failed, stream, payload)
}

func (s *server) sendJSON(t wire.Type, stream uint32, message any) error {
	payload, err := wire.AppendJSON(nil, message)
	if err != nil {
		return err
	}
	return s.out.Send(t, stream, payload)
}

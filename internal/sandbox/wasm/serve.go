package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/fuel"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// DefaultMemory bounds the linear memory of all guests of a process together, in
// bytes, when the options are silent.
const DefaultMemory = 4 << 30

// collectAbove is the size of a module, in bytes, after whose compilation the
// garbage is given back at once.
const collectAbove = 256 << 10

// Options say how to serve. Clock is required.
type Options struct {
	Clock  func() time.Time
	Memory int64 // of all guests together, in bytes; 0 means DefaultMemory
	Hello  wire.Hello
}

// server is one connection's worth of versions and invocations. The mutex guards
// the maps below it and the field running of an invocation in them; it is never
// held while a frame is sent.
type server struct {
	clock  func() time.Time
	out    *wire.Writer
	cache  wazero.CompilationCache
	memory *budget
	stack  atomic.Pointer[stackField]
	work   sync.WaitGroup

	mu          sync.Mutex
	loading     map[uint32]*loading
	versions    map[uint32]*version
	invocations map[uint32]*invocation
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
	s := newServer(conn, opts)
	opts.Hello.Protocol = wire.Version
	err := s.sendJSON(wire.Ready, 0, opts.Hello)
	if err == nil {
		err = s.read(wire.NewReader(conn))
	}
	s.out.Close()
	_ = conn.Close()
	s.stop()
	s.discard()
	return err
}

func newServer(conn io.Writer, opts Options) *server {
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	return &server{
		clock: opts.Clock, out: wire.NewWriter(conn), cache: wazero.NewCompilationCache(),
		memory:  &budget{limit: uint64(opts.Memory)},
		loading: map[uint32]*loading{}, versions: map[uint32]*version{}, invocations: map[uint32]*invocation{},
	}
}

// read handles frames until the connection ends.
func (s *server) read(r *wire.Reader) error {
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from the node: %w", err)
		}
		if err := s.handle(f); err != nil {
			return fmt.Errorf("handling %v frame: %w", f.Type, err)
		}
	}
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
	_ = s.cache.Close(context.Background())
}

func (s *server) handle(f wire.Frame) error {
	switch f.Type {
	case wire.Invoke:
		return s.invoke(f.Stream, f.Payload)
	case wire.Body:
		return s.body(f.Stream, f.Payload)
	case wire.Cancel:
		s.cancel(f.Stream)
		return nil
	case wire.Load:
		return s.beginLoad(f.Stream, f.Payload)
	case wire.Code:
		return s.code(f.Stream, f.Payload)
	case wire.Unload:
		s.unload(f.Stream)
		return nil
	default:
		return wire.ErrFrame
	}
}

func (s *server) beginLoad(stream uint32, payload []byte) error {
	var spec wire.LoadSpec
	if err := wire.ParseJSON(payload, &spec); err != nil {
		return err
	}
	if spec.Size < 0 || spec.Size > wire.MaxCode {
		return fmt.Errorf("module of %d bytes: %w", spec.Size, wire.ErrFrame)
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
			_ = s.sendJSON(wire.Loaded, stream, wire.LoadReport{Cost: v.cost()})
		}
		if len(l.code) > collectAbove {
			l.code = nil
			debug.FreeOSMemory()
		}
	})
}

func (s *server) unload(stream uint32) {
	s.mu.Lock()
	v := s.versions[stream]
	delete(s.versions, stream)
	if l := s.loading[stream]; l != nil {
		l.dropped = true
	}
	s.mu.Unlock()
	if v != nil {
		v.unload()
	}
}

func (s *server) invoke(stream uint32, payload []byte) error {
	start, first, err := wire.ParseStart(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	v := s.versions[start.Version]
	if _, taken := s.invocations[stream]; v == nil || taken {
		s.mu.Unlock()
		return fmt.Errorf("version %d or stream %d: %w", start.Version, stream, wire.ErrFrame)
	}
	i := v.take()
	i.stream, i.want = stream, int(start.Input)
	s.invocations[stream] = i
	s.mu.Unlock()
	return s.feed(i, first)
}

func (s *server) body(stream uint32, piece []byte) error {
	s.mu.Lock()
	i := s.invocations[stream]
	expected := i != nil && !i.running
	s.mu.Unlock()
	if !expected {
		return fmt.Errorf("stream %d expects no body: %w", stream, wire.ErrFrame)
	}
	return s.feed(i, piece)
}

// feed takes a piece of the input and starts the guest when it is complete.
func (s *server) feed(i *invocation, piece []byte) error {
	if len(i.input)+len(piece) > i.want {
		return fmt.Errorf("stream %d has more input than announced: %w", i.stream, wire.ErrFrame)
	}
	if cap(i.input) < i.want {
		i.input = append(make([]byte, 0, i.want), i.input...)
	}
	i.input = append(i.input, piece...)
	if len(i.input) < i.want {
		return nil
	}
	s.mu.Lock()
	i.running = true
	s.mu.Unlock()
	s.work.Go(func() {
		i.run()
		s.forget(i)
	})
	return nil
}

func (s *server) forget(i *invocation) {
	s.mu.Lock()
	delete(s.invocations, i.stream)
	s.mu.Unlock()
	i.v.give(i)
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

// exportTick gives the module the function that its ticks call.
func (s *server) exportTick(ctx context.Context, r wazero.Runtime) error {
	_, err := r.NewHostModuleBuilder(fuel.ImportModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, _ []uint64) {
			if i, ok := ctx.Value(invocationKey{}).(*invocation); ok {
				i.tick(ctx, mod)
			}
		}), nil, nil).Export(fuel.ImportName).Instantiate(ctx)
	return err
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

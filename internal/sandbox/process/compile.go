package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// Bounds of compiling.
const (
	// compileTimeout bounds how long a process may take to compile one module.
	compileTimeout = 2 * time.Minute
	// maxCompiling is how many modules are compiled at once. Each takes all processors
	// it can get; a second one keeps a small module from waiting for a large one.
	maxCompiling = 2
	// compileMemory bounds what a process that compiles may hold, in bytes.
	compileMemory = 2 << 30
)

// compiler has modules compiled, each in a process that does nothing else before or
// after: what a module does to it concerns nobody else. The mutex guards the maps.
type compiler struct {
	runner  *Runner
	timeout time.Duration // for one module
	refused *refusals     // by module
	slots   chan struct{} // room for those that compile

	mu    sync.Mutex
	under map[function.Digest]*compilation
	turns map[string]chan struct{} // by namespace
}

// compilation is one module on its way, for which several may wait.
type compilation struct {
	done    chan struct{}
	code    []byte
	failure *sandbox.Error
}

func newCompiler(r *Runner) *compiler {
	return &compiler{
		runner: r, timeout: compileTimeout, refused: newRefusals(r.clock), slots: make(chan struct{}, maxCompiling),
		under: map[function.Digest]*compilation{}, turns: map[string]chan struct{}{},
	}
}

// compile gives the compiled code of a module. Who asks for one that is on its way
// waits along. The caller is one that Close waits for.
func (c *compiler) compile(m module) ([]byte, *sandbox.Error) {
	c.mu.Lock()
	job := c.under[m.digest]
	if job == nil {
		job = &compilation{done: make(chan struct{})}
		c.under[m.digest] = job
		c.runner.processes.Go(func() {
			job.code, job.failure = c.queue(m)
			c.mu.Lock()
			delete(c.under, m.digest)
			c.mu.Unlock()
			close(job.done)
		})
	}
	c.mu.Unlock()
	<-job.done
	return job.code, job.failure
}

// queue waits until it is the module's turn. A namespace has one place among those who
// wait for a slot, so that one with many modules holds nobody up: Go's channels serve
// in the order of arrival.
func (c *compiler) queue(m module) ([]byte, *sandbox.Error) {
	if m.namespace != "" {
		turn := c.turnOf(m.namespace)
		turn <- struct{}{}
		defer func() { <-turn }()
	}
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	return c.run(m)
}

func (c *compiler) turnOf(namespace string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	turn := c.turns[namespace]
	if turn == nil {
		turn = make(chan struct{}, 1)
		c.turns[namespace] = turn
	}
	return turn
}

// run compiles, tries again when the process ended by itself, and remembers how it went.
func (c *compiler) run(m module) ([]byte, *sandbox.Error) {
	ctx, stop := context.WithTimeout(context.Background(), loadTimeout)
	defer stop()
	input, failure := m.read(ctx)
	if failure != nil {
		return nil, failure
	}
	code, failure := c.once(m, input)
	if failure != nil && failure.Kind == sandbox.Lost {
		code, failure = c.once(m, input)
	}
	switch {
	case failure == nil:
		c.refused.clear(m.digest)
		if err := c.runner.code.Put(c.runner.codeKey(m.digest), code); err != nil {
			// It runs all the same, and is compiled again next time.
			c.runner.logger.Warn("compiled code is not kept", slog.String("module", m.name), slog.Any("error", err))
		}
		return code, nil
	case failure.Kind == sandbox.BadModule:
		c.refused.keep(m.digest, failure)
	case failure.Kind == sandbox.Lost:
		failure = &sandbox.Error{
			Kind: sandbox.BadModule, Public: "the module ended the compiler twice; make it smaller, or build it with another toolchain", Cause: failure,
		}
		c.refused.delay(m.digest, failure, 0)
	case failure.Kind == sandbox.Timeout:
		failure = &sandbox.Error{
			Kind: sandbox.BadModule, Public: fmt.Sprintf("the module could not be compiled within %v; make it smaller", c.timeout), Cause: failure,
		}
		c.refused.delay(m.digest, failure, 0)
	case failure.Kind != sandbox.Tampered && failure.Kind != sandbox.Unavailable:
		// Not an answer to this question.
		failure = &sandbox.Error{Kind: sandbox.Unavailable, Public: "the function could not be compiled now; try again", Cause: failure}
	}
	return nil, failure
}

// once compiles in a new process and ends it. It fails with Lost when the process
// ended, and with Timeout when it took too long.
func (c *compiler) once(m module, input []byte) ([]byte, *sandbox.Error) {
	r := c.runner
	p, err := r.start(min(r.mostCharged, compileMemory))
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "no process to compile the function could be had; try again later", Cause: err}
	}
	defer p.kill(reasonIdle)
	p.compiles.Store(true)
	p.active.Add(1)
	defer p.active.Add(-1)
	r.begin()
	defer r.end()
	spec, err := wire.AppendJSON(nil, wire.LoadSpec{Name: m.name, Digest: m.digest, Size: int64(len(input)), Compile: true})
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the function cannot be handed to the compiler", Cause: err}
	}
	made := &making{stream: 1, done: make(chan struct{})}
	if failure := p.make(made, spec, input); failure != nil {
		return nil, failure
	}
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case <-made.done:
	case <-timer.C:
		p.kill("it did not finish compiling a module")
		<-made.done
		return nil, &sandbox.Error{Kind: sandbox.Timeout, Cause: errors.New("compiling took too long")}
	}
	return made.code, made.failure
}

// making is compiled code on its way from a process. Its reader fills it in, until
// done is closed.
type making struct {
	stream uint32
	done   chan struct{}

	begun   bool
	want    int64
	code    []byte
	failure *sandbox.Error
}

// make asks the process to compile a module, which is all it will ever do.
func (p *process) make(m *making, spec, input []byte) *sandbox.Error {
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return lost(reason)
	}
	p.making = m
	p.mu.Unlock()
	// When sending fails the process is being killed, and its end answers for this.
	if p.out.Send(wire.Load, m.stream, spec) == nil {
		_ = p.out.SendAll(wire.Code, m.stream, input)
	}
	return nil
}

// takeMaking gives what the process is compiling, and takes it off the books when
// that ends it.
func (p *process) takeMaking(stream uint32, ends bool) *making {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.making
	if m == nil || m.stream != stream {
		return nil
	}
	if ends {
		p.making = nil
	}
	return m
}

// allocateAtOnce is how much memory is made for code on the word of a process, in
// bytes; more comes as the code does.
const allocateAtOnce = 32 << 20

// handleCompiled takes a piece of compiled code, or its announcement.
func (p *process) handleCompiled(f wire.Frame) error {
	m := p.takeMaking(f.Stream, false)
	if m == nil {
		return errUnasked
	}
	if f.Type == wire.Compiled {
		var report wire.CompileReport
		if err := wire.ParseJSON(f.Payload, &report); err != nil {
			return err
		}
		if m.begun || report.Size <= 0 || report.Size > wire.MaxCompiled {
			return fmt.Errorf("compiled code of %d bytes: %w", report.Size, wire.ErrFrame)
		}
		m.begun, m.want = true, report.Size
		m.code = make([]byte, 0, min(m.want, allocateAtOnce))
		return nil
	}
	if int64(len(m.code)+len(f.Payload)) > m.want {
		return fmt.Errorf("more compiled code than announced: %w", wire.ErrFrame)
	}
	m.code = append(m.code, f.Payload...)
	if int64(len(m.code)) == m.want {
		p.takeMaking(f.Stream, true)
		close(m.done)
	}
	return nil
}

// refuseMaking ends compiling with a failure, if the stream is that of it.
func (p *process) refuseMaking(stream uint32, failure *sandbox.Error) bool {
	m := p.takeMaking(stream, true)
	if m == nil {
		return false
	}
	m.code, m.failure = nil, failure
	close(m.done)
	return true
}

// endMaking fails what the process was compiling when it ended.
func (p *process) endMaking(failure *sandbox.Error) {
	p.mu.Lock()
	m := p.making
	p.making = nil
	p.mu.Unlock()
	if m != nil {
		m.code, m.failure = nil, failure
		close(m.done)
	}
}

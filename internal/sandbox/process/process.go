package process

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// process is one sandbox process and the connection to it. The mutex guards the
// fields below it.
type process struct {
	id     string
	child  *child
	out    *wire.Writer
	runner *Runner
	kind   string        // for Usage.Kind
	gone   chan struct{} // closed when the process is dead and all its calls have failed
	active atomic.Int64  // calls under way
	used   atomic.Int64  // when it was last asked for something, as a running number
	idle   sync.Pool     // of *call, used before
	pid    atomic.Int64  // once somebody has asked

	compiles atomic.Bool // it compiles one module, and ends then
	sending  sync.Mutex  // held while code is sent; taken before mu

	mu        sync.Mutex
	namespace string // "" until it is given to one
	dead      bool
	reason    string
	streams   uint32
	calls     map[uint32]*call
	loads     map[function.Digest]*load
	byStream  map[uint32]*load
	cost      int64 // of all loaded versions, in bytes
	seen      sight // what the sweep saw of used
	making    *making
}

// patientWriter writes to the process, which must take what it is given, in time.
// One goroutine writes at a time.
type patientWriter struct {
	p     *process
	stuck *time.Timer // runs during a write
}

func newPatientWriter(p *process) *patientWriter {
	w := &patientWriter{p: p, stuck: time.AfterFunc(writeTimeout, func() { p.kill("it took nothing from its connection") })}
	w.stuck.Stop()
	return w
}

// Write implements io.Writer.
func (w *patientWriter) Write(b []byte) (int, error) {
	w.stuck.Reset(writeTimeout)
	n, err := w.p.child.conn.Write(b)
	w.stuck.Stop()
	if err != nil {
		w.p.kill(fmt.Sprintf("writing to it: %v", err))
	}
	return n, err
}

// call is one invocation under way. The process's reader fills it in. It serves one
// invocation after another (newCall, recycle).
type call struct {
	head  []byte // the head line as it was sent
	due   int64  // when the watch is to end it, by Runner.ticks
	inv   *sandbox.Invocation
	limit function.Limits
	out   []byte
	want  int
	body  bool // the answer has begun
	log   int64
	done  chan struct{} // has room for one, so that the reader never waits

	outcome wire.Outcome
	failure *sandbox.Error
	forced  *sandbox.Error // what to say when the process dies now; guarded by process.mu
}

func newProcess(r *Runner, c *child) *process {
	p := &process{
		id: fmt.Sprintf("%s-%d", r.stamp, c.serial), child: c, runner: r, kind: c.posture.String(),
		gone: make(chan struct{}), calls: map[uint32]*call{},
		loads: map[function.Digest]*load{}, byStream: map[uint32]*load{},
	}
	p.out = wire.NewWriter(newPatientWriter(p))
	r.processes.Go(p.serve)
	return p
}

// serve reads until the process ends, in whatever way, and cleans up.
func (p *process) serve() {
	err := p.read()
	p.kill(err.Error())
	p.child.words.wait()
	state := p.child.life.wait()
	_ = p.child.conn.Close()
	p.child.code.close()
	p.out.Close()

	p.mu.Lock()
	reason := p.reason
	calls, loads := p.calls, p.byStream
	p.calls, p.byStream = nil, nil
	namespace := p.namespace
	for _, c := range calls {
		c.failure = c.forced
		if c.failure == nil {
			c.failure = lost(reason)
		}
	}
	p.mu.Unlock()
	for _, c := range calls {
		c.done <- struct{}{} // and is not ours from here on
	}
	for _, l := range loads {
		l.answer <- lost(reason)
	}
	p.endMaking(lost(reason))
	p.runner.forget(p)
	close(p.gone)
	if reason == errEnded.Error() || reason == reasonIdle {
		return
	}
	p.runner.logger.Warn("sandbox process ended",
		slog.String("sandbox", p.id), slog.String("namespace", namespace), slog.String("reason", reason),
		slog.String("state", state), slog.Int("calls", len(calls)), slog.String("said", p.child.words.text()))
}

const reasonIdle = "it was not needed any more"

func lost(reason string) *sandbox.Error {
	return &sandbox.Error{Kind: sandbox.Lost, Public: "the sandbox ended while the function ran; try again", Cause: errors.New(reason)}
}

// kill ends the process. The first reason counts. Closing the connection wakes
// the reader, which does the rest.
func (p *process) kill(reason string) {
	p.mu.Lock()
	first := !p.dead
	if first {
		p.dead, p.reason = true, reason
	}
	p.mu.Unlock()
	if first {
		p.end()
	}
}

// end ends a process that was just marked as dead.
func (p *process) end() {
	p.child.life.kill()
	p.out.Close()
	_ = p.child.conn.Close()
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

// read handles frames until the connection ends or the process breaks a rule.
func (p *process) read() error {
	for {
		f, err := p.child.reader.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("it ended by itself")
		}
		if err != nil {
			return fmt.Errorf("reading from it: %v", err)
		}
		if err := p.handle(f); err != nil {
			return fmt.Errorf("it broke the protocol with a %v frame: %v", f.Type, err)
		}
	}
}

var errUnasked = errors.New("nothing was asked on this stream")

func (p *process) handle(f wire.Frame) error {
	switch f.Type {
	case wire.Loaded, wire.LoadFailed:
		return p.handleLoad(f)
	case wire.Compiled, wire.Machine:
		return p.handleCompiled(f)
	case wire.Log, wire.Result, wire.Answer, wire.Failed:
	default:
		return errors.New("it is not a sandbox's to send")
	}
	p.mu.Lock()
	c := p.calls[f.Stream]
	p.mu.Unlock()
	if c == nil {
		return errUnasked
	}
	ended, err := c.handle(f)
	if err != nil || !ended {
		return err
	}
	p.mu.Lock()
	delete(p.calls, f.Stream)
	p.mu.Unlock()
	c.done <- struct{}{}
	return nil
}

// handle takes a frame of the call's stream and says whether it was the last.
func (c *call) handle(f wire.Frame) (ended bool, err error) {
	switch f.Type {
	case wire.Log:
		return false, c.lines(f.Payload)
	case wire.Result:
		o, first, err := wire.ParseOutcome(f.Payload)
		if err != nil {
			return false, err
		}
		if c.body || o.BytesOut > c.limit.Output+sandbox.MaxHeadLine+1 {
			return false, fmt.Errorf("an answer of %d bytes", o.BytesOut)
		}
		c.outcome, c.body, c.want = o, true, int(o.BytesOut)
		c.out = make([]byte, 0, c.want)
		return c.take(first)
	case wire.Answer:
		if !c.body {
			return false, errUnasked
		}
		return c.take(f.Payload)
	default: // wire.Failed
		o, rest, err := wire.ParseOutcome(f.Payload)
		if err != nil {
			return false, err
		}
		failure, err := wire.ParseFailure(rest)
		if err != nil {
			return false, err
		}
		c.outcome, c.failure = o, errorOf(failure)
		return true, nil
	}
}

func (c *call) take(piece []byte) (bool, error) {
	if len(c.out)+len(piece) > c.want {
		return false, errors.New("more answer than announced")
	}
	c.out = append(c.out, piece...)
	return len(c.out) == c.want, nil
}

// lines hands on log lines. The sandbox holds the limit; more than it allows, with
// line ends that the count includes, is a break of protocol.
func (c *call) lines(p []byte) error {
	for len(p) > 0 {
		at, text, rest, err := wire.ParseLine(p)
		if err != nil {
			return err
		}
		p = rest
		c.log += int64(len(text))
		if c.log > c.limit.Log {
			return fmt.Errorf("more than %d bytes of log", c.limit.Log)
		}
		if c.inv.Log != nil {
			c.inv.Log(sandbox.LogLine{Time: time.Unix(0, at), Text: validText(text)})
		}
	}
	return nil
}

func errorOf(f wire.Failure) *sandbox.Error {
	e := &sandbox.Error{Kind: f.Kind, Public: f.Public}
	if f.Cause != "" {
		e.Cause = errors.New(f.Cause)
	}
	return e
}

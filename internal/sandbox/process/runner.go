package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm"
)

// Defaults of a Config.
const (
	DefaultWarm         = 1
	DefaultMaxSandboxes = 64
	DefaultModuleBytes  = 1 << 30
	DefaultGrace        = 2 * time.Second
	DefaultIdleVersion  = time.Minute
	DefaultIdleProcess  = 5 * time.Minute
)

// overhead is what a process may take besides its guests' memory, in bytes: its
// modules, and compiling one.
const overhead = 1 << 30

// Artifacts gives the bytes of an artifact. The runner verifies them.
type Artifacts interface {
	Artifact(ctx context.Context, d function.Digest) ([]byte, error)
}

// Config says how to run. Artifacts, Code, Logger and Clock are required; zero in the
// others means the default.
type Config struct {
	Artifacts Artifacts
	Code      Code
	Logger    *slog.Logger
	Clock     func() time.Time
	// Executable is the program to start sandboxes from: one that calls Main when
	// IsSandbox says so. "" means the running one.
	Executable string
	// Boxes start the processes. nil: the node starts them itself, with less around them,
	// and Unboxed says why, for Posture.
	Boxes   Boxes
	Unboxed string
	// Warm is how many processes are kept ready for namespaces to come; -1 is none.
	Warm int
	// MaxSandboxes bounds the processes that serve a namespace. One that is idle
	// makes way for a namespace that has none.
	MaxSandboxes int
	// Memory bounds the linear memory of all guests of one process, in bytes.
	Memory int64
	// ModuleBytes bounds what the loaded versions of one process are estimated to
	// take, in bytes. Those unused the longest make way.
	ModuleBytes int64
	// Grace is how long a process may take to stop a guest before it is killed.
	Grace time.Duration
	// IdleVersion is for how long a version may be unused before it is unloaded, and
	// IdleProcess the same for the process of a namespace.
	IdleVersion, IdleProcess time.Duration
	// Engine gives the module that runs scripts, or why there is none, which the
	// callers of scripts are told then. It is called once. nil means no engine.
	Engine func() (module []byte, err error)
}

func (c *Config) complete() error {
	switch {
	case c.Artifacts == nil:
		return errors.New("process.Config: Artifacts is missing; give the registry")
	case c.Code == nil:
		return errors.New("process.Config: Code is missing; give the store of compiled code")
	case c.Logger == nil:
		return errors.New("process.Config: Logger is missing; give the node's logger")
	case c.Clock == nil:
		return errors.New("process.Config: Clock is missing; give time.Now")
	case c.Warm < -1:
		return fmt.Errorf("process.Config: Warm is %d; give -1 for none, or more", c.Warm)
	case c.MaxSandboxes < 0 || c.Memory < 0 || c.ModuleBytes < 0 || c.Grace < 0 || c.IdleVersion < 0 || c.IdleProcess < 0:
		return errors.New("process.Config: a bound is negative; give 0 for the default")
	}
	if c.Executable == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("process.Config: finding the running program: %v; give Executable", err)
		}
		c.Executable = path
	}
	if c.Warm == 0 {
		c.Warm = DefaultWarm
	}
	if c.MaxSandboxes == 0 {
		c.MaxSandboxes = DefaultMaxSandboxes
	}
	if c.Memory == 0 {
		c.Memory = wasm.DefaultMemory
	}
	if c.ModuleBytes == 0 {
		c.ModuleBytes = DefaultModuleBytes
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.IdleVersion == 0 {
		c.IdleVersion = DefaultIdleVersion
	}
	if c.IdleProcess == 0 {
		c.IdleProcess = DefaultIdleProcess
	}
	return nil
}

// Runner runs versions in sandbox processes. It implements sandbox.Runner.
type Runner struct {
	artifacts   Artifacts
	code        Code
	codeID      string // of this release and this processor, see wasm.CodeID
	engine      *engine
	logger      *slog.Logger
	clock       func() time.Time
	grace       time.Duration
	moduleBytes int64
	mostMemory  int64 // resident, of one process, in bytes
	mostCharged int64 // by a control group, which counts files without a name too
	maxBoxes    int
	idleVersion time.Duration
	idleProcess time.Duration
	stamp       string // tells the sandboxes of one run of the node from another's
	posture     atomic.Pointer[Posture]

	starter   *starter
	pool      *pool
	compiler  *compiler
	carried   atomic.Int64   // bytes of code that passed since the last collection
	carrying  chan struct{}  // room for those that send code, see process.carrying
	losses    *refusals      // versions whose loading ended processes, by id
	processes sync.WaitGroup // whatever lives as long as a process
	active    atomic.Int64   // calls under way
	busy      chan struct{}  // room for one: a call has begun
	ended     chan struct{}
	turn      atomic.Int64 // numbers the uses of versions
	ticks     atomic.Int64 // of the watch; they pass while there is work
	watching  chan struct{}

	scripts       atomic.Bool // the engine is worth loading ahead
	scriptsBefore sync.Once

	mu      sync.Mutex
	closed  bool
	tenants map[string]*tenant
	all     map[*process]struct{}
}

// New starts the first process, which shows what this machine allows, and begins
// to keep others ready.
func New(c Config) (*Runner, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	r := &Runner{
		artifacts: c.Artifacts, code: c.Code, codeID: wasm.CodeID(), engine: &engine{get: c.Engine},
		logger: c.Logger, clock: c.Clock, grace: c.Grace, moduleBytes: c.ModuleBytes,
		idleVersion: c.IdleVersion, idleProcess: c.IdleProcess, losses: newRefusals(c.Clock),
		mostMemory: c.Memory + overhead, mostCharged: c.Memory + c.ModuleBytes + overhead, maxBoxes: c.MaxSandboxes,
		stamp: strconv.FormatInt(c.Clock().UnixMilli(), 36),
		busy:  make(chan struct{}, 1), ended: make(chan struct{}), watching: make(chan struct{}),
		tenants: map[string]*tenant{}, all: map[*process]struct{}{},
	}
	r.compiler, r.carrying = newCompiler(r), make(chan struct{}, maxCarrying)
	var first *child
	var err error
	r.starter, err = newStarter(&c, r.mostCharged, func(c *child) { first = c })
	if err != nil {
		return nil, err
	}
	c.Logger.Debug("sandboxes can be started",
		slog.String("posture", first.posture.String()), slog.String("restore", first.posture.Restore))
	r.pool = newPool(max(c.Warm, 0), func() (*process, error) { return r.start(r.mostCharged) }, c.Logger)
	if p, err := r.adopt(first); err == nil {
		r.pool.put(p)
	}
	go r.pool.run()
	go r.watch()
	return r, nil
}

// Posture says what separates a sandbox from this machine: the one that was started
// last.
func (r *Runner) Posture() Posture { return *r.posture.Load() }

// Process gives the id of the operating system for the process that serves a
// namespace now, for status pages and tests.
func (r *Runner) Process(namespace string) (pid int, ok bool) {
	r.mu.Lock()
	t := r.tenants[namespace]
	r.mu.Unlock()
	if t == nil {
		return 0, false
	}
	p := t.live()
	if p == nil {
		return 0, false
	}
	pid = p.child.life.pid()
	return pid, pid != 0
}

// start starts a process that may hold so much memory, in bytes.
func (r *Runner) start(most int64) (*process, error) {
	c, err := r.starter.start(most)
	if err != nil {
		return nil, err
	}
	return r.adopt(c)
}

// adopt takes a process on the books, so that Close finds it.
func (r *Runner) adopt(c *child) (*process, error) {
	r.posture.Store(&c.posture)
	r.mu.Lock()
	closed := r.closed
	var p *process
	if !closed {
		p = newProcess(r, c)
		r.all[p] = struct{}{}
	}
	r.mu.Unlock()
	if closed {
		c.end()
		return nil, errEnded
	}
	return p, nil
}

func (r *Runner) forget(p *process) {
	r.mu.Lock()
	delete(r.all, p)
	r.mu.Unlock()
}

// enter gives the namespace's tenant, and counts the caller among what Close waits
// for; processes.Done ends that. It gives nil when the runner is closed.
func (r *Runner) enter(namespace string) *tenant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.processes.Add(1)
	t := r.tenants[namespace]
	if t == nil {
		t = &tenant{namespace: namespace, runner: r}
		r.tenants[namespace] = t
	}
	return t
}

// errFull means that each process is busy with another namespace.
var errFull = errors.New("all sandboxes are in use; raise the number of sandboxes or try again")

// assign gives a tenant a process that nobody used, making room if need be.
func (r *Runner) assign(t *tenant) (*process, error) {
	if err := r.makeRoom(); err != nil {
		return nil, err
	}
	p, err := r.pool.take()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.namespace = t.namespace
	p.mu.Unlock()
	p.used.Store(r.turn.Add(1))
	return p, nil
}

// makeRoom ends the process that was idle the longest when there are too many.
func (r *Runner) makeRoom() error {
	r.mu.Lock()
	count := 0
	var idle *process
	for p := range r.all {
		p.mu.Lock()
		taken := p.namespace != "" && !p.dead
		p.mu.Unlock()
		if !taken {
			continue
		}
		count++
		if p.active.Load() == 0 && (idle == nil || p.used.Load() < idle.used.Load()) {
			idle = p
		}
	}
	r.mu.Unlock()
	if count < r.maxBoxes {
		return nil
	}
	if idle == nil {
		return errFull
	}
	if !idle.endIdle() {
		return r.makeRoom() // somebody was faster
	}
	return nil
}

// Prepare implements sandbox.Runner.
func (r *Runner) Prepare(ctx context.Context, v *function.Version) error {
	_, err := r.with(ctx, v, func(*process, *load, bool) (bool, *sandbox.Error) { return true, nil })
	if err != nil {
		return err
	}
	return nil
}

// Invoke implements sandbox.Runner.
func (r *Runner) Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	var res sandbox.Result
	var began time.Time // zero when the process was not reached
	cold, err := r.with(ctx, inv.Version, func(p *process, l *load, _ bool) (reached bool, err *sandbox.Error) {
		began = r.clock()
		res, reached, err = p.invoke(ctx, inv, l)
		return reached, err
	})
	// What a process says of time is believed as far as it can be true.
	wall := time.Duration(0)
	if !began.IsZero() {
		wall = r.clock().Sub(began)
	}
	if res.Usage.Wall == 0 || res.Usage.Wall > wall {
		res.Usage.Wall = max(wall, 0)
	}
	res.Usage.Cold = cold
	if err != nil {
		return sandbox.Result{Usage: res.Usage}, err
	}
	return res, nil
}

// with calls fn with the version loaded in the namespace's process. When the
// process ended before the guest was reached, it tries once more on a new one.
func (r *Runner) with(ctx context.Context, v *function.Version, fn func(*process, *load, bool) (reached bool, err *sandbox.Error)) (bool, *sandbox.Error) {
	t := r.enter(v.Namespace)
	if t == nil {
		return false, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the node is stopping", Cause: errEnded}
	}
	defer r.processes.Done()
	r.begin()
	defer r.end()
	for attempt := 0; ; attempt++ {
		cold, reached, err := r.attempt(ctx, t, v, fn)
		if err == nil || err.Kind != sandbox.Lost || reached || attempt > 0 {
			return cold, err
		}
	}
}

func (r *Runner) attempt(ctx context.Context, t *tenant, v *function.Version, fn func(*process, *load, bool) (bool, *sandbox.Error)) (cold, reached bool, failure *sandbox.Error) {
	p, err := t.process(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return true, false, canceled(ctx)
		}
		return true, false, &sandbox.Error{Kind: sandbox.Unavailable, Public: "no sandbox could be had; try again later", Cause: err}
	}
	p.used.Store(r.turn.Add(1))
	l, cold, failure := p.acquire(ctx, v)
	if failure != nil {
		if failure.Kind == sandbox.Tampered && cold {
			r.reportTampered(v, "loading it into "+p.id, "")
		}
		return cold, false, failure
	}
	defer p.release(v.ID, l)
	reached, failure = fn(p, l, cold)
	return cold, reached, failure
}

func (r *Runner) reportTampered(v *function.Version, where, got string) {
	r.logger.Error("an artifact does not match its digest",
		slog.String("function", v.String()), slog.String("version", string(v.ID)),
		slog.String("artifact", string(v.Artifact)), slog.String("found", got), slog.String("when", where))
}

// Retire implements sandbox.Runner.
func (r *Runner) Retire(namespace string, id function.Digest) {
	r.mu.Lock()
	t := r.tenants[namespace]
	r.mu.Unlock()
	if t == nil {
		return
	}
	if p := t.live(); p != nil {
		p.retire(id)
	}
}

// Close implements sandbox.Runner. It returns when every process has ended.
func (r *Runner) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	all := make([]*process, 0, len(r.all))
	for p := range r.all {
		all = append(all, p)
	}
	r.mu.Unlock()
	r.starter.stop()
	for _, p := range all {
		p.kill(errEnded.Error())
	}
	r.pool.close()
	r.processes.Wait()
	close(r.ended)
	<-r.watching
	r.starter.close()
	return nil
}

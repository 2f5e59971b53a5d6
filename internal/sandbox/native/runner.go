package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Artifacts reads code by its digest.
type Artifacts interface {
	Artifact(ctx context.Context, d function.Digest) ([]byte, error)
}

// Config is what a Runner is made of. All fields but Stronger are needed.
type Config struct {
	Launcher Launcher
	// Stronger are for versions that ask for more than Launcher gives.
	Stronger  map[function.SandboxKind]Stronger
	Artifacts Artifacts
	Memory    int64 // bytes that sandboxes may claim together
	Starts    int   // sandboxes that start at once
	Clock     func() time.Time
	Logger    *slog.Logger
}

// Stronger is a kind of sandbox that versions may ask for, or why there is none.
type Stronger struct {
	Launcher Launcher
	Version  string // of what it is made with
	Reason   string // why there is none, and what an operator can do
}

// Times and bounds of what is kept.
const (
	sweepEvery = 5 * time.Second
	// unloadAfter is how long the files of a version that nobody calls are kept.
	unloadAfter = 10 * time.Minute
	// maxAhead bounds the instances of a version that are started ahead.
	maxAhead = 16
)

// Runner runs native versions. Make one with New.
type Runner struct {
	cfg    Config
	gate   *gate
	claims *claims
	tasks  sync.WaitGroup // starts and ends under way
	stop   chan struct{}
	swept  chan struct{}

	mu       sync.Mutex
	closed   bool
	versions map[key]*version
}

// key names a version in its namespace, as one alias has it: two namespaces share
// nothing, not even equal code, and neither do two aliases of one version. What a test of
// beta leaves in memory is not for those who call live.
type key struct {
	namespace string
	name      string
	id        function.Digest
	alias     string
}

// keyOf names what serves a version. What is named by its digits, or prepared, is served
// by what serves live.
func keyOf(v *function.Version, alias string) key {
	if alias == "" {
		alias = function.LiveAlias
	}
	return key{v.Namespace, v.Name, v.ID, alias}
}

// New begins to run versions.
func New(cfg Config) (*Runner, error) {
	switch {
	case cfg.Launcher == nil, cfg.Artifacts == nil, cfg.Clock == nil, cfg.Logger == nil:
		return nil, errors.New("making the native runner: Launcher, Artifacts, Clock and Logger are all needed")
	case cfg.Memory < function.MinMemory, cfg.Starts < 1:
		return nil, fmt.Errorf("making the native runner: %d bytes and %d starts at once leave no room for a sandbox", cfg.Memory, cfg.Starts)
	}
	r := &Runner{
		cfg: cfg, gate: newGate(cfg.Starts), claims: newClaims(cfg.Memory),
		stop: make(chan struct{}), swept: make(chan struct{}), versions: map[key]*version{},
	}
	go r.run()
	return r, nil
}

// Prepare implements sandbox.Runner: the code is laid out and one sandbox of it is
// started, since only that shows whether it starts. The sandbox is there for the first
// invocation.
func (r *Runner) Prepare(ctx context.Context, v *function.Version) error {
	ver, _, err := r.version(ctx, v, "")
	if err != nil {
		return err
	}
	defer ver.leave()
	if ver.started() {
		return nil
	}
	i, _, err := ver.pool.take(ctx)
	if err != nil {
		return r.failure(ctx, err)
	}
	ver.pool.put(i)
	return nil
}

// Invoke implements sandbox.Runner.
func (r *Runner) Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	ver, loaded, err := r.version(ctx, inv.Version, inv.Alias)
	if err != nil {
		return sandbox.Result{}, err
	}
	defer ver.leave()
	for attempt := 1; ; attempt++ {
		i, cold, err := ver.pool.take(ctx)
		if err != nil {
			return sandbox.Result{}, r.failure(ctx, err)
		}
		res, failure := ver.run(ctx, i, inv)
		res.Usage.Cold = cold || loaded
		ver.pool.put(i)
		switch {
		case failure == nil:
			return res, nil
		case errors.Is(failure.Cause, errUntouched) && failure.Kind == sandbox.Exit && attempt < maxAttempts:
			// It was on its way out: many runtimes end after a failure that they reported.
		default:
			return sandbox.Result{Usage: res.Usage}, failure
		}
	}
}

// maxAttempts is how many instances are tried that end before they have seen the
// invocation.
const maxAttempts = 3

// failure makes a *sandbox.Error of why no instance could be had.
func (r *Runner) failure(ctx context.Context, err error) error {
	var known *sandbox.Error
	switch {
	case errors.As(err, &known):
		return known
	case ctx.Err() != nil:
		return &sandbox.Error{Kind: sandbox.Canceled, Cause: context.Cause(ctx)}
	default:
		return &sandbox.Error{Kind: sandbox.Unavailable, Public: "no sandbox could be had; try again later", Cause: err}
	}
}

// version gives what is held for a version, loading it when nothing is. The caller
// leaves it when he is done.
func (r *Runner) version(ctx context.Context, v *function.Version, alias string) (*version, bool, error) {
	if !v.Config.Runtime.Native() {
		return nil, false, &sandbox.Error{Kind: sandbox.BadModule, Public: fmt.Sprintf("%q is not a native runtime", v.Config.Runtime)}
	}
	k := keyOf(v, alias)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, false, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the node is stopping"}
	}
	ver := r.versions[k]
	first := ver == nil
	if first {
		ver = newVersion(r, v)
		r.versions[k] = ver
		r.tasks.Go(func() { r.load(k, ver) })
	}
	ver.users++
	r.mu.Unlock()
	select {
	case <-ver.loaded:
	case <-ctx.Done():
		ver.leave()
		return nil, first, &sandbox.Error{Kind: sandbox.Canceled, Cause: context.Cause(ctx)}
	}
	if ver.failed != nil {
		ver.leave()
		return nil, first, ver.failed
	}
	return ver, first, nil
}

// load lays a version's files out. What failed is tried anew by the next call.
func (r *Runner) load(k key, ver *version) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	ver.failed = ver.load(ctx)
	if ver.failed != nil {
		r.mu.Lock()
		if r.versions[k] == ver {
			delete(r.versions, k)
		}
		r.mu.Unlock()
	}
	close(ver.loaded)
}

// Retire implements sandbox.Runner.
func (r *Runner) Retire(namespace string, id function.Digest) {
	r.mu.Lock()
	var gone []*version
	for k, ver := range r.versions {
		if k.namespace == namespace && k.id == id {
			delete(r.versions, k)
			gone = append(gone, ver)
		}
	}
	r.mu.Unlock()
	for _, ver := range gone {
		ver.retire()
	}
}

// Close implements sandbox.Runner. It ends the Launchers too.
func (r *Runner) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	all := slices.Collect(maps.Values(r.versions))
	clear(r.versions)
	r.mu.Unlock()
	close(r.stop)
	<-r.swept
	for _, ver := range all {
		ver.retire()
	}
	var err error
	for _, s := range r.cfg.Stronger { // first: they may stand on what the other one owns
		if s.Launcher != nil {
			err = errors.Join(err, s.Launcher.Close())
		}
	}
	err = errors.Join(err, r.cfg.Launcher.Close())
	r.tasks.Wait()
	return err
}

// run ends, now and then, what nobody needs any more.
func (r *Runner) run() {
	defer close(r.swept)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.sweep(r.cfg.Clock())
		}
	}
}

func (r *Runner) sweep(now time.Time) {
	r.mu.Lock()
	var all, gone []*version
	for k, ver := range r.versions {
		if ver.users == 0 && now.Sub(ver.used) > unloadAfter {
			delete(r.versions, k)
			gone = append(gone, ver)
			continue
		}
		all = append(all, ver)
	}
	r.mu.Unlock()
	for _, ver := range all {
		select {
		case <-ver.loaded:
			if ver.failed == nil {
				ver.pool.sweep(now)
			}
		default:
		}
	}
	for _, ver := range gone {
		ver.retire()
	}
}

// claim takes memory for a sandbox. Somebody waits for it, if it is wanted: then idle
// ones end when there is no room, of the namespace that holds most first, and what is
// ending already is waited for.
func (r *Runner) claim(ctx context.Context, namespace string, n int64, wanted bool) error {
	for {
		soon := r.claims.soon() // asked for first, so that no release is missed
		got := r.claims.claim(namespace, n)
		if got == granted {
			return nil
		}
		if !wanted || !r.evict(namespace, got == ownLimit) && soon == nil {
			return &sandbox.Error{
				Kind: sandbox.Unavailable, Public: "no memory is free for another sandbox; try again later",
				Cause: fmt.Errorf("%d bytes claimed of %d, %d by the namespace", r.claims.sum(), r.cfg.Memory, r.claims.held(namespace)),
			}
		}
		if soon != nil {
			select {
			case <-soon:
			case <-ctx.Done():
				return &sandbox.Error{Kind: sandbox.Unavailable, Public: "no memory came free for another sandbox; try again later", Cause: context.Cause(ctx)}
			}
		}
	}
}

// evict ends one idle instance, of that namespace alone if own; false means that there
// is none.
func (r *Runner) evict(namespace string, own bool) bool {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.versions))
	r.mu.Unlock()
	var chosen *version
	var best time.Time
	var held int64
	for _, ver := range all {
		select {
		case <-ver.loaded:
		default:
			continue
		}
		if ver.failed != nil || own && ver.v.Namespace != namespace {
			continue
		}
		since, any := ver.pool.rested()
		if !any {
			continue
		}
		h := r.claims.held(ver.v.Namespace)
		if ver.v.Namespace == namespace {
			h++ // between equals, one's own
		}
		if chosen == nil || h > held || h == held && since.Before(best) {
			chosen, best, held = ver, since, h
		}
	}
	return chosen != nil && chosen.pool.evict()
}

// Launcher is what makes the sandboxes of versions that ask for no kind of their own.
func (r *Runner) Launcher() Launcher { return r.cfg.Launcher }

// Stronger is what else there is.
func (r *Runner) Stronger() map[function.SandboxKind]Stronger { return r.cfg.Stronger }

// launcher gives what makes the sandboxes of a version. A version that asks for a kind
// never gets another.
func (r *Runner) launcher(v *function.Version) (Launcher, error) {
	kind := v.Config.Sandbox
	if kind == "" {
		return r.cfg.Launcher, nil
	}
	s := r.cfg.Stronger[kind]
	if s.Launcher != nil {
		return s.Launcher, nil
	}
	if s.Reason == "" {
		s.Reason = "leave out sandbox: " + string(kind)
	}
	return nil, &sandbox.Error{Kind: sandbox.Refused, Public: fmt.Sprintf("this node has no sandbox of the kind %s: %s", kind, s.Reason)}
}

// Load says how many sandboxes run, and how many of them wait for work.
func (r *Runner) Load() (running, idle int, claimed, budget int64) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.versions))
	r.mu.Unlock()
	for _, ver := range all {
		select {
		case <-ver.loaded:
			if ver.failed == nil {
				n, i := ver.pool.count()
				running, idle = running+n, idle+i
			}
		default:
		}
	}
	return running, idle, r.claims.sum(), r.cfg.Memory
}

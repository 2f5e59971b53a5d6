package native

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// version is what is held for one version: its files, laid out, and its instances.
type version struct {
	runner *Runner
	v      *function.Version
	loaded chan struct{} // closed when the fields below are set
	failed error         // a *sandbox.Error
	made   Launcher      // what its sandboxes are made with
	tree   Tree
	speech speech
	pool   *pool
	kind   string // what receipts say of the isolation

	users   int // guarded by Runner.mu, as are used and retired
	used    time.Time
	retired bool
}

func newVersion(r *Runner, v *function.Version) *version {
	return &version{runner: r, v: v, loaded: make(chan struct{})}
}

// load reads the artifact, checks it against its digest, and lays it out.
func (ver *version) load(ctx context.Context) error {
	r, v := ver.runner, ver.v
	var err error
	if ver.made, err = r.launcher(v); err != nil {
		return err
	}
	archive, err := r.cfg.Artifacts.Artifact(ctx, v.Artifact)
	if err != nil {
		return &sandbox.Error{Kind: sandbox.Unavailable, Public: "the code could not be read; try again later", Cause: err}
	}
	if got := function.DigestOf(archive); got != v.Artifact {
		r.cfg.Logger.Error("an artifact does not match its digest", "function", v.String(), "version", string(v.ID), "artifact", string(v.Artifact), "found", string(got))
		return &sandbox.Error{Kind: sandbox.Tampered, Cause: fmt.Errorf("found %s", got)}
	}
	if ver.tree, err = ver.made.Lay(ctx, v, archive); err != nil {
		return asError(err)
	}
	if ver.speech, err = speechOf(v, ver.tree); err != nil {
		ver.tree.Release()
		return asError(err)
	}
	ver.kind = kindOf(ver.made.Posture(), v.Config.Isolation, ver.tree.Interpreter())
	ver.pool = &pool{
		start: ver.start, clock: r.cfg.Clock, tasks: &r.tasks,
		single: v.Config.Isolation == function.IsolationInvocation,
		most:   min(maxAhead, v.Config.Limits.Concurrency), processors: runtime.NumCPU(),
	}
	return nil
}

// kindOf gives the form for receipts: what it is, whom it serves, which interpreter
// runs in it, and what is missing.
func kindOf(p Posture, isolation function.Isolation, interpreter string) string {
	words := []string{p.Kind, string(isolation)}
	if interpreter != "" {
		words = append(words, interpreter)
	}
	if len(p.Missing) > 0 {
		words = append(words, "without", strings.Join(slices.Sorted(maps.Keys(p.Missing)), ","))
	}
	return strings.Join(words, " ")
}

// asError makes a *sandbox.Error of whatever failed.
func asError(err error) error {
	var known *sandbox.Error
	if errors.As(err, &known) {
		return known
	}
	return &sandbox.Error{Kind: sandbox.Unavailable, Public: "no sandbox could be had; try again later", Cause: err}
}

// leave ends a use of the version.
func (ver *version) leave() {
	r := ver.runner
	r.mu.Lock()
	ver.users--
	ver.used = r.cfg.Clock()
	last := ver.retired && ver.users == 0
	r.mu.Unlock()
	if last {
		ver.release()
	}
}

// retire ends what is idle. The files go when the last user has left.
func (ver *version) retire() {
	r := ver.runner
	r.tasks.Go(func() {
		<-ver.loaded
		if ver.failed != nil {
			return
		}
		ver.pool.close()
		r.mu.Lock()
		first := !ver.retired
		ver.retired = true
		last := first && ver.users == 0
		r.mu.Unlock()
		if last {
			ver.release()
		}
	})
}

func (ver *version) release() { ver.tree.Release() }

// started reports whether an instance is ready, or serves.
func (ver *version) started() bool {
	alive, _ := ver.pool.count()
	return alive > 0
}

// start starts an instance and waits until its code waits for work.
func (ver *version) start(ctx context.Context, wanted bool) (*instance, error) {
	r, limits := ver.runner, &ver.v.Config.Limits
	if err := r.claim(ctx, ver.v.Namespace, limits.Memory, wanted); err != nil {
		return nil, err
	}
	held := true
	defer func() {
		if held {
			r.claims.release(ver.v.Namespace, limits.Memory, false)
		}
	}()
	leave, err := r.gate.enter(ctx, ver.v.Namespace)
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "too many sandboxes are starting; try again later", Cause: err}
	}
	defer leave()
	began := r.cfg.Clock()
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %v", err)
	}
	c, err := ver.made.Launch(ctx, ver.tree, Order{
		Command: ver.speech.command, Dir: ver.speech.dir(), Output: theirs,
		Memory: limits.Memory, Processes: limits.Processes, Scratch: limits.Scratch,
	})
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return nil, asError(err)
	}
	i := &instance{id: c.ID(), cell: c, out: newOutput(ours, r.cfg.Clock), born: began, terminates: ver.speech.terminates()}
	held = false
	i.ending = r.claims.announce
	i.onEnd = func() { r.claims.release(ver.v.Namespace, limits.Memory, true) }
	i.guest = ver.speech.open(c, r.cfg.Clock)
	if err := ver.await(ctx, i); err != nil {
		r.tasks.Go(i.end)
		return nil, err
	}
	_, _, _ = i.look() // its start is nobody's
	i.started = r.cfg.Clock().Sub(began)
	return i, nil
}

// await waits until the code waits for work, or has shown that it never will.
func (ver *version) await(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-i.cell.Done():
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	err := i.guest.ready(ctx)
	if err == nil {
		return nil
	}
	var known *sandbox.Error
	switch {
	case errors.As(err, &known):
	case errors.Is(context.Cause(ctx), errEnded):
		known = ver.explainEnd(i, "the code ended before it waited for work")
	default:
		known = &sandbox.Error{Kind: sandbox.BadModule, Public: "the code did not begin to wait for work within " + startTimeout.String(), Cause: err}
	}
	if said := strings.TrimSpace(i.out.tail()); said != "" && known.Kind != sandbox.Unavailable {
		known.Public += "; it printed:\n" + said
	}
	return known
}

// errEnded is why a wait for a sandbox is over that is gone.
var errEnded = errors.New("the sandbox ended")

// explainEnd says how an instance ended that should not have.
func (ver *version) explainEnd(i *instance, public string) *sandbox.Error {
	<-i.cell.Done()
	how := i.cell.Ended()
	if how.OOM {
		return &sandbox.Error{Kind: sandbox.Memory, Public: fmt.Sprintf("%s: it needed more than its %d MiB", public, ver.v.Config.Limits.Memory>>20), Cause: errEnded}
	}
	return &sandbox.Error{Kind: sandbox.BadModule, Public: public + ": " + how.String(), Cause: errEnded}
}

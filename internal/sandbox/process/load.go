package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// loadTimeout bounds how long a process may take to compile a module.
const loadTimeout = 2 * time.Minute

// load is one version in one process, being loaded or loaded. The fields below
// stream are guarded by process.mu, but failure and cost may be read after done.
type load struct {
	stream uint32
	done   chan struct{}

	finished bool
	failure  *sandbox.Error
	cost     int64
	uses     int   // invocations and preparations that hold it
	last     int64 // when it was last used, as a running number
	retired  bool  // unload when nobody uses it
}

// finish records how the loading ended. It is called once, by the process's reader
// or by whoever could not begin.
func (l *load) finish(failure *sandbox.Error) {
	l.failure = failure
	close(l.done)
}

// acquire gives the version loaded in the process, and whether the caller had to
// wait for that. The first caller starts loading, the others wait along. release
// must be called when the error is nil.
func (p *process) acquire(ctx context.Context, v *function.Version) (l *load, cold bool, err *sandbox.Error) {
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return nil, false, lost(reason)
	}
	l = p.loads[v.ID]
	if l == nil {
		p.streams++
		l = &load{stream: p.streams, done: make(chan struct{})}
		p.loads[v.ID] = l
		// Loading goes on when this caller leaves, since others may wait for it. It ends
		// with the process at the latest.
		p.runner.processes.Go(func() { p.load(v, l) })
	}
	l.uses++
	l.last = p.runner.turn.Add(1)
	p.mu.Unlock()
	select {
	case <-l.done:
	default:
		cold = true
		select {
		case <-l.done:
		case <-ctx.Done():
			p.release(v.ID, l)
			return nil, true, canceled(ctx)
		}
	}
	if l.failure != nil {
		p.release(v.ID, l)
		return nil, cold, l.failure
	}
	return l, cold, nil
}

// release gives back what acquire gave.
func (p *process) release(id function.Digest, l *load) {
	p.mu.Lock()
	l.uses--
	unload := p.drop(id, l)
	p.mu.Unlock()
	if unload {
		_ = p.out.Send(wire.Unload, l.stream)
	}
}

// drop takes a retired version off the books when nobody uses it and says whether
// to tell the process. The mutex is held.
func (p *process) drop(id function.Digest, l *load) bool {
	if !l.retired || l.uses > 0 || !l.finished {
		return false
	}
	if p.loads[id] == l {
		delete(p.loads, id)
	}
	p.cost -= l.cost
	l.retired = false
	return l.failure == nil && !p.dead
}

// retire drops a version as soon as nobody uses it.
func (p *process) retire(id function.Digest) {
	p.mu.Lock()
	l := p.loads[id]
	unload := false
	if l != nil {
		l.retired = true
		delete(p.loads, id) // the next caller loads it anew
		unload = p.drop(id, l)
	}
	p.mu.Unlock()
	if unload {
		_ = p.out.Send(wire.Unload, l.stream)
	}
}

// load brings the version's code into the process and waits until it can run.
func (p *process) load(v *function.Version, l *load) {
	failure := p.bring(v, l)
	if failure != nil {
		// Not sent, or refused: no answer is under way.
		p.settle(v.ID, l, failure)
		return
	}
	timer := time.NewTimer(loadTimeout)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
		p.runner.logger.Warn("loading takes too long", slog.String("function", v.String()), slog.String("version", string(v.ID)))
		p.mu.Lock()
		_, waiting := p.byStream[l.stream]
		delete(p.byStream, l.stream)
		p.mu.Unlock()
		if waiting {
			p.settle(v.ID, l, &sandbox.Error{
				Kind: sandbox.BadModule, Public: fmt.Sprintf("the module could not be compiled within %v; make it smaller", loadTimeout),
			})
		}
		p.kill("it did not finish compiling a module")
		return
	}
	p.book(v.ID, l)
}

// bring reads the code, verifies it and sends it.
func (p *process) bring(v *function.Version, l *load) *sandbox.Error {
	ctx, stop := context.WithTimeout(context.Background(), loadTimeout)
	defer stop()
	code, err := p.runner.artifacts.Artifact(ctx, v.Artifact)
	if err != nil {
		return &sandbox.Error{Kind: sandbox.Unavailable, Public: "the function's code could not be read; try again", Cause: err}
	}
	if got := function.DigestOf(code); got != v.Artifact {
		p.runner.reportTampered(v, "reading it from the store", string(got))
		return tampered(fmt.Errorf("want %s, got %s", v.Artifact, got))
	}
	if len(code) > wire.MaxCode {
		return &sandbox.Error{Kind: sandbox.BadModule, Public: fmt.Sprintf("the module exceeds %d MiB", wire.MaxCode>>20)}
	}
	spec, err := wire.AppendJSON(nil, wire.LoadSpec{
		Name: v.Name, Digest: v.Artifact, Size: int64(len(code)), Entry: v.Config.Entry,
		Limits: v.Config.Limits, Environment: v.Config.Environment,
	})
	if err != nil {
		return &sandbox.Error{Kind: sandbox.BadModule, Public: "the environment is too large; keep it below 60 KiB", Cause: err}
	}
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return lost(reason)
	}
	p.byStream[l.stream] = l
	p.mu.Unlock()
	// When sending fails the process is being killed, and its end answers for this.
	if p.out.Send(wire.Load, l.stream, spec) == nil {
		_ = p.out.SendAll(wire.Code, l.stream, code)
	}
	return nil
}

func tampered(cause error) *sandbox.Error {
	return &sandbox.Error{
		Kind: sandbox.Tampered, Public: "the stored code does not match its digest; deploy the function again", Cause: cause,
	}
}

// handleLoad takes the process's word on a load.
func (p *process) handleLoad(f wire.Frame) error {
	p.mu.Lock()
	l := p.byStream[f.Stream]
	delete(p.byStream, f.Stream)
	p.mu.Unlock()
	if l == nil {
		return errUnasked
	}
	if f.Type == wire.LoadFailed {
		failure, err := wire.ParseFailure(f.Payload)
		if err != nil {
			l.finish(lost("it broke the protocol"))
			return err
		}
		l.finish(errorOf(failure))
		return nil
	}
	var report wire.LoadReport
	if err := wire.ParseJSON(f.Payload, &report); err != nil || report.Cost < 0 {
		l.finish(lost("it broke the protocol"))
		return errors.Join(err, wire.ErrFrame)
	}
	l.cost = report.Cost
	l.finish(nil)
	return nil
}

// settle records a load that failed before the process had a say.
func (p *process) settle(id function.Digest, l *load, failure *sandbox.Error) {
	l.finish(failure)
	p.book(id, l)
}

// book enters a finished load and makes room for it. A refusal that will repeat is
// remembered, so that calling a module that cannot run costs nothing; others are
// forgotten, so that the next call tries again.
func (p *process) book(id function.Digest, l *load) {
	var unload []uint32
	p.mu.Lock()
	l.finished = true
	switch {
	case l.failure == nil:
		p.cost += l.cost
	case l.failure.Kind == sandbox.BadModule || l.failure.Kind == sandbox.Memory:
		l.cost = refusalCost
		p.cost += l.cost
	default:
		l.retired = true
		if p.loads[id] == l {
			delete(p.loads, id)
		}
	}
	if p.drop(id, l) {
		unload = append(unload, l.stream)
	}
	for p.cost > p.runner.moduleBytes {
		victimID, victim := p.leastUsed(l)
		if victim == nil {
			break
		}
		victim.retired = true
		if p.drop(victimID, victim) {
			unload = append(unload, victim.stream)
		}
	}
	p.mu.Unlock()
	for _, stream := range unload {
		_ = p.out.Send(wire.Unload, stream)
	}
}

// refusalCost is what a remembered refusal counts for, in bytes.
const refusalCost = 4 << 10

// leastUsed finds the loaded version that nobody uses and that was used the longest
// ago, besides one. The mutex is held.
func (p *process) leastUsed(besides *load) (function.Digest, *load) {
	var id function.Digest
	var found *load
	for k, l := range p.loads {
		if l != besides && l.finished && l.uses == 0 && (found == nil || l.last < found.last) {
			id, found = k, l
		}
	}
	return id, found
}

package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// loadTimeout bounds how long a process may take to make a version ready, and how
// long its code may take to be read.
const loadTimeout = 2 * time.Minute

// maxLoads bounds the versions that one process has loaded. Each keeps a file or two
// open there (see maxFiles).
const maxLoads = 1500

// load is one version in one process, being loaded or loaded. The fields below
// stream are guarded by process.mu, but failure and cost may be read after done.
type load struct {
	stream uint32
	name   string
	done   chan struct{} // closed when it is finished and on the books

	answer   chan *sandbox.Error // has room for one: what the process said, nil when it can run
	asked    bool                // the process was asked, so its end may be this one's fault
	finished bool
	failure  *sandbox.Error
	cost     int64
	placed   int64 // bytes of compiled code in the process's file, and where
	at       int64
	base     *load // what it is made from and keeps in use, or nil
	uses     int   // invocations and preparations that hold it, or loads made from it
	last     int64 // when it was last used, as a running number
	seen     sight // what the sweep saw of that
	retired  bool  // unload when nobody uses it
}

// subject is what can be loaded under an id.
type subject struct {
	id   function.Digest
	name string // for the log
	// ask sends what it takes to the process. It gives the module when code that was
	// sent may turn out to be stale.
	ask func(*process, *load) (*module, *sandbox.Error)
}

// acquire gives the version loaded in the process, and whether the caller had to
// wait for that. The first caller starts loading, the others wait along. The process
// counts the caller as active until release, which must be called when the error is
// nil.
func (p *process) acquire(ctx context.Context, v *function.Version) (l *load, cold bool, err *sandbox.Error) {
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return nil, false, lost(reason)
	}
	// Under the mutex, so that nobody ends the process as an idle one from now on.
	p.active.Add(1)
	l = p.loads[v.ID]
	if l == nil {
		l = p.beginLoad(p.runner.subjectOf(v))
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

// beginLoad enters a load and starts it. The mutex is held.
func (p *process) beginLoad(s subject) *load {
	p.streams++
	l := &load{stream: p.streams, name: s.name, done: make(chan struct{}), answer: make(chan *sandbox.Error, 1)}
	p.loads[s.id] = l
	// Loading goes on when its caller leaves, since others may wait for it. It ends
	// with the process at the latest.
	p.active.Add(1)
	p.runner.processes.Go(func() {
		defer p.active.Add(-1)
		p.runner.begin()
		defer p.runner.end()
		p.load(s, l)
	})
	return l
}

// release gives back what acquire gave.
func (p *process) release(id function.Digest, l *load) {
	p.mu.Lock()
	l.uses--
	unload := p.drop(id, l)
	p.mu.Unlock()
	p.active.Add(-1)
	if unload {
		p.unload(l)
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
	if l.base != nil {
		l.base.uses--
		l.base = nil
	}
	return l.failure == nil && !p.dead
}

// unload has the process forget versions that drop took off the books, and gives back
// what their code took. Nothing of theirs runs: whoever used one has had its last word.
func (p *process) unload(versions ...*load) {
	for _, l := range versions {
		_ = p.out.Send(wire.Unload, l.stream)
		p.child.code.drop(l.at, l.placed)
	}
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
		p.unload(l)
	}
}

// lossesBefore is how often a process may end while a version is being loaded before
// calls of that version are refused for a while: with a call's second attempt, one
// call.
const lossesBefore = 1

// load brings a subject into the process, waits until it can run, and says how it
// went.
func (p *process) load(s subject, l *load) {
	refused := p.runner.losses
	failure := refused.find(s.id)
	known := failure != nil
	if !known {
		failure = p.bring(s, l)
	}
	switch {
	case failure == nil:
		refused.clear(s.id)
	case failure.Kind == sandbox.Lost && l.asked && p.endedAlone():
		refused.delay(s.id, &sandbox.Error{
			Kind:   sandbox.Unavailable,
			Public: "the sandbox ended each time while it made the function ready; try again later, or deploy another version", Cause: failure,
		}, lossesBefore)
	}
	p.book(s.id, l, failure)
	close(l.done)
	p.runner.pool.refill()
}

// bring sends the code and waits for the answer. Code that is stale is made anew, once.
func (p *process) bring(s subject, l *load) *sandbox.Error {
	for again := false; ; again = true {
		m, failure := s.ask(p, l)
		if failure == nil {
			failure = p.awaitLoad(s, l)
		}
		if failure == nil || failure.Kind != sandbox.Stale {
			return failure
		}
		if m == nil || again {
			return &sandbox.Error{
				Kind: sandbox.Unavailable, Public: "the function cannot be made ready now; try again later", Cause: failure,
			}
		}
		p.runner.codeIsStale(*m)
	}
}

// awaitLoad waits for what the process says of a load.
func (p *process) awaitLoad(s subject, l *load) *sandbox.Error {
	timer := time.NewTimer(loadTimeout)
	defer timer.Stop()
	select {
	case failure := <-l.answer:
		return failure
	case <-timer.C:
		p.runner.logger.Warn("loading takes too long", slog.String("function", s.name), slog.String("version", string(s.id)))
		p.kill("it did not finish loading a version")
		return <-l.answer
	}
}

// maxCarrying bounds how many processes are sent code at once, and so how much of it
// lies in the node's memory: one for each place.
const maxCarrying = 8

// carrying calls fn, which reads code and sends it, when it is its turn: one at a time
// for a process, since its connection is one.
func (p *process) carrying(fn func() *sandbox.Error) *sandbox.Error {
	p.sending.Lock()
	defer p.sending.Unlock()
	p.runner.carrying <- struct{}{}
	defer func() { <-p.runner.carrying }()
	return fn()
}

// loadAs tells the process what to load, with bytes that follow. It is called by what
// carrying calls.
func (p *process) loadAs(l *load, spec wire.LoadSpec, payload []byte) *sandbox.Error {
	spec.Size = int64(len(payload))
	p.runner.carried.Add(spec.Size)
	head, err := wire.AppendJSON(nil, spec)
	if err != nil {
		return &sandbox.Error{Kind: sandbox.BadModule, Public: "the environment is too large; keep it below 60 KiB", Cause: err}
	}
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return lost(reason)
	}
	l.asked = true
	p.byStream[l.stream] = l
	p.mu.Unlock()
	// When sending fails the process is being killed, and its end answers for this.
	if p.out.Send(wire.Load, l.stream, head) == nil {
		_ = p.out.SendAll(wire.Code, l.stream, payload)
	}
	return nil
}

// loadModule sends the compiled code of a module, from the store or newly made.
func (p *process) loadModule(l *load, m module, spec wire.LoadSpec) *sandbox.Error {
	r := p.runner
	if failure := r.compiler.refused.find(m.digest); failure != nil {
		return failure
	}
	stored := false
	failure := p.carrying(func() *sandbox.Error {
		var failure *sandbox.Error
		stored, failure = p.loadFrom(r.code, l, m, spec)
		return failure
	})
	if stored {
		return failure
	}
	code, failure := r.compiler.compile(m)
	if failure != nil {
		return failure
	}
	return p.carrying(func() *sandbox.Error {
		_, failure := p.loadFrom(justMade(code), l, m, spec)
		return failure
	})
}

// justMade is code that need not be read from the store.
type justMade []byte

// Get implements Code.
func (c justMade) Get(function.Digest) ([]byte, bool) { return c, true }

// Put implements Code.
func (justMade) Put(function.Digest, []byte) error { return nil }

// Delete implements Code.
func (justMade) Delete(function.Digest) {}

// loadFrom has code of a store loaded, if the store has it: from the process's file
// where there is one, and else it is sent.
func (p *process) loadFrom(store Code, l *load, m module, spec wire.LoadSpec) (stored bool, failure *sandbox.Error) {
	key, file := p.runner.codeKey(m.digest), p.child.code
	if file == nil {
		code, ok := store.Get(key)
		if !ok || len(code) > wire.MaxCompiled {
			return false, nil
		}
		return true, p.loadAs(l, spec, code)
	}
	file.drop(l.at, l.placed) // of an attempt before this one
	l.placed = 0
	found, err := fetch(store, key, func(size int64) (to io.WriterAt, err error) {
		if size > wire.MaxCompiled {
			return nil, errTooMuch
		}
		to, l.at = file.room(size)
		l.placed = size
		return to, nil
	})
	switch {
	case !found || errors.Is(err, errTooMuch):
		file.drop(l.at, l.placed)
		l.placed = 0
		return false, nil
	case err != nil && !p.alive():
		return true, lost(err.Error())
	case err != nil:
		return true, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the function's code could not be loaded; try again", Cause: err}
	}
	spec.At, spec.Placed = l.at, l.placed
	return true, p.loadAs(l, spec, nil)
}

// errTooMuch means that a store has more under a key than any code can be.
var errTooMuch = errors.New("too much for compiled code")

// subjectOf says how a version is loaded.
func (r *Runner) subjectOf(v *function.Version) subject {
	if v.Config.Runtime.Script() {
		return subject{id: v.ID, name: v.String(), ask: func(p *process, l *load) (*module, *sandbox.Error) {
			return nil, p.askScript(v, l)
		}}
	}
	return subject{id: v.ID, name: v.String(), ask: func(p *process, l *load) (*module, *sandbox.Error) {
		m := r.moduleOf(v)
		return &m, p.loadModule(l, m, wire.LoadSpec{
			Name: v.Name, Digest: v.Artifact, Entry: v.Config.Entry,
			Limits: v.Config.Limits, Environment: v.Config.Environment,
		})
	}}
}

// handleLoad takes the process's word on a load.
func (p *process) handleLoad(f wire.Frame) error {
	var failure *sandbox.Error
	var report wire.LoadReport
	var err error
	if f.Type == wire.LoadFailed {
		var why wire.Failure
		why, err = wire.ParseFailure(f.Payload)
		failure = errorOf(why)
		if err == nil && p.refuseMaking(f.Stream, failure) {
			return nil
		}
	} else if err = wire.ParseJSON(f.Payload, &report); err == nil && report.Cost < 0 {
		err = wire.ErrFrame
	}
	p.mu.Lock()
	l := p.byStream[f.Stream]
	if l != nil && err == nil {
		delete(p.byStream, f.Stream)
		l.cost = report.Cost
	}
	p.mu.Unlock()
	if l == nil {
		return errors.Join(errUnasked, err)
	}
	if err != nil {
		return err // what ends the process answers for the load
	}
	if report.Anew != "" {
		p.runner.logger.Info("each invocation starts from nothing", slog.String("function", l.name), slog.String("reason", report.Anew))
	}
	l.answer <- failure
	return nil
}

// book enters a finished load and makes room for it. A refusal of the process that
// will repeat is remembered, so that calling a version that cannot run costs nothing;
// others are forgotten, so that the next call tries again.
func (p *process) book(id function.Digest, l *load, failure *sandbox.Error) {
	if failure != nil {
		p.child.code.drop(l.at, l.placed)
	}
	var unload []*load
	p.mu.Lock()
	l.failure, l.finished = failure, true
	switch {
	case failure == nil:
		p.cost += l.cost
	case l.asked && (failure.Kind == sandbox.BadModule || failure.Kind == sandbox.Memory):
		l.cost = refusalCost
		p.cost += l.cost
	default:
		l.cost = 0
		l.retired = true
		if p.loads[id] == l {
			delete(p.loads, id)
		}
	}
	if l.failure != nil && l.base != nil {
		l.base.uses--
		l.base = nil
	}
	if p.drop(id, l) {
		unload = append(unload, l)
	}
	for p.cost > p.runner.moduleBytes || len(p.loads) > maxLoads {
		victimID, victim := p.leastUsed(l)
		if victim == nil {
			break
		}
		victim.retired = true
		if p.drop(victimID, victim) {
			unload = append(unload, victim)
		}
	}
	p.mu.Unlock()
	p.unload(unload...)
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

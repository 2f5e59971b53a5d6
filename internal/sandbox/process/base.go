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

// Scripts are run by a module of the platform's own, the JavaScript engine. A process
// loads it once, as a base, and makes from it each version that is a script: what it
// sends for one is the source. Processes that wait for a namespace have the base
// already.

// baseID is the engine's place among the loads of a process. No version has it.
const baseID function.Digest = "engine"

// baseMemory is the memory that the engine may have before it has seen a script, in
// bytes. A version made from it has the limit of its own.
const baseMemory = 64 << 20

// engine is the module that runs scripts. It is asked for once.
type engine struct {
	once   sync.Once
	get    func() ([]byte, error)
	code   []byte
	digest function.Digest
	err    error
}

// errNoEngine means that the node was not given one.
var errNoEngine = errors.New("this node runs no JavaScript")

func (e *engine) open() error {
	e.once.Do(func() {
		if e.get == nil {
			e.err = errNoEngine
			return
		}
		e.code, e.err = e.get()
		if e.err == nil {
			e.digest = function.DigestOf(e.code)
		}
	})
	return e.err
}

// module describes the engine to the compiler.
func (e *engine) module() module {
	return module{name: "the JavaScript engine", digest: e.digest, read: func(context.Context) ([]byte, *sandbox.Error) {
		return e.code, nil
	}}
}

// subject says how the engine is loaded.
func (e *engine) subject() subject {
	return subject{id: baseID, name: "the JavaScript engine", ask: func(p *process, l *load) (*module, *sandbox.Error) {
		m := e.module()
		return &m, p.loadModule(l, m, wire.LoadSpec{
			Name: "engine", Digest: e.digest, Entry: function.EntryHandle, Base: true, Engine: true,
			Limits: function.Limits{Memory: baseMemory, Timeout: time.Minute, Output: function.DefaultOutputLimit, Log: 64 << 10},
		})
	}}
}

// preload loads the engine ahead, into a process that has nothing else to do.
func (p *process) preload() {
	if p.runner.engine.open() != nil {
		return // scripts are refused, with the reason
	}
	if !p.runner.runsScripts() {
		return // compiling the engine takes seconds, which a node without scripts can spare
	}
	p.mu.Lock()
	if p.dead || p.loads[baseID] != nil {
		p.mu.Unlock()
		return
	}
	l := p.beginLoad(p.runner.engine.subject())
	p.mu.Unlock()
	p.runner.processes.Go(func() {
		<-l.done
		if l.failure != nil && l.failure.Kind != sandbox.Lost {
			p.runner.logger.Warn("the JavaScript engine could not be loaded ahead", slog.Any("error", l.failure))
		}
	})
}

// runsScripts reports whether there is, or once was, a script on this node: only then
// is the engine compiled already.
func (r *Runner) runsScripts() bool {
	r.scriptsBefore.Do(func() {
		if _, ok := r.code.Get(r.codeKey(r.engine.digest)); ok {
			r.scripts.Store(true)
		}
	})
	return r.scripts.Load()
}

// base gives the loaded engine to a load, which keeps it in use until it is dropped.
func (p *process) base(l *load) (*load, *sandbox.Error) {
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return nil, lost(reason)
	}
	b := p.loads[baseID]
	if b == nil {
		b = p.beginLoad(p.runner.engine.subject())
	}
	b.uses++
	b.last = p.runner.turn.Add(1)
	l.base = b
	p.mu.Unlock()
	<-b.done
	return b, b.failure
}

// askScript sends the source of a version that is a script.
func (p *process) askScript(v *function.Version, l *load) *sandbox.Error {
	e := p.runner.engine
	if err := e.open(); err != nil {
		return &sandbox.Error{Kind: sandbox.BadModule, Public: err.Error()}
	}
	p.runner.scripts.Store(true)
	base, failure := p.base(l)
	if failure != nil {
		if failure.Kind == sandbox.Lost {
			return failure
		}
		return &sandbox.Error{
			Kind: sandbox.Unavailable, Public: "the JavaScript engine cannot be loaded now; try again later",
			Cause: fmt.Errorf("loading the engine: %v", failure),
		}
	}
	return p.carrying(func() *sandbox.Error {
		ctx, stop := context.WithTimeout(context.Background(), loadTimeout)
		defer stop()
		source, failure := p.runner.artifact(ctx, v)
		if failure != nil {
			return failure
		}
		return p.loadAs(l, wire.LoadSpec{
			Name: v.Name, Digest: e.digest, From: base.stream, Engine: true, Prepare: int64(len(source)),
			Entry: v.Config.Entry, Limits: v.Config.Limits, Environment: v.Config.Environment,
		}, source)
	})
}

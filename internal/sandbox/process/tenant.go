package process

import (
	"context"
	"sync"
)

// tenant is a namespace and the process that serves it. The mutex guards the
// fields below it.
type tenant struct {
	namespace string
	runner    *Runner

	mu       sync.Mutex
	current  *process
	starting *starting
}

// starting is a process on its way, for which several callers may wait.
type starting struct {
	done chan struct{}
	p    *process
	err  error
}

// process gives the namespace's process, a new one when there is none that lives.
func (t *tenant) process(ctx context.Context) (*process, error) {
	t.mu.Lock()
	if t.current != nil && t.current.alive() {
		p := t.current
		t.mu.Unlock()
		return p, nil
	}
	s := t.starting
	if s == nil {
		s = &starting{done: make(chan struct{})}
		t.starting = s
		t.runner.processes.Go(func() { t.start(s) })
	}
	t.mu.Unlock()
	select {
	case <-s.done:
		return s.p, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *tenant) start(s *starting) {
	s.p, s.err = t.runner.assign(t)
	t.mu.Lock()
	t.current, t.starting = s.p, nil
	t.mu.Unlock()
	close(s.done)
}

// live gives the process if there is one.
func (t *tenant) live() *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.current.alive() {
		return t.current
	}
	return nil
}

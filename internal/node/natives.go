package node

import (
	"context"
	"errors"
	"sync"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
)

// natives is the native tier. Its Runner lives as long as the broker that its sandboxes
// and their files are with; the first call after that gets another one. It is a
// sandbox.Runner itself. The mutex guards the fields below it, and is held while a
// Runner is made.
type natives struct {
	keeper *keeper // nil: the Runner needs no broker, and stays
	make   func(*box.Broker) (*native.Runner, error)
	old    sync.WaitGroup // Runners that end

	mu      sync.Mutex
	on      *box.Broker
	current *native.Runner
	closed  bool
}

// newNatives makes the first Runner.
func newNatives(ctx context.Context, k *keeper, with func(*box.Broker) (*native.Runner, error)) (*natives, error) {
	n := &natives{keeper: k, make: with}
	_, err := n.runner(ctx)
	return n, err
}

// runner gives the Runner, on the broker that there is.
func (n *natives) runner(ctx context.Context) (*native.Runner, error) {
	var b *box.Broker
	if n.keeper != nil {
		var err error
		if b, err = n.keeper.Broker(ctx); err != nil {
			return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "no sandbox could be had; try again later", Cause: err}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the node is stopping"}
	}
	if n.current != nil && n.on == b {
		return n.current, nil
	}
	r, err := n.make(b)
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "no sandbox could be had; try again later", Cause: err}
	}
	if old := n.current; old != nil {
		n.old.Go(func() { _ = old.Close() }) // what it held went with its broker
	}
	n.current, n.on = r, b
	return r, nil
}

// now gives the Runner that there is, which may be one whose broker has just ended.
func (n *natives) now() *native.Runner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current
}

// Prepare implements sandbox.Runner.
func (n *natives) Prepare(ctx context.Context, v *function.Version) error {
	r, err := n.runner(ctx)
	if err != nil {
		return err
	}
	return r.Prepare(ctx, v)
}

// Invoke implements sandbox.Runner.
func (n *natives) Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	r, err := n.runner(ctx)
	if err != nil {
		return sandbox.Result{}, err
	}
	return r.Invoke(ctx, inv)
}

// Retire implements sandbox.Runner.
func (n *natives) Retire(namespace string, id function.Digest) { n.now().Retire(namespace, id) }

// Close implements sandbox.Runner.
func (n *natives) Close() error {
	n.mu.Lock()
	n.closed = true
	r := n.current
	n.mu.Unlock()
	err := r.Close()
	n.old.Wait()
	return err
}

// tenant is a Launcher that shares its broker with others: when it closes, its own
// sandboxes end and the broker goes on. The mutex guards the fields below it.
type tenant struct {
	native.Launcher
	mu     sync.Mutex
	cells  map[native.Cell]struct{}
	closed bool
	ending sync.WaitGroup
}

func newTenant(l native.Launcher) *tenant {
	return &tenant{Launcher: l, cells: map[native.Cell]struct{}{}}
}

var errClosed = errors.New("the launcher was closed")

// Launch implements native.Launcher.
func (t *tenant) Launch(ctx context.Context, laid native.Tree, o native.Order) (native.Cell, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, errClosed
	}
	t.ending.Add(1)
	t.mu.Unlock()
	c, err := t.Launcher.Launch(ctx, laid, o)
	if err != nil {
		t.ending.Done()
		return nil, err
	}
	t.mu.Lock()
	t.cells[c] = struct{}{}
	closed := t.closed
	t.mu.Unlock()
	if closed {
		c.Kill()
	}
	go func() {
		<-c.Done()
		t.mu.Lock()
		delete(t.cells, c)
		t.mu.Unlock()
		t.ending.Done()
	}()
	return c, nil
}

// Close implements native.Launcher.
func (t *tenant) Close() error {
	t.mu.Lock()
	t.closed = true
	for c := range t.cells {
		c.Kill()
	}
	t.mu.Unlock()
	t.ending.Wait()
	return nil
}

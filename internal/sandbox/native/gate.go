package native

import (
	"context"
	"sync"
)

// gate lets a bounded number of sandboxes start at once, so that a burst of cold
// starts does not take the processors from what runs already. Namespaces that wait
// are served in turn, each its oldest first: one that asks for a hundred does not
// push back another that asks for one. The mutex guards the fields below it.
type gate struct {
	mu     sync.Mutex
	free   int
	queues map[string][]chan struct{}
	turn   []string // namespaces with a queue, the next one first
}

func newGate(width int) *gate {
	return &gate{free: max(width, 1), queues: map[string][]chan struct{}{}}
}

// enter waits for a place and returns how to give it back. It fails with the
// context's error.
func (g *gate) enter(ctx context.Context, namespace string) (leave func(), err error) {
	g.mu.Lock()
	if g.free > 0 && len(g.turn) == 0 {
		g.free--
		g.mu.Unlock()
		return g.leave, nil
	}
	place := make(chan struct{})
	if len(g.queues[namespace]) == 0 {
		g.turn = append(g.turn, namespace)
	}
	g.queues[namespace] = append(g.queues[namespace], place)
	g.mu.Unlock()
	select {
	case <-place:
		return g.leave, nil
	case <-ctx.Done():
		if !g.abandon(namespace, place) {
			g.leave() // the place was given while we turned away
		}
		return nil, ctx.Err()
	}
}

// abandon takes a waiter out of its queue; false means that it was served already.
func (g *gate) abandon(namespace string, place chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	queue := g.queues[namespace]
	for i, c := range queue {
		if c != place {
			continue
		}
		g.queues[namespace] = append(queue[:i:i], queue[i+1:]...)
		if len(g.queues[namespace]) == 0 {
			delete(g.queues, namespace)
			for j, n := range g.turn {
				if n == namespace {
					g.turn = append(g.turn[:j:j], g.turn[j+1:]...)
					break
				}
			}
		}
		return true
	}
	return false
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.turn) == 0 {
		g.free++
		return
	}
	namespace := g.turn[0]
	queue := g.queues[namespace]
	next := queue[0]
	g.turn = g.turn[1:]
	if len(queue) > 1 {
		g.queues[namespace] = queue[1:]
		g.turn = append(g.turn, namespace)
	} else {
		delete(g.queues, namespace)
	}
	close(next)
}

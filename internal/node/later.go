package node

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/registry"
)

// later is which functions were ever called asynchronously. Each of them has a consumer
// on the bus for that, which costs more than an idle function may; most never need one.
type later struct {
	store *bus.KV

	mu    sync.Mutex
	known map[function.Ref]bool
}

func openLater(ctx context.Context, store *bus.KV) (*later, error) {
	entries, err := store.List(ctx, "function.")
	if err != nil {
		return nil, err
	}
	l := &later{store: store, known: map[function.Ref]bool{}}
	for _, e := range entries {
		if parts := strings.Split(e.Key, "."); len(parts) == 3 {
			l.known[function.Ref{Namespace: parts[1], Name: parts[2]}] = true
		}
	}
	return l, nil
}

// add remembers a function, on disk, and reports whether it is a new one.
func (l *later) add(ctx context.Context, ref function.Ref) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[ref] {
		return false, nil
	}
	if _, err := l.store.Create(ctx, "function."+ref.Namespace+"."+ref.Name, []byte("1")); err != nil && !isConflict(err) {
		return false, err
	}
	l.known[ref] = true
	return true, nil
}

// among gives the functions that need a consumer: those that were called later, and those
// that triggers name as a destination.
func (l *later) among(functions []registry.Function) map[function.Ref]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[function.Ref]bool{}
	for _, f := range functions {
		if l.known[f.Ref] {
			out[f.Ref] = true
		}
		if f.Live == nil {
			continue
		}
		for i := range f.Live.Config.Triggers {
			d := &f.Live.Config.Triggers[i].Delivery
			for _, to := range slices.Concat(d.OnSuccess, d.OnFailure) {
				if to.Function != "" {
					out[function.Ref{Namespace: f.Ref.Namespace, Name: to.Function}] = true
				}
			}
		}
	}
	return out
}

// laterDoor takes asynchronous invocations, and sees to it that somebody runs them.
type laterDoor struct {
	eventDoor
	n *node
}

func (d laterDoor) Async(ctx context.Context, ref function.Ref, principal string, m event.Message) error {
	fresh, err := d.n.later.add(ctx, ref)
	if err != nil {
		return err
	}
	if fresh {
		if err := d.n.takeOver(); err != nil {
			// The next start or deployment takes it over; until then it waits on the bus.
			d.n.log.Error("asynchronous invocations wait: their function's deliveries were not started", "function", ref.String(), "error", err)
		}
	}
	return d.eventDoor.Async(ctx, ref, principal, m)
}

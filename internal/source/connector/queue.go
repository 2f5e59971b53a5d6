package connector

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// together is how many events of several messages are handed in at once, if they wait.
const together = 256

// work is a message that waits: of events, or a position.
type work struct {
	id       uint64
	events   []event.Message
	bad      int // the first event that breaks a rule, or -1
	reason   string
	bytes    int
	position *string
}

// queue holds a connector to its credits.
type queue struct {
	more chan struct{} // has a token when something was added

	mu      sync.Mutex
	waiting []work
	events  int // that have no answer
	bytes   int
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

// add fails with a *violation when there are no credits left.
func (q *queue) add(w work) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.position != nil {
		// Of positions in a row only the last counts, so that they do not pile up.
		if n := len(q.waiting); n > 0 && q.waiting[n-1].position != nil {
			q.waiting[n-1] = w
			return nil
		}
		w.bad = -1
	}
	if q.events+len(w.events) > maxEvents || q.bytes+w.bytes > maxBytes {
		return &violation{fmt.Sprintf("it sends more than %d events or %d bytes without waiting for answers", maxEvents, maxBytes)}
	}
	q.events += len(w.events)
	q.bytes += w.bytes
	q.waiting = append(q.waiting, w)
	select {
	case q.more <- struct{}{}:
	default:
	}
	return nil
}

// next waits for work and takes it: one message, or several of events.
func (q *queue) next(ctx context.Context) ([]work, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if ws := q.some(); len(ws) > 0 {
			return ws, nil
		}
		select {
		case <-q.more:
		case <-ctx.Done():
		}
	}
}

func (q *queue) some() []work {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	n, events := 1, len(q.waiting[0].events)
	if plain(&q.waiting[0]) {
		for n < len(q.waiting) && plain(&q.waiting[n]) && events+len(q.waiting[n].events) <= together {
			events += len(q.waiting[n].events)
			n++
		}
	}
	ws := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	return ws
}

func plain(w *work) bool { return w.position == nil && w.bad < 0 }

// done gives the credits of work back. It is called before the answer is sent.
func (q *queue) done(ws []work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range ws {
		q.events -= len(ws[i].events)
		q.bytes -= ws[i].bytes
	}
}

// reporter makes one health of what the connector says and of what the sink does.
type reporter struct {
	report func(source.Health)

	mu    sync.Mutex
	own   source.Health // the connector's
	stuck string        // why events cannot be kept
}

func (r *reporter) connector(h source.Health) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own = h
	r.tell()
}

// works is for events that were kept: a connector that says nothing about itself runs.
func (r *reporter) works() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own.State == source.Starting {
		r.own.State = source.Running
		r.tell()
	}
}

// sink says why events cannot be kept, or that they can.
func (r *reporter) sink(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck != reason {
		r.stuck = reason
		r.tell()
	}
}

// tell is called with the lock, so that reports come in their order.
func (r *reporter) tell() {
	h := r.own
	if r.stuck != "" {
		h.State, h.Reason = source.Failing, r.stuck
	}
	r.report(h)
}

// said is what the connector last said was wrong.
func (r *reporter) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own.State == source.Failing {
		return r.own.Reason
	}
	return ""
}

package bus

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// What a consumer has settled stands in a file of the server's. Should that be damaged,
// the consumer would begin anew, and all its events be done again. So how far each
// consumer had settled everything is noted with the marks, and it goes on behind that.
// What it had settled beyond comes again, which is at least once, and is reported.

// position is how far a consumer was, at least. What it has settled was done: a function
// acknowledges nothing before.
type position struct {
	Subject string `json:"subject"`         // of its channel
	Settled uint64 `json:"settled"`         // everything up to this sequence
	Given   uint64 `json:"given"`           // the last sequence it was given
	Filed   bool   `json:"filed,omitempty"` // the server has a file about it
}

// lostPosition is that of a consumer whose files are damaged.
type lostPosition struct {
	position
	known bool // else it was never noted
}

// lose reports a consumer of a stream whose files are no more.
func (b *Bus) lose(stream, name, why string, p position, known bool) {
	text := fmt.Sprintf("%s: the consumer %s: %s; ", stream, name, why)
	if known {
		text += fmt.Sprintf("it goes on after event %d, and later ones that were done may be done again", p.Settled)
	} else {
		text += "it begins anew, and events that were done may be done again"
	}
	_ = b.damage("what consumer "+name+" of "+stream+" has settled", text)
	if b.lost[stream] == nil {
		b.lost[stream] = map[string]lostPosition{}
	}
	b.lost[stream][name] = lostPosition{p, known}
}

// recall takes over what was noted of the consumers, while the events are opened. One that
// is whole and that the server does not know, because it did not know the stream when it
// started, is shown to it again.
func (e *Events) recall(ctx context.Context, listed map[string]bool, noted map[string]position) {
	for name, p := range e.bus.lost[e.name] {
		e.lost[name] = p
	}
	for name, p := range noted {
		if _, lost := e.lost[name]; lost {
			continue
		}
		if !listed[name] {
			// What does not fit, Consume puts right.
			if _, err := e.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
				Durable: name, FilterSubject: p.Subject, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1, Replicas: 1,
				DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: p.Settled + 1,
			}); err != nil {
				e.bus.lose(e.name, name, fmt.Sprintf("the server does not open it: %v", err), p, true)
				e.lost[name] = lostPosition{p, true}
				continue
			}
		}
		e.positions[name] = p
	}
}

// positionsPause is how many times as long as it took is waited before consumers are
// asked again.
const positionsPause = 100

// lookSoon asks the consumers where they are, unless that was done just now.
func (e *Events) lookSoon() {
	now := e.bus.cfg.Clock()
	e.mu.Lock()
	due := !e.looking && (now.Before(e.looked) || now.Sub(e.looked) >= max(markEvery, positionsPause*e.lookTook))
	e.looking = e.looking || due
	e.mu.Unlock()
	if due {
		e.bus.background(func(ctx context.Context) {
			if err := e.look(ctx); err != nil {
				e.bus.log.Warn("asking consumers where they are", "events", e.cfg.Name, "error", err)
			}
			e.mu.Lock()
			e.looking = false
			e.mu.Unlock()
		})
	}
}

// look asks the consumers where they are.
func (e *Events) look(ctx context.Context) error {
	e.dropping.Lock() // else one that is dropped meanwhile would be noted all the same
	defer e.dropping.Unlock()
	began := e.bus.cfg.Clock()
	found := map[string]position{}
	list := e.stream.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.Durable != "" {
			found[c.Name] = position{Subject: c.Config.FilterSubject, Settled: c.AckFloor.Stream, Given: c.Delivered.Stream}
		}
	}
	if err := list.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, p := range found {
		p.Filed = e.positions[name].Filed || p.Given > 0 && e.filed(name)
		found[name] = p
	}
	e.positions = found
	e.looked = e.bus.cfg.Clock()
	e.lookTook = max(e.looked.Sub(began), 0)
	return nil
}

// filed reports whether the server has written down where a consumer is.
func (e *Events) filed(name string) bool {
	_, err := os.Stat(filepath.Join(e.bus.cfg.Dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", e.name, "obs", name, fileState))
	return err == nil
}

// notedPositions gives the positions for the marks: also of those that wait to be made anew.
func (e *Events) notedPositions() map[string]position {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]position, len(e.positions)+len(e.lost))
	for name, p := range e.positions {
		out[name] = p
	}
	for name, p := range e.lost {
		if p.known {
			out[name] = p.position
		}
	}
	return out
}

// isLost tells of a consumer that was there once and has lost its place.
func (e *Events) isLost(name string) (lostPosition, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.lost[name]
	return p, ok
}

// found is told that a consumer was made anew.
func (e *Events) found(name string, p lostPosition) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.lost, name)
	if _, ok := e.positions[name]; !ok && p.known {
		e.positions[name] = position{Subject: p.Subject, Settled: p.Settled}
	}
}

// unnote forgets a consumer that is about to be dropped, on disk too: it must not be
// taken for lost when it is not there any more.
func (e *Events) unnote(ctx context.Context, name string) error {
	e.mu.Lock()
	_, noted := e.positions[name]
	_, lost := e.lost[name]
	delete(e.positions, name)
	delete(e.lost, name)
	e.mu.Unlock()
	if !noted && !lost {
		return nil
	}
	e.bus.marking.Lock()
	defer e.bus.marking.Unlock()
	return e.bus.saveMarks(ctx)
}

// lostBacklog is that of a consumer that has lost its place: what comes to it, with
// state.ErrCorrupt.
func (e *Events) lostBacklog(ctx context.Context, name string, p lostPosition) (int64, error) {
	n := uint64(0)
	if p.known {
		var err error
		if n, err = e.count(ctx, p.Subject, p.Settled+1, nil); err != nil {
			return 0, e.bus.failure("counting events", err)
		}
	}
	return int64(min(n, math.MaxInt64)), fmt.Errorf("looking up consumer %s: what it has settled: %w", name, ErrCorrupt)
}

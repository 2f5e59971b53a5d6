package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate-dev/casemate/internal/state"
)

// An event that is not what was stored is reported once, kept with the marks, and
// reported again at each start, until a purge of its channel covers it. The server can
// neither read nor remove most of them; so a purge notes them as gone, and from then on
// nobody asks for them.

// maxDamaged is how many damaged events of a stream are told apart.
const maxDamaged = 1000

// examined is how many sequences are looked at one by one where the server finds nothing.
const examined = 512

// damage reports a damaged event. subject is that of its channel; empty when that is not
// known. It returns the error for the caller, or nil when the event was purged.
func (e *Events) damage(sequence uint64, subject, what string) error {
	e.mu.Lock()
	if _, buried := e.buried[sequence]; buried {
		e.mu.Unlock()
		return nil
	}
	was, known := e.damaged[sequence]
	if !known && len(e.damaged) >= maxDamaged {
		e.mu.Unlock()
		return e.bus.corruption(what)
	}
	if was == "" {
		e.damaged[sequence] = subject
	}
	e.mu.Unlock()
	if !known {
		text := what
		if namespace, channel := e.channel(subject); channel != "" {
			text += ", in " + channel + " of " + namespace
		}
		e.bus.mu.Lock()
		e.bus.damages++
		e.bus.mu.Unlock()
		e.bus.warn(text + ": the stored event does not fit its digest; once nobody needs it, casemate events purge removes it")
		e.bus.background(func(ctx context.Context) {
			e.bus.marking.Lock()
			defer e.bus.marking.Unlock()
			if err := e.bus.saveMarks(ctx); err != nil {
				e.bus.log.Warn("saving the marks of the bus", "error", err)
			}
		})
	}
	return fmt.Errorf("reading %s: %w", what, ErrCorrupt)
}

// damagedNow gives the damaged events for the marks.
func (e *Events) damagedNow() map[uint64]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[uint64]string, len(e.damaged))
	for sequence, subject := range e.damaged {
		out[sequence] = subject
	}
	return out
}

// unpurged fails while there are damaged events.
func (e *Events) unpurged() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := ^uint64(0)
	for sequence := range e.damaged {
		first = min(first, sequence)
	}
	if len(e.damaged) == 0 {
		return nil
	}
	return fmt.Errorf("reading event %d of %s, and %d more: %w: once nobody needs them, casemate events purge removes them",
		first, e.cfg.Name, len(e.damaged)-1, ErrCorrupt)
}

// lookAgain looks at the events that were damaged in the last run.
func (e *Events) lookAgain(ctx context.Context, damaged map[uint64]string) error {
	for sequence, subject := range damaged {
		_, err := e.get(ctx, sequence)
		switch {
		case errors.Is(err, ErrCorrupt):
			_ = e.damage(sequence, subject, e.called(sequence)) // on record; now with its subject
		case err != nil && !errors.Is(err, state.ErrNotFound):
			return err
		}
	}
	return nil
}

func (e *Events) called(sequence uint64) string {
	return fmt.Sprintf("event %d of %s", sequence, e.cfg.Name)
}

// examine looks for the damaged events among those from first to before end that the
// server has for a filter and does not read. With exact, the filter is one subject, and
// events of others do not count. It gives the first error, or nil when all were purged.
func (e *Events) examine(ctx context.Context, filter string, exact bool, first, end uint64) (damage, failure error) {
	general := func() error {
		return e.bus.corruption(fmt.Sprintf("events of %s before %d, which the server cannot read", e.cfg.Name, end))
	}
	if end-first > examined || filter == e.noteSubject() { // what was purged is not known without the notes
		return general(), nil
	}
	buried := false
	for sequence := first; sequence < end; sequence++ {
		if e.isBuried(sequence) {
			buried = true
			continue
		}
		switch _, err := e.get(ctx, sequence); {
		case err == nil, errors.Is(err, state.ErrNotFound):
		case !errors.Is(err, ErrCorrupt):
			return damage, err
		case !exact:
			if damage == nil {
				damage = err
			}
		default:
			ours, failed := e.owns(ctx, filter, sequence)
			if failed != nil {
				return damage, failed
			}
			if ours {
				if err = e.damage(sequence, filter, e.called(sequence)); damage == nil {
					damage = err
				}
			}
		}
	}
	if damage == nil && !buried {
		return general(), nil
	}
	return damage, nil
}

// owns reports whether the server's index has a sequence under a subject.
func (e *Events) owns(ctx context.Context, subject string, sequence uint64) (bool, error) {
	from, err := e.count(ctx, subject, sequence, nil)
	if err != nil {
		return false, err
	}
	after, err := e.count(ctx, subject, sequence+1, nil)
	return from > after, err
}

// damagedIn lists the damaged events of a channel up to a sequence, and those right behind
// it, which no purge could name: an event that can be read comes after them, or none does.
// Those of which nobody knows the channel are among them.
func (e *Events) damagedIn(ctx context.Context, subject string, upTo uint64) ([]uint64, error) {
	e.mu.Lock()
	some := len(e.damaged) > 0
	e.mu.Unlock()
	if !some {
		return nil, nil
	}
	next := ^uint64(0)
	info, err := e.stream.Info(ctx)
	if err != nil {
		return nil, err
	}
	err = e.scan(ctx, scan{filter: subject, from: upTo + 1, end: info.State.LastSeq}, func(r EventRecord) bool {
		next = r.Sequence
		return false
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []uint64
	for sequence, of := range e.damaged {
		if of == subject && sequence < next || of == "" && sequence <= upTo {
			out = append(out, sequence)
		}
	}
	slices.Sort(out)
	return out, nil
}

// bury learns from a note what is purged although the server still has it.
func (e *Events) bury(n *note) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(n.Damaged)+len(n.Kept) > 0 {
		e.burials.Store(true)
	}
	for _, sequence := range n.Damaged {
		delete(e.damaged, sequence)
		e.buried[sequence] = false
	}
	for _, sequence := range n.Kept {
		e.buried[sequence] = true
	}
}

// isBuried reports whether an event was purged although the server still has it.
func (e *Events) isBuried(sequence uint64) bool {
	if !e.burials.Load() { // as nearly always
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, buried := e.buried[sequence]
	return buried
}

// buriedIn reports whether the server may still have events of a channel that were purged.
func (e *Events) buriedIn(subject string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for sequence := range e.buried {
		if sequence <= e.floors[subject] {
			return true
		}
	}
	return false
}

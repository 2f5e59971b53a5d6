package bus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What is purged leaves holes in the sequences. So that they are not taken for
// losses, a note is stored before each purge: a message of its own subject that
// lists the sequences that go. It is younger than they are, so it is not gone
// before they would be.

const (
	noteEvents = 20_000           // sequences in one note
	trimShare  = 10               // one part in so many of the messages makes room at once
	trimTime   = 20 * time.Second // for asking all consumers
)

// note is what a purge of one channel removes.
type note struct {
	Subject string `json:"subject"`
	UpTo    uint64 `json:"upTo"`
	Gone    []byte `json:"gone"` // runs of sequences, each as two uvarints: how many are skipped, how many go
	// Damaged are those of them that the server may still have, and cannot read. Kept are
	// those before one of these, which it still has: see keep.
	Damaged []uint64 `json:"damaged,omitempty"`
	Kept    []uint64 `json:"kept,omitempty"`
}

func (e *Events) noteSubject() string { return e.cfg.SubjectPrefix + ".purged" }

// runs calls fn with the first and the last of each run.
func (n *note) runs(fn func(first, last uint64)) {
	next := uint64(1)
	for b := n.Gone; len(b) > 0; {
		skip, i := binary.Uvarint(b)
		count, j := binary.Uvarint(b[max(i, 0):])
		if i <= 0 || j <= 0 {
			return // it is sealed, so this does not happen
		}
		b = b[i+j:]
		fn(next+skip, next+skip+count-1)
		next += skip + count
	}
}

// noteOf lists ascending sequences.
func noteOf(subject string, sequences []uint64) *note {
	n := &note{Subject: subject, UpTo: sequences[len(sequences)-1]}
	next := uint64(1)
	for i := 0; i < len(sequences); {
		j := i + 1
		for j < len(sequences) && sequences[j] == sequences[j-1]+1 {
			j++
		}
		n.Gone = binary.AppendUvarint(n.Gone, sequences[i]-next)
		n.Gone = binary.AppendUvarint(n.Gone, uint64(j-i))
		next = sequences[j-1] + 1
		i = j
	}
	return n
}

// Purge removes the events of a channel up to a sequence, and damaged ones right behind
// it, and returns how many there were. When it fails half way, some are gone.
func (e *Events) Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error) {
	doing := "purging events " + e.cfg.Name
	subject, err := e.subject(namespace, channel)
	if err != nil {
		return 0, fmt.Errorf("%s: %v", doing, err)
	}
	e.purging.Lock()
	defer e.purging.Unlock()
	total := 0
	for upTo > 0 { // to scan, 0 would mean no end
		var gone []uint64
		err := e.scan(ctx, scan{filter: subject, from: 1, end: upTo}, func(r EventRecord) bool {
			gone = append(gone, r.Sequence)
			return len(gone) < noteEvents
		})
		if err != nil && !errors.Is(err, ErrCorrupt) { // what is damaged comes last
			return total, e.bus.failure(doing, err)
		}
		if len(gone) == 0 {
			break
		}
		n := noteOf(subject, gone)
		if n.Kept, err = e.keep(ctx, gone); err != nil {
			return total, e.bus.failure(doing, err)
		}
		if err := e.purge(ctx, doing, n); err != nil {
			return total, err
		}
		total += len(gone)
	}
	damaged, err := e.damagedIn(ctx, subject, upTo)
	if err != nil {
		return total, e.bus.failure(doing, err)
	}
	if len(damaged) > 0 {
		n := noteOf(subject, damaged)
		n.Damaged = damaged
		if err := e.purge(ctx, doing, n); err != nil {
			return total, err
		}
	}
	return total + len(damaged), nil
}

// purge notes what goes, and removes it.
func (e *Events) purge(ctx context.Context, doing string, n *note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("%s: %v", doing, err)
	}
	if err := e.submit(ctx, doing, &publish{note: b}); err != nil {
		return err
	}
	e.bury(n)
	if err := e.drop(ctx, n); err != nil {
		return e.bus.failure(doing, err)
	}
	return nil
}

// keep says which of the sequences that are to go must stay: the one before each message
// that the server cannot read. For when such a message comes to be the first, the server
// loses count, and at its next start cuts away what follows.
func (e *Events) keep(ctx context.Context, gone []uint64) (kept []uint64, err error) {
	bad := e.unreadable()
	if len(bad) == 0 {
		return nil, nil
	}
	goes := make(map[uint64]bool, len(gone))
	for _, sequence := range gone {
		goes[sequence] = true
	}
	for sequence := range bad {
		for before := sequence - 1; before > 0 && before+examined > sequence; before-- {
			if goes[before] {
				kept = append(kept, before)
				break
			}
			_, err := e.stream.GetMsg(ctx, before)
			if err == nil {
				break // one that stays anyhow
			}
			if !errors.Is(err, jetstream.ErrMsgNotFound) {
				return nil, err
			}
		}
	}
	slices.Sort(kept)
	return slices.Compact(kept), nil
}

// drop carries out what a note says. The server loses count, too, when it purges a subject
// past a message that it cannot read; so from there on messages go one by one.
func (e *Events) drop(ctx context.Context, n *note) error {
	e.mu.Lock()
	e.floors[n.Subject] = max(e.floors[n.Subject], n.UpTo)
	e.mu.Unlock()
	upTo := n.UpTo
	bad := e.unreadable()
	for sequence := range bad {
		upTo = min(upTo, sequence-1)
	}
	for _, sequence := range n.Kept {
		bad[sequence] = true
		upTo = min(upTo, sequence-1)
	}
	if upTo > 0 {
		if err := e.stream.Purge(ctx, jetstream.WithPurgeSubject(n.Subject), jetstream.WithPurgeSequence(upTo+1)); err != nil {
			return err
		}
	}
	var failed error
	n.runs(func(first, last uint64) {
		for sequence := max(first, upTo+1); sequence <= last && failed == nil; sequence++ {
			if bad[sequence] {
				continue
			}
			if err := e.stream.DeleteMsg(ctx, sequence); err != nil && !isGone(err) {
				failed = err
			}
		}
	})
	return failed
}

// isGone reports whether a message could not be deleted because there is none.
func isGone(err error) bool {
	var answer jetstream.JetStreamError
	return errors.Is(err, jetstream.ErrMsgNotFound) ||
		errors.As(err, &answer) && answer.APIError() != nil && answer.APIError().ErrorCode == codeNotDeleted && strings.Contains(answer.APIError().Description, "not found")
}

// codeNotDeleted carries the text of whatever kept a message from being deleted.
const codeNotDeleted jetstream.ErrorCode = 10057

// unreadable lists the sequences of which the server may have a message that it cannot read.
func (e *Events) unreadable() map[uint64]bool {
	out := map[uint64]bool{}
	for sequence := range e.bus.marks[e.name].Damaged {
		out[sequence] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for sequence := range e.damaged {
		out[sequence] = true
	}
	for sequence, readable := range e.buried {
		if !readable {
			out[sequence] = true
		}
	}
	return out
}

func (e *Events) notes(ctx context.Context, fn func(*note) bool) error {
	return e.scan(ctx, scan{filter: e.noteSubject(), from: 1}, func(r EventRecord) bool {
		n := &note{}
		return json.Unmarshal(r.Data, n) != nil || n.Subject == "" || fn(n) // see fill
	})
}

// noted reports whether a message was purged.
func (e *Events) noted(ctx context.Context, sequence uint64) (found bool, err error) {
	err = e.notes(ctx, func(n *note) bool {
		n.runs(func(first, last uint64) { found = found || first <= sequence && sequence <= last })
		return !found
	})
	if errors.Is(err, ErrCorrupt) {
		err = nil
	}
	return found, err
}

// complete checks at the start that nothing is missing which is neither purged nor
// too old, and finishes a purge that was interrupted.
func (e *Events) complete(ctx context.Context, now time.Time) error {
	var last *note
	var holes []*note
	err := e.notes(ctx, func(n *note) bool {
		e.floors[n.Subject] = max(e.floors[n.Subject], n.UpTo)
		e.bury(n)
		last = n
		holes = append(holes, n)
		return true
	})
	if err == nil && last != nil {
		err = e.drop(ctx, last)
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return e.bus.failure("opening "+e.name, err)
	}
	info, err := e.stream.Info(ctx)
	if err != nil {
		return e.bus.failure("opening "+e.name, err)
	}
	s := info.State
	if s.LastSeq == 0 {
		return nil
	}
	from := s.FirstSeq
	if young, ok := e.ages.young(now, e.cfg.MaxAge); ok {
		from = min(from, young)
	}
	var missing uint64
	if from <= s.LastSeq {
		missing = s.LastSeq - from + 1 - s.Msgs
	}
	var purged uint64
	for _, n := range holes {
		n.runs(func(a, b uint64) {
			if a = max(a, from); a <= b {
				purged += b - a + 1
			}
		})
	}
	if missing > purged {
		e.bus.warn(fmt.Sprintf("%s: %d events are missing that were neither purged nor too old", e.name, missing-purged))
	}
	return nil
}

// trim makes room: the oldest messages go, when they are older than Config.Keep
// and no consumer has still to settle them. It reports whether any went.
func (e *Events) trim(ctx context.Context) bool {
	now := e.bus.cfg.Clock()
	if since := now.Sub(e.trimmed); e.cfg.Keep == 0 || since >= 0 && since < trimPause {
		return false
	}
	e.trimmed = now
	ctx, cancel := context.WithTimeout(ctx, trimTime)
	defer cancel()
	upTo, err := e.settled(ctx, now)
	if err == nil && upTo > 0 {
		e.ages.trim(upTo)
		e.bus.marking.Lock()
		err = e.bus.saveMarks(ctx) // first, so that this is not taken for a loss
		e.bus.marking.Unlock()
		if err == nil {
			err = e.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
		}
	}
	if err != nil {
		e.bus.log.Warn("making room for events", "events", e.cfg.Name, "error", err)
		return false
	}
	if upTo > 0 {
		e.bus.log.Info("made room for events", "events", e.cfg.Name, "dropped up to", upTo)
	}
	return upTo > 0
}

// settled gives the sequence up to which trim may drop messages now; 0 for none.
func (e *Events) settled(ctx context.Context, now time.Time) (uint64, error) {
	info, err := e.stream.Info(ctx)
	if err != nil || info.State.Msgs == 0 {
		return 0, err
	}
	upTo := info.State.FirstSeq + info.State.Msgs/trimShare
	e.mu.Lock()
	for _, p := range e.lost {
		upTo = min(upTo, p.Settled)
	}
	e.mu.Unlock()
	list := e.stream.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.Durable != "" && (c.NumPending > 0 || c.NumAckPending > 0) {
			upTo = min(upTo, c.AckFloor.Stream)
		}
	}
	if err := list.Err(); err != nil {
		return 0, err
	}
	// The newest that is old enough; messages are in the order of their times.
	old := now.Add(-e.cfg.Keep)
	err = e.scan(ctx, scan{filter: e.cfg.SubjectPrefix + ".>", from: 1, since: old, end: upTo}, func(r EventRecord) bool {
		upTo = min(upTo, r.Sequence-1)
		return false
	})
	if errors.Is(err, ErrCorrupt) {
		err = nil // it is on record
	}
	if upTo < info.State.FirstSeq {
		return 0, err
	}
	return upTo, err
}

// consumerName is how the server calls a consumer: it takes no dots.
func consumerName(name string) string { return strings.ReplaceAll(name, ".", "_") }

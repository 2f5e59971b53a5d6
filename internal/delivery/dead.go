package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/state"
)

// Reason says why an event became a dead letter.
type Reason string

// Reasons.
const (
	ReasonAttempts  Reason = "attempts"  // it failed as often as it may
	ReasonAge       Reason = "age"       // it grew too old before it was done
	ReasonPermanent Reason = "permanent" // the function refused it, so trying again is of no use
	ReasonLoop      Reason = "loop"      // functions set each other off
	ReasonInvalid   Reason = "invalid"   // it breaks the trigger's rules; it never reaches code
	ReasonMalformed Reason = "malformed" // what is stored cannot be read
	ReasonCorrupt   Reason = "corrupt"   // what is stored is not what was written
	ReasonLost      Reason = "lost"      // it was removed from the stream while it waited for a retry
)

// Dead is a dead letter.
type Dead struct {
	Key
	Sequence uint64 // of the dead letter, by which it is named
	Reason   Reason
	Code     string // of the last failure; empty when the function answered
	Detail   string // public
	Field    string // of the event, when it is invalid
	Status   int    // of the last answer
	Attempts int
	Version  string // that failed last
	Receipt  string
	Event    uint64    // its sequence on the stream of events, 0 when it never got there
	Stored   time.Time // of the event
	First    time.Time // attempt began; zero without one
	Last     time.Time // attempt ended; zero without one
	Died     time.Time
	Message  *event.Message // nil when it cannot be read
}

// deadHead is a dead letter's first line; the event's data follow it. The event is not in
// its own encoding, since the invalid ones have none.
type deadHead struct {
	Settles  uint64            `json:"settles,omitempty"` // this is no dead letter: that one was dealt with
	Reason   Reason            `json:"reason,omitempty"`
	Code     string            `json:"code,omitempty"`
	Detail   string            `json:"detail,omitempty"`
	Field    string            `json:"field,omitempty"`
	Status   int               `json:"status,omitempty"`
	Attempts int               `json:"attempts,omitempty"`
	Version  string            `json:"version,omitempty"`
	Receipt  string            `json:"receipt,omitempty"`
	Event    uint64            `json:"event,omitempty"`
	Stored   time.Time         `json:"stored,omitzero"`
	First    time.Time         `json:"first,omitzero"`
	Last     time.Time         `json:"last,omitzero"`
	Raw      bool              `json:"raw,omitempty"` // there is no message: the data is what was stored
	ID       string            `json:"id,omitempty"`
	Source   string            `json:"source,omitempty"`
	Type     string            `json:"type,omitempty"`
	Subject  string            `json:"subject,omitempty"`
	Time     time.Time         `json:"time,omitzero"`
	Content  string            `json:"contenttype,omitempty"`
	Ext      map[string]string `json:"ext,omitempty"`
	KeyOf    string            `json:"key,omitempty"`
	Extra    map[string]string `json:"extra,omitempty"`
	Chain    event.Chain       `json:"chain,omitzero"`
}

// message copies an event into the head. Attributes that no valid event has are cut.
func (h *deadHead) message(m *event.Message) []byte {
	h.ID, h.Source, h.Type, h.Subject = cutText(m.ID), cutText(m.Source), cutText(m.Type), cutText(m.Subject)
	h.Time, h.Content, h.KeyOf, h.Chain = m.Time, cutText(m.DataContentType), cutText(m.Key), m.Chain
	h.Ext = cutMap(m.Extensions, event.MaxExtensions*event.MaxAttribute)
	h.Extra = cutMap(m.Detail, event.MaxDetail)
	return m.Data[:min(len(m.Data), event.MaxData)]
}

// maxInvalidText of an attribute is kept, in bytes, which is more than a valid one has.
const maxInvalidText = 2 * event.MaxAttribute

func cutText(s string) string { return s[:min(len(s), maxInvalidText)] }

// cutMap keeps what fits; a map of a valid event fits.
func cutMap(m map[string]string, most int) map[string]string {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
	}
	if size <= most+event.MaxExtensions*20 {
		return m
	}
	return nil
}

func (h *deadHead) encode(data []byte) ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding dead letter: %v", err)
	}
	return append(append(b, '\n'), data...), nil
}

// obituary makes an event's dead letter. Its id makes it one, however often the node is
// killed before the event is settled.
func (t *trigger) obituary(v verdict, now time.Time) (Entry, error) {
	it, tr := v.it, v.tried
	h := deadHead{
		Reason: v.reason, Field: cutText(v.field), Code: tr.Code, Detail: tr.Detail, Status: tr.Status, Attempts: tr.Attempts,
		Version: tr.Version, Receipt: tr.Receipt, Event: it.seq, Stored: it.stored, First: tr.First, Last: tr.Last,
	}
	data := it.data
	if it.msg != nil {
		data = h.message(it.msg)
	} else {
		h.Raw = true
	}
	b, err := h.encode(data)
	return Entry{
		Namespace: t.key.Namespace, Channel: t.key.Channel(),
		ID: fmt.Sprintf("dead.%d", it.seq), Data: b,
	}, err
}

// Bury writes a dead letter for an event that is not on the stream: one that breaks the
// trigger's rules, in a field. It is on disk when Bury returns nil.
func (e *Engine) Bury(ctx context.Context, k Key, m *event.Message, reason Reason, field, detail string) error {
	if err := k.check(); err != nil {
		return fmt.Errorf("burying an event: %w", err)
	}
	now := e.cfg.Clock()
	h := deadHead{Reason: reason, Field: cutText(field), Detail: clip(detail), Stored: now}
	b, err := h.encode(h.message(m))
	if err != nil {
		return err
	}
	id := "invalid." + m.ID
	if m.ID == "" || len(m.ID) > event.MaxAttribute || !utf8.ValidString(m.ID) {
		id = e.nextID()
	}
	if _, err := e.cfg.Deads.Publish(ctx, []Entry{{Namespace: k.Namespace, Channel: k.Channel(), ID: id, Data: b}}); err != nil {
		return fmt.Errorf("burying an event: %w", err)
	}
	return nil
}

// dead reads a record of the stream of dead letters. settles is not 0 when it only says
// that another one was dealt with.
func dead(k Key, r Record) (d Dead, settles uint64) {
	d = Dead{Key: k, Sequence: r.Sequence, Died: r.Time, Reason: ReasonMalformed}
	line, data, ok := bytes.Cut(r.Data, []byte{'\n'})
	var h deadHead
	if !ok || json.Unmarshal(line, &h) != nil {
		return d, 0
	}
	d.Reason, d.Code, d.Detail, d.Field, d.Status = h.Reason, h.Code, h.Detail, h.Field, h.Status
	d.Attempts, d.Version, d.Receipt, d.Event = h.Attempts, h.Version, h.Receipt, h.Event
	d.Stored, d.First, d.Last = h.Stored, h.First, h.Last
	if !h.Raw {
		d.Message = &event.Message{
			Event: event.Event{
				ID: h.ID, Source: h.Source, Type: h.Type, Subject: h.Subject, Time: h.Time,
				DataContentType: h.Content, Extensions: h.Ext,
			},
			Data: data, Key: h.KeyOf, Detail: h.Extra, Chain: h.Chain,
		}
	}
	return d, h.Settles
}

// DeadFilter selects dead letters of one trigger. Its zero value selects all.
type DeadFilter struct {
	Sequence uint64    // this one
	After    uint64    // sequence above this one
	Since    time.Time // died then or later
	Until    time.Time // died before
	Reason   Reason
	Match    func(*Dead) bool
}

func (f *DeadFilter) selects(d *Dead) bool {
	return (f.Sequence == 0 || d.Sequence == f.Sequence) && d.Sequence > f.After &&
		(f.Since.IsZero() || !d.Died.Before(f.Since)) && (f.Until.IsZero() || d.Died.Before(f.Until)) &&
		(f.Reason == "" || d.Reason == f.Reason) && (f.Match == nil || f.Match(d))
}

// DeadLetters calls fn for each dead letter of a trigger, the oldest first, until it
// returns false. It fails with state.ErrCorrupt, at the end, when some could not be read.
func (e *Engine) DeadLetters(ctx context.Context, k Key, f DeadFilter, fn func(*Dead) bool) error {
	if err := k.check(); err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	where := Filter{Namespace: k.Namespace, Channel: k.Channel()}
	settled := map[uint64]bool{}
	damaged := e.cfg.Deads.Read(ctx, where, func(r Record) bool {
		if _, settles := dead(k, r); settles != 0 {
			settled[settles] = true
		}
		return true
	})
	if damaged != nil && !errors.Is(damaged, state.ErrCorrupt) {
		return fmt.Errorf("reading dead letters: %w", damaged)
	}
	err := e.cfg.Deads.Read(ctx, where, func(r Record) bool {
		d, settles := dead(k, r)
		if settles != 0 || settled[r.Sequence] || !f.selects(&d) {
			return true
		}
		return fn(&d)
	})
	if err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	return nil
}

// deadChunk is how many dead letters are dealt with at a time, and deadBytes how many
// bytes of events.
const (
	deadChunk = 100
	deadBytes = 4 << 20
)

// RetryDead has dead letters run anew, with all attempts before them and under their own
// ids. Those that break the trigger's rules or cannot be read are left where they are:
// they must not reach code. It returns how many are run and how many are left. A crash
// may have some run twice.
func (e *Engine) RetryDead(ctx context.Context, k Key, f DeadFilter) (retried, left int, err error) {
	err = e.settleDead(ctx, k, f, func(d *Dead) (*Entry, error) {
		if d.Reason == ReasonInvalid || d.Message == nil || d.Message.Validate() != nil {
			left++
			return nil, nil
		}
		m := *d.Message
		if d.Reason == ReasonLoop {
			m.Chain.Depth = 0 // somebody has looked at it
		}
		b, err := m.Encode()
		if err != nil {
			return nil, err
		}
		if b, err = (rerun{}).wrap(b); err != nil {
			return nil, err
		}
		retried++
		return &Entry{Namespace: k.Namespace, Channel: k.side("replay"), ID: fmt.Sprintf("redo.%d", d.Sequence), Data: b}, nil
	})
	return retried, left, err
}

// PurgeDead removes dead letters and returns how many.
func (e *Engine) PurgeDead(ctx context.Context, k Key, f DeadFilter) (purged int, err error) {
	err = e.settleDead(ctx, k, f, func(*Dead) (*Entry, error) {
		purged++
		return &Entry{}, nil
	})
	return purged, err
}

// settleDead deals with the dead letters of a filter: what redo returns for one is
// published, unless it is empty, and then the dead letter is gone. With nil it stays.
func (e *Engine) settleDead(ctx context.Context, k Key, f DeadFilter, redo func(*Dead) (*Entry, error)) error {
	e.deads.Lock()
	defer e.deads.Unlock()
	for more := true; more; {
		more = false
		var anew, notes []Entry
		size := 0
		var failed error
		err := e.DeadLetters(ctx, k, f, func(d *Dead) bool {
			if len(notes) >= deadChunk || size >= deadBytes {
				more = true
				return false
			}
			f.After = d.Sequence
			entry, err := redo(d)
			if err != nil {
				failed = err
				return false
			}
			if entry == nil {
				return true
			}
			if entry.Channel != "" {
				anew = append(anew, *entry)
				size += len(entry.Data)
			}
			b, err := (&deadHead{Settles: d.Sequence}).encode(nil)
			failed = err
			notes = append(notes, Entry{Namespace: k.Namespace, Channel: k.Channel(), ID: e.nextID(), Data: b})
			return failed == nil
		})
		if failed != nil {
			return fmt.Errorf("settling dead letters: %w", failed)
		}
		if err != nil && !errors.Is(err, state.ErrCorrupt) {
			return err
		}
		if len(anew) > 0 {
			if err := e.openReplays(ctx, k); err != nil {
				return err
			}
			if _, err := e.cfg.Events.Publish(ctx, anew); err != nil {
				return fmt.Errorf("publishing dead letters anew: %w", err)
			}
		}
		if len(notes) > 0 {
			if _, err := e.cfg.Deads.Publish(ctx, notes); err != nil {
				return fmt.Errorf("settling dead letters: %w", err)
			}
		}
	}
	return e.trimDead(ctx, k)
}

// trimDead removes from the front of the channel what has been dealt with.
func (e *Engine) trimDead(ctx context.Context, k Key) error {
	where := Filter{Namespace: k.Namespace, Channel: k.Channel()}
	first := ^uint64(0)
	err := e.DeadLetters(ctx, k, DeadFilter{}, func(d *Dead) bool {
		first = d.Sequence
		return false
	})
	upTo := uint64(0)
	if err == nil {
		err = e.cfg.Deads.Read(ctx, where, func(r Record) bool {
			if r.Sequence >= first {
				return false
			}
			upTo = r.Sequence
			return true
		})
	}
	if err == nil && upTo > 0 {
		_, err = e.cfg.Deads.Purge(ctx, k.Namespace, k.Channel(), upTo)
	}
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return fmt.Errorf("trimming dead letters: %w", err)
	}
	return nil
}

// openReplays has a trigger read its replay channel, from now on for ever: most triggers
// never need it, and it costs a consumer.
func (e *Engine) openReplays(ctx context.Context, k Key) error {
	if e.marks.has(k.replaysMark()) {
		return nil
	}
	if err := e.marks.set(ctx, k.replaysMark(), []byte("1")); err != nil {
		return fmt.Errorf("opening the replay channel: %w", err)
	}
	e.rethink(k)
	return nil
}

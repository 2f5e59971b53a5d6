package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// retryLog is what a session knows of its retry log: a channel with a record for each
// time that an event was parked, and one when it was done. The newest record of an event
// counts. trigger.mu guards it.
type retryLog struct {
	records    int               // in the channel, more or less
	last       uint64            // sequence of the newest record that is known to be there
	revision   uint64            // of the newest record written
	inFlight   map[uint64]uint64 // writes under way: last, when they began
	writes     uint64            // ever begun
	again      int               // records there must be before it is compacted again, while others write
	frozen     bool              // it is not compacted any more in this session
	redone     uint64            // sequence of the newest record that compaction wrote
	compacting bool
}

// compactAt is how many records beyond twice the live ones have the log written anew.
const compactAt = 1000

// logRecord is a record of the retry log.
type logRecord struct {
	Sequence uint64    `json:"seq"`
	Revision uint64    `json:"rev"`
	Done     bool      `json:"done,omitempty"`
	Stored   time.Time `json:"stored,omitzero"`
	Key      string    `json:"key,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Rerun    *rerun    `json:"rerun,omitempty"`
	tried
}

// entry makes the item's next record. t.mu is held.
func (t *trigger) entry(it *item, tr tried, done bool) (Entry, error) {
	t.log.revision++
	it.nextRev = t.log.revision
	it.logged = true
	return t.record(it, tr, it.nextRev, done)
}

// record encodes a record. Its id is never used again: the log is not to be deduplicated.
func (t *trigger) record(it *item, tr tried, rev uint64, done bool) (Entry, error) {
	r := logRecord{Sequence: it.seq, Revision: rev, Done: done}
	if !done {
		r.Stored, r.Key, r.Size, r.tried = it.stored, it.key, it.size, tr
		if it.rerun != (rerun{}) {
			r.Rerun = &it.rerun
		}
	}
	b, err := json.Marshal(&r)
	if err != nil {
		return Entry{}, fmt.Errorf("encoding retry record: %v", err)
	}
	return Entry{Namespace: t.key.Namespace, Channel: t.key.side("retry"), ID: t.e.nextID(), Data: b}, nil
}

// begun notes that a write of the log is under way, and ended that its end is known. As
// long as it is not, what it may have stored must not be purged: a second try would find
// the ids known and store nothing. t.mu is held.
func (l *retryLog) begun() (write uint64) {
	if l.inFlight == nil {
		l.inFlight = map[uint64]uint64{}
	}
	l.writes++
	l.inFlight[l.writes] = l.last
	return l.writes
}

func (l *retryLog) ended(write uint64) { delete(l.inFlight, write) }

// write publishes entries, the last logged of which are records of the retry log, and
// then, under t.mu and with the write ended, calls then. It may be tried again.
func (t *trigger) write(ctx context.Context, write uint64, entries []Entry, logged int, then func()) error {
	var stored []Stored
	if len(entries) > 0 {
		var err error
		if stored, err = t.e.cfg.Events.Publish(ctx, entries); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range stored[max(0, len(stored)-logged):] {
		t.log.last = max(t.log.last, s.Sequence)
	}
	t.log.records += logged
	then()
	t.log.ended(write)
	return nil
}

// load reads the retry log at a session's beginning. It is false when the session ended
// before that was done.
func (t *trigger) load(s *session) bool {
	for n := 0; ; n++ {
		err := t.loadOnce(s)
		if err == nil {
			return true
		}
		if s.ctx.Err() != nil {
			return false
		}
		t.e.cfg.Logger.Error("a retry log cannot be read; trying again", slog.String("trigger", t.key.String()), slog.Any("error", err))
		pause(s.ctx, doubled(consumePause, consumeMost, n))
	}
}

func (t *trigger) loadOnce(s *session) error {
	newest := map[uint64]logRecord{}
	log := retryLog{}
	err := t.e.cfg.Events.Read(s.ctx, Filter{Namespace: t.key.Namespace, Channel: t.key.side("retry")}, func(r Record) bool {
		log.records, log.last = log.records+1, r.Sequence
		var l logRecord
		if json.Unmarshal(r.Data, &l) == nil && l.Revision >= newest[l.Sequence].Revision {
			newest[l.Sequence] = l
			log.revision = max(log.revision, l.Revision)
		}
		return s.ctx.Err() == nil
	})
	if errors.Is(err, state.ErrCorrupt) {
		// The stream has raised the alarm. What can be read is better than nothing: an event
		// whose record is lost was settled with its consumer and will not come by itself.
		t.e.cfg.Logger.Error("the retry log of a trigger is damaged: events that waited for another attempt may be missing; replay them",
			slog.String("trigger", t.key.String()), slog.Any("error", err))
		err = nil
	}
	if err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	t.mu.Lock()
	now := t.e.cfg.Clock()
	t.log = log
	for seq, l := range newest {
		if l.Done {
			s.done = append(s.done, seq)
			continue
		}
		it := &item{seq: seq, stored: l.Stored, key: l.Key, tried: l.tried, size: l.Size, parked: true, logged: true, rev: l.Revision}
		if !t.b.Delivery.Ordered {
			it.key = ""
		}
		it.tried.Due = t.b.soonest(&it.tried, now)
		if l.Rerun != nil {
			it.rerun = *l.Rerun
		}
		t.parked++
		t.add(it, now)
	}
	s.loaded = true
	due := t.compactDue()
	if due {
		t.log.compacting = true
	}
	t.pump()
	t.mu.Unlock()
	if due {
		t.compact(s)
	}
	return nil
}

// compactDue reports whether the log is to be written anew. t.mu is held.
func (t *trigger) compactDue() bool {
	return !t.log.compacting && !t.log.frozen && t.log.records > 2*t.parked+t.e.compactAt &&
		(len(t.log.inFlight) == 0 || t.log.records > t.log.again)
}

// compact writes the live records anew and purges what was before. A write under way
// when it begins gets a sequence above the purged ones, or has held the purge back. Of an
// event that ends meanwhile there is then an old record behind the one that says so; a
// later purge takes both or none, or the event would live again after a restart.
func (t *trigger) compact(s *session) {
	t.mu.Lock()
	upTo := t.log.last
	for _, last := range t.log.inFlight {
		upTo = min(upTo, last)
	}
	if upTo < t.log.redone {
		t.log.compacting = false
		t.log.again = t.log.records + t.e.compactAt/2
		t.mu.Unlock()
		return
	}
	var live []Entry
	var err error
	for _, it := range t.items {
		if it.parked && err == nil {
			var e Entry
			// Under its old revision: what is being written about it meanwhile is newer.
			e, err = t.record(it, it.tried, it.rev, false)
			live = append(live, e)
		}
	}
	t.mu.Unlock()
	const chunk = 500
	for len(live) > 0 && err == nil {
		n := min(chunk, len(live))
		t.mu.Lock()
		write := t.log.begun()
		t.mu.Unlock()
		err = t.write(s.ctx, write, live[:n], n, func() { t.log.redone = t.log.last })
		live = live[n:]
	}
	purged, failed := 0, err != nil
	if err == nil {
		purged, err = t.e.cfg.Events.Purge(s.ctx, t.key.Namespace, t.key.side("retry"), upTo)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.compacting = false
	t.log.frozen = failed // where the records are that were perhaps written is not known
	t.log.records = max(0, t.log.records-purged)
	t.log.again = t.log.records + t.e.compactAt/2
	// Much may have ended meanwhile, and it may have been the last.
	if !s.stopping && err == nil && purged > 0 && t.compactDue() {
		t.log.compacting = true
		s.workers.Go(func() { t.compact(s) })
	}
	if err != nil && s.ctx.Err() == nil {
		t.e.cfg.Logger.Warn("a retry log could not be compacted", slog.String("trigger", t.key.String()), slog.Any("error", err))
	}
}

// stuck reports whether a lane waits for another attempt of its first event. t.mu is held.
func (t *trigger) stuck(l *lane, now time.Time) bool {
	return l != nil && !l.busy && l.items[0].tried.Due.After(now)
}

// relieve parks events that wait behind a stuck one of their key, when they take up half
// of the window that other keys need. t.mu is held.
func (t *trigger) relieve(s *session, l *lane) {
	over := t.held - s.feeds[0].Window/2
	if over <= 0 || s.stopping {
		return
	}
	var out []*item
	for i, it := range slices.Backward(l.items) {
		if i == 0 || len(out) >= over || t.parked+len(out) >= MaxParked {
			break
		}
		if it.settler != nil && !it.running && it.bad == "" {
			it.running = true
			out = append(out, it)
		}
	}
	if len(out) > 0 {
		s.workers.Go(func() { t.park(s, out) })
	}
}

// park moves events that were not tried into the retry log.
func (t *trigger) park(s *session, items []*item) {
	t.mu.Lock()
	var entries []Entry
	var err error
	for _, it := range items {
		var e Entry
		if e, err = t.entry(it, it.tried, false); err != nil {
			break
		}
		entries = append(entries, e)
	}
	write := t.log.begun()
	t.mu.Unlock()
	var settlers []Settler
	if err == nil {
		err = t.write(s.ctx, write, entries, len(entries), func() {
			for _, it := range items {
				settlers = append(settlers, t.nowParked(it))
			}
		})
	}
	t.mu.Lock()
	t.log.ended(write) // if it failed: it is not tried again, but with other records
	now := t.e.cfg.Clock()
	for _, it := range items {
		it.running = false
		if t.leads(it) {
			t.enqueue(it, now)
		}
	}
	t.pump()
	t.mu.Unlock()
	for _, w := range settlers {
		t.said(w.Ack())
	}
	if err != nil && s.ctx.Err() == nil {
		t.failing("events cannot be parked", err)
	}
}

// nowParked marks an item as one that the retry log answers for, and returns what is to
// be told to the consumer, or nil. t.mu is held.
func (t *trigger) nowParked(it *item) Settler {
	w := it.settler
	it.rev = it.nextRev
	if !it.parked {
		it.parked = true
		t.parked++
	}
	if w != nil {
		t.letGo(it)
	}
	it.settler, it.data, it.msg = nil, nil, nil
	return w
}

// fetch reads parked events back. An item that cannot be had is marked bad; the error is
// for those that may be had later.
func (t *trigger) fetch(ctx context.Context, it *item) error {
	if it.data != nil || it.bad != "" {
		return nil
	}
	r, err := t.e.cfg.Events.Get(ctx, it.seq)
	switch {
	case errors.Is(err, state.ErrNotFound):
		it.bad = ReasonLost
		return nil
	case errors.Is(err, state.ErrCorrupt):
		it.bad = ReasonCorrupt
		return nil
	case err != nil:
		return fmt.Errorf("reading a parked event: %w", err)
	}
	it.data = bytes.Clone(r.Data)
	if r.Channel == t.key.side("replay") {
		it.data, it.bad = it.rerun.cut(it.data)
	}
	return nil
}

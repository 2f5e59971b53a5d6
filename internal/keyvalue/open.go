package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/casemate-dev/casemate/internal/state"
)

// checkpoint is up to where the log has been carried out, as it is recorded.
type checkpoint struct {
	mu sync.Mutex
	at uint64
}

const checkpointName = "checkpoint"

// Open opens the store: it reads the names of all keys and carries out what is only in
// the log. Give ctx a deadline: the time grows with the number of keys.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("opening the key-value store: %w", err)
	}
	s := &Store{
		config: c, seed: maphash.MakeSeed(), flight: flight{under: map[*uint64]struct{}{}},
		buckets: map[bucketID]*index{}, used: map[string]*usage{}, unfinished: map[keyID]*operation{},
		waiting: map[bucketID]chan struct{}{}, limits: map[string]*rate.Limiter{},
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the key-value store: %w", err)
	}
	if err := s.replay(ctx); err != nil {
		return nil, fmt.Errorf("opening the key-value store: %w", err)
	}
	return s, nil
}

// load reads all records into the index.
func (s *Store) load(ctx context.Context) error {
	at, err := getNumber(ctx, s.config.KV, checkpointName)
	if err != nil {
		return err
	}
	pages, err := getNumber(ctx, s.config.KV, pagesName)
	if err != nil {
		return err
	}
	if pages > maxPages {
		return fmt.Errorf("reading record %s: it is malformed: %w", pagesName, state.ErrCorrupt)
	}
	s.marks.at, s.slots.pages = at, uint32(pages)
	s.flight.saw(at)
	// Page by page, since a list holds all of its values at once.
	for page := range s.slots.pages {
		entries, err := s.config.KV.List(ctx, pagePrefix(page))
		if err != nil {
			return err
		}
		var inUse [pageSlots]bool
		for i := range entries {
			slot, ok := slotOf(entries[i].Key)
			if !ok || slot/pageSlots != page {
				return fmt.Errorf("reading record %s: it is malformed: %w", entries[i].Key, state.ErrCorrupt)
			}
			if inUse[slot%pageSlots], err = s.loadRecord(ctx, &entries[i], slot); err != nil {
				return err
			}
		}
		for i, used := range inUse {
			if !used {
				s.slots.free = append(s.slots.free, page*pageSlots+uint32(i)) //nolint:gosec // below pageSlots
			}
		}
	}
	s.slots.next = s.slots.pages * pageSlots
	slices.Reverse(s.slots.free) // low ones are used first
	return nil
}

// loadRecord reports whether the record stays.
func (s *Store) loadRecord(ctx context.Context, e *state.Entry, slot uint32) (bool, error) {
	h, data, _, err := decode(e.Value)
	if err != nil || h.Operation != OpPut || h.Revision == 0 {
		return false, fmt.Errorf("reading record %s: it is malformed: %w", e.Key, state.ErrCorrupt)
	}
	id := keyID{bucketID{h.Namespace, h.Bucket}, h.Key}
	s.flight.saw(h.Revision)
	it := item{key: h.Key, rev: h.Revision, kvRev: e.Revision, slot: slot, size: uint32(len(data))} //nolint:gosec // at most MaxValue
	if !h.Expires.IsZero() {
		it.expires = h.Expires.UnixMilli()
	}
	if other, there := s.lookup(id); there {
		// No crash should leave two records of a key.
		return false, fmt.Errorf("records %s and %s are of one key: %w", e.Key, slotName(other.slot), state.ErrCorrupt)
	}
	s.note(id, it, 0)
	return true, nil
}

// replay carries out what is in the log after the checkpoint and not in the KV.
func (s *Store) replay(ctx context.Context) error {
	last := map[keyID]uint64{} // only the last change of a key counts
	err := s.config.Log.Read(ctx, "", "", s.marks.at, func(r Record) bool {
		s.flight.saw(r.Sequence)
		if h, _, _, err := decodeEntry(&r); err == nil {
			last[keyID{bucketID{h.Namespace, h.Bucket}, h.Key}] = r.Sequence
		}
		return true
	})
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return err
	}
	if err != nil { // what was answered is in the KV, so no value is lost
		s.config.Logger.Error("changes in the log are damaged, and will not be told", "error", err)
	}
	redone := 0
	var failed error
	err = s.config.Log.Read(ctx, "", "", s.marks.at, func(r Record) bool {
		h, value, _, err := decodeEntry(&r)
		if err != nil {
			s.config.Logger.Error("a change in the log is damaged, and will not be told", "error", err)
			return true
		}
		id := keyID{bucketID{h.Namespace, h.Bucket}, h.Key}
		it, there := s.lookup(id)
		if last[id] != r.Sequence || there && it.rev >= r.Sequence || !there && h.Operation == OpDelete {
			return true
		}
		o := &operation{id: id, head: h, value: slices.Clone(value), revision: r.Sequence}
		if there {
			o.slot, o.kvRev, o.slotted = it.slot, it.kvRev, true
		} else {
			o.again = true
		}
		failed = s.apply(ctx, o)
		redone++
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return err
	}
	if redone > 0 {
		s.config.Logger.Info("finished changes that were only in the log", "changes", redone)
	}
	return s.mark(ctx)
}

// mark records the checkpoint.
func (s *Store) mark(ctx context.Context) error {
	s.marks.mu.Lock()
	defer s.marks.mu.Unlock()
	at := s.flight.settled()
	if at <= s.marks.at {
		return nil
	}
	if err := putNumber(ctx, s.config.KV, checkpointName, at); err != nil {
		return err
	}
	s.marks.at = at
	return nil
}

// Sweep finishes changes that failed half way, removes what has expired, and records how
// far the log has been carried out. Call it every few seconds, and before the end.
func (s *Store) Sweep(ctx context.Context) error {
	if err := s.finishAll(ctx); err != nil {
		return fmt.Errorf("sweeping the key-value store: %w", err)
	}
	if err := s.expire(ctx); err != nil {
		return fmt.Errorf("sweeping the key-value store: %w", err)
	}
	now := s.config.Clock()
	s.mu.Lock()
	for ns, l := range s.limits {
		if l.TokensAt(now) >= float64(s.config.Burst) {
			delete(s.limits, ns)
		}
	}
	for ns, u := range s.used {
		if *u == (usage{}) {
			delete(s.used, ns)
		}
	}
	s.mu.Unlock()
	if err := s.mark(ctx); err != nil {
		return fmt.Errorf("sweeping the key-value store: %w", err)
	}
	return nil
}

func (s *Store) finishAll(ctx context.Context) error {
	s.mu.Lock()
	ids := make([]keyID, 0, len(s.unfinished))
	for id := range s.unfinished {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		if err := s.await(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// expire removes what is not to be there any more.
func (s *Store) expire(ctx context.Context) error {
	s.mu.Lock()
	var timed []bucketID
	for id, x := range s.buckets {
		if x.timed > 0 {
			timed = append(timed, id)
		}
	}
	s.mu.Unlock()
	for _, b := range timed {
		for next, more := "", true; more; {
			var items []item
			s.mu.Lock()
			if x := s.buckets[b]; x != nil {
				items = x.from(next, MaxList)
			}
			s.mu.Unlock()
			more = len(items) == MaxList
			for i := range items {
				next = items[i].key + "\x00"
				if !s.expired(items[i].expires) {
					continue
				}
				if err := s.expireKey(ctx, keyID{b, items[i].key}); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func (s *Store) expireKey(ctx context.Context, id keyID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.lock(id)()
	_, _, err := s.current(ctx, id)
	return err
}

// getNumber reads a number; 0 when there is none.
func getNumber(ctx context.Context, kv KV, name string) (uint64, error) {
	e, err := kv.Get(ctx, name)
	if errors.Is(err, state.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(e.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading record %s: it is malformed: %w", name, state.ErrCorrupt)
	}
	return n, nil
}

// putNumber writes a number, whatever was there: nobody else writes it.
func putNumber(ctx context.Context, kv KV, name string, n uint64) error {
	value := strconv.AppendUint(nil, n, 10)
	e, err := kv.Get(ctx, name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		_, err = kv.Create(ctx, name, value)
	case err == nil:
		_, err = kv.Update(ctx, name, value, e.Revision)
	}
	return err
}

// sweepEvery is how often Run sweeps.
const sweepEvery = 5 * time.Second

// Run sweeps until ctx ends, and once more then.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.config.Logger.Warn("key-value store not swept", "error", err)
			}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepEvery)
	defer cancel()
	if err := s.mark(last); err != nil {
		s.config.Logger.Warn("position of the key-value store not recorded", "error", err)
	}
}

package objects

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// outcomeTime is how long is tried to find out whether a write was done after all.
const outcomeTime = 5 * time.Second

// change edits the record of a key under its lock, stores it, and then tells the
// notifier. edit gets the record, empty when there is none, and returns which versions
// went and what is to be told; when it fails nothing is changed. undecided is true when an error leaves open
// whether the change was made: then nothing that it names may be removed.
func (s *Store) change(ctx context.Context, b *bucket, key string, edit func(r *objectRecord, rev uint64) (dropped []version, tell []Change, err error)) (undecided bool, err error) {
	release := s.pending.begin()
	defer release()
	dropped, tell, undecided, err := s.store(ctx, b, key, edit)
	if err != nil {
		return undecided, err
	}
	for i := range dropped {
		s.discard(b.namespace, b.name, key, &dropped[i])
	}
	if s.config.Notifier == nil {
		return false, nil
	}
	for _, c := range tell {
		if err := s.config.Notifier.Changed(ctx, c); err != nil {
			return true, &NotifyError{err}
		}
	}
	return false, nil
}

// NotifyError is what a change fails with that was made, but that the notifier did not take.
type NotifyError struct{ cause error }

func (e *NotifyError) Error() string { return fmt.Sprintf("telling of a change: %v", e.cause) }

func (s *Store) store(ctx context.Context, b *bucket, key string, edit func(*objectRecord, uint64) ([]version, []Change, error)) (dropped []version, tell []Change, undecided bool, err error) {
	b.life.RLock()
	defer b.life.RUnlock()
	if b.dead {
		return nil, nil, false, ErrNoBucket
	}
	lock := s.lock(b, key)
	lock.Lock()
	defer lock.Unlock()
	name := objectName(b.namespace, b.name, key)
	rec, rev, err := s.record(ctx, b, key)
	if err != nil {
		return nil, nil, false, err
	}
	was := len(rec.Versions) + len(rec.Removals)
	if dropped, tell, err = edit(rec, rev); err != nil {
		return nil, nil, false, err
	}
	if s.config.Notifier == nil {
		rec.Removals = nil
	} else if len(rec.Removals) > removalsKept {
		rec.Removals = rec.Removals[:removalsKept]
	}
	empty := len(rec.Versions)+len(rec.Removals) == 0
	if empty && was == 0 {
		return dropped, nil, false, nil
	}
	next := rev
	switch value, encodeErr := encode(rec); {
	case encodeErr != nil:
		return nil, nil, false, encodeErr
	case empty:
		err = s.kv.Delete(ctx, name, rev)
	case rev == 0:
		next, err = s.kv.Create(ctx, name, value)
	default:
		next, err = s.kv.Update(ctx, name, value, rev)
	}
	if err != nil {
		s.look(ctx, b, key, name)
		return nil, nil, !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrFull), err
	}
	s.note(b, key, rec, next)
	for i := range tell {
		tell[i].Namespace, tell[i].Bucket, tell[i].Key, tell[i].Revision = b.namespace, b.name, key, next
	}
	return dropped, tell, false, nil
}

func (s *Store) lock(b *bucket, key string) *sync.Mutex {
	return &s.keys[maphash.String(s.seed, b.namespace+"\x00"+b.name+"\x00"+key)%uint64(len(s.keys))]
}

// record reads the record of a key. There is none when the revision is 0.
func (s *Store) record(ctx context.Context, b *bucket, key string) (*objectRecord, uint64, error) {
	none := &objectRecord{Form: recordForm, Key: key}
	b.mu.Lock()
	_, known := b.index.get(key)
	b.mu.Unlock()
	if !known {
		return none, 0, nil
	}
	e, err := s.kv.Get(ctx, objectName(b.namespace, b.name, key))
	if errors.Is(err, state.ErrNotFound) {
		return none, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	rec, err := decodeObject(e)
	if err == nil && rec.Key != key {
		err = fmt.Errorf("reading record %s: it is that of another key: %w", e.Key, state.ErrCorrupt)
	}
	return rec, e.Revision, err
}

// look finds out what is stored after a write that failed.
func (s *Store) look(ctx context.Context, b *bucket, key, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
	defer cancel()
	e, err := s.kv.Get(ctx, name)
	if errors.Is(err, state.ErrNotFound) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.index.remove(key)
		return
	}
	if err == nil {
		if rec, err := decodeObject(e); err == nil {
			s.note(b, key, rec, e.Revision)
			return
		}
	}
	// In doubt the key stays in the index: whoever meets it there reads the record.
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.index.get(key); !known {
		b.index.set(item{key: key})
	}
}

// note has the index follow a record.
func (s *Store) note(b *bucket, key string, rec *objectRecord, rev uint64) {
	s.pending.saw(rev)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(rec.Versions)+len(rec.Removals) == 0 {
		b.index.remove(key)
		return
	}
	gone := len(rec.Versions) == 0
	b.index.set(item{key: key, rev: rev, gone: gone, hidden: !gone && rec.Versions[0].Marker})
}

// discard removes the files of a version that no record names any more, at once or when
// the last reader has gone.
func (s *Store) discard(ns, bucket, key string, v *version) {
	if v.Content == "" {
		return
	}
	_ = s.room.take(ns, -v.Size) // giving back does not fail
	if s.readers.unread(v.Content) {
		s.removeFiles(ns, bucket, key, v)
	}
}

// removeFiles removes the files of a version. Open removes what is left after a failure.
func (s *Store) removeFiles(ns, bucket, key string, v *version) {
	ids := []string{v.Content}
	if v.Parts > 0 {
		parts, err := s.manifest(ns, bucket, key, v)
		if err != nil {
			s.config.Log.Warn("parts of a removed object stay until the next start", "error", err)
		}
		for _, p := range parts {
			ids = append(ids, p.Content)
		}
	}
	for _, id := range ids {
		if err := s.dir.Remove(id); err != nil {
			s.config.Log.Warn("file of a removed object stays until the next start", "error", err)
		}
	}
}

// pending knows up to which revision all changes have been told.
type pending struct {
	mu    sync.Mutex
	last  uint64 // the greatest revision seen
	under map[*lowest]struct{}
}

type lowest struct{ rev uint64 }

func (p *pending) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &lowest{p.last}
	p.under[l] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.under, l)
	}
}

func (p *pending) saw(rev uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = max(p.last, rev)
}

// Settled is a revision: the notifier was told of all changes up to it, and took or refused each.
func (s *Store) Settled() uint64 {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	settled := s.pending.last
	for l := range s.pending.under {
		settled = min(settled, l.rev)
	}
	return settled
}

// Changes tells of every change of a bucket after a revision, some of it perhaps for a
// second time, but with the same ids; removals are remembered for RemovalAge. Of a key
// without versions that was replaced several times, the last is told. The order is that of the keys.
func (s *Store) Changes(ctx context.Context, namespace, bucketName string, after uint64, fn func(Change) error) error {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return err
	}
	for next, more := "", true; more; {
		b.mu.Lock()
		items := b.index.from(next, MaxList)
		b.mu.Unlock()
		more = len(items) == MaxList
		for _, it := range items {
			next = it.key + "\x00"
			if it.rev != 0 && it.rev <= after {
				continue
			}
			rec, rev, err := s.record(ctx, b, it.key)
			if err != nil {
				return err
			}
			if rev == 0 || rev <= after {
				continue
			}
			for _, c := range rec.changes(after, rev) {
				c.Namespace, c.Bucket, c.Key, c.Revision = b.namespace, b.name, it.key, rev
				if err := fn(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// changes lists what happened to a record after a revision, the oldest first.
func (r *objectRecord) changes(after, rev uint64) []Change {
	var out []Change
	upTo := r.upTo(rev)
	for i := range r.Versions {
		if upTo > after {
			out = append([]Change{r.Versions[i].change()}, out...)
		}
		upTo = r.Versions[i].After
	}
	for i := len(r.Removals) - 1; i >= 0; i-- {
		if i == 0 || r.Removals[i-1].After > after {
			out = append(out, r.Removals[i].change())
		}
	}
	return out
}

func (v *version) change() Change {
	c := Change{
		ID: v.ID, Operation: v.Operation, Size: v.Size, ETag: v.ETag,
		ContentType: v.ContentType, Time: v.Modified, By: v.By,
	}
	if !v.Null {
		c.VersionID = v.ID
	}
	return c
}

func (m *removal) change() Change {
	return Change{ID: m.ID, Operation: OpDelete, VersionID: m.VersionID, Time: m.Time, By: m.By}
}

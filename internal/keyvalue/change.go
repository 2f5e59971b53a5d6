package keyvalue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// Condition is what must hold of a key before it changes. The zero value always holds.
type Condition struct {
	Absent  bool     // there must be no value
	Present bool     // there must be one
	OneOf   []uint64 // if not nil, the value must have one of these revisions
}

func (c *Condition) holds(it *item, there bool) bool {
	switch {
	case c.Absent && there, c.Present && !there:
		return false
	default:
		return c.OneOf == nil || there && slices.Contains(c.OneOf, it.rev)
	}
}

// Put is a value to be stored.
type Put struct {
	Namespace, Bucket, Key string
	Data                   []byte
	ContentType            string
	TTL                    time.Duration // from now on; 0: it stays
	Condition              Condition
	By                     string
}

// Done is what a change did.
type Done struct {
	Revision uint64
	Created  bool // there was no value before
	Expires  time.Time
}

// Put stores a value. It fails with ErrBucket, ErrKey, ErrValue, ErrTooLarge,
// ErrCondition, ErrTooMany, ErrBusy, state.ErrFull, or ErrUndecided.
func (s *Store) Put(ctx context.Context, p *Put) (Done, error) {
	if err := errors.Join(CheckBucket(p.Namespace, p.Bucket), CheckKey(p.Key), checkType(p.ContentType)); err != nil {
		return Done{}, err
	}
	switch {
	case len(p.Data) > MaxValue:
		return Done{}, fmt.Errorf("%d bytes are more than %d: %w", len(p.Data), MaxValue, ErrTooLarge)
	case p.TTL < 0 || p.TTL > MaxTTL:
		return Done{}, fmt.Errorf("the time to live must be at most %v: %w", MaxTTL, ErrValue)
	}
	id := keyID{bucketID{p.Namespace, p.Bucket}, p.Key}
	defer s.lock(id)()
	it, there, err := s.current(ctx, id)
	if err != nil {
		return Done{}, err
	}
	if !p.Condition.holds(&it, there) {
		return Done{}, ErrCondition
	}
	h := &head{
		Namespace: p.Namespace, Bucket: p.Bucket, Key: p.Key, Operation: OpPut,
		Modified: s.now(), Type: p.ContentType, By: p.By,
	}
	if p.TTL > 0 {
		h.Expires = h.Modified.Add(max(p.TTL, time.Millisecond))
	}
	o, err := s.operation(ctx, id, h, p.Data, it, there)
	if err != nil {
		return Done{}, err
	}
	if err := s.pace(p.Namespace, len(o.entry)); err != nil {
		return Done{}, err
	}
	if o.taken, err = s.take(id, int64(len(p.Key)+len(p.Data)), it, there); err != nil {
		return Done{}, err
	}
	if err := s.commit(ctx, o); err != nil {
		return Done{}, err
	}
	return Done{o.revision, !there, h.Expires}, nil
}

// Delete removes a value. It fails with ErrBucket, ErrKey, ErrNoKey, ErrCondition,
// ErrBusy, state.ErrFull or ErrUndecided.
func (s *Store) Delete(ctx context.Context, namespace, bucket, key string, c Condition, by string) (Done, error) {
	if err := errors.Join(CheckBucket(namespace, bucket), CheckKey(key)); err != nil {
		return Done{}, err
	}
	id := keyID{bucketID{namespace, bucket}, key}
	defer s.lock(id)()
	it, there, err := s.current(ctx, id)
	switch {
	case err != nil:
		return Done{}, err
	case !there && (c.Present || c.OneOf != nil):
		return Done{}, ErrCondition
	case !there:
		return Done{}, ErrNoKey
	case !c.holds(&it, there):
		return Done{}, ErrCondition
	}
	o, err := s.deletion(ctx, id, it, by, false)
	if err != nil {
		return Done{}, err
	}
	if err := s.pace(namespace, len(o.entry)); err != nil {
		return Done{}, err
	}
	err = s.commit(ctx, o)
	return Done{Revision: o.revision}, err
}

func (s *Store) now() time.Time { return s.config.Clock().UTC().Truncate(time.Millisecond) }

// current finds what there is of a key, whose lock is held, and ends what is not to be
// there any more.
func (s *Store) current(ctx context.Context, id keyID) (it item, there bool, err error) {
	if err := s.finish(ctx, id); err != nil {
		return item{}, false, err
	}
	it, there = s.lookup(id)
	if !there || !s.expired(it.expires) {
		return it, there, nil
	}
	o, err := s.deletion(ctx, id, it, "", true)
	if err == nil {
		err = s.commit(ctx, o)
	}
	return item{}, false, err
}

func (s *Store) deletion(ctx context.Context, id keyID, it item, by string, expired bool) (*operation, error) {
	h := &head{
		Namespace: id.namespace, Bucket: id.bucket, Key: id.key, Operation: OpDelete, Modified: s.now(), By: by, Expired: expired,
	}
	return s.operation(ctx, id, h, nil, it, true)
}

// operation is a change of a key, from when it is begun until it is in the KV.
type operation struct {
	id       keyID
	head     *head
	value    []byte
	entryID  string
	entry    []byte
	taken    int64
	end      func()
	doubt    bool   // it may be in the log
	revision uint64 // 0 until it is known to be there
	slot     uint32
	kvRev    uint64
	slotted  bool // slot is the key's; kvRev is that of its record, 0 for none
	again    bool // kvRev may be wrong
}

func (s *Store) operation(ctx context.Context, id keyID, h *head, value []byte, it item, there bool) (*operation, error) {
	o := &operation{id: id, head: h, value: value}
	var old []byte
	if there {
		o.slot, o.kvRev, o.slotted = it.slot, it.kvRev, true
		was, data, err := s.record(ctx, id, it)
		if errors.Is(err, errMoved) { // nobody can have moved it
			err = fmt.Errorf("reading key %s of bucket %s: its record is missing: %w", id.key, id.bucket, state.ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		h.Previous, h.OldType, h.OldSize = it.rev, was.Type, len(data)
		if len(data) <= MaxTold {
			old = data
		}
	}
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("drawing an id: %v", err)
	}
	o.entryID = hex.EncodeToString(raw[:])
	var err error
	o.entry, err = h.encode(value, old)
	return o, err
}

// commit carries an operation out, or leaves it to finish and fails with ErrUndecided.
// The key's lock is held.
func (s *Store) commit(ctx context.Context, o *operation) error {
	s.mu.Lock()
	many := len(s.unfinished) >= maxUnfinished
	s.mu.Unlock()
	if many {
		s.giveBack(o.id, o.taken)
		return fmt.Errorf("changes that have failed half way are to be finished first: %w", ErrBusy)
	}
	o.end = s.flight.begin()
	err := s.carryOut(ctx, o)
	if err == nil {
		o.end()
		return nil
	}
	if o.revision == 0 && !o.doubt {
		o.end()
		s.giveBack(o.id, o.taken)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfinished[o.id] = o
	return fmt.Errorf("%w: %v", ErrUndecided, err)
}

// finish carries out what is left of a key, whose lock is held.
func (s *Store) finish(ctx context.Context, id keyID) error {
	s.mu.Lock()
	o := s.unfinished[id]
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	if err := s.carryOut(ctx, o); err != nil {
		return fmt.Errorf("finishing an earlier change of the key: %w: %v", ErrUndecided, err)
	}
	o.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unfinished, id)
	return nil
}

// carryOut does what is left to do. A caller that goes away does not end it: half a
// change is worse than a late one.
func (s *Store) carryOut(ctx context.Context, o *operation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if o.revision == 0 {
		seq, err := s.config.Log.Publish(ctx, Entry{
			Namespace: o.id.namespace, Channel: channelPrefix + o.id.bucket, ID: o.entryID, Data: o.entry,
		})
		if err != nil {
			o.doubt = o.doubt || !errors.Is(err, state.ErrFull)
			return err
		}
		if seq <= o.head.Previous {
			return fmt.Errorf("change %d of a key comes after %d: the log has lost its end: %w", seq, o.head.Previous, state.ErrCorrupt)
		}
		o.revision, o.entry = seq, nil
		s.flight.saw(seq)
	}
	if err := s.apply(ctx, o); err != nil {
		return err
	}
	s.wake(o.id.bucketID)
	return nil
}

// apply brings a change that is in the log into the KV and the index.
func (s *Store) apply(ctx context.Context, o *operation) error {
	if o.head.Operation == OpDelete {
		if err := s.drop(ctx, o); err != nil {
			return err
		}
		s.forget(o.id)
		s.release(o.slot)
		return nil
	}
	if !o.slotted {
		slot, err := s.slot(ctx)
		if err != nil {
			return err
		}
		o.slot, o.slotted = slot, true
	}
	h := *o.head
	h.Revision, h.Previous, h.OldType, h.OldSize = o.revision, 0, "", 0
	value, err := h.encode(o.value, nil)
	if err != nil {
		return err
	}
	rev, err := s.store(ctx, o, value)
	if err != nil {
		o.again = true
		return err
	}
	it := item{key: o.id.key, rev: o.revision, kvRev: rev, slot: o.slot, size: uint32(len(o.value))} //nolint:gosec // at most MaxValue
	if !h.Expires.IsZero() {
		it.expires = h.Expires.UnixMilli()
	}
	s.note(o.id, it, o.taken)
	return nil
}

// store writes a record. Whatever is in the slot is of this key: nobody else has it.
func (s *Store) store(ctx context.Context, o *operation, value []byte) (uint64, error) {
	name := slotName(o.slot)
	if o.again {
		rev, err := s.revision(ctx, name)
		if err != nil {
			return 0, err
		}
		o.kvRev = rev
	}
	if o.kvRev == 0 {
		return s.config.KV.Create(ctx, name, value)
	}
	return s.config.KV.Update(ctx, name, value, o.kvRev)
}

// drop removes a record.
func (s *Store) drop(ctx context.Context, o *operation) error {
	name := slotName(o.slot)
	if o.again {
		rev, err := s.revision(ctx, name)
		if err != nil || rev == 0 {
			return err
		}
		o.kvRev = rev
	}
	err := s.config.KV.Delete(ctx, name, o.kvRev)
	if err != nil {
		o.again = true
	}
	return err
}

// revision is that of a record, 0 when there is none.
func (s *Store) revision(ctx context.Context, name string) (uint64, error) {
	e, err := s.config.KV.Get(ctx, name)
	if errors.Is(err, state.ErrNotFound) {
		return 0, nil
	}
	return e.Revision, err
}

// wake tells those who wait for changes of a bucket.
func (s *Store) wake(id bucketID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.waiting[id]; c != nil {
		close(c)
		delete(s.waiting, id)
	}
}

package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// readTries is how often a value is looked for that moves meanwhile, before its key is
// locked.
const readTries = 3

var errMoved = errors.New("the record is another one")

// Get reads a value. It fails with ErrBucket, ErrKey, ErrNoKey, state.ErrCorrupt or, when
// an earlier change of the key is not finished and cannot be, ErrUndecided.
func (s *Store) Get(ctx context.Context, namespace, bucket, key string) (Value, error) {
	if err := errors.Join(CheckBucket(namespace, bucket), CheckKey(key)); err != nil {
		return Value{}, err
	}
	id := keyID{bucketID{namespace, bucket}, key}
	s.mu.Lock()
	unfinished := s.unfinished[id] != nil
	s.mu.Unlock()
	for range readTries {
		if unfinished {
			break
		}
		v, err := s.value(ctx, id)
		if !errors.Is(err, errMoved) {
			return v, err
		}
	}
	defer s.lock(id)()
	if err := s.finish(ctx, id); err != nil {
		return Value{}, err
	}
	v, err := s.value(ctx, id)
	if errors.Is(err, errMoved) { // nobody can have moved it
		return Value{}, fmt.Errorf("reading key %s of bucket %s: its record is missing: %w", key, bucket, state.ErrCorrupt)
	}
	return v, err
}

func (s *Store) value(ctx context.Context, id keyID) (Value, error) {
	it, there := s.lookup(id)
	if !there {
		return Value{}, ErrNoKey
	}
	h, data, err := s.record(ctx, id, it)
	if err != nil {
		return Value{}, err
	}
	if !h.Expires.IsZero() && s.expired(h.Expires.UnixMilli()) {
		return Value{}, ErrNoKey
	}
	return Value{
		Key: id.key, Revision: h.Revision, Data: data, ContentType: h.Type, Modified: h.Modified, Expires: h.Expires, By: h.By,
	}, nil
}

// record reads what is in a slot, which may be a younger value than it. It fails with
// errMoved when it is none of that key.
func (s *Store) record(ctx context.Context, id keyID, it item) (*head, []byte, error) {
	e, err := s.config.KV.Get(ctx, slotName(it.slot))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil, errMoved
	}
	if err != nil {
		return nil, nil, err
	}
	h, data, _, err := decode(e.Value)
	if err != nil {
		return nil, nil, fmt.Errorf("reading record %s: %w", e.Key, err)
	}
	if h.Namespace != id.namespace || h.Bucket != id.bucket || h.Key != id.key || h.Revision < it.rev {
		return nil, nil, errMoved
	}
	return h, data, nil
}

// Listed is what a list says of a key.
type Listed struct {
	Key      string
	Revision uint64
	Size     int       // of the value in bytes
	Expires  time.Time // zero: never
}

// Page is a part of a list.
type Page struct {
	Keys []Listed
	More bool // behind the last one
}

// List gives at most limit keys that begin with prefix and come behind after, in byte
// order. It is no snapshot: what changes between two pages may show or not. Limit is 1 to
// MaxList. It fails with ErrBucket or ErrKey.
func (s *Store) List(namespace, bucket, prefix, after string, limit int) (Page, error) {
	if err := errors.Join(CheckBucket(namespace, bucket), CheckPrefix(prefix)); err != nil {
		return Page{}, err
	}
	if after != "" {
		if err := CheckKey(after); err != nil {
			return Page{}, err
		}
	}
	if limit < 1 || limit > MaxList {
		return Page{}, fmt.Errorf("a page has 1 to %d keys: %w", MaxList, ErrTooMany)
	}
	page := Page{Keys: []Listed{}}
	next := prefix
	if after >= prefix && after != "" {
		next = after + "\x00"
	}
	for {
		var items []item
		s.mu.Lock()
		if x := s.buckets[bucketID{namespace, bucket}]; x != nil {
			items = x.from(next, limit+1)
		}
		s.mu.Unlock()
		for i := range items {
			it := &items[i]
			next = it.key + "\x00"
			switch {
			case !strings.HasPrefix(it.key, prefix):
				return page, nil
			case s.expired(it.expires):
				continue
			case len(page.Keys) == limit:
				page.More = true
				return page, nil
			}
			l := Listed{Key: it.key, Revision: it.rev, Size: int(it.size)}
			if it.expires != 0 {
				l.Expires = time.UnixMilli(it.expires).UTC()
			}
			page.Keys = append(page.Keys, l)
		}
		if len(items) <= limit {
			return page, nil
		}
	}
}

// Settled is a revision: all changes up to it have been carried out.
func (s *Store) Settled() uint64 { return s.flight.settled() }

// Changed gives what is closed when the bucket changes next.
func (s *Store) Changed(namespace, bucket string) <-chan struct{} {
	id := bucketID{namespace, bucket}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[id]
	if c == nil {
		c = make(chan struct{})
		s.waiting[id] = c
	}
	return c
}

// Changes tells of every change of a bucket after a revision that the log still has, in
// order, and returns a revision up to which all have been told. What fn fails with ends
// it. It fails with state.ErrCorrupt, after all others, when some could not be read.
func (s *Store) Changes(ctx context.Context, namespace, bucket string, after uint64, fn func(Change) error) (uint64, error) {
	if err := CheckBucket(namespace, bucket); err != nil {
		return after, err
	}
	upTo := max(after, s.Settled()) // before the log is read
	told := after
	var failed, corrupt error
	err := s.config.Log.Read(ctx, namespace, channelPrefix+bucket, after, func(r Record) bool {
		h, value, old, err := decodeEntry(&r)
		if err != nil {
			corrupt = err
			return true
		}
		if failed = s.await(ctx, keyID{bucketID{namespace, bucket}, h.Key}); failed == nil {
			failed = fn(h.change(r.Sequence, value, old))
		}
		if failed == nil {
			told = r.Sequence
		}
		return failed == nil
	})
	switch {
	case failed != nil:
		return told, failed
	case err == nil && corrupt == nil:
		return max(told, upTo), nil
	case err == nil, errors.Is(err, state.ErrCorrupt):
		return max(told, upTo), errors.Join(err, corrupt)
	default:
		return told, err
	}
}

// await returns when what is in the log of a key is in the KV: whoever is told of a
// change may look at once.
func (s *Store) await(ctx context.Context, id keyID) error {
	defer s.lock(id)()
	return s.finish(ctx, id)
}

// Oldest is the revision of the oldest change that the log still has, of any bucket; 0
// when there is none.
func (s *Store) Oldest(ctx context.Context) (uint64, error) {
	var first uint64
	err := s.config.Log.Read(ctx, "", "", 0, func(r Record) bool {
		first = r.Sequence
		return false
	})
	if errors.Is(err, state.ErrCorrupt) {
		err = nil // whoever reads on is told
	}
	return first, err
}

// Bucket is what Buckets says of one.
type Bucket struct {
	Name string
	Keys int // those that have expired and are not swept yet among them
}

// Buckets gives the buckets of a namespace, by name. There are 1000 at most.
func (s *Store) Buckets(namespace string) []Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Bucket{}
	for id, x := range s.buckets {
		if id.namespace == namespace {
			out = append(out, Bucket{id.bucket, x.keys})
		}
	}
	slices.SortFunc(out, func(a, b Bucket) int { return strings.Compare(a.Name, b.Name) })
	return out
}

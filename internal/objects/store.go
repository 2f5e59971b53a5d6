package objects

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/objects/content"
	"github.com/casemate-dev/casemate/internal/state"
)

// Config is what a store is made of. All but Notifier and the limits must be set.
type Config struct {
	Dir      string // a folder of its own
	KV       KV
	Key      []byte // 32 bytes, for this purpose alone
	Notifier Notifier
	Clock    func() time.Time
	Log      *slog.Logger

	MaxObject    int64 // bytes of one object; 0 means DefaultMaxObject
	MaxNamespace int64 // bytes of all objects of a namespace; 0 means no bound but the disk
	MaxStore     int64 // bytes of all objects; 0 means no bound but the disk
}

// Store keeps buckets and objects.
//
// Locks are taken in this order: bucket.life, one of keys, then mu or bucket.mu for a
// moment each.
type Store struct {
	config  Config
	kv      KV
	dir     *content.Dir
	wrap    *wrapper
	seed    maphash.Seed
	keys    [256]sync.Mutex // one change of a key at a time
	upload  [64]sync.Mutex  // one change of an upload at a time
	buckets buckets
	room    room
	readers readers
	pending pending
}

type buckets struct {
	mu   sync.Mutex
	byID map[[2]string]*bucket
}

// bucket is a bucket that is there.
type bucket struct {
	namespace string
	name      string
	life      sync.RWMutex // held for writing while the bucket itself changes
	dead      bool
	rec       bucketRecord
	rev       uint64
	mu        sync.Mutex
	index     index
	uploads   map[string]int // number of parts known; all uploads under way
}

// Open opens the store, reads the names of all objects, and removes what a crash left
// behind. Give ctx a deadline: the time grows with the number of objects.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Dir == "" || c.KV == nil || c.Clock == nil || c.Log == nil {
		return nil, errors.New("opening the object store: Dir, KV, Clock and Log must be set")
	}
	if c.MaxObject == 0 {
		c.MaxObject = DefaultMaxObject
	}
	w, err := newWrapper(c.Key)
	if err != nil {
		return nil, fmt.Errorf("opening the object store: %v", err)
	}
	d, err := content.Open(filepath.Join(c.Dir, "content"))
	if err != nil {
		return nil, fmt.Errorf("opening the object store: %v", err)
	}
	s := &Store{
		config: c, kv: c.KV, dir: d, wrap: w, seed: maphash.MakeSeed(),
		buckets: buckets{byID: map[[2]string]*bucket{}},
		room:    room{most: c.MaxStore, mostNamespace: c.MaxNamespace, namespaces: map[string]int64{}},
		readers: readers{open: map[string]int{}, drop: map[string]bool{}},
		pending: pending{under: map[*lowest]struct{}{}},
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the object store: %w", err)
	}
	return s, nil
}

// CreateBucket makes a bucket. It fails with ErrBucketExists, ErrName or ErrTooMany.
func (s *Store) CreateBucket(ctx context.Context, namespace, name, by string) error {
	if err := CheckBucket(namespace, name); err != nil {
		return err
	}
	count := 0
	for _, b := range s.all() {
		if b.namespace == namespace {
			count++
		}
	}
	if count >= maxBuckets {
		return fmt.Errorf("buckets of a namespace: %w", ErrTooMany)
	}
	rec := bucketRecord{Form: recordForm, Created: s.config.Clock().UTC(), By: by}
	value, err := encode(&rec)
	if err != nil {
		return err
	}
	rev, err := s.kv.Create(ctx, bucketName(namespace, name), value)
	if errors.Is(err, state.ErrConflict) {
		return ErrBucketExists
	}
	if err != nil {
		return err
	}
	s.buckets.mu.Lock()
	defer s.buckets.mu.Unlock()
	s.buckets.byID[[2]string{namespace, name}] = newBucket(namespace, name, rec, rev)
	return nil
}

func newBucket(ns, name string, rec bucketRecord, rev uint64) *bucket {
	return &bucket{namespace: ns, name: name, rec: rec, rev: rev, uploads: map[string]int{}}
}

// DeleteBucket removes a bucket. It fails with ErrNoBucket, or with ErrNotEmpty while
// there is an object, a version or an upload in it.
func (s *Store) DeleteBucket(ctx context.Context, namespace, name string) error {
	b, err := s.bucket(namespace, name)
	if err != nil {
		return err
	}
	b.life.Lock()
	defer b.life.Unlock()
	if b.dead {
		return ErrNoBucket
	}
	b.mu.Lock()
	there, uploads := b.index.there, len(b.uploads)
	b.mu.Unlock()
	if there > 0 || uploads > 0 {
		return ErrNotEmpty
	}
	// What is left are memories of removals. They go first: a bucket of the same name is
	// another one.
	left, err := s.kv.List(ctx, "o."+namespace+"."+name+".")
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := s.kv.Delete(ctx, e.Key, e.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
	}
	if err := s.kv.Delete(ctx, bucketName(namespace, name), b.rev); err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	b.dead = true
	s.buckets.mu.Lock()
	defer s.buckets.mu.Unlock()
	delete(s.buckets.byID, [2]string{namespace, name})
	return nil
}

// BucketInfo is what is known of a bucket.
type BucketInfo struct {
	Namespace  string
	Name       string
	Created    time.Time
	Versioning string // "", "Enabled" or "Suspended"
	Objects    int    // keys that have a current version
}

// Bucket tells of one bucket, or fails with ErrNoBucket.
func (s *Store) Bucket(namespace, name string) (BucketInfo, error) {
	b, err := s.bucket(namespace, name)
	if err != nil {
		return BucketInfo{}, err
	}
	return b.info(), nil
}

func (b *bucket) info() BucketInfo {
	b.life.RLock()
	defer b.life.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	return BucketInfo{b.namespace, b.name, b.rec.Created, b.rec.Versioning, b.index.shown}
}

// Buckets tells of all buckets, by namespace and name.
func (s *Store) Buckets() []BucketInfo {
	var out []BucketInfo
	for _, b := range s.all() {
		out = append(out, b.info())
	}
	return out
}

// SetVersioning turns versioning on ("Enabled") or suspends it ("Suspended").
func (s *Store) SetVersioning(ctx context.Context, namespace, name, to string) error {
	if to != "Enabled" && to != "Suspended" {
		return fmt.Errorf("versioning %.20q: %w", to, ErrMeta)
	}
	b, err := s.bucket(namespace, name)
	if err != nil {
		return err
	}
	b.life.Lock()
	defer b.life.Unlock()
	if b.dead {
		return ErrNoBucket
	}
	rec := b.rec
	rec.Versioning = to
	value, err := encode(&rec)
	if err != nil {
		return err
	}
	rev, err := s.kv.Update(ctx, bucketName(namespace, name), value, b.rev)
	if err != nil {
		return err
	}
	b.rec, b.rev = rec, rev
	return nil
}

func (s *Store) bucket(namespace, name string) (*bucket, error) {
	s.buckets.mu.Lock()
	defer s.buckets.mu.Unlock()
	if b := s.buckets.byID[[2]string{namespace, name}]; b != nil {
		return b, nil
	}
	return nil, ErrNoBucket
}

func (s *Store) all() []*bucket {
	s.buckets.mu.Lock()
	defer s.buckets.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.buckets.byID), func(a, b *bucket) int {
		return strings.Compare(a.namespace+"."+a.name, b.namespace+"."+b.name)
	})
}

// room counts bytes against the bounds.
type room struct {
	mu            sync.Mutex
	most          int64
	mostNamespace int64
	used          int64
	namespaces    map[string]int64
}

// take counts n more bytes, or fails with state.ErrFull. A negative n always succeeds.
func (r *room) take(ns string, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && (r.most > 0 && r.used+n > r.most || r.mostNamespace > 0 && r.namespaces[ns]+n > r.mostNamespace) {
		return fmt.Errorf("the bound on stored objects is reached: %w", state.ErrFull)
	}
	r.used += n
	r.namespaces[ns] += n
	return nil
}

// Used is how many bytes the objects of a namespace have; of all namespaces for "".
func (s *Store) Used(namespace string) int64 {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if namespace == "" {
		return s.room.used
	}
	return s.room.namespaces[namespace]
}

// readers counts who reads a version, so that its files outlive it that long.
type readers struct {
	mu   sync.Mutex
	open map[string]int // by content
	drop map[string]bool
}

func (r *readers) begin(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[id]++
}

// end reports whether the content is to be dropped now.
func (r *readers) end(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[id]--
	if r.open[id] > 0 {
		return false
	}
	delete(r.open, id)
	drop := r.drop[id]
	delete(r.drop, id)
	return drop
}

// unread reports whether nobody reads the content; otherwise end will.
func (r *readers) unread(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[id] == 0 {
		return true
	}
	r.drop[id] = true
	return false
}

package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/casemate-dev/casemate/internal/state"
)

// Config is what a store is made of. KV, Log, Clock and Logger must be set.
type Config struct {
	KV     KV
	Log    Log
	Clock  func() time.Time
	Logger *slog.Logger

	// Bounds; zero fields hold their default.
	NamespaceKeys  int
	NamespaceBytes int64
	StoreBytes     int64
	Rate           int64 // bytes of changes per second of a namespace
	Burst          int64 // bytes of changes of a namespace at once
}

func (c *Config) check() error {
	if c.KV == nil || c.Log == nil || c.Clock == nil || c.Logger == nil {
		return errors.New("KV, Log, Clock and Logger must be set")
	}
	for _, b := range []struct {
		name      string
		at        *int64
		otherwise int64
	}{
		{"NamespaceBytes", &c.NamespaceBytes, DefaultNamespaceBytes},
		{"StoreBytes", &c.StoreBytes, DefaultStoreBytes},
		{"Rate", &c.Rate, DefaultRate},
		{"Burst", &c.Burst, DefaultBurst},
	} {
		if *b.at == 0 {
			*b.at = b.otherwise
		}
		if *b.at < 0 {
			return fmt.Errorf("%s is negative: give bytes, or 0 for %d", b.name, b.otherwise)
		}
	}
	if c.NamespaceKeys == 0 {
		c.NamespaceKeys = DefaultNamespaceKeys
	}
	if c.Burst < 4*MaxValue {
		return fmt.Errorf("Burst is %d: one change has up to %d bytes", c.Burst, 4*MaxValue)
	}
	return nil
}

// bucketID and keyID name a bucket and a key of it.
type bucketID struct{ namespace, bucket string }

type keyID struct {
	bucketID
	key string
}

// Store keeps values.
//
// Locks are taken in this order: one of keys, then slots.mu, then mu or flight.mu for a
// moment each. What awaits the disk holds none but the first two.
type Store struct {
	config Config
	seed   maphash.Seed
	keys   [256]sync.Mutex // one change of a key at a time
	slots  slots
	flight flight
	marks  checkpoint

	mu         sync.Mutex
	buckets    map[bucketID]*index // none empty
	used       map[string]*usage   // by namespace
	bytes      int64               // of all
	unfinished map[keyID]*operation
	waiting    map[bucketID]chan struct{} // closed at the next change
	limits     map[string]*rate.Limiter   // by namespace
}

// usage is what a namespace has.
type usage struct {
	keys    int
	bytes   int64
	buckets int
}

func (s *Store) lock(id keyID) (unlock func()) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, part := range []string{id.namespace, id.bucket, id.key} {
		_, _ = h.WriteString(part) // never fails
		_ = h.WriteByte(0)
	}
	m := &s.keys[h.Sum64()%uint64(len(s.keys))]
	m.Lock()
	return m.Unlock
}

func (s *Store) lookup(id keyID) (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.buckets[id.bucketID]
	if x == nil {
		return item{}, false
	}
	return x.get(id.key)
}

func (s *Store) expired(expires int64) bool {
	return expires != 0 && s.config.Clock().UnixMilli() >= expires
}

// note has the index follow a value that was stored. taken was counted for it before.
func (s *Store) note(id keyID, it item, taken int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usage(id.namespace)
	x := s.buckets[id.bucketID]
	if x == nil {
		x = &index{}
		s.buckets[id.bucketID] = x
		u.buckets++
	}
	more := it.weight() - taken
	if old, there := x.get(id.key); there {
		more -= old.weight()
	} else {
		u.keys++
	}
	u.bytes += more
	s.bytes += more
	x.set(it)
}

// forget has the index follow a deletion.
func (s *Store) forget(id keyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.buckets[id.bucketID]
	if x == nil {
		return
	}
	it, there := x.get(id.key)
	if !there {
		return
	}
	u := s.usage(id.namespace)
	u.keys--
	u.bytes -= it.weight()
	s.bytes -= it.weight()
	x.remove(id.key)
	if x.keys == 0 {
		delete(s.buckets, id.bucketID)
		u.buckets--
	}
}

// usage needs s.mu.
func (s *Store) usage(namespace string) *usage {
	u := s.used[namespace]
	if u == nil {
		u = &usage{}
		s.used[namespace] = u
	}
	return u
}

// take counts a value that is about to be stored, or fails with state.ErrFull or
// ErrTooMany. It returns what it counted: give it back, or hand it to note.
func (s *Store) take(id keyID, weight int64, had item, there bool) (taken int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usage(id.namespace)
	if !there {
		if u.keys >= s.config.NamespaceKeys {
			return 0, fmt.Errorf("keys of a namespace: %w", ErrTooMany)
		}
		if s.buckets[id.bucketID] == nil && u.buckets >= maxBuckets {
			return 0, fmt.Errorf("buckets of a namespace: %w", ErrTooMany)
		}
		had = item{}
	}
	taken = max(weight-had.weight(), 0)
	if taken > 0 && (u.bytes+taken > s.config.NamespaceBytes || s.bytes+taken > s.config.StoreBytes) {
		return 0, fmt.Errorf("the bound on stored values is reached: %w", state.ErrFull)
	}
	u.bytes += taken
	s.bytes += taken
	return taken, nil
}

func (s *Store) giveBack(id keyID, taken int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage(id.namespace).bytes -= taken
	s.bytes -= taken
}

// Usage is what a namespace has stored.
type Usage struct {
	Buckets int
	Keys    int
	Bytes   int64 // of keys and values
}

// Used tells what a namespace has stored.
func (s *Store) Used(namespace string) Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.used[namespace]; u != nil {
		return Usage{u.buckets, u.keys, u.bytes}
	}
	return Usage{}
}

// pace fails with ErrBusy when a namespace changes more than it may. What it changes
// pushes the changes of others out of the log.
func (s *Store) pace(namespace string, bytes int) error {
	s.mu.Lock()
	l := s.limits[namespace]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(s.config.Rate), int(s.config.Burst))
		s.limits[namespace] = l
	}
	s.mu.Unlock()
	if !l.AllowN(s.config.Clock(), bytes) {
		return fmt.Errorf("the namespace changes more than %d bytes per second: %w", s.config.Rate, ErrBusy)
	}
	return nil
}

// slots hands out numbers of records.
type slots struct {
	mu    sync.Mutex
	free  []uint32
	next  uint32 // never used yet
	pages uint32 // recorded
}

const (
	pagesName = "pages"
	pagesStep = 8 // recorded at once
)

// slot gives one that is free. A page is recorded before it is used, because Open looks
// at those recorded.
func (s *Store) slot(ctx context.Context) (uint32, error) {
	l := &s.slots
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		slot := l.free[n-1]
		l.free = l.free[:n-1]
		return slot, nil
	}
	if l.next/pageSlots >= l.pages {
		to := l.pages + pagesStep
		if to > maxPages {
			return 0, fmt.Errorf("keys of the store: %w", ErrTooMany)
		}
		if err := putNumber(ctx, s.config.KV, pagesName, uint64(to)); err != nil {
			return 0, err
		}
		l.pages = to
	}
	l.next++
	return l.next - 1, nil
}

func (s *Store) release(slot uint32) {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	s.slots.free = append(s.slots.free, slot)
}

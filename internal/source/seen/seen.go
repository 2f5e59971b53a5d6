// Package seen remembers, for sources that look at everything again and again, which
// things they have told of and in which state.
//
// Kinds of sources import it. A Set belongs to one goroutine. What Save has returned for
// is on disk; what was told but not saved is told again after a crash, so ids of events must not change.
package seen

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate-dev/casemate/internal/source"
)

// Set remembers, of each thing, eight bytes for its name and eight for its state, in
// shards that fit a value of the Store.
type Set struct {
	store  source.Store
	shards [shards]map[uint64]uint64
	dirty  [shards]bool
}

const (
	shards   = 256
	perShard = 4000
)

// ErrFull means that there are more things than can be remembered, about a million.
var ErrFull = errors.New("there is more than can be remembered, about a million; watch less, or have what is done removed")

// Digest stands for a name or a state.
func Digest(text string) uint64 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}

func shardKey(i int) string { return fmt.Sprintf("seen-%02x", i) }

// Load reads what was remembered.
func Load(ctx context.Context, store source.Store) (*Set, error) {
	s := &Set{store: store}
	for i := range s.shards {
		s.shards[i] = map[uint64]uint64{}
		raw, err := store.Get(ctx, shardKey(i))
		if err != nil {
			return nil, fmt.Errorf("reading what was seen: %w", err)
		}
		if len(raw)%16 != 0 {
			return nil, fmt.Errorf("reading what was seen: malformed")
		}
		for ; len(raw) > 0; raw = raw[16:] {
			s.shards[i][binary.BigEndian.Uint64(raw)] = binary.BigEndian.Uint64(raw[8:])
		}
	}
	return s, nil
}

// Get tells the state in which a thing was told of.
func (s *Set) Get(name string) (state uint64, known bool) {
	d := Digest(name)
	state, known = s.shards[d%shards][d]
	return state, known
}

// Set remembers a state. It fails with ErrFull.
func (s *Set) Set(name string, state uint64) error {
	d := Digest(name)
	m := s.shards[d%shards]
	if _, known := m[d]; !known && len(m) >= perShard {
		return ErrFull
	}
	m[d] = state
	s.dirty[d%shards] = true
	return nil
}

// Drop forgets a name.
func (s *Set) Drop(name string) {
	d := Digest(name)
	if _, known := s.shards[d%shards][d]; known {
		delete(s.shards[d%shards], d)
		s.dirty[d%shards] = true
	}
}

// Only forgets all names but those of a scan, by their digests.
func (s *Set) Only(there map[uint64]struct{}) {
	for i, m := range s.shards {
		for d := range m {
			if _, ok := there[d]; !ok {
				delete(m, d)
				s.dirty[i] = true
			}
		}
	}
}

// Save puts on disk what has changed.
func (s *Set) Save(ctx context.Context) error {
	for i, m := range s.shards {
		if !s.dirty[i] {
			continue
		}
		keys := make([]uint64, 0, len(m))
		for d := range m {
			keys = append(keys, d)
		}
		slices.Sort(keys)
		raw := make([]byte, 0, 16*len(keys))
		for _, d := range keys {
			raw = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(raw, d), m[d])
		}
		if err := s.store.Put(ctx, shardKey(i), raw); err != nil {
			return fmt.Errorf("writing what was seen: %w", err)
		}
		s.dirty[i] = false
	}
	return nil
}

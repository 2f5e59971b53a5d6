package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
)

// Bounds on what is remembered of one trigger.
const (
	segmentIDs  = 1024 // of one value of the store: 24 KiB
	maxSegments = 256
	// MaxRemembered is how many ids of one trigger are remembered at most. At the default
	// tolerance that is enough for 430 requests a second without end; at a higher rate
	// requests are refused with 503 until room comes, never let in without being told
	// from replays.
	MaxRemembered = segmentIDs * maxSegments
)

// Replays remembers, on disk and within bounds, which ids a trigger has taken in. It keeps
// digests: an id may say something about somebody. Its methods may be used from many
// goroutines; those that write at the same moment are written together.
type Replays struct {
	store source.Store
	keep  time.Duration

	mu      sync.Mutex
	until   map[idDigest]uint32
	ring    []segment // oldest first; the last one is written to
	waiting *group    // to be written next
	writing bool
}

type idDigest [16]byte

// remembered is an id, in the form in which it is stored.
type remembered struct {
	id    idDigest
	until uint32 // Unix seconds; after it the id is forgotten
	must  uint32 // Unix seconds; before it the id must not be forgotten
}

const rememberedSize = 16 + 4 + 4

type segment struct {
	number uint64
	ids    []remembered
}

type group struct {
	ids  []remembered
	done chan struct{}
	err  error
}

// Keys in the store: the head says which segments there are; a segment is at its number
// modulo maxSegments and begins with its number, so that an old one is not taken for it.
const headKey = "replay"

func segmentKey(number uint64) string { return fmt.Sprintf("replay-%d", number%maxSegments) }

var errReplays = errors.New("what the store holds is no list of ids")

// OpenReplays reads what the store holds. Ids are remembered for keep, or for less when
// there are too many of them, and always for as long as Record is told.
func OpenReplays(ctx context.Context, store source.Store, keep time.Duration) (*Replays, error) {
	r := &Replays{store: store, keep: keep, until: make(map[idDigest]uint32)}
	head, err := store.Get(ctx, headKey)
	if err != nil {
		return nil, fmt.Errorf("reading replay store: %w", err)
	}
	if head == nil {
		r.ring = []segment{{}}
		return r, nil
	}
	if len(head) != 16 {
		return nil, fmt.Errorf("reading replay store: %w", errReplays)
	}
	first, last := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint64(head[8:])
	if first > last || last-first >= maxSegments || last > 1<<62 {
		return nil, fmt.Errorf("reading replay store: %w", errReplays)
	}
	for n := first; n <= last; n++ {
		b, err := store.Get(ctx, segmentKey(n))
		if err != nil {
			return nil, fmt.Errorf("reading replay store: %w", err)
		}
		s, err := readSegment(b, n, n == last)
		if err != nil {
			return nil, fmt.Errorf("reading replay store: %w", err)
		}
		for _, id := range s.ids {
			r.until[id.id] = id.until
		}
		r.ring = append(r.ring, s)
	}
	return r, nil
}

// readSegment reads a segment. The last one may not have been written yet: the head is
// written first.
func readSegment(b []byte, number uint64, last bool) (segment, error) {
	s := segment{number: number}
	if len(b) < 8 || binary.LittleEndian.Uint64(b) != number {
		if last && (len(b) == 0 || len(b) >= 8 && binary.LittleEndian.Uint64(b) < number) {
			return s, nil
		}
		return s, errReplays
	}
	b = b[8:]
	if len(b)%rememberedSize != 0 || len(b) > segmentIDs*rememberedSize {
		return s, errReplays
	}
	for ; len(b) > 0; b = b[rememberedSize:] {
		s.ids = append(s.ids, remembered{
			idDigest(b[:16]), binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:]),
		})
	}
	return s, nil
}

func (s *segment) bytes() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(s.ids)*rememberedSize), s.number)
	for _, id := range s.ids {
		b = append(b, id.id[:]...)
		b = binary.LittleEndian.AppendUint32(b, id.until)
		b = binary.LittleEndian.AppendUint32(b, id.must)
	}
	return b
}

func digestOf(id string) idDigest {
	sum := sha256.Sum256([]byte(id))
	return idDigest(sum[:16])
}

// unix rounds up, so that nothing is forgotten within its last second.
func unix(t time.Time) uint32 {
	return uint32(min(max(t.Unix()+1, 0), math.MaxUint32))
}

// Taken says whether an id was taken in and is remembered at now.
func (r *Replays) Taken(now time.Time, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[digestOf(id)]
	return ok && now.Unix() <= int64(until)
}

// Room says whether n more ids can be remembered at now.
func (r *Replays) Room(now time.Time, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	room := (maxSegments - len(r.ring)) * segmentIDs
	room += segmentIDs - len(r.ring[len(r.ring)-1].ids)
	// Segments go in order, so one that must stay keeps those after it.
	for i := 0; i < len(r.ring)-1 && room < n && r.ring[i].past(now); i++ {
		room += segmentIDs
	}
	if r.waiting != nil {
		room -= len(r.waiting.ids)
	}
	return room >= n
}

// past says whether nothing in a segment must be remembered at now.
func (s *segment) past(now time.Time) bool {
	for _, id := range s.ids {
		if now.Unix() <= int64(id.must) {
			return false
		}
	}
	return true
}

// Record remembers ids that were taken in at now, at least until must. They are on disk
// when it returns nil.
func (r *Replays) Record(ctx context.Context, now, must time.Time, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	until := now.Add(r.keep)
	if until.Before(must) {
		until = must
	}
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = &group{done: make(chan struct{})}
	}
	g := r.waiting
	for _, id := range ids {
		g.ids = append(g.ids, remembered{digestOf(id), unix(until), unix(must)})
	}
	lead := !r.writing
	r.writing = true
	r.mu.Unlock()
	if lead {
		// Others wait for what this one writes, so its end must not be theirs.
		r.writeAll(context.WithoutCancel(ctx), now)
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("remembering ids: %w", context.Cause(ctx))
	}
}

// writeAll writes groups until none waits.
func (r *Replays) writeAll(ctx context.Context, now time.Time) {
	for {
		r.mu.Lock()
		g := r.waiting
		r.waiting = nil
		if g == nil {
			r.writing = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		g.err = r.write(ctx, now, g.ids)
		close(g.done)
	}
}

// write stores ids. Only one write is under way at a time, and only it changes the ring.
func (r *Replays) write(ctx context.Context, now time.Time, ids []remembered) error {
	for len(ids) > 0 {
		last := &r.ring[len(r.ring)-1]
		if len(last.ids) == segmentIDs {
			if err := r.advance(ctx, now); err != nil {
				return err
			}
			continue
		}
		n := min(segmentIDs-len(last.ids), len(ids))
		next := segment{last.number, append(last.ids[:len(last.ids):len(last.ids)], ids[:n]...)}
		if last.number == 0 && len(last.ids) == 0 {
			if err := r.putHead(ctx, 0, 0); err != nil {
				return err
			}
		}
		if err := r.store.Put(ctx, segmentKey(next.number), next.bytes()); err != nil {
			return fmt.Errorf("remembering ids: %w", err)
		}
		r.mu.Lock()
		*last = next
		for _, id := range ids[:n] {
			r.until[id.id] = max(r.until[id.id], id.until)
		}
		r.mu.Unlock()
		ids = ids[n:]
	}
	return nil
}

// advance begins a new segment and forgets those that are over.
func (r *Replays) advance(ctx context.Context, now time.Time) error {
	keep := 0
	for keep < len(r.ring)-1 && r.ring[keep].over(now) {
		keep++
	}
	if len(r.ring)-keep == maxSegments {
		if !r.ring[keep].past(now) {
			return errors.New("remembering ids: there is no room")
		}
		keep++
	}
	number := r.ring[len(r.ring)-1].number + 1
	oldest := number
	if keep < len(r.ring) {
		oldest = r.ring[keep].number
	}
	if err := r.putHead(ctx, oldest, number); err != nil {
		return err
	}
	r.mu.Lock()
	for _, s := range r.ring[:keep] {
		for _, id := range s.ids {
			// The same id may stand in a later segment, with a later time.
			if r.until[id.id] == id.until {
				delete(r.until, id.id)
			}
		}
	}
	r.ring = append(append([]segment(nil), r.ring[keep:]...), segment{number: number})
	r.mu.Unlock()
	return nil
}

// over says whether everything in a segment is forgotten at now.
func (s *segment) over(now time.Time) bool {
	for _, id := range s.ids {
		if now.Unix() <= int64(id.until) {
			return false
		}
	}
	return true
}

func (r *Replays) putHead(ctx context.Context, first, last uint64) error {
	b := binary.LittleEndian.AppendUint64(nil, first)
	b = binary.LittleEndian.AppendUint64(b, last)
	if err := r.store.Put(ctx, headKey, b); err != nil {
		return fmt.Errorf("remembering ids: %w", err)
	}
	return nil
}

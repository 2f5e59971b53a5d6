package bus

import (
	"hash/maphash"
	"sync"
	"time"
)

// remembered is the dedup window: hashes of ids with the sequence of each. It is
// made of generations, of which the oldest is forgotten as a whole: an id stays for
// at least the window and at most an eighth longer, unless there are too many. A
// hash of 64 bits may be shared by two ids; who finds one reads what is stored
// there. It is not safe for concurrent use.
type remembered struct {
	seed   maphash.Seed
	window time.Duration
	most   int // ids
	count  int
	ages   []generation // oldest first
	forgot bool         // some ids had to go early
}

type generation struct {
	began, ended time.Time // when its first and its last id were added
	ids          map[uint64]uint64
}

const generations = 8

func newRemembered(seed maphash.Seed, window time.Duration, most int) *remembered {
	return &remembered{seed: seed, window: window, most: most}
}

func (s *remembered) hash(namespace, channel, id string) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(namespace) // never fails
	_ = h.WriteByte('/')            // labels have none
	_, _ = h.WriteString(channel)
	_ = h.WriteByte('/')
	_, _ = h.WriteString(id)
	return h.Sum64()
}

func (s *remembered) find(hash uint64) (sequence uint64, ok bool) {
	for i := len(s.ages) - 1; i >= 0; i-- {
		if sequence, ok = s.ages[i].ids[hash]; ok {
			return sequence, true
		}
	}
	return 0, false
}

// add needs times that do not go back; one that does counts as the last one.
func (s *remembered) add(hash, sequence uint64, now time.Time) {
	n := len(s.ages)
	if n == 0 || now.Sub(s.ages[n-1].began) >= s.window/generations || len(s.ages[n-1].ids) >= s.most/generations {
		s.ages = append(s.ages, generation{began: now, ids: map[uint64]uint64{}})
	}
	for s.count >= s.most && len(s.ages) > 1 {
		s.forget()
		s.forgot = true
	}
	g := &s.ages[len(s.ages)-1]
	g.ended = now
	before := len(g.ids)
	g.ids[hash] = sequence
	s.count += len(g.ids) - before
}

// expire forgets the ids that are older than the window.
func (s *remembered) expire(now time.Time) {
	for len(s.ages) > 0 && now.Sub(s.ages[0].ended) > s.window {
		s.forget()
	}
}

func (s *remembered) forget() {
	s.count -= len(s.ages[0].ids)
	s.ages[0] = generation{}
	s.ages = s.ages[1:]
}

// age says when a message was written.
type age struct {
	Sequence uint64    `json:"seq"`
	Time     time.Time `json:"at"`
}

const maxAges = 64

// ages are samples of when messages were written, saved with the marks: of what
// they prove young, nothing may be missing at the next start.
type ages struct {
	mu      sync.Mutex
	step    time.Duration
	samples []age
	trimmed uint64
}

func (a *ages) restore(samples []age, trimmed uint64, maxAge time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.samples, a.trimmed, a.step = samples, trimmed, maxAge/(maxAges-1)
}

func (a *ages) note(sequence uint64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.samples); n > 0 {
		if since := now.Sub(a.samples[n-1].Time); since >= 0 && since < a.step {
			return
		}
	}
	if len(a.samples) == maxAges {
		a.samples = append(a.samples[:0:0], a.samples[1:]...)
	}
	a.samples = append(a.samples, age{sequence, now})
}

func (a *ages) trim(upTo uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trimmed = max(a.trimmed, upTo)
}

func (a *ages) list() ([]age, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]age(nil), a.samples...), a.trimmed
}

// young returns the first sequence that must still be there, or false when none is
// known.
func (a *ages) young(now time.Time, maxAge time.Duration) (uint64, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.samples {
		if s.Sequence > a.trimmed && now.Sub(s.Time) < maxAge {
			return s.Sequence, true
		}
	}
	return 0, false
}

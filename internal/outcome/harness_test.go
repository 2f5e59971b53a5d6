package outcome

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stream is one in memory that, like the real one, knows ids again.
type stream struct {
	mu      sync.Mutex
	last    uint64
	records []Record
	ids     map[string]uint64
	now     time.Time
	purged  int
	fail    func(entries []Entry) error // nil: never
	damaged map[uint64]bool
	before  func() // called before a purge, without the lock
}

func newStream() *stream {
	return &stream{ids: map[string]uint64{}, now: began, damaged: map[uint64]bool{}}
}

func (s *stream) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *stream) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *stream) Publish(_ context.Context, entries []Entry) ([]Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(entries); err != nil {
			return nil, err
		}
	}
	var out []Stored
	for _, e := range entries {
		key := e.Namespace + " " + e.Channel + " " + e.ID
		if at := s.ids[key]; at != 0 {
			out = append(out, Stored{at, true})
			continue
		}
		s.last++
		s.ids[key] = s.last
		s.records = append(s.records, Record{e.Namespace, e.Channel, e.ID, s.last, s.now, slices.Clone(e.Data)})
		out = append(out, Stored{s.last, false})
	}
	return out, nil
}

func (s *stream) Read(_ context.Context, channel string, fn func(Record) bool) error {
	s.mu.Lock()
	all := slices.Clone(s.records)
	s.mu.Unlock()
	var err error
	for _, r := range all {
		switch {
		case r.Channel != channel:
		case s.damaged[r.Sequence]:
			err = state.ErrCorrupt
		case !fn(r):
			return err
		}
	}
	return err
}

func (s *stream) Get(_ context.Context, sequence uint64) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.Sequence == sequence {
			if s.damaged[sequence] {
				return Record{}, state.ErrCorrupt
			}
			return r, nil
		}
	}
	return Record{}, state.ErrNotFound
}

func (s *stream) Purge(_ context.Context, ns, channel string, upTo uint64) (int, error) {
	if s.before != nil {
		s.before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := len(s.records)
	s.records = slices.DeleteFunc(s.records, func(r Record) bool {
		return r.Namespace == ns && r.Channel == channel && r.Sequence <= upTo
	})
	s.purged += was - len(s.records)
	return was - len(s.records), nil
}

func (s *stream) count(ns string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.Namespace == ns {
			n++
		}
	}
	return n
}

func open(t testing.TB, s *stream, change ...func(*Config)) *Store {
	t.Helper()
	c := Config{Stream: s, Clock: s.clock, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	o, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func small(c *Config) { c.Records, c.Bytes = 16, 64<<10 }

func at(ns string) function.Ref { return function.Ref{Namespace: ns, Name: "fn"} }

func id(n int) string { return fmt.Sprintf("id-%d", n) }

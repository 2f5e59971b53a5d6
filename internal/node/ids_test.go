package node

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestIDsAreUUIDsOfTheirTime(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_123).Add(999_999 * time.Nanosecond)
	g := &ids{clock: func() time.Time { return now }}
	id, err := uuid.Parse(g.next())
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		t.Fatalf("%v: version %d, %v, %v", id, id.Version(), id.Variant(), err)
	}
	if sec, nsec := id.Time().UnixTime(); !time.Unix(sec, nsec).Equal(now.Truncate(time.Millisecond)) {
		t.Errorf("%v is of %v, not of %v", id, time.Unix(sec, nsec), now)
	}
}

// TestIDsSort makes more ids than are drawn at once, under a clock that goes on, stands
// still and is set back.
func TestIDsSort(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	g := &ids{clock: func() time.Time { return now }}
	var all []string
	random := map[string]bool{}
	for _, step := range []time.Duration{time.Microsecond, 0, -time.Hour, time.Millisecond} {
		for range 500 {
			now = now.Add(step)
			id := g.next()
			all = append(all, id)
			random[id[19:]] = true
		}
	}
	if !slices.IsSorted(all) || len(slices.Compact(all)) != 2000 {
		t.Error("the ids do not sort in the order in which they were made")
	}
	if len(random) != 2000 {
		t.Errorf("%d of 2000 random parts differ", len(random))
	}
}

func TestIDsFromManyGoroutines(t *testing.T) {
	t.Parallel()
	g := &ids{clock: time.Now}
	made := make([][]string, 8)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			for range 1000 {
				made[i] = append(made[i], g.next())
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, some := range made {
		if !slices.IsSorted(some) {
			t.Error("one goroutine's ids do not sort")
		}
		for _, id := range some {
			if id[14] != '7' || seen[id[19:]] {
				t.Fatalf("%s is no UUIDv7, or its random part was given twice", id)
			}
			seen[id[19:]] = true
		}
	}
}

func BenchmarkID(b *testing.B) {
	g := &ids{clock: time.Now}
	b.ReportAllocs()
	for b.Loop() {
		g.next()
	}
}

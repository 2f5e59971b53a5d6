package native

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// The attack is a function that dies at each call, to have the node start sandboxes all
// the time.
func TestVersionsWhoseInstancesKeepDyingStartMoreSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		die := func() (waited time.Duration) {
			began := time.Now()
			i, _ := b.must(t)
			i.uses++
			i.broken = true
			b.put(i)
			return time.Since(began)
		}
		start := 50 * time.Millisecond // of the bench
		for n, want := range []time.Duration{0, 0, 0, 0, firstRest, 2 * firstRest, 4 * firstRest, 8 * firstRest, mostRest, mostRest, mostRest} {
			if got := die() - start; got != want {
				t.Errorf("after %d deaths in a row a start is put off by %v, want %v", n, got, want)
			}
		}
		// Somebody who waits meanwhile is not left waiting for ever, and an answer ends it.
		i, _ := b.must(t)
		i.uses++
		b.put(i)
		for range mayDie + 1 {
			if waited := die(); waited > start {
				t.Errorf("after an answer a start is put off by %v", waited-start)
			}
		}
	})
}

func TestStartsThatFailByTheCodeCountAsDeaths(t *testing.T) {
	t.Parallel()
	for kind, counts := range map[sandbox.Kind]bool{sandbox.BadModule: true, sandbox.Memory: true, sandbox.Unavailable: false} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, false)
				defer b.finish()
				b.start = func(context.Context, bool) (*instance, error) { return nil, &sandbox.Error{Kind: kind} }
				began := time.Now()
				for range mayDie + 2 {
					if _, _, err := b.take(t.Context()); err == nil {
						t.Fatal("it started")
					}
				}
				if put := time.Since(began); (put > 0) != counts {
					t.Errorf("put off by %v in all", put)
				}
			})
		})
	}
}

// One that lived for a while costs few starts, however it ends.
func TestOldInstancesMayDie(t *testing.T) {
	t.Parallel()
	var s setback
	now := time.Now()
	for range 20 {
		s.died(now, diesYoung)
	}
	if rest := s.rest(now); rest != 0 {
		t.Errorf("put off by %v", rest)
	}
}

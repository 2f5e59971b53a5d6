package native

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// Whoever asks for a hundred starts does not push back another namespace's one.
func TestStartsAreGivenToNamespacesInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		leave, err := g.enter(t.Context(), "greedy")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		begin := func(namespace string) {
			go func() {
				leave, err := g.enter(t.Context(), namespace)
				if err != nil {
					t.Errorf("%s: %v", namespace, err)
					return
				}
				mu.Lock()
				order = append(order, namespace)
				mu.Unlock()
				leave()
			}()
			synctest.Wait()
		}
		for range 5 {
			begin("greedy")
		}
		begin("modest")
		leave()
		synctest.Wait()
		if len(order) != 6 || order[1] != "modest" {
			t.Errorf("served in the order %v, want modest second", order)
		}
	})
}

func TestWhoTurnsAwayTakesNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		leave, _ := g.enter(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := g.enter(ctx, "a")
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		leave()
		if g.free != 1 || len(g.turn) != 0 || len(g.queues) != 0 {
			t.Errorf("left behind: %d free, turn %v, queues %v", g.free, g.turn, g.queues)
		}
	})
}

func TestTheGateHoldsUnderLoad(t *testing.T) {
	t.Parallel()
	const width = 3
	g := newGate(width)
	var inside, most atomic.Int32
	var all sync.WaitGroup
	for n := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		if n%3 == 0 {
			go cancel()
		}
		all.Go(func() {
			defer cancel()
			leave, err := g.enter(ctx, string(rune('a'+n%5)))
			if err != nil {
				return
			}
			for now := inside.Add(1); ; {
				was := most.Load()
				if now <= was || most.CompareAndSwap(was, now) {
					break
				}
			}
			inside.Add(-1)
			leave()
		})
	}
	all.Wait()
	if most.Load() > width || g.free != width || len(g.turn) != 0 {
		t.Errorf("%d inside at once, %d free afterwards, turn %v", most.Load(), g.free, g.turn)
	}
}

// Whatever is claimed and released, in whatever order, the sum stays within the budget,
// and nobody beside others holds more than his share.
func TestClaimsStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const budget = 1000
		c := newClaims(budget)
		held := map[string][]int64{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			ns := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "namespace")
			if n := len(held[ns]); n > 0 && rapid.Bool().Draw(t, "release") {
				c.release(ns, held[ns][n-1], false)
				held[ns] = held[ns][:n-1]
				continue
			}
			n := int64(rapid.IntRange(1, 400).Draw(t, "bytes"))
			var before, own, others int64
			for who, all := range held {
				for _, b := range all {
					before += b
					if who == ns {
						own += b
					} else {
						others += b
					}
				}
			}
			got := c.claim(ns, n)
			want := granted
			switch {
			case others > 0 && own+n > budget/100*ownShare:
				want = ownLimit
			case before+n > budget:
				want = noRoom
			}
			if got != want {
				t.Fatalf("claiming %d beside %d of its own and %d of others: got %v, want %v", n, own, others, got, want)
			}
			if got == granted {
				held[ns] = append(held[ns], n)
			}
			if c.sum() > budget {
				t.Fatalf("%d claimed of %d", c.sum(), budget)
			}
		}
	})
}

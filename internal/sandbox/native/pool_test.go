package native

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a pool whose instances are fakes.
type bench struct {
	*pool
	tasks sync.WaitGroup
	made  atomic.Int32
	fail  atomic.Bool
	cells sync.Map // *instance to *fakeCell
}

func newBench(t *testing.T, single bool) *bench {
	b := &bench{}
	b.pool = &pool{clock: time.Now, single: single, most: 4, processors: 2, tasks: &b.tasks}
	b.start = func(context.Context, bool) (*instance, error) {
		b.made.Add(1)
		if b.fail.Load() {
			return nil, errFake
		}
		<-time.After(50 * time.Millisecond) // of the bubble's clock
		i, c := newInstance(t, time.Now())
		i.started = 50 * time.Millisecond
		b.cells.Store(i, c)
		return i, nil
	}
	return b
}

func (b *bench) finish() {
	b.close()
	b.tasks.Wait()
	b.cells.Range(func(i, c any) bool {
		i.(*instance).end()
		return true
	})
}

func (b *bench) must(t *testing.T) (*instance, bool) {
	t.Helper()
	i, cold, err := b.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i, cold
}

func TestAnInstanceIsUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		first, cold := b.must(t)
		if !cold {
			t.Error("the first one is cold")
		}
		first.uses++
		b.put(first)
		again, cold := b.must(t)
		if again != first || cold || b.made.Load() != 1 {
			t.Errorf("another one, cold %v, %d made", cold, b.made.Load())
		}
		b.put(again)
	})
}

// The state of one invocation must not reach the next: the attack is a function that
// keeps something in memory.
func TestWithInvocationIsolationAnInstanceIsNeverUsedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, true)
		defer b.finish()
		seen := map[*instance]bool{}
		for range 20 {
			i, _ := b.must(t)
			if seen[i] {
				t.Fatal("handed out twice")
			}
			seen[i] = true
			i.uses++
			b.put(i)
			synctest.Wait()
			if c, _ := b.cells.Load(i); !c.(*fakeCell).killed.Load() {
				t.Fatal("not killed after use")
			}
		}
	})
}

func TestReadyOnesFollowDemandAndGoWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, true)
		defer b.finish()
		i, cold := b.must(t)
		if !cold {
			t.Error("nothing was ready before the first call")
		}
		i.uses++
		b.put(i)
		<-time.After(time.Second)
		for range 3 { // a burst within the time of a start
			i, cold := b.must(t)
			i.uses++
			defer b.put(i)
			_ = cold
		}
		<-time.After(time.Second)
		if _, idle := b.count(); idle < 3 || idle > b.most {
			t.Errorf("%d wait after a burst of 3, want 3 or 4", idle)
		}
		i, cold = b.must(t)
		if cold {
			t.Error("had to wait although some were ready")
		}
		i.uses++
		b.put(i)
		for range 60 {
			<-time.After(sweepEvery)
			b.sweep(time.Now())
		}
		if _, idle := b.count(); idle != 0 {
			t.Errorf("%d kept after five minutes without a call", idle)
		}
	})
}

func TestInstancesEndByAgeUseAndIdleness(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(i *instance, c *fakeCell){
		"used often": func(i *instance, _ *fakeCell) { i.uses = maxUses },
		"old":        func(i *instance, _ *fakeCell) { i.born = i.born.Add(-maxAge) },
		"broken":     func(i *instance, _ *fakeCell) { i.broken = true },
		"dead":       func(_ *instance, c *fakeCell) { c.end(Ending{Code: 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, false)
				defer b.finish()
				i, _ := b.must(t)
				c, _ := b.cells.Load(i)
				spoil(i, c.(*fakeCell))
				b.put(i)
				if other, _ := b.must(t); other == i {
					t.Error("used again")
				} else {
					b.put(other)
				}
			})
		})
	}
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, false)
			defer b.finish()
			i, _ := b.must(t)
			b.put(i)
			<-time.After(idleAge + time.Second)
			b.sweep(time.Now())
			if alive, idle := b.count(); alive != 0 || idle != 0 {
				t.Errorf("%d alive, %d idle", alive, idle)
			}
		})
	})
}

func TestAFailedStartFailsOneCallerAndTheNextTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		b.fail.Store(true)
		if _, _, err := b.take(t.Context()); !errors.Is(err, errFake) {
			t.Errorf("got %v", err)
		}
		b.fail.Store(false)
		i, _ := b.must(t)
		b.put(i)
	})
}

func TestWhoLeavesLeavesTheInstanceToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := b.take(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		<-time.After(time.Second)
		if alive, idle := b.count(); alive != 1 || idle != 1 {
			t.Errorf("%d alive, %d idle, want the one that was started for him", alive, idle)
		}
	})
}

// Code that goes on by itself after its answer is stopped, and goes on with the next.
func TestRestingInstancesAreFrozen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		i, _ := b.must(t)
		v, _ := b.cells.Load(i)
		c := v.(*fakeCell)
		i.uses++
		b.put(i)
		<-time.After(freezeAfter + time.Millisecond)
		synctest.Wait()
		if c.frozen.Load() != 1 {
			t.Error("not frozen while it rests")
		}
		again, _ := b.must(t)
		if again != i || c.frozen.Load() != 0 {
			t.Error("not thawed for work")
		}
		b.put(again)
	})
}

// Whatever callers do at the same time, each instance serves one of them at a time, and
// all of them end.
func TestThePoolUnderLoad(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{false, true} {
		b := newBench(t, single)
		b.start = func(context.Context, bool) (*instance, error) {
			i, c := newInstance(t, time.Now())
			b.cells.Store(i, c)
			return i, nil
		}
		var users sync.Map
		var all sync.WaitGroup
		for n := range 16 {
			all.Go(func() {
				for k := range 50 {
					ctx, cancel := context.WithCancel(t.Context())
					if (n+k)%7 == 0 {
						go cancel()
					}
					i, _, err := b.take(ctx)
					if err == nil {
						if _, taken := users.LoadOrStore(i, n); taken {
							t.Error("two callers hold one instance")
						}
						i.uses++
						i.broken = k%11 == 0
						users.Delete(i)
						b.put(i)
					}
					cancel()
				}
			})
		}
		all.Wait()
		b.close()
		b.tasks.Wait()
		b.cells.Range(func(i, c any) bool {
			if !c.(*fakeCell).killed.Load() {
				t.Error("an instance was left behind")
			}
			return true
		})
		if alive, _ := b.count(); alive != 0 {
			t.Errorf("%d counted as alive", alive)
		}
	}
}

// One that nobody used stays awake while it is still, so that it is handed over at once;
// code that computes while it waits is stopped all the same.
func TestUnusedInstancesAreFrozenWhenTheyCompute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, true)
		defer b.finish()
		i, _ := b.must(t)
		v, _ := b.cells.Load(i)
		c := v.(*fakeCell)
		b.put(i)
		<-time.After(10 * time.Second)
		if c.frozen.Load() != 0 {
			t.Error("frozen although it is still")
		}
		c.cpu.Add(int64(stillness))
		<-time.After(lookAgain + time.Millisecond)
		synctest.Wait()
		if c.frozen.Load() != 1 {
			t.Error("not frozen although it computes")
		}
		i.awaken()
	})
}

// Whatever timers are under way, an instance that serves is not frozen.
func TestServingInstancesAreNeverFrozen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, c := newInstance(t, time.Now())
		for k := range 50 {
			i.rest(time.Now())
			// Taken around the moment at which it would be looked at, and frozen.
			<-time.After(freezeAfter + time.Duration(k-25)*time.Microsecond)
			c.cpu.Add(int64(k%2) * int64(stillness))
			i.awaken()
			i.uses = k % 3
			for range 5 {
				<-time.After(lookAgain)
				if c.frozen.Load() != 0 {
					t.Fatalf("frozen in round %d while it served", k)
				}
			}
		}
		i.end()
	})
}

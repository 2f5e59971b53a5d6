package native

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// From nothing to as many as are called at once, then down to what little is needed,
// then to nothing: a function that nobody calls costs nothing.
func TestFromNothingToManyAndBackToNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		if alive, _ := b.count(); alive != 0 || b.made.Load() != 0 {
			t.Fatalf("%d alive before the first call", alive)
		}
		const most = 30
		var callers sync.WaitGroup
		for range most {
			callers.Go(func() {
				i, _, err := b.take(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				<-time.After(time.Second)
				i.uses++
				b.put(i)
			})
		}
		<-time.After(500 * time.Millisecond)
		if alive, idle := b.count(); alive != most || idle != 0 {
			t.Errorf("%d alive and %d idle with %d calls under way", alive, idle, most)
		}
		callers.Wait()
		if alive, idle := b.count(); alive != most || idle != most || int(b.made.Load()) != most {
			t.Errorf("%d alive, %d idle, %d made after them", alive, idle, b.made.Load())
		}

		// One call a second needs one: the one used last is used again, and the others age.
		for range int((idleAge + 2*sweepEvery) / time.Second) {
			i, cold := b.must(t)
			if cold {
				t.Fatal("somebody had to wait although many were idle")
			}
			i.uses++
			b.put(i)
			<-time.After(time.Second)
			if time.Now().Unix()%int64(sweepEvery/time.Second) == 0 {
				b.sweep(time.Now())
			}
		}
		if alive, idle := b.count(); alive != 1 || idle != 1 {
			t.Errorf("%d alive and %d idle at one call a second", alive, idle)
		}

		for range int(idleAge/sweepEvery) + 2 {
			<-time.After(sweepEvery)
			b.sweep(time.Now())
		}
		b.tasks.Wait()
		if alive, idle := b.count(); alive != 0 || idle != 0 {
			t.Errorf("%d alive and %d idle when nobody calls", alive, idle)
		}
		if n := b.ended(); n != int(b.made.Load()) {
			t.Errorf("%d were made and %d ended", b.made.Load(), n)
		}

		if _, cold := b.must(t); !cold {
			t.Error("the first call after that did not have to wait for a start")
		}
	})
}

// The same with a sandbox for each invocation: what is kept ready follows the busiest
// time, is bounded, and goes. Bursts come often here, since what they race for is short.
func TestReadyOnesAreBoundedAndEnd(t *testing.T) {
	t.Parallel()
	for range 40 {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, true)
			defer b.finish()
			var callers sync.WaitGroup
			const burst = 200
			for range burst {
				callers.Go(func() {
					i, _, err := b.take(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					i.uses++
					b.put(i)
				})
			}
			callers.Wait()
			<-time.After(time.Second)
			if alive, idle := b.count(); idle > b.most || alive != idle || idle == 0 || int(b.made.Load()) > burst+b.most {
				t.Errorf("%d alive and %d idle of %d made after a burst of %d; at most %d are kept", alive, idle, b.made.Load(), burst, b.most)
			}
			for range int(quietAfter/sweepEvery) + 6 {
				<-time.After(sweepEvery)
				b.sweep(time.Now())
			}
			b.tasks.Wait()
			if alive, _ := b.count(); alive != 0 || b.ended() != int(b.made.Load()) {
				t.Errorf("%d alive; %d were made and %d ended", alive, b.made.Load(), b.ended())
			}
		})
	}
}

// ended counts the sandboxes that were killed.
func (b *bench) ended() (n int) {
	b.cells.Range(func(_, c any) bool {
		if c.(*fakeCell).killed.Load() {
			n++
		}
		return true
	})
	return n
}

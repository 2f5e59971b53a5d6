package native

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// A start takes the processors and the broker for milliseconds that the call at hand
// would wait for.
func TestTheCallGoesBeforeTheStartOfAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, true)
		defer b.finish()
		i, _ := b.must(t)
		i.uses++
		b.put(i)
		<-time.After(time.Second) // others are ready now
		made := b.made.Load()
		i, cold := b.must(t)
		defer b.put(i)
		i.uses++
		synctest.Wait()
		if cold || b.made.Load() != made {
			t.Errorf("cold %v, and %d were started while one was handed out", cold, b.made.Load()-made)
		}
		<-time.After(refillAfter)
		synctest.Wait()
		if b.made.Load() != made+1 {
			t.Errorf("%d were started in place of the one handed out", b.made.Load()-made)
		}
	})
}

// meteredCell has used what it is told to, and counts who asks.
type meteredCell struct {
	*fakeCell
	used   atomic.Int64
	asked  atomic.Int32
	resets atomic.Int32
}

func (c *meteredCell) Usage() (time.Duration, int64, error) {
	c.asked.Add(1)
	return time.Duration(c.used.Load()), 0, nil
}

func (c *meteredCell) ResetPeak() error {
	c.resets.Add(1)
	return nil
}

// What code uses between two looks is the next invocation's, but what it used before it
// was stopped for lack of work is nobody's. An invocation asks once, at its end.
func TestProcessorTimeCountsFromTheLastLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, fake := newInstance(t, time.Now())
		c := &meteredCell{fakeCell: fake}
		i.cell = c
		defer i.end()
		i.guest = &fakeGuest{answer: func(context.Context, *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
			c.used.Add(int64(3 * time.Millisecond))
			return sandbox.ResponseHead{Status: 200}, nil, nil
		}}
		ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{
			Config: function.Config{Limits: function.Limits{Timeout: time.Minute, CPU: time.Minute, Log: 100}},
		}}
		bill := func() time.Duration {
			t.Helper()
			before := c.asked.Load()
			res, err := ver.run(t.Context(), i, &sandbox.Invocation{Version: ver.v})
			if err != nil {
				t.Fatal(err)
			}
			if n := c.asked.Load() - before; n != 1 {
				t.Errorf("it was asked %d times what it used", n)
			}
			return res.Usage.CPU
		}
		c.used.Store(int64(time.Second)) // its start
		if _, _, err := i.look(); err != nil {
			t.Fatal(err)
		}
		if got := bill(); got != 3*time.Millisecond {
			t.Errorf("the first was billed %v", got)
		}
		c.used.Add(int64(time.Millisecond)) // after its answer
		if got := bill(); got != 4*time.Millisecond {
			t.Errorf("the second was billed %v", got)
		}
		i.rest(time.Now())
		c.used.Add(int64(time.Second))
		resets := c.resets.Load()
		<-time.After(freezeAfter)
		synctest.Wait()
		if c.resets.Load() != resets+1 {
			t.Error("the peak does not begin anew at rest")
		}
		i.awaken()
		if got := bill(); got != 3*time.Millisecond {
			t.Errorf("the third was billed %v", got)
		}
	})
}

// callers has so many take an instance, use it for a while and give it back, again and
// again, and gives how many instances there were.
func callers(t *testing.T, n int, use time.Duration) (made int32) {
	t.Helper()
	b := newBench(t, false)
	defer b.finish()
	i, _ := b.must(t) // from which it learns how long a use takes
	<-time.After(use)
	i.uses++
	b.put(i)
	var all sync.WaitGroup
	end := time.Now().Add(10 * time.Second)
	for range n {
		all.Go(func() {
			for time.Now().Before(end) {
				i, _ := b.must(t)
				<-time.After(use)
				i.uses++
				b.put(i)
			}
		})
	}
	all.Wait()
	return b.made.Load()
}

// To wait for the end of a short use takes less than a start, and less from the machine.
func TestShortUsesShareInstancesAndLongOnesDoNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A start takes 50 ms.
		if made := callers(t, 16, 3*time.Millisecond); made != 1 {
			t.Errorf("%d instances for 16 callers of 3 ms", made)
		}
		if made := callers(t, 32, 20*time.Millisecond); made < 2 || made > 16 {
			t.Errorf("%d instances for 32 callers of 20 ms, want about 32 × 20 / 50", made)
		}
		if made := callers(t, 32, time.Second); made != 32 {
			t.Errorf("%d instances for 32 callers of a second", made)
		}
	})
}

// Whoever counts on an instance that turns out to be in use for long gets another.
func TestNobodyWaitsLongerThanAStartBehindALongUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		for range 20 {
			i, _ := b.must(t)
			<-time.After(time.Millisecond)
			i.uses++
			b.put(i)
		}
		long, _ := b.must(t)
		defer b.put(long)
		began := time.Now()
		i, _ := b.must(t)
		defer b.put(i)
		if waited := time.Since(began); waited > 200*time.Millisecond {
			t.Errorf("waited %v behind a use that did not end", waited)
		}
		if i == long || b.made.Load() != 2 {
			t.Errorf("%d were made", b.made.Load())
		}
	})
}

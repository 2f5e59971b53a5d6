package native

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// More sandboxes than processors make code that computes no faster: each call takes longer
// then, which must not count as a reason for still more.
func TestCodeThatComputesGetsFewInstances(t *testing.T) {
	t.Parallel()
	for compute, most := range map[time.Duration]int32{100 * time.Millisecond: 3, 0: 32} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, false)
			defer b.finish()
			i, _ := b.must(t) // from which it learns how long a use takes
			<-time.After(100 * time.Millisecond)
			i.uses++
			i.computed = compute
			b.put(i)
			var mu sync.Mutex
			var all sync.WaitGroup
			inUse := 0
			end := time.Now().Add(20 * time.Second)
			for range 32 {
				all.Go(func() {
					for time.Now().Before(end) {
						i, _ := b.must(t)
						mu.Lock()
						inUse++
						share := max(1, inUse/b.processors)
						mu.Unlock()
						took := time.Second
						if compute > 0 {
							took = time.Duration(share) * compute
						}
						<-time.After(took)
						mu.Lock()
						inUse--
						mu.Unlock()
						i.uses++
						i.computed = compute
						b.put(i)
					}
				})
			}
			all.Wait()
			if made := b.made.Load(); made > most || made < min(most, 2) {
				t.Errorf("%d instances for 32 callers of code that computes for %v; want %d at the most", made, compute, most)
			}
		})
	}
}

// A short call does not wait for the end of long ones, however many processors they take.
func TestShortCallsDoNotWaitForLongOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		defer b.finish()
		long, _ := b.must(t)
		<-time.After(time.Minute)
		long.uses++
		long.computed = time.Minute
		b.put(long)
		for range b.processors {
			i, _ := b.must(t)
			defer b.put(i)
		}
		began := time.Now()
		i, _ := b.must(t)
		if waited := time.Since(began); waited < mostPatience || waited > 2*mostPatience {
			t.Errorf("it waited for %v", waited)
		}
		b.put(i)
	})
}

// Limits hold, and an end is seen, however short the time until then: nobody looks at an
// invocation in its first milliseconds.
func TestShortLimitsHold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout, cpu time.Duration
		dies         time.Duration
		kind         sandbox.Kind
		least, most  time.Duration
	}{
		"time":          {timeout: 3 * time.Millisecond, cpu: time.Minute, kind: sandbox.Timeout, least: 3 * time.Millisecond, most: 3 * time.Millisecond},
		"a longer time": {timeout: time.Second, cpu: time.Minute, kind: sandbox.Timeout, least: time.Second, most: time.Second},
		"processor":     {timeout: time.Minute, cpu: time.Millisecond, kind: sandbox.CPU, least: leastCPUCheck, most: longAfter},
		"its end":       {timeout: time.Minute, cpu: time.Minute, dies: time.Millisecond, kind: sandbox.Exit, least: time.Millisecond, most: longAfter},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i, cell := newInstance(t, time.Now())
				defer i.end()
				i.guest = &fakeGuest{answer: func(ctx context.Context, _ *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
					cell.cpu.Add(int64(2 * time.Millisecond))
					if c.dies > 0 {
						time.AfterFunc(c.dies, func() { cell.end(Ending{Code: 3}) })
					}
					<-ctx.Done()
					return sandbox.ResponseHead{}, nil, context.Cause(ctx)
				}}
				ver := &version{runner: &Runner{cfg: Config{Clock: time.Now}}, v: &function.Version{Config: function.Config{
					Isolation: function.IsolationInstance, Limits: function.Limits{Timeout: c.timeout, CPU: c.cpu, Log: 100},
				}}}
				began := time.Now()
				_, failure := ver.run(t.Context(), i, &sandbox.Invocation{Version: ver.v})
				took := time.Since(began)
				var known *sandbox.Error
				if !errors.As(failure, &known) || known.Kind != c.kind || took < c.least || took > c.most {
					t.Errorf("%v after %v", failure, took)
				}
			})
		})
	}
}

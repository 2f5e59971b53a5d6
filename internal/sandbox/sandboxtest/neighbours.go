package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

func testNeighbours(t *testing.T, h Harness) {
	each(t, h, map[string]func(*Bench){
		"ManyAtOnce": func(b *Bench) {
			v := b.Version(Echo(), In("many"))
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					for j := range 10 {
						body := bytes.Repeat(fmt.Appendf(nil, "<%d.%d>", i, j), 1+i*j*10)
						o := b.Invoke(v, string(body))
						if o.Err != nil || !bytes.HasSuffix(o.Body, append([]byte("\n"), body...)) {
							b.T.Errorf("call %d.%d got %d bytes of another's answer, %v", i, j, len(o.Body), o.Err)
							return
						}
					}
				})
			}
			wg.Wait()
		},
		"ManyLoadOnce": func(b *Bench) {
			v := b.Version(Hello(), In("single"))
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					if o := b.Invoke(v, ""); o.Err != nil {
						b.T.Errorf("invoking: %v", o.Err)
					}
				})
			}
			wg.Wait()
		},
	})
	bad := map[string][]byte{
		"Spins": Spin(), "Sleeps": Sleep(), "Recurses": Recurse(), "Hoards": Hoard(),
		"FloodsOutput": FloodOutput(), "FloodsLog": FloodLog(50_000), "HoardsTables": HoardTable(), "Crashes": Crash(),
	}
	b := newBench(t, h)
	for name, code := range bad {
		t.Run(name, func(t *testing.T) { beside(&Bench{T: t, Runner: b.Runner, Store: b.Store}, code) })
	}
}

// beside runs a bad guest in a loop and sees that a good one in the same sandbox is
// served meanwhile, by the same sandbox all the time.
func beside(b *Bench, code []byte) {
	worse := b.Version(code, Limit(func(l *function.Limits) { l.Memory = 128 << 20 })) // which ends by itself never
	good := b.Version(Hello())
	box := b.Want(good, "hello").Usage.Sandbox
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				b.InvokeContext(ctx, worse, "")
			}
		})
	}
	var slowest time.Duration
	for began := time.Now(); time.Since(began) < 400*time.Millisecond; {
		one := time.Now()
		if got := b.Want(good, "hello").Usage.Sandbox; got != box {
			b.T.Errorf("the neighbour was moved from %s to %s", box, got)
		}
		slowest = max(slowest, time.Since(one))
	}
	stop()
	wg.Wait()
	b.T.Logf("the neighbour's slowest call took %v", slowest)
	if slowest > hang {
		b.T.Errorf("a neighbour had to wait for %v", slowest)
	}
}

func testLife(t *testing.T, h Harness) {
	t.Run("RetireAndAgain", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, h)
		v := b.Version(Hello())
		b.Want(v, "hello")
		b.Runner.Retire(v.Namespace, v.ID)
		if !b.Want(v, "hello").Usage.Cold {
			t.Error("a retired version was still loaded")
		}
		b.Runner.Retire("nobody", v.ID)
	})
	t.Run("RetireWhileRunning", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, h)
		v := b.Version(Hello())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					if o := b.Invoke(v, ""); o.Err != nil {
						b.T.Errorf("invoking: %v", o.Err)
						return
					}
				}
			})
		}
		for range 50 {
			b.Runner.Retire(v.Namespace, v.ID)
			b.Want(v, "hello")
		}
		wg.Wait()
	})
	t.Run("CloseEndsGuests", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, h)
		v := b.Version(Spin())
		if err := b.Runner.Prepare(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		ended := make(chan Outcome)
		go func() { ended <- b.Invoke(v, "") }()
		if err := b.Runner.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		select {
		case o := <-ended:
			if o.Err == nil {
				t.Error("an endless guest succeeded")
			}
		case <-time.After(hang):
			t.Fatal("the invocation outlived its runner")
		}
		b.WantKind(b.Invoke(v, ""), sandbox.Unavailable)
		var e *sandbox.Error
		if err := b.Runner.Prepare(context.Background(), v); !errors.As(err, &e) || e.Kind != sandbox.Unavailable {
			t.Errorf("Prepare after Close says %v", err)
		}
	})
	if h.Kill == nil {
		return
	}
	t.Run("KilledIsLostAndReplaced", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, h)
		v, good := b.Version(SpinAloud()), b.Version(Hello())
		before := b.Want(good, "hello").Usage.Sandbox
		if err := b.Runner.Prepare(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		ended, begun := make(chan Outcome), make(chan struct{}, 1)
		go func() { ended <- b.invoke(context.Background(), v, "", func() { begun <- struct{}{} }) }()
		// One whose guest has not begun is repeated.
		select {
		case o := <-ended:
			t.Fatalf("an endless guest ended: %v", o.Err)
		case <-begun:
		}
		h.Kill(t, b.Runner, v.Namespace)
		select {
		case o := <-ended:
			b.WantKind(o, sandbox.Lost)
		case <-time.After(hang):
			t.Fatal("the call never learned that its sandbox is gone")
		}
		if after := b.Want(good, "hello").Usage.Sandbox; after == before {
			t.Errorf("the next call came from the sandbox that was killed, %s", after)
		}
	})
}

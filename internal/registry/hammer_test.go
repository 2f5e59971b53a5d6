package registry

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// Two processes and many goroutines change one function while others resolve it.
// No change is lost, none is made twice, and no reader sees anything but a
// version that was live at some time.
func TestHammer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	var versions []function.Digest
	known := map[function.Digest]bool{}
	for i := range 4 {
		v := b.deploy("default", "hello", fmt.Sprint("code ", i), "/hello")
		versions = append(versions, v)
		known[v] = true
	}
	other, err := Open(ctx, b.config())
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.Function(hello)
	if err != nil {
		t.Fatal(err)
	}
	start := len(f.Aliases[0].History)

	var moved atomic.Int64
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, _, err := b.Resolve(hello, "", func(n int) int { return n - 1 })
				if err != nil || !known[v.ID] {
					t.Errorf("resolved %v, error %v", v, err)
					return
				}
				if rs := b.Routes(); len(rs) != 1 {
					t.Errorf("routes %v", rs)
					return
				}
			}
		})
	}
	for w := range 6 {
		r := b.Registry
		if w%2 == 1 {
			r = other
		}
		writers.Go(func() {
			for i := range 6 {
				if w < 3 {
					// Only from the state seen: losing the race is fine, twice is not.
					f, err := r.Function(hello)
					if err != nil {
						t.Error(err)
						return
					}
					to := versions[(w+i)%len(versions)]
					a, err := r.SetAlias(ctx, hello, "live", []Weight{{to, 60}, {versions[(w+i+1)%len(versions)], 40}}, f.Revision, fmt.Sprint(w, ".", i))
					switch {
					case problem.HasCode(err, problem.Conflict):
					case err != nil:
						t.Error(err)
					case a.History[0].By == fmt.Sprint(w, ".", i):
						moved.Add(1)
					}
					continue
				}
				s := []Spec{spec("hello", fmt.Sprint("code ", i%4), "/hello")}
				p, err := r.Plan(ctx, "default", "", s)
				if err != nil {
					t.Error(err)
					return
				}
				done, err := r.Apply(ctx, p, s, fmt.Sprint(w, ".", i))
				switch {
				case problem.HasCode(err, problem.PlanStale):
				case err != nil:
					t.Error(err)
				case done[0].Changed:
					moved.Add(1)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	b.reopen()
	f, err = b.Function(hello)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(f.Aliases[0].History) - start; int64(got) != moved.Load() || got == 0 {
		t.Errorf("%d moves were reported and %d are recorded", moved.Load(), got)
	}
	if fs := b.Faults(); len(fs) != 0 {
		t.Errorf("faults %v", fs)
	}
}

// Of many who apply one plan, one wins.
func TestOnePlanIsAppliedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("default", "hello", "one")
	b.upload("two")
	s := []Spec{spec("hello", "two")}
	p, err := b.Plan(ctx, "default", "", s)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(ctx, b.config())
	if err != nil {
		t.Fatal(err)
	}
	var wins, losses atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		r := b.Registry
		if i%2 == 0 {
			r = other
		}
		wg.Go(func() {
			_, err := r.Apply(ctx, p, s, "x")
			switch {
			case err == nil:
				wins.Add(1)
			case problem.HasCode(err, problem.PlanStale):
				losses.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || losses.Load() != 15 {
		t.Errorf("%d won and %d lost", wins.Load(), losses.Load())
	}
}

func TestResolveAllocatesNothing(t *testing.T) {
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one")
	v2 := b.deploy("default", "hello", "two")
	if _, err := b.SetAlias(ctx, hello, "beta", []Weight{{v1, 50}, {v2, 50}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"", "beta", v1.Hex()[:8]} {
		n := testing.AllocsPerRun(100, func() {
			if _, _, err := b.Resolve(hello, q, func(int) int { return 60 }); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("resolving %q allocates %v times", q, n)
		}
	}
}

func TestErrorsAreProblemsOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.upload("one")
	b.inject(1, failBefore)
	b.faults.only = "create"
	_, err := b.tryDeploy("default", "", spec("hello", "one"))
	if !errors.Is(err, errInjected) || !problem.HasCode(err, problem.Internal) {
		t.Errorf("error %v", err)
	}
}

func BenchmarkResolve(b *testing.B) {
	bb := newBench(b)
	for i := range 500 {
		bb.deploy("default", fmt.Sprint("fn-", i), "one")
	}
	at := ref("default", "fn-250")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := bb.Resolve(at, "", noRoll); err != nil {
				b.Fatal(err)
			}
		}
	})
}

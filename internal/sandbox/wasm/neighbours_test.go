package wasm

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// bad are guests that do what a neighbour should not notice, and how they end.
func bad() map[string]struct {
	code []byte
	kind sandbox.Kind
} {
	type guest = struct {
		code []byte
		kind sandbox.Kind
	}
	return map[string]guest{
		"spinning":   {st.Spin(), sandbox.CPU},
		"allocating": {st.Hoard(), sandbox.Memory},
		"recursing":  {st.Recurse(), sandbox.Stack},
		"logging":    {st.FloodLog(20_000), ""},
		"flooding":   {st.FloodOutput(), sandbox.Output},
		"trapping":   {st.Crash(), sandbox.Trap},
	}
}

// TestGoodGuestBesideBadOnes runs all of them in one process: the good one answers
// rightly each time, and each bad one ends in its own way.
func TestGoodGuestBesideBadOnes(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	good := map[string]*version{
		"echo":     e.load(st.Echo(), function.EntryCommand),
		"remember": e.load(st.Remember(), function.EntryCommand),
	}
	limits := generous
	limits.CPU, limits.Memory = 5*time.Millisecond, 8<<20
	var stop atomic.Bool
	var work sync.WaitGroup
	for name, g := range bad() {
		v, f := e.tryLoad(g.code, function.EntryCommand, limits)
		if f != nil {
			t.Fatalf("%s: %v", name, f)
		}
		e.tb.Cleanup(v.unload)
		work.Go(func() {
			ended := 0
			for ; !stop.Load() || ended < 3; ended++ {
				o := e.run(v, "")
				// A guest of these that computes long enough may meet that limit first.
				if got := o.f; (got == nil) != (g.kind == "") && (got == nil || got.kind != sandbox.CPU) || got != nil && got.kind != g.kind && got.kind != sandbox.CPU {
					t.Errorf("the %s guest ended with %v, want %q", name, got, g.kind)
					return
				}
			}
		})
	}
	for k := range 300 {
		text := fmt.Sprintf("request %d", k)
		if o := e.run(good["echo"], text); o.f != nil || o.body != okHead+text {
			t.Errorf("echo gave %q, %v", o.body, o.f)
		}
		if o := e.run(good["remember"], ""); o.f != nil || o.body != okHead+"000" {
			t.Errorf("remember gave %q, %v", o.body, o.f)
		}
	}
	stop.Store(true)
	work.Wait()
	if used := e.srv.budget.Used(); used != 0 {
		t.Errorf("%d bytes are left over", used)
	}
}

// okHead is what the guests of sandboxtest answer with.
const okHead = `{"status":200,"headers":{"content-type":"text/plain"}}` + "\n"

// TestManyOfOneVersionAtOnce hammers one version from many goroutines, so that
// instances are booted while others run; each keeps its own state.
func TestManyOfOneVersionAtOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		v := e.load(c.code, c.entry)
		var work sync.WaitGroup
		for g := range 8 {
			work.Go(func() {
				for k := range 25 {
					if want := word(1 + g*1000 + k); e.run(v, want).body != want {
						t.Errorf("%s: an answer is another's", name)
						return
					}
				}
			})
		}
		work.Wait()
		if v.ready != nil {
			wantReady(t, v)
		}
		if n := len(v.idle) + len(v.spare); n > maxIdle || n == 0 {
			t.Errorf("%s: %d are kept", name, n)
		}
	}
}

// percentile gives one of sorted durations, in microseconds.
func percentile(all []time.Duration, p float64) float64 {
	return float64(all[int(p*float64(len(all)-1))].Nanoseconds()) / 1e3
}

// BenchmarkNeighbour measures a good guest alone and beside each bad one.
func BenchmarkNeighbour(b *testing.B) {
	e := newEngine(b, "")
	good := e.load(st.Echo(), function.EntryCommand)
	guests := map[string][]byte{"alone": nil}
	names := []string{"alone"}
	for name, g := range bad() {
		guests[name] = g.code
		names = append(names, name)
	}
	slices.Sort(names[1:])
	limits := generous
	limits.CPU, limits.Timeout, limits.Memory = time.Minute, time.Minute, 32<<20
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			var work sync.WaitGroup
			var stop atomic.Bool
			if code := guests[name]; code != nil {
				v, f := e.tryLoad(code, function.EntryCommand, limits)
				if f != nil {
					b.Fatal(f)
				}
				defer v.unload()
				running := make(chan *invocation, 1)
				work.Go(func() {
					runtime.LockOSThread() // see invocation.run
					defer runtime.UnlockOSThread()
					w := &worker{crew: newCrew(e.srv, wire.NewReader(strings.NewReader("")))}
					for !stop.Load() {
						i := e.srv.takeInvocation(v)
						select {
						case running <- i:
						default:
						}
						w.do(i)
					}
				})
				first := <-running
				defer work.Wait()
				defer func() {
					stop.Store(true)
					if name == "spinning" {
						first.cancel() // it is still the one
					}
				}()
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			w := &worker{crew: newCrew(e.srv, wire.NewReader(strings.NewReader("")))}
			all := make([]time.Duration, 0, 1<<16)
			for b.Loop() {
				began := time.Now()
				i := e.srv.takeInvocation(good)
				i.input = append(i.input[:0], "hello"...)
				w.do(i)
				all = append(all, time.Since(began))
			}
			slices.Sort(all)
			b.ReportMetric(percentile(all, 0.5), "p50-µs")
			b.ReportMetric(percentile(all, 0.99), "p99-µs")
			b.ReportMetric(percentile(all, 1), "worst-µs")
		})
	}
}

// BenchmarkPause measures how long a garbage collection stops the process while a
// guest spins on each processor: the worst of fifty.
func BenchmarkPause(b *testing.B) {
	guests := map[string][]byte{"wat": st.Spin()}
	if extra := os.Getenv("GUEST"); extra != "" {
		code, err := os.ReadFile(extra)
		if err != nil {
			b.Fatal(err)
		}
		guests["extra"] = code
	}
	for name, code := range guests {
		b.Run(name, func(b *testing.B) {
			e := newEngine(b, "")
			limits := generous
			limits.CPU, limits.Timeout = time.Minute, time.Minute
			v, f := e.tryLoad(code, function.EntryCommand, limits)
			if f != nil {
				b.Fatal(f)
			}
			defer v.unload()
			var work sync.WaitGroup
			var spinning []*invocation
			started := make(chan struct{})
			for range runtime.GOMAXPROCS(0) {
				i := e.srv.takeInvocation(v)
				spinning = append(spinning, i)
				work.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					i.begin(limits.Timeout, limits.CPU, noLimit)
					started <- struct{}{}
					_ = i.enter()
					i.leave()
				})
			}
			for range spinning {
				<-started
			}
			var worst, total time.Duration
			rounds := 0
			for b.Loop() {
				for range 50 {
					began := time.Now()
					runtime.GC()
					total += time.Since(began)
					rounds++
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					worst = max(worst, time.Duration(m.PauseNs[(m.NumGC+255)%256]))
				}
			}
			for _, i := range spinning {
				i.cancel()
			}
			work.Wait()
			for _, i := range spinning {
				e.srv.giveInvocation(i)
			}
			b.ReportMetric(float64(worst.Microseconds())/1e3, "worst-pause-ms")
			b.ReportMetric(float64(total.Microseconds())/1e3/float64(rounds), "ms/collection")
		})
	}
}

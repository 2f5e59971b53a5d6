package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/jsengine"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/codestore"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// benchmarked is the way in which the sandboxes of a benchmark are started: in boxes, or
// by the node itself as processes that lock nothing, to see what being locked in costs.
func benchmarked(b *testing.B) func(*Config) {
	if os.Getenv("CASEMATE_BARE") == "" {
		return inBoxes(b)
	}
	path, err := bareBox()
	if err != nil {
		b.Fatal(err)
	}
	return func(c *Config) { c.Executable = path }
}

// serveBare is run without lockDown.
func serveBare() int {
	runtime.GOMAXPROCS(max(places, runtime.NumCPU()))
	debug.SetMemoryLimit(heapLimit)
	debug.SetGCPercent(gcPercent)
	plan, err := parsePlan(os.Args)
	if err != nil {
		return die(os.Stderr, exitUsage, err)
	}
	pagemap := openPagemap()
	conn, err := nodeConnection()
	if err != nil {
		return die(os.Stderr, exitServe, err)
	}
	err = wasm.Serve(conn, wasm.Options{
		Clock: time.Now, Memory: plan.memory, Pagemap: pagemap, Code: codeOfNode(),
		Restore: map[string]memory.Strategy{"advise": memory.Advise, "copy": memory.Copy}[role],
		Hello:   wire.Hello{Missing: map[string]string{measureSyscalls: "it locks nothing", measureSealed: "it locks nothing"}},
	})
	if err != nil {
		return die(os.Stderr, exitServe, err)
	}
	return exitOK
}

func BenchmarkInvoke(b *testing.B) {
	guests, err := sandboxtest.BuildGo()
	if err != nil {
		b.Fatal(err)
	}
	s := &sandboxtest.Store{}
	r := newRunner(b, s, benchmarked(b))
	build := &sandboxtest.Bench{Runner: r, Store: s, T: &testing.T{}}
	for _, g := range []struct {
		name  string
		code  []byte
		entry []sandboxtest.Option
	}{
		{"Tiny", sandboxtest.Hello(), nil},
		{"Echo", sandboxtest.Echo(), nil},
		{"GoCommand", guests.Command, nil},
		{"GoHandle", guests.Handle, []sandboxtest.Option{sandboxtest.Handle}},
	} {
		v := build.Version(g.code, g.entry...)
		if err := r.Prepare(context.Background(), v); err != nil {
			b.Fatal(err)
		}
		inv := &sandbox.Invocation{
			ID: "id", Version: v, Body: []byte("hello"),
			Head: sandbox.Head{ID: "id", Method: "POST", Path: "/", Headers: map[string][]string{"accept": {"*/*"}}, Trigger: "http"},
		}
		one := func(b *testing.B) {
			if _, err := r.Invoke(context.Background(), inv); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			before := r.cpu(b)
			for b.Loop() {
				one(b)
			}
			b.ReportMetric((r.cpu(b)-before).Seconds()*1e6/float64(b.N), "cpu-µs/op")
		})
		b.Run(g.name+"Parallel", func(b *testing.B) {
			b.SetParallelism(8)
			before := r.cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					one(b)
				}
			})
			b.ReportMetric((r.cpu(b)-before).Seconds()*1e6/float64(b.N), "cpu-µs/op")
		})
	}
	if pid, ok := r.Process("alpha"); ok {
		b.Logf("after all: %s", pss(pid))
	}
}

// cpu is the processor time that this program and the process that serves alpha have
// taken. It tells the cost of a call on a machine that others use too.
func (r *Runner) cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	pid, _ := r.Process("alpha")
	text, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	const tick = 10 * time.Millisecond
	var ticks int64
	for _, n := range f[12:14] { // utime, stime
		v, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += v
	}
	return time.Duration(u.Utime.Nano()+u.Stime.Nano()) + time.Duration(ticks)*tick
}

// BenchmarkCold measures the first call of a namespace that has no process yet, while
// one waits and the code is stored on disk: what a function costs that scaled to zero.
func BenchmarkCold(b *testing.B) {
	guests, err := sandboxtest.BuildGo()
	if err != nil {
		b.Fatal(err)
	}
	code, err := codestore.Open(codestore.Config{
		Dir: filepath.Join(b.TempDir(), "code"), Key: make([]byte, codestore.KeySize), Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	s := &sandboxtest.Store{}
	r := newRunner(b, s, benchmarked(b), func(c *Config) { c.Code, c.Engine = code, jsengine.Module })
	build := &sandboxtest.Bench{Runner: r, Store: s, T: &testing.T{}}
	hello := []byte("export default { fetch() { return new Response('hello') } }")
	// A process loads the engine ahead only where there was a script once.
	if err := r.Prepare(context.Background(), build.Version(hello, script)); err != nil {
		b.Skip(err)
	}
	for _, g := range []struct {
		name  string
		code  []byte
		entry []sandboxtest.Option
	}{
		{"Tiny", sandboxtest.Hello(), nil},
		{"GoCommand", guests.Command, nil},
		{"GoHandle", guests.Handle, []sandboxtest.Option{sandboxtest.Handle}},
		{"Script", hello, []sandboxtest.Option{script}},
	} {
		b.Run(g.name, func(b *testing.B) {
			if err := r.Prepare(context.Background(), build.Version(g.code, g.entry...)); err != nil {
				b.Skip(err)
			}
			var took []time.Duration
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				for !r.rested() {
					runtime.Gosched()
				}
				v := build.Version(g.code, append(g.entry, sandboxtest.In(fmt.Sprintf("%s%d", g.name, n)))...)
				b.StartTimer()
				began := time.Now()
				res, err := r.Invoke(context.Background(), &sandbox.Invocation{
					ID: "id", Version: v, Head: sandbox.Head{ID: "id", Method: "GET", Path: "/", Trigger: "http"},
				})
				took = append(took, time.Since(began))
				if err != nil || !res.Usage.Cold {
					b.Fatalf("cold %v, %v", res.Usage.Cold, err)
				}
				b.StopTimer()
				r.tenants[v.Namespace].live().endIdle()
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// rested reports whether a process waits that has the engine, and nothing is going on.
func (r *Runner) rested() bool {
	if r.active.Load() > 0 {
		return false
	}
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	for _, p := range r.pool.ready {
		p.mu.Lock()
		defer p.mu.Unlock()
		l := p.loads[baseID]
		return l != nil && l.finished
	}
	return false
}

func BenchmarkStart(b *testing.B) {
	r := newRunner(b, &sandboxtest.Store{}, benchmarked(b), func(c *Config) { c.Warm = -1 })
	idle := ""
	for b.Loop() {
		p, err := r.start(r.mostCharged)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if idle == "" {
			idle = pss(p.child.life.pid())
		}
		p.kill(reasonIdle)
		<-p.gone
		b.StartTimer()
	}
	b.Logf("idle: %s", idle)
}

// pss gives the lines of smaps_rollup that count.
func pss(pid int) string {
	text, err := os.ReadFile(proc(pid, "smaps_rollup"))
	if err != nil {
		return err.Error()
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Rss:") || strings.HasPrefix(line, "Pss:") || strings.HasPrefix(line, "Private_Dirty:") {
			kept = append(kept, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(kept, ", ")
}

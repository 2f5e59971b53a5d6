package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/bench/peers/plain"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// Goals of the native tier.
const (
	warmGoal     = 1.3
	freshGoal    = 0.3
	handoverGoal = 1.0 // ms
	startGoal    = 12
	startMost    = 6.0 // ms
)

// burst is what came of calling one thing again and again.
type burst struct {
	times     []float64 // µs, sorted
	perSecond float64
	cpu       float64 // µs of the process tree for each
}

func (b *burst) p(q int) float64 { return b.times[min(len(b.times)*q/100, len(b.times)-1)] }

// repeat calls f from c goroutines for d, and at least once.
func repeat(ctx context.Context, c int, d time.Duration, f func(context.Context) error) (burst, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before, err := treeCPU(os.Getpid())
	if err != nil {
		return burst{}, err
	}
	var mu sync.Mutex
	var b burst
	var all sync.WaitGroup
	began := time.Now()
	for range c {
		all.Go(func() {
			var mine []float64
			for ctx.Err() == nil && (len(mine) == 0 || time.Since(began) < d) {
				start := time.Now()
				if err := f(ctx); err != nil {
					cancel(err)
					return
				}
				mine = append(mine, float64(time.Since(start).Nanoseconds())/1e3)
			}
			mu.Lock()
			defer mu.Unlock()
			b.times = append(b.times, mine...)
		})
	}
	all.Wait()
	took := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return burst{}, err
	}
	after, err := treeCPU(os.Getpid())
	if err != nil {
		return burst{}, err
	}
	slices.Sort(b.times)
	n := float64(len(b.times))
	b.perSecond, b.cpu = n/took.Seconds(), (after-before).Seconds()*1e6/n
	return b, nil
}

// mid is the median of a figure over bursts.
func mid(all []burst, figure func(*burst) float64) float64 {
	var v []float64
	for i := range all {
		v = append(v, figure(&all[i]))
	}
	return middle(v)
}

// alternate has two sides take turns, A B A B, after a warm-up of each.
func (b *bench) alternate(ctx context.Context, c int, ours, peer func(context.Context) error) (as, zs []burst, err error) {
	for round := -1; round < b.cfg.rounds; round++ {
		d := b.cfg.duration
		if round < 0 {
			d = b.cfg.warmup
		}
		a, err := repeat(ctx, c, d, ours)
		if err != nil {
			return nil, nil, err
		}
		z, err := repeat(ctx, c, d, peer)
		if err != nil {
			return nil, nil, err
		}
		if round >= 0 {
			as, zs = append(as, a), append(zs, z)
		}
	}
	return as, zs, nil
}

// warm calls an instance that waits for work, one call after the other.
func warm(ctx context.Context, b *bench) ([]result, error) {
	return each(ctx, b, func(ctx context.Context, t *tier, program string) (result, error) {
		v, p, err := t.both(ctx, "native-"+program, function.IsolationInstance)
		if err != nil {
			return result{}, err
		}
		peer, err := p.start(ctx)
		if err != nil {
			return result{}, err
		}
		defer peer.Stop()
		as, zs, err := b.alternate(ctx, 1, func(ctx context.Context) error {
			_, err := t.hello(ctx, v)
			return err
		}, func(ctx context.Context) error {
			answer, err := peer.Invoke(ctx, event())
			if err == nil {
				_, err = read(answer)
			}
			return err
		})
		if err != nil {
			return result{}, err
		}
		p50, p99, cpu := func(b *burst) float64 { return b.p(50) }, func(b *burst) float64 { return b.p(99) }, func(b *burst) float64 { return b.cpu }
		r := result{
			Unit: "µs", Ours: mid(as, p50), Peer: mid(zs, p50), PeerName: "the same process on a Runtime API of net/http, not locked in",
			Goal: warmGoal, Better: "lower",
			Note: fmt.Sprintf("p50 of calls of a warm instance through the native runner, one at a time; p99 %.0f against %.0f µs, CPU of all processes %.0f against %.0f µs a call",
				mid(as, p99), mid(zs, p99), mid(as, cpu), mid(zs, cpu)),
		}
		r.Ratio = r.Ours / r.Peer
		return r, nil
	})
}

// freshCallers is how many callers keep both sides of native.fresh busy.
const freshCallers = 8

// fresh has each call served by a sandbox that nobody used before.
func fresh(ctx context.Context, b *bench) ([]result, error) {
	return each(ctx, b, func(ctx context.Context, t *tier, program string) (result, error) {
		v, p, err := t.both(ctx, "native-"+program, function.IsolationInvocation)
		if err != nil {
			return result{}, err
		}
		var as, zs []burst
		for range b.cfg.rounds {
			ours := func(ctx context.Context) error {
				_, err := t.hello(ctx, v)
				return err
			}
			if _, err := repeat(ctx, freshCallers, b.cfg.warmup, ours); err != nil {
				return result{}, err
			}
			a, err := repeat(ctx, freshCallers, b.cfg.duration, ours)
			if err != nil {
				return result{}, err
			}
			// What was started ahead would be the peer's burden, and our head start next time.
			if err := t.retire(ctx, v); err != nil {
				return result{}, err
			}
			z, err := repeat(ctx, freshCallers, b.cfg.duration, func(ctx context.Context) error {
				answer, err := plain.Classic(ctx, p.argv, p.env, p.dir, event())
				if err == nil {
					_, err = read(answer)
				}
				return err
			})
			if err != nil {
				return result{}, err
			}
			as, zs = append(as, a), append(zs, z)
		}
		rate, p50 := func(b *burst) float64 { return b.perSecond }, func(b *burst) float64 { return b.p(50) }
		r := result{
			Unit: "/s", Ours: mid(as, rate), Peer: mid(zs, rate), PeerName: "a process for each, fork and exec",
			Goal: freshGoal, Better: "higher",
			Note: fmt.Sprintf("a new sandbox for each call, %d callers; p50 %.1f against %.1f ms", freshCallers, mid(as, p50)/1e3, mid(zs, p50)/1e3),
		}
		// Of a box that was killed the kernel adds nothing to its parent's time, so there
		// is no figure of CPU that could be compared.
		r.Ratio = r.Ours / r.Peer
		return r, nil
	})
}

// handovers is how many sandboxes are handed over, one after the other.
const handovers = 30

// handedOver takes sandboxes that were started ahead, when nothing else is going on:
// from the call until the code has it, by the code's own clock, which is the machine's.
func handedOver(ctx context.Context, b *bench) ([]result, error) {
	p50, least, whole := map[string]float64{}, map[string]float64{}, map[string]float64{}
	_, err := each(ctx, b, func(ctx context.Context, t *tier, program string) (result, error) {
		v, err := t.version(ctx, "native-"+program, function.IsolationInvocation)
		if err != nil {
			return result{}, err
		}
		var taken, answered []float64
		for range handovers + 1 {
			began := time.Now()
			a, err := t.hello(ctx, v)
			if err != nil {
				return result{}, err
			}
			answered = append(answered, time.Since(began).Seconds()*1e3)
			taken = append(taken, float64(a.At-began.UnixNano())/1e6)
			// The next one, which is started when this one is taken, waits, and is at rest.
			if err := t.rest(ctx, 1); err != nil {
				return result{}, err
			}
		}
		taken, answered = taken[1:], answered[1:] // the first had to be started
		p50[program], whole[program] = middle(taken), middle(answered)
		least[program] = slices.Min(taken)
		return result{}, nil
	})
	if err != nil {
		return nil, err
	}
	return []result{{
		Unit: "ms", Ours: p50["go"], Goal: handoverGoal, Better: "lower", N: handovers,
		Note: fmt.Sprintf("p50 from the call until the code of a sandbox that was started ahead has the event, idle machine, Go; least %.2f, until the answer %.2f ms; Node.js %.2f, %.2f and %.2f ms; Python %.2f, %.2f and %.2f ms",
			least["go"], whole["go"], p50["node"], least["node"], whole["node"], p50["python"], least["python"], whole["python"]),
	}}, nil
}

// rest waits until at least n sandboxes wait for work and none is starting or ending,
// and then until they have been stopped.
func (t *tier) rest(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	last := -1
	err := poll(ctx, 100*time.Millisecond, func() error {
		running, idle, _, _ := t.runner.Load()
		if idle < n || running != idle || idle != last {
			last = idle
			return fmt.Errorf("of %d sandboxes %d wait for work", running, idle)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return pause(ctx, 300*time.Millisecond) // see native.freezeAfter
}

// retire ends all sandboxes of a version and returns when they are gone.
func (t *tier) retire(ctx context.Context, v *function.Version) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t.runner.Retire(v.Namespace, v.ID)
	return poll(ctx, 20*time.Millisecond, func() error {
		if _, _, claimed, _ := t.runner.Load(); claimed > 0 {
			return fmt.Errorf("sandboxes hold %d bytes", claimed)
		}
		return nil
	})
}

// starts is how many times a program is started.
const starts = 100

// started starts a static program, in a box and by itself, until it has said something.
func started(ctx context.Context, b *bench) ([]result, error) {
	program := b.dir + "/nothing"
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", program, "./bench/peers/nothing")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building peers/nothing: %v: %s", err, out)
	}
	code, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	t, err := b.tier(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	exe, err := box.Executable(code)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	var boxes, bare, ends, bareEnds []float64
	millis := func(from time.Time) float64 { return time.Since(from).Seconds() * 1e3 }
	for range starts {
		began := time.Now()
		var x *box.Box
		err := untilItWrites(func(out *os.File) (err error) {
			x, err = t.broker.Start(ctx, box.Spec{
				Executable: exe, Args: []string{"nothing"}, Stdout: out, Proc: true, Tmp: 1 << 20, Memory: 64 << 20, Processes: 16, CPUPercent: 100,
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		boxes = append(boxes, millis(began))
		<-x.Done()
		ends = append(ends, millis(began))
		began = time.Now()
		cmd := exec.CommandContext(ctx, program)
		err = untilItWrites(func(out *os.File) error {
			cmd.Stdout = out
			return cmd.Start()
		})
		if err != nil {
			return nil, err
		}
		bare = append(bare, millis(began))
		if err := cmd.Wait(); err != nil {
			return nil, err
		}
		bareEnds = append(bareEnds, millis(began))
	}
	r := result{
		Unit: "ms", Ours: slices.Min(boxes), Peer: slices.Min(bare), PeerName: "fork and exec of the same program",
		Goal: startGoal, Most: startMost, Better: "lower", N: starts,
	}
	r.Ratio = r.Ours / r.Peer
	r.Note = fmt.Sprintf("the least time until a static Go program has written a byte, in a box with everything locked; p50 %.2f against %.2f ms; until it has ended and nothing is left, least %.2f against %.2f, p50 %.2f against %.2f ms",
		middle(boxes), middle(bare), slices.Min(ends), slices.Min(bareEnds), middle(ends), middle(bareEnds))
	return []result{r}, nil
}

// untilItWrites starts something and returns when it has written.
func untilItWrites(start func(out *os.File) error) error {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	err = start(theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	_, err = io.ReadFull(ours, make([]byte, 1))
	return err
}

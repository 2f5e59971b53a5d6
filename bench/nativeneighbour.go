package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// floods are what the bad function takes as much of as it gets: see functions/native-flood.
func floods() []string { return []string{"cpu", "memory", "forks", "disk", "log", "descriptors"} }

// flooders is how many callers call the bad function, each again when it has ended.
const flooders = 2

// nativeNeighbours calls a warm instance, one call after the other, alone and while
// another function of its namespace floods in two sandboxes.
func nativeNeighbours(ctx context.Context, b *bench) ([]result, error) {
	t, err := b.tier(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	good, err := t.version(ctx, "native-go", function.IsolationInstance)
	if err != nil {
		return nil, err
	}
	bad, err := t.version(ctx, "native-flood", function.IsolationInstance)
	if err != nil {
		return nil, err
	}
	bad.Config.Limits.Memory, bad.Config.Limits.Scratch, bad.Config.Limits.Timeout = 64<<20, 16<<20, time.Second
	if err := identify(bad); err != nil {
		return nil, err
	}
	call := func(ctx context.Context) error {
		_, err := t.hello(ctx, good)
		return err
	}
	if _, err := repeat(ctx, 1, b.cfg.warmup, call); err != nil {
		return nil, err
	}
	var rs []result
	for _, what := range floods() {
		var alone, beside []burst
		calls, ends := 0, map[string]int{}
		for range b.cfg.rounds {
			a, err := repeat(ctx, 1, b.cfg.duration, call)
			if err != nil {
				return rs, err
			}
			stop := t.flood(ctx, bad, what)
			err = pause(ctx, 500*time.Millisecond) // its first sandboxes start
			z, err2 := repeat(ctx, 1, b.cfg.duration, call)
			n := stop(ends)
			if err := errors.Join(err, err2); err != nil {
				return rs, fmt.Errorf("beside %s: %w", what, err)
			}
			calls += n
			alone, beside = append(alone, a), append(beside, z)
		}
		if calls == 0 || ends["unavailable"] == calls {
			return rs, fmt.Errorf("the flood of %s never began: %v", what, ends)
		}
		p50, p99, rate := func(b *burst) float64 { return b.p(50) }, func(b *burst) float64 { return b.p(99) }, func(b *burst) float64 { return b.perSecond }
		r := result{
			ID: what, Unit: "µs", Ours: mid(beside, p99), Peer: mid(alone, p99), PeerName: "the same alone", Goal: neighbourGoal, Better: "lower", N: b.cfg.rounds,
			Note: fmt.Sprintf("p99 of a warm instance (Go, one caller) beside %d sandboxes of another function that take all the %s they get; p50 %.0f against %.0f µs, %.0f against %.0f calls/s; the flood's %d calls ended so: %v",
				flooders, what, mid(beside, p50), mid(alone, p50), mid(beside, rate), mid(alone, rate), calls, ends),
		}
		r.Ratio = r.Ours / r.Peer
		rs = append(rs, r)
	}
	r, err := nativeMachine(ctx, b, call)
	return append(rs, r...), err
}

// nativeMachine measures beside loops of the shell, outside of any sandbox, that start one
// program after another: what the kernel of this machine does by itself.
func nativeMachine(ctx context.Context, b *bench, call func(context.Context) error) ([]result, error) {
	var alone, beside []burst
	for range b.cfg.rounds {
		a, err := repeat(ctx, 1, b.cfg.duration, call)
		if err != nil {
			return nil, err
		}
		stop, err := outside(ctx, flooders, `while :; do /bin/true; done`)
		if err != nil {
			return nil, err
		}
		z, err := repeat(ctx, 1, b.cfg.duration, call)
		if err := errors.Join(err, stop()); err != nil {
			return nil, fmt.Errorf("beside loops outside: %w", err)
		}
		alone, beside = append(alone, a), append(beside, z)
	}
	p50, p99 := func(b *burst) float64 { return b.p(50) }, func(b *burst) float64 { return b.p(99) }
	r := result{
		ID: machineRow, Unit: "µs", Ours: mid(beside, p99), Peer: mid(alone, p99), PeerName: "the same alone", Better: "lower", N: b.cfg.rounds,
		Note: fmt.Sprintf("what the machine itself does: p99 of a warm instance (Go, one caller) beside %d loops outside of any sandbox, of the kernel's lowest rank (SCHED_IDLE), that start one program after another; p50 %.0f against %.0f µs",
			flooders, mid(beside, p50), mid(alone, p50)),
	}
	r.Ratio = r.Ours / r.Peer
	return []result{r}, nil
}

// flood has the bad function called again and again until the end, which waits for the
// last calls, adds up how all of them ended, and gives their number.
func (t *tier) flood(ctx context.Context, v *function.Version, what string) (end func(ends map[string]int) int) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for range flooders {
		all.Go(func() {
			for ctx.Err() == nil {
				_, err := t.invoke(ctx, v, []byte(`{"do":"`+what+`"}`))
				how := "answered"
				var e *sandbox.Error
				if errors.As(err, &e) {
					how = string(e.Kind)
				}
				mu.Lock()
				seen[how]++
				mu.Unlock()
			}
		})
	}
	return func(ends map[string]int) int {
		cancel()
		all.Wait()
		n := 0
		for how, k := range seen {
			ends[how] += k
			n += k
		}
		t.runner.Retire(v.Namespace, v.ID)
		return n
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/bench/peers/plain"
	"github.com/casemate-dev/casemate/internal/function"
)

// alike is how many sandboxes of one version native.rss divides by: what they share, as
// on a node that is in use, counts once.
const alike = 8

// rssGoal is how much more memory a sandbox may take than the process in it.
const rssGoal = 1.3

// rssMost is what a sandbox may take, in MB.
func rssMost(program string) float64 {
	return map[string]float64{"go": 3, "python": 8, "node": 14}[program]
}

// resident is the memory of sandboxes that have served and wait for work.
func resident(ctx context.Context, b *bench) ([]result, error) {
	return each(ctx, b, func(ctx context.Context, t *tier, program string) (result, error) {
		v, p, err := t.both(ctx, "native-"+program, function.IsolationInstance)
		if err != nil {
			return result{}, err
		}
		broker, err := tree(os.Getpid())
		if err != nil {
			return result{}, err
		}
		var as, zs []float64
		for range b.cfg.rounds {
			a, err := t.sandboxes(ctx, v, broker)
			if err != nil {
				return result{}, err
			}
			z, err := processes(ctx, p)
			if err != nil {
				return result{}, err
			}
			as, zs = append(as, a), append(zs, z)
		}
		r := result{
			Unit: "MB", Ours: middle(as), Peer: middle(zs), PeerName: "the same process, not locked in",
			Goal: rssGoal, Most: rssMost(program), Better: "lower",
			Note: fmt.Sprintf("proportional set size of a sandbox, its init included, %d of one version, each of which has served and waits", alike),
		}
		r.Ratio = r.Ours / r.Peer
		return r, nil
	})
}

// sandboxes gives what each of alike sandboxes takes, in MB. before are the processes
// that are there without them.
func (t *tier) sandboxes(ctx context.Context, v *function.Version, before []int) (float64, error) {
	var all sync.WaitGroup
	failed := make([]error, alike)
	for i := range alike {
		all.Go(func() { _, failed[i] = t.invoke(ctx, v, []byte(`{"name":"Ada","millis":3000}`)) })
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	if err := t.rest(ctx, alike); err != nil {
		return 0, err
	}
	now, err := tree(os.Getpid())
	if err != nil {
		return 0, err
	}
	var sum int64
	count := 0
	for _, pid := range now {
		if !slices.Contains(before, pid) {
			sum += pss(pid)
			count++
		}
	}
	if count < 2*alike {
		return 0, fmt.Errorf("%d processes in %d sandboxes: each should have an init and the code", count, alike)
	}
	return float64(sum) / alike / 1e6, t.retire(ctx, v)
}

// processes is sandboxes for processes that nothing locks in.
func processes(ctx context.Context, p *bareRun) (float64, error) {
	var sum int64
	var all []*plain.Runtime
	defer func() {
		for _, r := range all {
			r.Stop()
		}
	}()
	for range alike {
		r, err := p.start(ctx)
		if err != nil {
			return 0, err
		}
		all = append(all, r)
		if _, err := r.Invoke(ctx, event()); err != nil {
			return 0, err
		}
	}
	if err := pause(ctx, time.Second); err != nil {
		return 0, err
	}
	for _, r := range all {
		sum += pss(r.PID())
	}
	return float64(sum) / alike / 1e6, nil
}

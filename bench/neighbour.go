package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// neighbourGoal is how much longer the slowest hundredth may take beside a bad neighbour.
const neighbourGoal = 2

// neighbours loads a good function with four connections, alone and while another load
// with two calls a bad one of the same namespace, which is in the same process. Then one
// caller calls it in the same way.
//
// The load generator corrects its percentiles for calls that it could not make while it
// waited for others: a single answer that takes 100 ms counts as hundreds of slow calls.
// A goal is held against that, the stricter reading. The note has the other: the calls
// that a single caller made, each counted once, beside no load but the bad one.
func neighbours(ctx context.Context, b *bench) ([]result, error) {
	good, err := b.build(ctx, "hello-c")
	if err != nil {
		return nil, err
	}
	bad := []struct {
		row, what string
		code      []byte
	}{
		{"spin", "computes for ever", sandboxtest.Spin()},
		{"allocate", "takes all the memory it gets", sandboxtest.Hoard()},
		{"recurse", "calls itself for ever", sandboxtest.Recurse()},
		{"log", "writes 100,000 log lines", sandboxtest.FloodLog(100_000)},
		{"trap", "traps at once", sandboxtest.Crash()},
		{machineRow, "", nil},
	}
	s, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	fns := []built{good}
	for _, n := range bad {
		if n.row == machineRow {
			continue
		}
		fns = append(fns, built{n.row, api.FunctionConfig{
			Runtime: "wasm", TimeoutMillis: 1000, HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/" + n.row}},
		}, n.code})
	}
	if err := s.deploy(ctx, manifest.DefaultNamespace, fns...); err != nil {
		return nil, err
	}
	t := s.target(manifest.DefaultNamespace, good)
	if err := b.await(ctx, t, s.pool); err != nil {
		return nil, err
	}
	if err := s.quiet(ctx); err != nil {
		return nil, err
	}
	if _, err := load(ctx, t, 4, b.cfg.warmup); err != nil {
		return nil, err
	}
	var rs []result
	for i, n := range bad {
		var alone, beside []sample
		var one, oneBeside []float64
		for range b.cfg.rounds {
			a, err := load(ctx, t, 4, b.cfg.duration)
			if err != nil {
				return rs, err
			}
			p, err := oneCaller(ctx, t, s.pool, b.cfg.duration)
			if err != nil {
				return rs, err
			}
			var stop func() error
			if n.row == machineRow {
				stop, err = outside(ctx, harassers, `while :; do :; done`)
			} else {
				stop, err = harass(ctx, s.target(manifest.DefaultNamespace, fns[1+i]))
			}
			if err != nil {
				return rs, err
			}
			z, err := load(ctx, t, 4, b.cfg.duration)
			q, err2 := oneCaller(ctx, t, s.pool, b.cfg.duration)
			if err := errors.Join(err, err2, stop()); err != nil {
				return rs, err
			}
			if a.Errors+z.Errors > 0 {
				return rs, fmt.Errorf("the good function failed: %d times alone, %d times beside %s", a.Errors, z.Errors, n.row)
			}
			alone, beside = append(alone, a), append(beside, z)
			one, oneBeside = append(one, p), append(oneBeside, q)
		}
		a, z := median(alone), median(beside)
		if n.row == machineRow {
			rs = append(rs, result{
				ID: n.row, Unit: "µs", Ours: z.P99, Peer: a.P99, PeerName: "the same alone", Ratio: z.P99 / a.P99, Better: "lower", N: b.cfg.rounds,
				Note: fmt.Sprintf("what the machine itself does: p99 of the good function beside two loops outside of the node, of the kernel's lowest rank (SCHED_IDLE); p50 %.0f against %.0f µs, %.0f against %.0f req/s; p99 of the calls of a single caller, each counted once, %.0f against %.0f µs",
					z.P50, a.P50, z.PerSecond, a.PerSecond, middle(oneBeside), middle(one)),
			})
			continue
		}
		rs = append(rs, result{
			ID: n.row, Unit: "µs", Ours: z.P99, Peer: a.P99, PeerName: "the same alone", Ratio: z.P99 / a.P99,
			Goal: neighbourGoal, Better: "lower", N: b.cfg.rounds,
			Note: fmt.Sprintf("p99 of a good function (C, c4) beside one of its process (c2) that %s; p50 %.0f against %.0f µs, %.0f against %.0f req/s; p99 of the calls of a single caller, each counted once, %.0f against %.0f µs",
				n.what, z.P50, a.P50, z.PerSecond, a.PerSecond, middle(oneBeside), middle(one)),
		})
	}
	return rs, nil
}

// oneCaller calls for d, each time when it has the last answer, and gives the 99th
// percentile of the times that it took, in microseconds.
func oneCaller(ctx context.Context, t *target, pool *x509.CertPool, d time.Duration) (float64, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	if err := hello(ctx, client, t); err != nil { // the connection is made before
		return 0, fmt.Errorf("calling %s: %w", t.Name, err)
	}
	var all []float64
	for end := time.Now().Add(d); time.Now().Before(end); {
		began := time.Now()
		if err := hello(ctx, client, t); err != nil {
			return 0, fmt.Errorf("calling %s: %w", t.Name, err)
		}
		all = append(all, float64(time.Since(began).Nanoseconds())/1e3)
	}
	slices.Sort(all)
	return all[len(all)*99/100], nil
}

// middle is the median.
func middle(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// machineRow measures beside a load that is none of ours: the least that anything which
// computes costs here.
const machineRow = "machine"

// harassers is how many connections call the bad function, and how many loops compute in
// its place.
const harassers = 2

// outside runs a script of the shell, several times at once and at the lowest rank, until
// it is stopped.
func outside(ctx context.Context, times int, script string) (stop func() error, err error) {
	var running []*exec.Cmd
	stop = func() error {
		for _, c := range running {
			if err := c.Process.Kill(); err != nil {
				return fmt.Errorf("a loop ended too early: %v", err)
			}
			_ = c.Wait()
		}
		return nil
	}
	for range times {
		c := exec.CommandContext(ctx, "chrt", "-i", "0", "sh", "-c", script)
		if err := c.Start(); err != nil {
			return nil, errors.Join(err, stop())
		}
		running = append(running, c)
	}
	return stop, nil
}

// harass calls a function with two connections until it is stopped. What it answers is
// not looked at.
func harass(ctx context.Context, t *target) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, "wrk", "-t1", fmt.Sprint("-c", harassers), "-d60s", "--timeout", "10s", "-s", "load.lua", t.URL)
	cmd.Env = append(os.Environ(), "BENCH_KEY_FILE="+t.KeyFile)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		if err := cmd.Process.Kill(); err != nil {
			return fmt.Errorf("the load on the neighbour ended too early: %v", err)
		}
		_ = cmd.Wait()
		return nil
	}, nil
}

// many spreads the same load over more and more functions of the same work.
func many(ctx context.Context, b *bench) ([]result, error) {
	f, err := b.build(ctx, "hello-c")
	if err != nil {
		return nil, err
	}
	s, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	counts := []int{1, 10, 100}
	var fns []built
	for i := range counts[len(counts)-1] {
		fns = append(fns, f.variant(i))
	}
	if err := s.deploy(ctx, manifest.DefaultNamespace, fns...); err != nil {
		return nil, err
	}
	for _, v := range fns {
		if err := b.await(ctx, s.target(manifest.DefaultNamespace, v), s.pool); err != nil {
			return nil, err
		}
	}
	if err := s.quiet(ctx); err != nil {
		return nil, err
	}
	samples := make([][]sample, len(counts))
	for round := range b.cfg.rounds + 1 {
		for i, n := range counts {
			t := s.target(manifest.DefaultNamespace, f)
			t.Spread = n
			x, err := load(ctx, t, 32, b.cfg.duration)
			if err != nil {
				return nil, err
			}
			if x.Errors > 0 {
				return nil, fmt.Errorf("%d functions gave %d errors", n, x.Errors)
			}
			if round > 0 { // the first is the warm-up
				samples[i] = append(samples[i], x)
			}
		}
	}
	var rs []result
	one := median(samples[0])
	for i, n := range counts {
		x := median(samples[i])
		r := result{
			ID: fmt.Sprint(n), Unit: "req/s", Ours: x.PerSecond, CPU: x.CPUMicros, Better: "higher", N: b.cfg.rounds,
			Note: fmt.Sprintf("%d functions of different bytes in turn (C), c32; p50 %.0f µs, p99 %.0f µs", n, x.P50, x.P99),
		}
		if n > 1 {
			r.Peer, r.PeerName, r.Ratio = one.PerSecond, "one function", x.PerSecond/one.PerSecond
			r.PeerCPU, r.CPURatio = one.CPUMicros, one.CPUMicros/x.CPUMicros
		}
		rs = append(rs, r)
	}
	return rs, nil
}

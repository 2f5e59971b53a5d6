package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/process"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// shelf keeps artifacts and compiled code in memory.
type shelf struct{ held sync.Map }

func (s *shelf) Artifact(_ context.Context, d function.Digest) ([]byte, error) {
	if b, ok := s.Get(d); ok {
		return b, nil
	}
	return nil, errors.New("no such artifact")
}

func (s *shelf) Get(d function.Digest) ([]byte, bool) {
	b, ok := s.held.Load(d)
	if !ok {
		return nil, false
	}
	return b.([]byte), true
}

func (s *shelf) Put(d function.Digest, b []byte) error {
	s.held.Store(d, b)
	return nil
}

func (s *shelf) Delete(d function.Digest) { s.held.Delete(d) }

// handover is what a call costs between the node and the sandbox process: a guest that
// does nothing, called through process.Runner from this program, less what the engine
// takes for it by itself (BenchmarkCall).
func handover(ctx context.Context, b *bench) ([]result, error) {
	all, err := gobench(ctx, "internal/sandbox/wasm", "^BenchmarkCall$/^wat-handle$", "0.5s", 3)
	if err != nil {
		return nil, err
	}
	engine, ok := by(all, "cpu-ns/op")["Call/wat-handle"]
	if !ok {
		return nil, errors.New("BenchmarkCall/wat-handle reports no cpu-ns/op")
	}
	runner, v, err := doNothing()
	if err != nil {
		return nil, err
	}
	defer func() { _ = runner.Close() }()
	if err := runner.Prepare(ctx, v); err != nil {
		return nil, err
	}
	var rs []result
	for _, c := range []int{1, 32} {
		if _, _, err := calls(ctx, runner, v, c, b.cfg.warmup); err != nil {
			return rs, err
		}
		var samples []sample
		for range b.cfg.rounds {
			before, err := treeCPU(os.Getpid())
			if err != nil {
				return rs, err
			}
			n, took, err := calls(ctx, runner, v, c, b.cfg.duration)
			if err != nil {
				return rs, err
			}
			after, err := treeCPU(os.Getpid())
			if err != nil {
				return rs, err
			}
			samples = append(samples, sample{PerSecond: float64(n) / took.Seconds(), CPUMicros: (after - before).Seconds() * 1e6 / float64(n)})
		}
		x := median(samples)
		rs = append(rs, result{
			ID: fmt.Sprintf("c%d", c), Unit: "µs of CPU", Ours: x.CPUMicros - engine/1e3, Better: "lower", N: b.cfg.rounds,
			Note: fmt.Sprintf("per call of a guest that does nothing, %d at a time, through process.Runner: %.1f µs, less the engine's own %.1f µs; %.0f calls/s", c, x.CPUMicros, engine/1e3, x.PerSecond),
		})
	}
	return rs, nil
}

// doNothing gives a runner whose sandboxes are this program, and a version.
func doNothing() (*process.Runner, *function.Version, error) {
	s := &shelf{}
	code := sandboxtest.HelloHandle(0)
	v := &function.Version{
		Ref: function.Ref{Namespace: "bench", Name: "nothing"}, Artifact: function.DigestOf(code), Size: int64(len(code)),
		Config: function.Config{
			Runtime: function.RuntimeWasm, Entry: function.EntryHandle, Isolation: function.IsolationInvocation,
			Limits: function.Limits{Memory: 64 << 20, Timeout: 10 * time.Second, Output: 1 << 20, Log: 64 << 10, Concurrency: 64},
		},
	}
	var err error
	if v.ID, err = function.VersionID(v.Artifact, v.Config); err != nil {
		return nil, nil, err
	}
	if err := s.Put(v.Artifact, code); err != nil {
		return nil, nil, err
	}
	r, err := process.New(process.Config{Artifacts: s, Code: s, Logger: slog.New(slog.DiscardHandler), Clock: time.Now})
	return r, v, err
}

// calls invokes from c goroutines for d.
func calls(ctx context.Context, r sandbox.Runner, v *function.Version, c int, d time.Duration) (n int64, took time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range c {
		all.Go(func() {
			for time.Since(began) < d && ctx.Err() == nil {
				_, err := r.Invoke(ctx, &sandbox.Invocation{
					ID: "id", Version: v, Body: []byte(`{"name":"Ada"}`),
					Head: sandbox.Head{ID: "id", Method: "POST", Path: "/hello", Headers: map[string][]string{"accept": {"*/*"}}, Trigger: "http"},
				})
				if err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return done.Load(), time.Since(began), context.Cause(ctx)
}

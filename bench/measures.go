package main

import (
	"context"
	"fmt"
	"time"
)

// side starts one side of a comparison.
type side func(context.Context, *bench) (*target, error)

func measures() []measure {
	return []measure{
		versus("gateway.noop", "no-op runner", noop, bare, 0.6),
		versus("wasm.go", "Go, exported handle", ours("hello-go"), bare, 0.5),
		versus("wasm.go-command", "Go, command", ours("hello-go-command"), bare, 0.5),
		versus("wasm.rust", "Rust, command", ours("hello-rust"), bare, 0.5),
		versus("wasm.c", "C, exported handle", ours("hello-c"), bare, 0.5),
		versus("js.hello", "JavaScript, the same source; workerd keeps one isolate for all requests", ours("hello-js"), workerd(false), 1.25),
		versus("js.hello.fresh", "JavaScript, the same source; workerd loads an isolate for each request", ours("hello-js"), workerd(true), 40),
		versus("js.hono", "the same Hono app", ours("hono"), nodeHono, 0.5),
		versus("js.framework", "JavaScript; the peer has no isolation", ours("hello-js"), framework, 0),
		{"wasm.cold", []string{"c", "rust", "go", "go-command", "js"}, cold},
		{"wasm.fuel", []string{""}, fuelled},
		{"wasm.restore.pages", []string{""}, restoring},
		{"wasm.pause", []string{""}, pausing},
		{"wasm.neighbour", []string{"spin", "allocate", "recurse", "log", "trap", machineRow}, neighbours},
		{"wasm.many", []string{"1", "10", "100"}, many},
		{"sandbox.handover", []string{"c1", "c32"}, handover},
		{"wasm.lockdown", []string{"c1", "c16"}, lockedDown},
		{"native.warm", programs(), warm},
		{"native.fresh", programs(), fresh},
		{"native.handover", []string{""}, handedOver},
		{"native.start", []string{""}, started},
		{"native.rss", programs(), resident},
		{"native.neighbour", append(floods(), machineRow), nativeNeighbours},
		versus("http.framework", "functions-framework in a sandbox, through everything, both sides after 20,000 requests; ours is given one request at a time, and more sandboxes only when those that wait would wait for as long as a start takes", worked(ours("native-framework")), worked(framework), 0.8),
		{"node.idle.rss", []string{""}, idle},
		{"node.functions.idle", []string{"c", "js"}, idleFunctions},
		{"events.durable", []string{"", "batched"}, durable},
		{"events.latency", []string{""}, eventLatency},
		{"events.drain", []string{"", "memory"}, drained},
		{"events.triggers", []string{"schedule", "topic"}, idleTriggersOf},
		{"events.postgres", []string{"", "rows"}, postgresRows},
		{"profile.wasm.c", []string{"c32"}, profiled("hello-c")},
		{"profile.wasm.go", []string{"c32"}, profiled("hello-go")},
		{"profile.wasm.rust", []string{"c32"}, profiled("hello-rust")},
		{"profile.js.hello", []string{"c32"}, profiled("hello-js")},
		{"profile.js.hono", []string{"c32"}, profiled("hono")},
	}
}

// versus compares the throughput of two sides with one connection and with 32; the
// goal is for 32.
func versus(id, name string, ours, peer side, goal float64) measure {
	return measure{id, []string{"c1", "c32"}, func(ctx context.Context, b *bench) ([]result, error) {
		return compare(ctx, b, name, ours, peer, goal)
	}}
}

func noop(ctx context.Context, b *bench) (*target, error)      { return b.noop(ctx) }
func bare(ctx context.Context, b *bench) (*target, error)      { return b.bare(ctx) }
func nodeHono(ctx context.Context, b *bench) (*target, error)  { return b.nodeHono(ctx) }
func framework(ctx context.Context, b *bench) (*target, error) { return b.framework(ctx) }

// worked is a side that has answered some twenty thousand requests: a program whose code
// is compiled while it runs is measured as it is from then on, however long that took it.
func worked(s side) side {
	return func(ctx context.Context, b *bench) (*target, error) {
		const requests = 20_000
		t, err := s(ctx, b)
		for answered := 0.0; err == nil && answered < requests; {
			var x sample
			x, err = load(ctx, t, 32, b.cfg.warmup)
			answered += x.PerSecond * b.cfg.warmup.Seconds()
		}
		return t, err
	}
}

func ours(fn string) side {
	return func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, fn) }
}

func workerd(fresh bool) side {
	return func(ctx context.Context, b *bench) (*target, error) { return b.workerd(ctx, fresh) }
}

func compare(ctx context.Context, b *bench, name string, ours, peer side, goal float64) ([]result, error) {
	us, err := ours(ctx, b)
	if err != nil {
		return nil, err
	}
	defer us.stop()
	them, err := peer(ctx, b)
	if err != nil {
		return nil, err
	}
	defer them.stop()
	var rs []result
	for _, c := range []int{1, 32} {
		a, z, err := pair(ctx, us, them, c, b.cfg)
		if err != nil {
			return rs, err
		}
		r := result{
			ID: fmt.Sprintf("c%d", c), Unit: "req/s", Ours: a.PerSecond, Peer: z.PerSecond, PeerName: them.Name,
			Ratio: a.PerSecond / z.PerSecond, CPU: a.CPUMicros, PeerCPU: z.CPUMicros, CPURatio: z.CPUMicros / a.CPUMicros,
			Better: "higher", N: b.cfg.rounds,
			Note: fmt.Sprintf("%s; p50 %.0f against %.0f µs, p99 %.0f against %.0f µs", name, a.P50, z.P50, a.P99, z.P99),
		}
		if c == 32 {
			r.Goal = goal
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// idle is the memory of a node that has nothing to do: the node and its warm
// sandbox process, shared pages counted once.
func idle(ctx context.Context, b *bench) ([]result, error) {
	s, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	// Let what the start needed be given back.
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	pss, err := treePSS(s.pid)
	if err != nil {
		return nil, err
	}
	return []result{{
		Unit: "MB", Ours: float64(pss) / 1e6, Goal: 80, Better: "lower", N: 1,
		Note: "the node and one warm sandbox process, proportional set size, ten seconds after the start",
	}}, nil
}

// settle is how long a node that has started is left alone before its memory is looked at.
const settle = 10 * time.Second

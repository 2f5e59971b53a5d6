package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

func measures() []measure {
	versusBare := func(name, id string, ours func(context.Context, *bench) (*target, error), goal float64) measure {
		return measure{
			ids: []string{id + ".c1", id + ".c32"},
			run: func(ctx context.Context, b *bench) ([]result, error) {
				return compare(ctx, b, name, id, ours, bare, goal)
			},
		}
	}
	return []measure{
		versusBare("no-op runner", "gateway.noop", noop, 0.6),
		versusBare("Go, command", "wasm.go", func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-go") }, 0),
		versusBare("Go, exported handle", "wasm.go-handle", func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-go-handle") }, 0),
		versusBare("C, command", "wasm.c", func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-c") }, 0),
		{
			ids: []string{"peer.workerd.c1", "peer.workerd.c32"},
			run: func(ctx context.Context, b *bench) ([]result, error) {
				return compare(ctx, b, "Go, exported handle", "peer.workerd",
					func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-go-handle") },
					func(ctx context.Context, b *bench) (*target, error) { return b.workerd(ctx, false) }, 0)
			},
		},
		{
			ids: []string{"peer.workerd-fresh.c1", "peer.workerd-fresh.c32"},
			run: func(ctx context.Context, b *bench) ([]result, error) {
				return compare(ctx, b, "Go, exported handle", "peer.workerd-fresh",
					func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-go-handle") },
					func(ctx context.Context, b *bench) (*target, error) { return b.workerd(ctx, true) }, 0)
			},
		},
		{
			ids: []string{"peer.functions-framework.c1", "peer.functions-framework.c32"},
			run: func(ctx context.Context, b *bench) ([]result, error) {
				return compare(ctx, b, "Go, exported handle", "peer.functions-framework",
					func(ctx context.Context, b *bench) (*target, error) { return b.node(ctx, "hello-go-handle") },
					func(ctx context.Context, b *bench) (*target, error) { return b.framework(ctx) }, 0)
			},
		},
		{ids: []string{"node.idle.rss"}, run: idle},
	}
}

func bare(ctx context.Context, b *bench) (*target, error) { return b.bare(ctx) }
func noop(ctx context.Context, b *bench) (*target, error) { return b.noop(ctx) }

// compare loads both sides with one connection and with 32, and gives the ratio
// of their throughput. The CPU time per answer stands in the note: on a shared
// machine throughput drifts, and the load generator eats of the same cores.
func compare(ctx context.Context, b *bench, name, id string, ours func(context.Context, *bench) (*target, error),
	peer func(context.Context, *bench) (*target, error), goal float64,
) ([]result, error) {
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
			ID: fmt.Sprintf("%s.c%d", id, c), Unit: "req/s", Ours: a.PerSecond, Peer: z.PerSecond, PeerName: them.Name,
			Ratio: a.PerSecond / z.PerSecond, Better: "higher", N: b.cfg.rounds,
			Note: fmt.Sprintf("%s; CPU µs per answer %.0f against %.0f (%.3g×); p50 %.0f against %.0f µs, p99 %.0f against %.0f µs",
				name, a.CPUMicros, z.CPUMicros, z.CPUMicros/a.CPUMicros, a.P50, z.P50, a.P99, z.P99),
		}
		if c == 32 {
			r.Goal = goal
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// casemate runs one client command against the bench's own context.
func (b *bench) casemate(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.cfg.casemate, args...)
	cmd.Env = append(os.Environ(), "CASEMATE_CONFIG="+filepath.Join(b.dir, "client.json"), "NO_COLOR=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("casemate %s: %v\n%s", args[0], err, stderr.Bytes())
	}
	return out, nil
}

// up starts a node in a fresh directory and waits until it is ready.
func (b *bench) up(ctx context.Context) (t *target, gateway string, err error) {
	gw, err := freePort()
	if err != nil {
		return nil, "", err
	}
	ctl, err := freePort()
	if err != nil {
		return nil, "", err
	}
	data, err := os.MkdirTemp(b.dir, "node-")
	if err != nil {
		return nil, "", err
	}
	_ = os.Remove(filepath.Join(b.dir, "client.json"))
	pid, stop, err := b.spawn("casemate", []string{
		b.cfg.casemate, "up", "--data-dir", data,
		"--gateway", "127.0.0.1:" + strconv.Itoa(gw), "--control", "127.0.0.1:" + strconv.Itoa(ctl),
	}, "CASEMATE_CONFIG="+filepath.Join(b.dir, "client.json"))
	if err != nil {
		return nil, "", err
	}
	t = &target{Name: "casemate", PID: pid, stop: stop}
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = b.casemate(wait, "status", "-o", "json"); err == nil {
			return t, fmt.Sprintf("https://127.0.0.1:%d", gw), nil
		}
		select {
		case <-wait.Done():
			stop()
			return nil, "", fmt.Errorf("waiting for the node: %v", err)
		case <-tick.C:
		}
	}
}

// node starts a node with the bench's functions and gives the route of one.
func (b *bench) node(ctx context.Context, fn string) (*target, error) {
	t, gateway, err := b.up(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := b.casemate(ctx, "deploy", "functions", "--only", fn, "--yes", "-o", "json"); err != nil {
		t.stop()
		return nil, err
	}
	out, err := b.casemate(ctx, "key", "create", "--scope", "invoke:default/*", "-o", "json")
	if err != nil {
		t.stop()
		return nil, err
	}
	var key struct{ Secret string }
	if err := json.Unmarshal(out, &key); err != nil {
		t.stop()
		return nil, fmt.Errorf("reading the key: %v", err)
	}
	t.KeyFile = filepath.Join(b.dir, "key")
	if err := os.WriteFile(t.KeyFile, []byte(key.Secret+"\n"), 0o600); err != nil {
		t.stop()
		return nil, err
	}
	t.URL = gateway + "/" + fn
	pool, err := b.nodeCA()
	if err != nil {
		t.stop()
		return nil, err
	}
	if err := b.await(ctx, t, pool); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// nodeCA reads the node's certificate from the client's configuration.
func (b *bench) nodeCA() (*x509.CertPool, error) {
	f, err := os.ReadFile(filepath.Join(b.dir, "client.json"))
	if err != nil {
		return nil, err
	}
	var conf struct {
		Contexts []struct {
			CA string `json:"ca"`
		} `json:"contexts"`
	}
	if err := json.Unmarshal(f, &conf); err != nil {
		return nil, fmt.Errorf("reading the client's configuration: %v", err)
	}
	pool := x509.NewCertPool()
	for _, c := range conf.Contexts {
		if pool.AppendCertsFromPEM([]byte(c.CA)) {
			return pool, nil
		}
	}
	return nil, errors.New("the client's configuration holds no certificate")
}

// idle is the memory of a node that has nothing to do: the node and its warm
// sandbox process, shared pages counted once.
func idle(ctx context.Context, b *bench) ([]result, error) {
	t, _, err := b.up(ctx)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	// Let what the start needed be given back.
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(10 * time.Second):
	}
	pss, err := treePSS(t.PID)
	if err != nil {
		return nil, err
	}
	return []result{{
		ID: "node.idle.rss", Unit: "MB", Ours: float64(pss) / 1e6, Goal: 80, Better: "lower", N: 1,
		Note: "the node and one warm sandbox process, proportional set size, ten seconds after the start",
	}}, nil
}

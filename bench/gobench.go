package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// benchmark is one line that `go test -bench` printed.
type benchmark struct {
	name  []string           // without Benchmark, cut at slashes
	units map[string]float64 // by unit: ns/op and what the benchmark reported itself
}

// gobench runs Go benchmarks of a package of ours, which is where measures live that
// need the inside of the engine.
func gobench(ctx context.Context, pkg, pattern, benchtime string, count int, env ...string) ([]benchmark, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime,
		"-count", strconv.Itoa(count), "-timeout", "5m", "./"+pkg)
	cmd.Dir = ".."
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running %s of %s: %v: %s", pattern, pkg, err, lastLines(out))
	}
	all, err := parseBenchmarks(out)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s has no benchmark %s", pkg, pattern)
	}
	return all, err
}

func parseBenchmarks(out []byte) ([]benchmark, error) {
	var all []benchmark
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(f[1]); err != nil {
			continue // a log line
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i] // the number of processors
			}
		}
		b := benchmark{strings.Split(name, "/"), map[string]float64{}}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("reading %q: %v", strings.TrimSpace(line), err)
			}
			b.units[f[i+1]] = v
		}
		all = append(all, b)
	}
	return all, nil
}

// lastLines is the end of what a program printed, on one line.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(out, nil))), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// by gives the least of a unit over the repetitions of each name: what other work on
// the machine adds is never negative.
func by(all []benchmark, unit string) map[string]float64 {
	least := map[string]float64{}
	for _, b := range all {
		k := strings.Join(b.name, "/")
		v, ok := b.units[unit]
		if had, seen := least[k]; ok && (!seen || v < had) {
			least[k] = v
		}
	}
	return least
}

// fuelled compares guests that pay for what they execute with the same modules as
// their compilers made them; see bench/fuel.
func fuelled(ctx context.Context, _ *bench) ([]result, error) {
	all, err := gobench(ctx, "bench/fuel", "^BenchmarkFuel$", "0.2s", 5)
	if err != nil {
		return nil, err
	}
	times := by(all, "cpu-ns/op")
	var product float64
	var each []string
	worst, worstOf := 0.0, ""
	plain, fuel := 0.0, 0.0
	for k, v := range times {
		name, ok := strings.CutSuffix(k, "/fuel")
		if !ok {
			continue
		}
		without, ok := times[name+"/plain"]
		if !ok {
			return nil, fmt.Errorf("%s has no counterpart", k)
		}
		name = strings.TrimPrefix(name, "Fuel/")
		ratio := v / without
		product += math.Log(ratio)
		plain, fuel = plain+without, fuel+v
		each = append(each, fmt.Sprintf("%s %.2f", name, ratio))
		if ratio > worst {
			worst, worstOf = ratio, name
		}
	}
	if len(each) == 0 {
		return nil, errors.New("the benchmark gave no pair")
	}
	slices.Sort(each)
	return []result{{
		Unit: "s", Ours: fuel / 1e9, Peer: plain / 1e9, PeerName: "wazero, the module not rewritten",
		Ratio: math.Exp(product / float64(len(each))), Goal: 1.35, Better: "lower", N: 5,
		Note: fmt.Sprintf("seconds of CPU for one of each, the least of five; the ratio is the geometric mean, the worst is %s %.2f; %s", worstOf, worst, strings.Join(each, ", ")),
	}}, nil
}

// restore is what restoring so many dirty pages takes, in µs by strategy.
type restore struct {
	MiB    int                `json:"mib"`
	Pages  int                `json:"pages"`
	Micros map[string]float64 `json:"micros"`
}

// restoring is the table of what restoring memory costs; the row shows twelve pages of
// a megabyte, which a small guest dirties.
func restoring(ctx context.Context, _ *bench) ([]result, error) {
	all, err := gobench(ctx, "internal/sandbox/wasm/memory", "^BenchmarkRestore$", "0.1s", 3)
	if err != nil {
		return nil, err
	}
	var table []restore
	for k, ns := range by(all, "ns/op") {
		var mib, pages int
		parts := strings.Split(k, "/")
		if len(parts) != 4 {
			return nil, fmt.Errorf("%q is not Restore, memory, pages, strategy", k)
		}
		if _, err := fmt.Sscanf(parts[1]+" "+parts[2], "%dMiB pages=%d", &mib, &pages); err != nil {
			return nil, fmt.Errorf("reading %q: %v", k, err)
		}
		i := slices.IndexFunc(table, func(r restore) bool { return r.MiB == mib && r.Pages == pages })
		if i < 0 {
			i = len(table)
			table = append(table, restore{mib, pages, map[string]float64{}})
		}
		table[i].Micros[parts[3]] = ns / 1e3
	}
	slices.SortFunc(table, func(a, b restore) int { return (a.MiB-b.MiB)*10000 + a.Pages - b.Pages })
	i := slices.IndexFunc(table, func(r restore) bool { return r.MiB == 1 && r.Pages == 12 })
	if i < 0 {
		return nil, errors.New("the benchmark gave no figure for 12 pages of 1 MiB")
	}
	ours, peer := table[i].Micros["scan"], table[i].Micros["memcpy"]
	return []result{{
		Unit: "µs", Ours: ours, Peer: peer, PeerName: "memcpy", Ratio: ours / peer, Better: "lower", N: 3, Restore: table,
		Note: "12 dirty pages of 1 MiB by PAGEMAP_SCAN, against copying the same pages; all in the table below",
	}}, nil
}

// pausing is the longest that Go's collector held everything up in a process whose
// guests spin on all processors.
func pausing(ctx context.Context, _ *bench) ([]result, error) {
	all, err := gobench(ctx, "internal/sandbox/wasm", "^BenchmarkPause$", "1x", 1) // one round is fifty collections
	if err != nil {
		return nil, err
	}
	worst, ok := all[0].units["worst-pause-ms"]
	if !ok {
		return nil, fmt.Errorf("BenchmarkPause reports no worst-pause-ms: %v", all[0].units)
	}
	return []result{{
		Unit: "ms", Ours: worst, Goal: 25, Better: "lower", N: 50,
		Note: "the longest stop-the-world pause of 50 collections in the sandbox's engine while guests spin on all processors",
	}}, nil
}

// lockdownGoal is how much more a call may cost for the process that serves it being
// locked in.
const lockdownGoal = 1.1

// lockedDown compares calls of a wasm guest whose process is in a box and sealed with
// calls of one that locks nothing.
func lockedDown(ctx context.Context, b *bench) ([]result, error) {
	var boxes, bare []benchmark
	for range b.cfg.rounds {
		for _, way := range []struct {
			to  *[]benchmark
			env []string
		}{{&boxes, nil}, {&bare, []string{"CASEMATE_BARE=1"}}} {
			all, err := gobench(ctx, "internal/sandbox/process", "^BenchmarkInvoke$/^Tiny(Parallel)?$", "1s", 1, way.env...)
			if err != nil {
				return nil, err
			}
			*way.to = append(*way.to, all...)
		}
	}
	var rs []result
	for row, name := range map[string]string{"c1": "Invoke/Tiny", "c16": "Invoke/TinyParallel"} {
		cpu, ok := by(boxes, "cpu-µs/op")[name]
		bareCPU, ok2 := by(bare, "cpu-µs/op")[name]
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s gave no processor time", name)
		}
		rs = append(rs, result{
			ID: row, Unit: "µs of CPU", Ours: cpu, Peer: bareCPU, PeerName: "the same process, not locked in", Ratio: cpu / bareCPU,
			Goal: lockdownGoal, Better: "lower", N: b.cfg.rounds,
			Note: fmt.Sprintf("per call of a guest that does next to nothing, its process in a box and sealed; the least of the rounds; %.1f against %.1f µs of time",
				by(boxes, "ns/op")[name]/1e3, by(bare, "ns/op")[name]/1e3),
		})
	}
	return rs, nil
}

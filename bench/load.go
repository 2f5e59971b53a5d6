package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sample is one bounded load on one target.
type sample struct {
	PerSecond float64 // answers
	CPUMicros float64 // user and system time of the target's process tree, per answer
	P50, P99  float64 // microseconds
	Errors    int
}

// target is something that answers hello over TLS.
type target struct {
	Name    string
	URL     string
	KeyFile string // API key, when it wants one
	PID     int    // root of the process tree
	Spread  int    // the load goes in turn to so many routes, which end with -0, -1, …
	stop    func()
}

// load puts c connections on the target for d, with wrk (one thread).
func load(ctx context.Context, t *target, c int, d time.Duration) (sample, error) {
	before, err := treeCPU(t.PID)
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(c), "-d", strconv.Itoa(int(d.Seconds()))+"s", "--timeout", "10s", "-s", "load.lua", t.URL)
	cmd.Env = os.Environ()
	if t.KeyFile != "" {
		cmd.Env = append(cmd.Env, "BENCH_KEY_FILE="+t.KeyFile)
	}
	if t.Spread > 0 {
		cmd.Env = append(cmd.Env, "BENCH_SPREAD="+strconv.Itoa(t.Spread))
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("running wrk against %s: %v\n%s", t.Name, err, out)
	}
	after, err := treeCPU(t.PID)
	if err != nil {
		return sample{}, err
	}
	_, line, ok := bytes.Cut(out, []byte("RESULT "))
	if !ok {
		return sample{}, fmt.Errorf("wrk printed no result:\n%s", out)
	}
	var r struct {
		Requests, Micros float64
		P50, P99         float64
		Errors           int
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return sample{}, fmt.Errorf("reading wrk's result: %v", err)
	}
	if r.Requests == 0 {
		return sample{}, fmt.Errorf("%s answered nothing", t.Name)
	}
	return sample{
		PerSecond: r.Requests / (r.Micros / 1e6), CPUMicros: (after - before).Seconds() * 1e6 / r.Requests,
		P50: r.P50, P99: r.P99, Errors: r.Errors,
	}, nil
}

// pair alternates two targets, A B A B, after a warm-up of each, and returns the
// median of each figure.
func pair(ctx context.Context, a, b *target, c int, cfg config) (sa, sb sample, err error) {
	var as, bs []sample
	for _, t := range []*target{a, b} {
		if _, err := load(ctx, t, c, cfg.warmup); err != nil {
			return sa, sb, err
		}
	}
	for range cfg.rounds {
		for _, x := range []struct {
			t  *target
			to *[]sample
		}{{a, &as}, {b, &bs}} {
			s, err := load(ctx, x.t, c, cfg.duration)
			if err != nil {
				return sa, sb, err
			}
			if s.Errors > 0 {
				return sa, sb, fmt.Errorf("%s gave %d errors", x.t.Name, s.Errors)
			}
			*x.to = append(*x.to, s)
		}
	}
	return median(as), median(bs), nil
}

func median(s []sample) sample {
	mid := func(f func(sample) float64) float64 {
		v := make([]float64, len(s))
		for i := range s {
			v[i] = f(s[i])
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return sample{
		PerSecond: mid(func(s sample) float64 { return s.PerSecond }), CPUMicros: mid(func(s sample) float64 { return s.CPUMicros }),
		P50: mid(func(s sample) float64 { return s.P50 }), P99: mid(func(s sample) float64 { return s.P99 }),
	}
}

// clockTick is USER_HZ, which Linux fixes at 100 for what it shows in /proc.
const clockTick = 100

// tree lists a process and all its descendants.
func tree(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it ended meanwhile
		}
		fields, pid := statFields(b)
		if ppid, err := strconv.Atoi(fields[1]); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// statFields gives the fields of /proc/PID/stat from the third on; the second,
// the name, may hold anything (proc(5)).
func statFields(b []byte) (fields []string, pid int) {
	head, rest, _ := strings.Cut(string(b), " ")
	pid, _ = strconv.Atoi(head)
	rest = rest[strings.LastIndexByte(rest, ')')+2:]
	return strings.Fields(rest), pid
}

// treeCPU is the time that a process tree has spent so far, children that ended
// and were waited for included.
func treeCPU(root int) (time.Duration, error) {
	pids, err := tree(root)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for i, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)) && i > 0 {
			continue
		}
		if err != nil {
			return 0, err
		}
		f, _ := statFields(b)
		for _, col := range []int{11, 12, 13, 14} { // utime stime cutime cstime
			n, err := strconv.ParseInt(f[col], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading /proc/%d/stat: %v", pid, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / clockTick, nil
}

// treePSS is the memory of a process tree, shared pages counted once.
func treePSS(root int) (bytesUsed int64, err error) {
	pids, err := tree(root)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		bytesUsed += pss(pid)
	}
	return bytesUsed, nil
}

// pss is the memory of one process, in bytes, what it shares divided by those who share
// it. It is 0 when the process has ended.
func pss(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

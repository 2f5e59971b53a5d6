// Command bench compares Casemate with its peers, side by side in one run, on the
// same work: a JSON hello over TLS. It starts everything itself, on loopback, for a
// bounded time, alternates between the two sides of each comparison, and writes
// results.json and BENCHMARKS.md. Nothing imports it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type config struct {
	casemate string
	only     []string
	rounds   int
	duration time.Duration
	warmup   time.Duration
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) == 5 && os.Args[1] == "-serve-bare" {
		return serveBare(os.Args[2], os.Args[3], os.Args[4])
	}
	if len(os.Args) == 5 && os.Args[1] == "-serve-noop" {
		return serveNoop(os.Args[2], os.Args[3], os.Args[4])
	}
	var cfg config
	only := flag.String("only", "", "comma-separated ids of the measures to take")
	flag.StringVar(&cfg.casemate, "casemate", "../bin/casemate", "the binary")
	flag.IntVar(&cfg.rounds, "rounds", 3, "rounds of A B, of which the median counts")
	flag.DurationVar(&cfg.duration, "duration", 4*time.Second, "of each load")
	flag.DurationVar(&cfg.warmup, "warmup", 2*time.Second, "load before the first round")
	flag.Parse()
	if *only != "" {
		cfg.only = strings.Split(*only, ",")
	}
	for program, pkg := range map[string]string{"wrk": "wrk", "node": "nodejs", "npm": "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not here: the load and the peers need it; on Debian, `apt-get install %s`", program, pkg)
		}
	}
	abs, err := filepath.Abs(cfg.casemate)
	if err != nil {
		return err
	}
	cfg.casemate = abs
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir, err := os.MkdirTemp("", "casemate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{cfg: cfg, dir: dir}
	defer b.close()
	if err := b.certificate(); err != nil {
		return err
	}
	known := map[string]bool{}
	var fresh []result
	var failed []error
	for _, m := range measures() {
		for _, id := range m.ids {
			known[id] = true
		}
		if !m.wanted(cfg.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s…\n", strings.Join(m.ids, ", "))
		rs, err := m.run(ctx, b)
		for _, r := range rs {
			fmt.Fprintf(os.Stderr, "  %s\n", r)
		}
		fresh = append(fresh, rs...)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", strings.Join(m.ids, ", "), err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	for _, id := range cfg.only {
		if !known[id] {
			failed = append(failed, fmt.Errorf("there is no measure %q", id))
		}
	}
	return errors.Join(append(failed, report(fresh, len(cfg.only) == 0))...)
}

// measure takes one or more figures.
type measure struct {
	ids []string
	run func(context.Context, *bench) ([]result, error)
}

func (m *measure) wanted(only []string) bool {
	return len(only) == 0 || slices.ContainsFunc(m.ids, func(id string) bool { return slices.Contains(only, id) })
}

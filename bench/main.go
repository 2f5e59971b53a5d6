// Command bench compares Casemate with its peers, side by side in one run, on the
// same work: a JSON hello over TLS, and what stands behind it. It starts everything
// itself, on loopback, for a bounded time, alternates between the two sides of each
// comparison, and writes results.json and BENCHMARKS.md. Nothing imports it.
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

	"github.com/casemate-dev/casemate/internal/sandbox/process"
)

type config struct {
	casemate  string
	only      []string
	rounds    int
	duration  time.Duration
	warmup    time.Duration
	colds     int // cold starts of each kind
	functions int // idle ones, of each kind
}

func main() {
	if process.IsSandbox(os.Args[0]) { // one that sandbox.handover started
		os.Exit(process.Main())
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) > 1 {
		switch a := os.Args[1:]; {
		case a[0] == "-serve-bare" && len(a) == 4:
			return serveBare(a[1], a[2], a[3])
		case a[0] == "-serve-noop" && len(a) == 4:
			return serveNoop(a[1], a[2], a[3])
		}
	}
	var cfg config
	only := flag.String("only", "", "comma-separated ids of the measures to take, whole or up to a dot")
	flag.StringVar(&cfg.casemate, "casemate", "../bin/casemate", "the binary")
	flag.IntVar(&cfg.rounds, "rounds", 3, "rounds of A B, of which the median counts")
	flag.DurationVar(&cfg.duration, "duration", 4*time.Second, "of each load")
	flag.DurationVar(&cfg.warmup, "warmup", 2*time.Second, "load before the first round")
	flag.IntVar(&cfg.colds, "colds", 20, "cold starts, of which the median counts")
	flag.IntVar(&cfg.functions, "functions", 1000, "idle functions of each kind to deploy")
	render := flag.Bool("render", false, "only write BENCHMARKS.md again")
	flag.Parse()
	if *render {
		return report(nil)
	}
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
	return b.take(ctx)
}

// take takes the measures that were asked for. One that fails becomes a row that says
// why, and the others go on. What there is so far is written after each.
func (b *bench) take(ctx context.Context) error {
	var failed []error
	for _, id := range b.cfg.only {
		if !slices.ContainsFunc(measures(), func(m measure) bool { return m.wanted([]string{id}) }) {
			failed = append(failed, fmt.Errorf("there is no measure %q", id))
		}
	}
	for _, m := range measures() {
		if !m.wanted(b.cfg.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s…\n", m.id)
		began := time.Now()
		rs, err := m.take(ctx, b)
		if ctx.Err() != nil {
			return errors.Join(append(failed, ctx.Err())...)
		}
		for _, r := range rs {
			fmt.Fprintf(os.Stderr, "  %s\n", r)
		}
		fmt.Fprintf(os.Stderr, "  took %.0f s\n", time.Since(began).Seconds())
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.id, err))
		}
		if err := report(rs); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	return errors.Join(failed...)
}

// measure takes one or more figures.
type measure struct {
	id   string
	rows []string // what follows the id and a dot; "" is the id alone
	run  func(context.Context, *bench) ([]result, error)
}

func (m *measure) ids() []string {
	var ids []string
	for _, row := range m.rows {
		ids = append(ids, m.full(row))
	}
	return ids
}

func (m *measure) full(row string) string {
	if row == "" {
		return m.id
	}
	return m.id + "." + row
}

// wanted reports whether the measure has a row that was asked for.
func (m *measure) wanted(only []string) bool {
	return len(only) == 0 || slices.ContainsFunc(m.ids(), func(id string) bool {
		return slices.ContainsFunc(only, func(o string) bool { return id == o || strings.HasPrefix(id, o+".") })
	})
}

// take runs the measure; the rows that it does not give say why.
func (m *measure) take(ctx context.Context, b *bench) ([]result, error) {
	rs, err := m.run(ctx, b)
	for i := range rs {
		rs[i].ID = m.full(rs[i].ID)
	}
	for _, id := range m.ids() {
		if slices.ContainsFunc(rs, func(r result) bool { return r.ID == id }) {
			continue
		}
		why := "no figure came of it"
		if err != nil {
			why = err.Error()
		}
		rs = append(rs, result{ID: id, Error: firstLine(why)})
	}
	return rs, err
}

// firstLine is what of an error goes into a table.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

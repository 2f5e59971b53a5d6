package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// historyShown bounds how many past positions of an alias describe prints.
const historyShown = 5

func (a *app) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe NAME",
		Short: "Show all about one function",
		Long: text(`
			Describe shows a function's aliases with their weights and history, the limits
			it runs under, its routes and triggers, and what recent receipts say of it.

			JSON: one api.Function.
		`),
		Example: examples(`
			casemate describe hello
			casemate describe hello -o json | jq .stats
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{1, 1, "the NAME of a function"}, a.describe),
	}
}

func (a *app) describe(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	f, err := client.Function(ctx, a.space(), args[0])
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(f)
	}
	for _, part := range []func(*api.Function) error{a.describeVersion, a.describeRoutes, a.describeTriggers, a.describeAliases, a.describeStats} {
		if err := part(f); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) section(title string) error { return a.p.Printf("\n%s\n", a.p.Out().Bold(title)) }

func (a *app) describeVersion(f *api.Function) error {
	c := a.p.Out()
	if err := a.p.Printf("%s\n", c.Bold(f.Namespace+"/"+f.Name)); err != nil {
		return err
	}
	v := f.Live
	if v == nil {
		return a.p.Printf("  nothing is live\n")
	}
	t := output.NewTable()
	row := func(k, format string, args ...any) {
		t.Row(output.Cell{Text: k, Style: c.Dim}, fmt.Sprintf(format, args...))
	}
	cfg := v.Config
	row("live", "%s, %s, by %s", a.p.ID(v.ID), a.p.Time(v.Created), v.Creator)
	row("code", "%s, %s, %s", cfg.Runtime, output.Bytes(v.Size), entered(&cfg))
	span := func(millis int64) string {
		return manifest.FormatDuration(time.Duration(millis) * time.Millisecond)
	}
	own := fmt.Sprintf("%d host calls", cfg.Calls)
	if manifest.Native(cfg.Runtime) {
		own = fmt.Sprintf("scratch space %s, %d processes", output.Bytes(cfg.ScratchBytes), cfg.Processes)
	}
	row("limits", "memory %s, timeout %s, CPU %s, %s, output %s, log %s", output.Bytes(cfg.MemoryBytes),
		span(cfg.TimeoutMillis), span(cfg.CPUMillis), own, output.Bytes(cfg.OutputBytes), output.Bytes(cfg.LogBytes))
	row("concurrency", "at most %d, %d reserved", cfg.Concurrency.Max, cfg.Concurrency.Reserved)
	isolation := cfg.Isolation
	if cfg.Sandbox != "" {
		isolation += ", in " + cfg.Sandbox
	}
	row("isolation", "%s", isolation)
	for _, k := range slices.Sorted(maps.Keys(cfg.Environment)) {
		row("environment", "%s=%s", k, cfg.Environment[k])
	}
	return a.p.Indented(t)
}

func (a *app) describeRoutes(f *api.Function) error {
	if f.Live == nil || len(f.Live.Config.HTTP) == 0 {
		return nil
	}
	if err := a.section("routes"); err != nil {
		return err
	}
	c := a.p.Out()
	t := output.NewTable("METHOD", "PATH", "ACCESS", "BODY", "URL")
	t.Flex = 4
	for i, h := range f.Live.Config.HTTP {
		access := output.Cell{Text: "key", Style: c.Good}
		if h.Public {
			access = output.Cell{Text: "public", Style: c.Warn}
		}
		url := ""
		if len(f.URLs) == len(f.Live.Config.HTTP) {
			url = f.URLs[i]
		}
		t.Row(h.Method, h.Path, access, output.Bytes(h.BodyLimit), url)
	}
	return a.p.Indented(t)
}

func (a *app) describeTriggers(f *api.Function) error {
	if len(f.Triggers) == 0 {
		return nil
	}
	if err := a.section("triggers"); err != nil {
		return err
	}
	return a.p.Indented(a.triggerTable(f.Triggers, false))
}

func (a *app) describeAliases(f *api.Function) error {
	if len(f.Aliases) == 0 {
		return nil
	}
	if err := a.section("aliases"); err != nil {
		return err
	}
	c := a.p.Out()
	for _, al := range f.Aliases {
		if err := a.p.Printf("  %s  %s\n", c.Bold(al.Name), c.Accent(a.targets(al.Targets))); err != nil {
			return err
		}
		t := output.NewTable()
		for _, m := range al.History[:min(historyShown, len(al.History))] {
			t.Row("", output.Cell{Text: a.p.Time(m.At), Style: c.Dim}, a.targets(m.Targets), output.Cell{Text: m.Why + " by " + m.By, Style: c.Dim})
		}
		if err := a.p.Indented(t); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) describeStats(f *api.Function) error {
	s := f.Stats
	if s == nil || s.Count == 0 {
		return nil
	}
	if err := a.section("recent invocations"); err != nil {
		return err
	}
	c := a.p.Out()
	failed := c.Good("none failed")
	if s.Failed > 0 {
		failed = c.Bad(fmt.Sprintf("%d failed", s.Failed))
	}
	span := "since " + a.p.Time(s.Since)
	if a.p.Pretty() {
		span = "in the last " + output.Span(a.env.Clock().Sub(s.Since))
	}
	if err := a.p.Printf("  %d %s, %s; median %s, p99 %s; CPU %s in all, memory up to %s\n", s.Count, span, failed,
		output.Millis(s.P50Millis), output.Millis(s.P99Millis), output.Millis(s.CPUMillis), output.Bytes(s.MemoryPeak)); err != nil {
		return err
	}
	t := output.NewTable("WHEN", "STATUS", "OUTCOME", "TOOK", "MEMORY", "VERSION", "RECEIPT")
	for _, r := range s.Last {
		t.Row(a.p.Time(r.Start), output.Cell{Text: fmt.Sprint(r.Status), Style: func(string) string { return c.Status(r.Status) }},
			r.Outcome, output.Millis(r.WallMillis), output.Bytes(r.MemoryPeak), a.p.ID(r.Version), output.Cell{Text: r.ID, Style: c.Dim})
	}
	return a.p.Indented(t)
}

// targets renders where an alias points.
func (a *app) targets(ws []api.Weight) string {
	out := make([]string, len(ws))
	for i, w := range ws {
		out[i] = a.p.ID(w.Version)
		if len(ws) > 1 {
			out[i] += fmt.Sprintf("=%d%%", w.Percent)
		}
	}
	return strings.Join(out, " ")
}

// percents renders the shares alone.
func percents(ws []api.Weight) string {
	out := make([]string, len(ws))
	for i, w := range ws {
		out[i] = fmt.Sprintf("%d%%", w.Percent)
	}
	return strings.Join(out, "/")
}

// entered says how a version's code is entered: as its runtime has it.
func entered(cfg *api.FunctionConfig) string {
	switch {
	case cfg.Handler != "":
		return "handler " + cfg.Handler
	case len(cfg.Command) > 0:
		return "command " + strings.Join(cfg.Command, " ")
	case manifest.Native(cfg.Runtime):
		return map[string]string{build.Provided: "program bootstrap", build.Azure: "as host.json says"}[cfg.Runtime]
	default:
		return "entry " + cfg.Entry
	}
}

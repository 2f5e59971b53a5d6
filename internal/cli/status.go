package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how a node is",
		Long: text(`
			Status asks the node how it is: health, versions, listeners, uptime, and which
			defences hold around functions on its machine. It exits 1 when the node says
			that it is not healthy, and 6 when no answer comes.

			JSON: one api.Status.
		`),
		Example: examples(`
			casemate status
			casemate status --context prod -o json
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, a.status),
	}
}

func (a *app) status(ctx context.Context, _ []string) error {
	client, node, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		err = a.p.Value(s)
	} else {
		err = a.showStatus(node, s)
	}
	if err == nil && !s.Healthy {
		return &failure{Exit: exitFailed, silent: true}
	}
	return err
}

func (a *app) showStatus(node contexts.Context, s *api.Status) error {
	c := a.p.Out()
	health := c.Good("● healthy")
	if !s.Healthy {
		health = c.Bad("● not healthy")
	}
	if err := a.p.Printf("%s  %s  %s\n", c.Bold(node.Name), health, c.Plain(s.State)); err != nil {
		return err
	}
	t := output.NewTable()
	row := func(k string, format string, args ...any) {
		t.Row(output.Cell{Text: k, Style: c.Dim}, fmt.Sprintf(format, args...))
	}
	row("node", "%s", s.Node)
	row("version", "%s (%s)", s.Version, s.Go)
	row("up", "%s, since %s", output.Span(time.Duration(s.UptimeMS)*time.Millisecond), s.Started.UTC().Format(time.RFC3339))
	row("functions", "%d", s.Functions)
	row("invocations", "%d, %d in flight", s.Invocations, s.InFlight)
	if e := s.Events; e != nil {
		row("triggers", "%d, %d paused, %d with a failing source", e.Triggers, e.Paused, e.SourcesFailing)
		row("events", "%d wait, %d under way, %d to be retried; %d done and %d given up since the start", e.Waiting, e.UnderWay, e.Retrying, e.Done, e.Dead)
	}
	row("memory", "%s", output.Bytes(s.RSSBytes))
	for _, l := range s.Listeners {
		t.Row(output.Cell{Text: l.Name, Style: c.Dim}, output.Cell{Text: l.URL + "  (" + l.Address + ", TLS " + l.TLS + ")", Style: c.Accent})
	}
	if o := s.Objects; o != nil {
		row("stored", "%s in %d objects and %d buckets", output.Bytes(o.Bytes), o.Objects, o.Buckets)
	}
	row("sandboxes", "%d, %d warm", s.Sandbox.Processes, s.Sandbox.Warm)
	for i, line := range wrap(s.Sandbox.Enforced, a.p.Width()-statusIndent) {
		key := ""
		if i == 0 {
			key = "enforced"
		}
		t.Row(output.Cell{Text: key, Style: c.Dim}, output.Cell{Text: line, Style: c.Good})
	}
	for i, u := range s.Sandbox.Unenforced {
		key := ""
		if i == 0 {
			key = "not enforced"
		}
		t.Row(output.Cell{Text: key, Style: c.Dim}, output.Cell{Text: u, Style: c.Warn})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Components)) {
		row(k, "%s", s.Components[k])
	}
	for _, w := range s.Warnings {
		t.Row(output.Cell{Text: "warning", Style: c.Warn}, w)
	}
	return a.p.Indented(t)
}

// statusIndent is how far in the values of status stand, in cells.
const statusIndent = 18

// wrap joins words with commas into lines of at most width bytes, where they fit.
func wrap(words []string, width int) []string {
	var lines []string
	for i, w := range words {
		if i < len(words)-1 {
			w += ","
		}
		if n := len(lines) - 1; n >= 0 && len(lines[n])+1+len(w) <= width {
			lines[n] += " " + w
			continue
		}
		lines = append(lines, w)
	}
	return lines
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// holder completes a command that only holds others.
func (a *app) holder(cmd *cobra.Command, held ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = a.group(cmd)
	for _, c := range held {
		c.Args = cobra.ArbitraryArgs
		cmd.AddCommand(c)
	}
	return cmd
}

func (a *app) triggersCommand() *cobra.Command {
	return a.holder(&cobra.Command{
		Use: "triggers", Aliases: []string{"trigger"},
		Short: "See how triggers are doing, pause and resume them",
		Long: text(`
			A trigger brings events from a source to a function. It is named by both, as
			in orders/paid; orders/- stands for the asynchronous invocations of orders.
		`),
		Example: examples(`
			casemate triggers list
			casemate triggers pause orders/paid
			casemate triggers resume orders/paid
		`),
	}, &cobra.Command{
		Use: "list [FUNCTION]", Aliases: []string{"ls"}, Short: "Show how the triggers are doing",
		Long: text(`
			List shows for each trigger in force how its source is, how many events wait,
			are under way and are to be retried, how old the oldest one in hand is, what
			was done and given up since the node's start, and what went wrong last.

			JSON: an array of api.TriggerStatus.
		`),
		Example: examples(`
			casemate triggers list
			casemate triggers list orders -o json
		`),
		ValidArgsFunction: a.completeFunctions,
		RunE:              a.run(arguments{0, 1, "the name of a FUNCTION at most"}, a.triggersList),
	}, a.pauseCommand("pause", "Hold a trigger's events back", true, `
			Pause begins no more of a trigger's events, also after a restart of the node.
			What is under way ends. Events are stored meanwhile; when too many wait, the
			source is held back.

			JSON: one api.TriggerStatus.
		`), a.pauseCommand("resume", "Go on with a trigger that was paused", false, `
			Resume goes on with the events of a trigger where pause has stopped.

			JSON: one api.TriggerStatus.
		`))
}

func (a *app) pauseCommand(verb, short string, paused bool, long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " FUNCTION/TRIGGER", Short: short, Long: text(long), Example: "casemate triggers " + verb + " orders/paid",
		RunE: a.run(arguments{1, 1, "a FUNCTION/TRIGGER"}, func(ctx context.Context, args []string) error {
			fn, trigger, err := splitTrigger(args[0])
			if err != nil {
				return err
			}
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			st, err := client.SetTrigger(ctx, a.space(), fn, trigger, api.SetTrigger{Paused: paused})
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(st)
			}
			return a.p.Printf("%sd %s; %d events wait\n", verb, a.p.Out().Bold(args[0]), st.Waiting+int64(st.Retrying))
		}),
	}
}

// splitTrigger reads FUNCTION/TRIGGER.
func splitTrigger(s string) (fn, trigger string, err error) {
	fn, trigger, ok := strings.Cut(s, "/")
	if !ok || !label.MatchString(fn) || trigger != api.AsyncTrigger && !label.MatchString(trigger) {
		return "", "", usagef("%.80q does not name a trigger", s).hint("write function/trigger, as in orders/paid; `casemate triggers list` shows them")
	}
	return fn, trigger, nil
}

// splitFunction reads FUNCTION or FUNCTION/TRIGGER.
func splitFunction(s string) (fn, trigger string, err error) {
	if !strings.Contains(s, "/") && label.MatchString(s) {
		return s, "", nil
	}
	return splitTrigger(s)
}

func (a *app) triggersList(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ns := a.space()
	ts, err := client.Triggers(ctx, ns, strings.Join(args, ""))
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(append([]api.TriggerStatus{}, ts...))
	}
	if len(ts) == 0 {
		a.p.Notef("no triggers in namespace %s; a function's triggers stand in casemate.yaml\n", ns)
		return nil
	}
	return a.p.Table(a.triggerTable(ts, true))
}

// triggerTable is without functions where they are known.
func (a *app) triggerTable(ts []api.TriggerStatus, functions bool) *output.Table {
	c := a.p.Out()
	t := output.NewTable("TRIGGER", "KIND", "STATE", "WAITING", "UNDER WAY", "RETRYING", "OLDEST", "DONE", "DEAD", "LAST ERROR")
	t.Flex = 9
	for i := range ts {
		s := &ts[i]
		name := cmp.Or(s.Name, api.AsyncTrigger)
		if functions {
			name = s.Function + "/" + name
		}
		oldest, last := "–", "–"
		if s.OldestMillis > 0 {
			oldest = output.Span(time.Duration(s.OldestMillis) * time.Millisecond)
		}
		if e := s.LastError; e != nil {
			last = a.p.Time(e.Time) + " " + strings.TrimSpace(e.Code+" "+e.Detail)
		}
		dead := output.Cell{Text: tally(s.Dead), Style: c.Plain}
		if s.Dead.Total > 0 {
			dead.Style = c.Bad
		}
		t.Row(output.Cell{Text: name, Style: c.Bold}, s.Kind, a.triggerState(s), fmt.Sprint(s.Waiting), fmt.Sprint(s.UnderWay), fmt.Sprint(s.Retrying),
			oldest, tally(s.Done), dead, last)
	}
	return t
}

func tally(t api.Tally) string {
	if t.PerSecond < 0.05 {
		return fmt.Sprint(t.Total)
	}
	return fmt.Sprintf("%d (%.1f/s)", t.Total, t.PerSecond)
}

// triggerState is the worst of what is to be said: how the source is, and the deliveries.
func (a *app) triggerState(s *api.TriggerStatus) output.Cell {
	c := a.p.Out()
	lag := ""
	if s.Source != nil && s.Source.Lag != nil && *s.Source.Lag > 0 {
		lag = fmt.Sprintf(", %d behind", *s.Source.Lag)
	}
	source := func(style func(string) string) output.Cell {
		return output.Cell{Text: strings.TrimSuffix(s.Source.State+" since "+a.p.Time(s.Source.Since)+": "+s.Source.Reason, ": ") + lag, Style: style}
	}
	switch {
	case s.Source != nil && s.Source.State == "failing":
		return source(c.Bad)
	case s.Paused:
		return output.Cell{Text: "paused", Style: c.Warn}
	case s.Source != nil && s.Source.State == "alert":
		return source(c.Warn)
	case s.Held:
		return output.Cell{Text: "held", Style: c.Warn}
	case s.Source != nil && s.Source.State == "starting", !s.Running:
		return output.Cell{Text: "starting", Style: c.Dim}
	}
	return output.Cell{Text: "running" + lag, Style: c.Good}
}

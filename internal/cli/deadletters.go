package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) deadLettersCommand() *cobra.Command {
	return a.holder(&cobra.Command{
		Use: "dead-letters", Aliases: []string{"dead-letter", "dlq"},
		Short: "See events that were given up, retry and purge them",
		Long: text(`
			An event that failed as often as it may, grew too old, was refused by the
			function or broke its trigger's rules becomes a dead letter, with the reason and
			the last error. It holds up nobody, and waits for you.
		`),
		Example: examples(`
			casemate dead-letters list
			casemate dead-letters show 42
			casemate dead-letters retry billing/paid --reason attempts
			casemate dead-letters purge 42 43
		`),
	}, a.deadListCommand(), a.deadShowCommand(), a.deadSettleCommand("retry", "Have dead letters run again", `
			Retry runs dead letters again, with all attempts before them: those named by
			their sequences, or those of a function, a trigger or a webhook. Those that break
			the trigger's rules stay: they must not reach code.

			JSON: one api.Retried.
		`, false), a.deadSettleCommand("purge", "Remove dead letters for good", `
			Purge removes dead letters: those named by their sequences, or those of a
			function, a trigger or a webhook. It asks first; without a terminal it needs
			--yes.

			JSON: one api.Purged.
		`, true))
}

func (a *app) deadListCommand() *cobra.Command {
	var q api.DeadQuery
	var since, until string
	cmd := &cobra.Command{
		Use: "list [FUNCTION[/TRIGGER]]", Aliases: []string{"ls"}, Short: "List dead letters, newest first",
		Long: text(`
			List shows dead letters with their reasons and last errors: of the triggers in
			force, of one function, of one trigger (also one that is gone), or of a webhook
			that destinations name.

			JSON: one api.DeadList.
		`),
		Example: examples(`
			casemate dead-letters list
			casemate dead-letters list billing/paid --reason attempts --since 1d
			casemate dead-letters list --webhook partner
		`),
		ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{0, 1, "a FUNCTION or a FUNCTION/TRIGGER at most"}, func(ctx context.Context, args []string) (err error) {
			if len(args) > 0 {
				if q.Function, q.Trigger, err = splitFunction(args[0]); err != nil {
					return err
				}
			}
			if q.Since, err = timeFlag("--since", since, a.env.Clock()); err != nil {
				return err
			}
			if q.Until, err = timeFlag("--until", until, a.env.Clock()); err != nil {
				return err
			}
			if q.Limit < 1 || q.Limit > 1000 {
				return usagef("--limit is 1 to 1000")
			}
			return a.deadList(ctx, q)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&q.Webhook, "webhook", "", "Those of a webhook, by the name of its connection")
	f.StringVar(&q.Reason, "reason", "", "Only those given up for this reason, as in attempts")
	f.StringVar(&since, "since", "", "Given up at this time or later, or this long ago, as in 10m")
	f.StringVar(&until, "until", "", "Given up before this time, or longer ago, as in 10m")
	f.IntVar(&q.Limit, "limit", 100, "At most so many")
	return cmd
}

func (a *app) deadList(ctx context.Context, q api.DeadQuery) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	l, err := client.DeadLetters(ctx, a.space(), q)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(l)
	}
	if len(l.Items) == 0 {
		a.p.Notef("no dead letters\n")
	} else {
		c := a.p.Out()
		t := output.NewTable("SEQUENCE", "DIED", "WHERE", "TYPE", "WHY", "EVENT")
		t.Flex = 4
		for i := range l.Items {
			d := &l.Items[i]
			kind, id := "(not readable)", "–"
			if d.Event != nil {
				kind, id = d.Event.Type, d.Event.ID
			}
			t.Row(output.Cell{Text: fmt.Sprint(d.Sequence), Style: c.Accent}, a.p.Time(d.Died), output.Cell{Text: deadWhere(d), Style: c.Bold}, kind,
				output.Cell{Text: whyDead(d), Style: c.Bad}, id)
		}
		if err := a.p.Table(t); err != nil {
			return err
		}
	}
	if !l.Complete {
		a.p.Notef("%s\n", a.p.Err().Dim("there are more; --limit shows them, or --until what is older"))
	}
	a.noteDamaged(l.Damaged)
	return nil
}

func deadWhere(d *api.DeadLetter) string {
	if d.Webhook != "" {
		return "webhook " + d.Webhook
	}
	return d.Function + "/" + cmp.Or(d.Trigger, api.AsyncTrigger)
}

func (a *app) deadShowCommand() *cobra.Command {
	var data bool
	cmd := &cobra.Command{
		Use: "show SEQUENCE", Short: "Show one dead letter",
		Long: text(`
			Show says of one dead letter why, when and after how many attempts it was given
			up, with the last error and its receipt, and what the event was.

			JSON: one api.DeadLetter.
		`),
		Example: examples(`
			casemate dead-letters show 42
			casemate dead-letters show 42 --data
		`),
		RunE: a.run(arguments{1, 1, "the SEQUENCE of a dead letter"}, func(ctx context.Context, args []string) error {
			n, err := deadSequence(args[0])
			if err != nil {
				return err
			}
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			d, err := client.DeadLetter(ctx, a.space(), n, data)
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(d)
			}
			return a.showDead(d, data)
		}),
	}
	cmd.Flags().BoolVar(&data, "data", false, "With the event's data, for keys that may deploy there")
	return cmd
}

func deadSequence(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%.40q is not the sequence of a dead letter", s).hint("`casemate dead-letters list` shows them")
	}
	return n, nil
}

func (a *app) showDead(d *api.DeadLetter, data bool) error {
	t, row := a.pairs()
	row("dead letter", "%d", d.Sequence)
	row("of", "%s", deadWhere(d))
	row("why", "%s", whyDead(d))
	row("died", "%s", d.Died.UTC().Format(time.RFC3339Nano))
	if d.First != nil && d.Last != nil {
		row("attempts", "%d, from %s to %s", d.Attempts, d.First.UTC().Format(time.RFC3339), d.Last.UTC().Format(time.RFC3339))
	}
	for _, v := range []struct{ k, v string }{{"version", d.Version}, {"receipt", d.Receipt}} {
		if v.v != "" {
			row(v.k, "%s", v.v)
		}
	}
	if err := a.p.Table(t); err != nil {
		return err
	}
	if d.Event == nil {
		return a.p.Printf("\nwhat is stored is no event that can be read\n")
	}
	if err := a.p.Printf("\n"); err != nil {
		return err
	}
	return a.showEvent(d.Event, data)
}

func (a *app) deadSettleCommand(verb, short, long string, purge bool) *cobra.Command {
	var in api.DeadSelector
	var since, until string
	var yes bool
	cmd := &cobra.Command{
		Use: verb + " SEQUENCE... | FUNCTION[/TRIGGER]", Short: short, Long: text(long),
		Example: examples("casemate dead-letters " + verb + " 42 43\ncasemate dead-letters " + verb + " billing/paid --reason attempts --since 1d"),
		RunE: a.run(arguments{0, -1, ""}, func(ctx context.Context, args []string) error {
			what, err := deadSelect(&in, args)
			if err != nil {
				return err
			}
			for _, t := range []struct {
				flag, text string
				to         **time.Time
			}{{"--since", since, &in.Since}, {"--until", until, &in.Until}} {
				at, err := timeFlag(t.flag, t.text, a.env.Clock())
				if err != nil {
					return err
				}
				if !at.IsZero() {
					*t.to = &at
				}
			}
			if purge && !yes {
				if err := a.confirm(ctx, "Remove the dead letters of "+a.space()+"/"+what+" for good?"); err != nil {
					return err
				}
			}
			if purge {
				return a.deadPurge(ctx, in)
			}
			return a.deadRetry(ctx, in)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&in.Webhook, "webhook", "", "Those of a webhook, by the name of its connection")
	f.StringVar(&in.Reason, "reason", "", "Only those given up for this reason, as in attempts")
	f.StringVar(&since, "since", "", "Given up at this time or later, or this long ago, as in 10m")
	f.StringVar(&until, "until", "", "Given up before this time, or longer ago, as in 10m")
	if purge {
		f.BoolVarP(&yes, "yes", "y", false, "Do not ask")
	}
	return cmd
}

// deadSelect reads what the arguments name, and says it in words.
func deadSelect(in *api.DeadSelector, args []string) (what string, err error) {
	switch {
	case in.Webhook != "" && len(args) == 0:
		return "webhook " + in.Webhook, nil
	case in.Webhook != "" || len(args) == 0:
		return "", usagef("which dead letters are meant is not said, or twice").hint("name sequences, a function, a trigger or --webhook; `casemate dead-letters list` shows them")
	}
	if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
		if len(args) > 1 {
			return "", usagef("one function or trigger can be named at once").hint("or the sequences of dead letters")
		}
		in.Function, in.Trigger, err = splitFunction(args[0])
		return args[0], err
	}
	for _, s := range args {
		n, err := deadSequence(s)
		if err != nil {
			return "", err
		}
		in.Sequences = append(in.Sequences, n)
	}
	return fmt.Sprint(in.Sequences), nil
}

func (a *app) deadRetry(ctx context.Context, in api.DeadSelector) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	done, err := client.RetryDead(ctx, a.space(), in)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(done)
	}
	if done.Left > 0 {
		a.p.Notef("%d stay: they break the trigger's rules or cannot be read\n", done.Left)
	}
	return a.p.Printf("%d run again\n", done.Retried)
}

func (a *app) deadPurge(ctx context.Context, in api.DeadSelector) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	done, err := client.PurgeDead(ctx, a.space(), in)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(done)
	}
	return a.p.Printf("removed %d\n", done.Purged)
}

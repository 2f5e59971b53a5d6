package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) eventsCommand() *cobra.Command {
	return a.holder(&cobra.Command{
		Use: "events", Aliases: []string{"event"},
		Short: "See stored events, publish, replay and purge them",
		Long: text(`
			Every event is stored before its source is told that it was taken, and stays
			for some days after it was delivered. Here you see what came, what became of
			it, and have it run again.
		`),
		Example: examples(`
			casemate events list orders
			casemate events show 01890a5d-ac96-774b-bcce-b302099a8057
			casemate events publish orders --type order.created --data '{"id":7}'
			casemate events replay billing/paid --since 2h --to beta
			casemate events tail
		`),
	}, a.eventsListCommand(), a.eventsShowCommand(), a.eventsTailCommand(), a.eventsPublishCommand(),
		a.eventsReplayCommand(), a.eventsJobsCommand(), a.eventsCancelCommand(), a.eventsPurgeCommand())
}

// eventFlags are those that select events.
type eventFlags struct {
	query        api.EventQuery
	since, until string
}

func (e *eventFlags) add(cmd *cobra.Command, times bool) {
	f := cmd.Flags()
	f.StringVar(&e.query.Topic, "topic", "", "Only the events of this topic")
	f.StringVar(&e.query.Type, "type", "", "Only events of this type; a star at its end stands for any rest")
	f.StringVar(&e.query.ID, "id", "", "Only events with this id")
	if times {
		f.StringVar(&e.since, "since", "", "Stored at this time or later, or this long ago, as in 10m")
		f.StringVar(&e.until, "until", "", "Stored before this time, or longer ago, as in 10m")
	}
}

// read completes the query.
func (e *eventFlags) read(args []string, now time.Time) (err error) {
	if len(args) > 0 {
		if e.query.Function, e.query.Trigger, err = splitFunction(args[0]); err != nil {
			return err
		}
		if e.query.Topic != "" {
			return usagef("events are of a function or of a topic, not of both").hint("leave out --topic, or the function")
		}
	}
	if e.query.Since, err = timeFlag("--since", e.since, now); err != nil {
		return err
	}
	e.query.Until, err = timeFlag("--until", e.until, now)
	return err
}

// timeFlag reads a time, or how long ago it was; zero for none.
func timeFlag(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := parseSince(s, now)
	if err != nil {
		return t, usagef("%s: %v", flag, err).hint("write it as 10m, 2d or 2030-01-02T15:04:05Z")
	}
	return t, nil
}

func (a *app) eventsListCommand() *cobra.Command {
	var e eventFlags
	cmd := &cobra.Command{
		Use: "list [FUNCTION[/TRIGGER]]", Aliases: []string{"ls"}, Short: "List stored events, newest first",
		Long: text(`
			List shows the newest stored events: of the namespace, of a function with the
			topics it gets, of one trigger, or of a topic. It never shows their data. Events
			of topics are shown to keys that may read the whole namespace.

			JSON: one api.EventList.
		`),
		Example: examples(`
			casemate events list
			casemate events list orders/paid --since 1h
			casemate events list --topic orders --type 'order.*' --limit 200
		`),
		ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{0, 1, "a FUNCTION or a FUNCTION/TRIGGER at most"}, func(ctx context.Context, args []string) error {
			if err := e.read(args, a.env.Clock()); err != nil {
				return err
			}
			if e.query.Limit < 1 || e.query.Limit > 1000 {
				return usagef("--limit is 1 to 1000")
			}
			return a.eventsList(ctx, e.query)
		}),
	}
	e.add(cmd, true)
	cmd.Flags().IntVar(&e.query.Limit, "limit", 50, "At most so many")
	return cmd
}

func (a *app) eventsList(ctx context.Context, q api.EventQuery) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	l, err := client.Events(ctx, a.space(), q)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(l)
	}
	c := a.p.Err()
	if len(l.Items) == 0 {
		a.p.Notef("no events are stored that fit\n")
	} else {
		co := a.p.Out()
		t := output.NewTable("STORED", "SEQUENCE", "WHERE", "TYPE", "SUBJECT", "SIZE", "BY", "ID")
		t.Flex = 7
		for i := range l.Items {
			r := &l.Items[i]
			t.Row(output.Cell{Text: a.p.Time(r.Stored), Style: co.Dim}, fmt.Sprint(r.Sequence), output.Cell{Text: where(r), Style: co.Bold},
				typeOf(r), cmp.Or(r.Subject, "–"), output.Bytes(r.Size), cmp.Or(r.Principal, "–"), output.Cell{Text: r.ID, Style: co.Accent})
		}
		if err := a.p.Table(t); err != nil {
			return err
		}
	}
	switch {
	case !l.Complete && len(l.Items) < q.Limit && l.Searched != nil:
		a.p.Notef("%s events since %s were looked at; older ones with --until\n", c.Warn("only"), l.Searched.UTC().Format(time.RFC3339))
	case !l.Complete:
		a.p.Notef("%s\n", c.Dim("there are more; --limit shows them, or --until what is older"))
	}
	a.noteDamaged(l.Damaged)
	return nil
}

func (a *app) noteDamaged(damaged bool) {
	if damaged {
		a.p.Notef("%s some of what is stored is damaged and was left out; see `casemate doctor`\n", a.p.Err().Bad("warning:"))
	}
}

// where says for whom an event is.
func where(r *api.EventRecord) string {
	switch {
	case r.Topic != "":
		return "topic " + r.Topic
	case r.Function != "":
		return r.Function + "/" + cmp.Or(r.Trigger, api.AsyncTrigger)
	}
	return r.Channel
}

func typeOf(r *api.EventRecord) string {
	if r.Unreadable {
		return "(not readable)"
	}
	return r.Type
}

func (a *app) eventsTailCommand() *cobra.Command {
	var e eventFlags
	var follow bool
	cmd := &cobra.Command{
		Use: "tail [FUNCTION[/TRIGGER]]", Short: "Show events as they are stored, until interrupted",
		Long: text(`
			Tail shows the last events and then each new one as soon as it is stored,
			without its data. With --follow=false it ends after the last ones.

			JSON: one api.EventRecord to a line.
		`),
		Example: examples(`
			casemate events tail
			casemate events tail orders --type 'order.*'
			casemate events tail --topic orders --last 0 -o json | jq -r .id
		`),
		ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{0, 1, "a FUNCTION or a FUNCTION/TRIGGER at most"}, func(ctx context.Context, args []string) error {
			if err := e.read(args, a.env.Clock()); err != nil {
				return err
			}
			if e.query.Tail < 0 || e.query.Tail > 1000 {
				return usagef("--last is 0 to 1000")
			}
			return a.eventsTail(ctx, e.query, follow)
		}),
	}
	e.add(cmd, false)
	cmd.Flags().IntVar(&e.query.Tail, "last", 10, "How many past events come first")
	cmd.Flags().BoolVarP(&follow, "follow", "f", true, "Go on with new events until interrupted")
	return cmd
}

func (a *app) eventsTail(ctx context.Context, q api.EventQuery, follow bool) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if !follow {
		q.Limit = q.Tail
		if q.Limit == 0 {
			return nil
		}
		l, err := client.Events(ctx, a.space(), q)
		if err != nil {
			return err
		}
		for i := len(l.Items) - 1; i >= 0; i-- {
			if err := a.showEventLine(&l.Items[i]); err != nil {
				return err
			}
		}
		a.noteDamaged(l.Damaged)
		return nil
	}
	for r, err := range client.TailEvents(ctx, a.space(), q) {
		if interrupted(ctx, err) {
			return &failure{Exit: exitInterrupted, Message: "interrupted", silent: true} // as announced
		}
		if err != nil {
			return err
		}
		if err := a.showEventLine(&r); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showEventLine(r *api.EventRecord) error {
	if a.p.JSON() {
		return a.p.Record(r)
	}
	c := a.p.Out()
	at := r.Stored.UTC().Format(time.RFC3339Nano)
	if a.p.Pretty() {
		at = r.Stored.Local().Format("15:04:05.000")
	}
	subject := ""
	if r.Subject != "" {
		subject = " " + r.Subject
	}
	return a.p.Printf("%s %s %s%s %s\n", c.Dim(at), c.Name(where(r)), c.Bold(typeOf(r)), c.Plain(subject), c.Dim(fmt.Sprintf("%s, %d, %s", output.Bytes(r.Size), r.Sequence, r.ID)))
}

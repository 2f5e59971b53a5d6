package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) eventsShowCommand() *cobra.Command {
	var data, sequence bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Tell the story of one event",
		Long: text(`
			Show tells the story of one event from its source to its receipts: what it is,
			where and when it was stored and for whom, every attempt to deliver it, its dead
			letters and its replays. An ID of digits alone is taken for the event's sequence,
			unless --sequence=false is given.

			The data is shown with --data, to keys that may deploy there.

			JSON: one api.EventStory.
		`),
		Example: examples(`
			casemate events show 01890a5d-ac96-774b-bcce-b302099a8057
			casemate events show 4711 --data
			casemate events show 4711 -o json | jq '.deliveries[].attempts[].id'
		`),
		RunE: a.run(arguments{1, 1, "the ID or the sequence of an event"}, func(ctx context.Context, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			id, n := args[0], uint64(0)
			if parsed, err := strconv.ParseUint(id, 10, 64); err == nil && parsed > 0 && sequence {
				id, n = "", parsed
			}
			s, err := client.Event(ctx, a.space(), id, n, data)
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(s)
			}
			return a.showStory(s, data)
		}),
	}
	cmd.Flags().BoolVar(&data, "data", false, "With the event's data and what its source said besides")
	cmd.Flags().BoolVar(&sequence, "sequence", true, "Take an ID of digits alone for a sequence")
	return cmd
}

func (a *app) showStory(s *api.EventStory, data bool) error {
	if err := a.showEvent(&s.Event, data); err != nil {
		return err
	}
	for _, o := range s.Others {
		a.p.Notef("an older event has the same id: `casemate events show %d`\n", o)
	}
	for i := range s.Deliveries {
		if err := a.showDelivery(&s.Deliveries[i]); err != nil {
			return err
		}
	}
	if len(s.Deliveries) == 0 {
		a.p.Notef("no trigger in force that you may see gets this event\n")
	}
	a.noteDamaged(s.Damaged)
	return nil
}

// pairs makes a table of names and values.
func (a *app) pairs() (t *output.Table, row func(k, format string, args ...any)) {
	t = output.NewTable()
	return t, func(k, format string, args ...any) {
		t.Row(output.Cell{Text: k, Style: a.p.Out().Dim}, fmt.Sprintf(format, args...))
	}
}

func (a *app) showEvent(e *api.EventRecord, data bool) error {
	t, row := a.pairs()
	row("event", "%s", e.ID)
	if e.Sequence != 0 {
		row("stored", "%s, sequence %d", e.Stored.UTC().Format(time.RFC3339Nano), e.Sequence)
	} else {
		row("stored", "never: it was refused before")
	}
	row("for", "%s", where(e))
	if e.Unreadable {
		row("content", "cannot be read")
		return a.p.Table(t)
	}
	row("type", "%s", e.Type)
	row("source", "%s", e.Source)
	for _, v := range []struct{ k, v string }{{"subject", e.Subject}, {"published by", e.Principal}, {"key", e.Key}, {"caused by", e.Chain}} {
		if v.v != "" {
			row(v.k, "%s", v.v)
		}
	}
	if e.Time != nil {
		row("time", "%s", e.Time.UTC().Format(time.RFC3339Nano))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Extensions)) {
		row("extension", "%s: %s", k, e.Extensions[k])
	}
	row("data", "%s %s", output.Bytes(e.Size), e.DataContentType)
	for _, k := range slices.Sorted(maps.Keys(e.Detail)) {
		row("detail", "%s: %s", k, e.Detail[k])
	}
	if err := a.p.Table(t); err != nil || !data {
		return err
	}
	if utf8.Valid(e.Data) {
		return a.p.Printf("\n%s\n", a.p.Out().Plain(strings.TrimSuffix(string(e.Data), "\n")))
	}
	a.p.Notef("the data is no text; -o json has it in Base64\n")
	return nil
}

func (a *app) showDelivery(d *api.EventDelivery) error {
	c := a.p.Out()
	style := map[string]func(string) string{"done": c.Good, "settled": c.Good, "dead": c.Bad, "retrying": c.Warn}[d.State]
	if style == nil {
		style = c.Plain
	}
	if err := a.p.Printf("\n%s  %s\n", c.Bold(d.Function+"/"+cmp.Or(d.Trigger, api.AsyncTrigger)), style(d.State)); err != nil {
		return err
	}
	t := output.NewTable("WHEN", "ATTEMPT", "STATUS", "OUTCOME", "TOOK", "VERSION", "RECEIPT")
	for i := range d.Attempts {
		r := &d.Attempts[i]
		n := fmt.Sprint(r.Attempt)
		if r.Replay {
			n = "replay " + n
		}
		t.Row(a.p.Time(r.Start), n, output.Cell{Text: fmt.Sprint(r.Status), Style: func(string) string { return c.Status(r.Status) }},
			r.Outcome, output.Millis(r.WallMillis), a.p.ID(r.Version), output.Cell{Text: r.ID, Style: c.Dim})
	}
	if len(d.Attempts) > 0 {
		if err := a.p.Indented(t); err != nil {
			return err
		}
	} else if err := a.p.Printf("  no receipt names this event\n"); err != nil {
		return err
	}
	if !d.Complete {
		a.p.Notef("there are more receipts since then than were looked at: older attempts may be missing\n")
	}
	for i := range d.DeadLetters {
		l := &d.DeadLetters[i]
		if err := a.p.Printf("  %s %s, %s: %s\n", c.Bad("dead letter"), c.Plain(fmt.Sprint(l.Sequence)), c.Plain(a.p.Time(l.Died)), c.Plain(whyDead(l))); err != nil {
			return err
		}
	}
	for i := range d.Replays {
		j := &d.Replays[i]
		if err := a.p.Printf("  replay %s, %s, to %s: %s\n", c.Accent(j.ID), c.Plain(a.p.Time(j.Started)), c.Plain(cmp.Or(j.To, liveAlias)), c.Plain(j.State)); err != nil {
			return err
		}
	}
	return nil
}

// whyDead says in one line why an event was given up.
func whyDead(l *api.DeadLetter) string {
	s := l.Reason
	if l.Attempts > 0 {
		s += fmt.Sprintf(" after %d", l.Attempts)
	}
	if l.Status != 0 {
		s += fmt.Sprintf(", status %d", l.Status)
	}
	if l.Field != "" {
		s += ", " + l.Field
	}
	if rest := strings.TrimSpace(l.Code + " " + l.Text); rest != "" {
		s += ", " + rest
	}
	return s
}

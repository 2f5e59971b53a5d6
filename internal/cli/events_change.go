package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// maxEventData is the most that an event may hold, in bytes.
const maxEventData = 6 << 20

func (a *app) eventsPublishCommand() *cobra.Command {
	var e api.EventIn
	var data string
	var extensions []string
	cmd := &cobra.Command{
		Use: "publish TOPIC", Short: "Store an event in a topic",
		Long: text(`
			Publish stores an event in a topic, from which every trigger that subscribes to
			it gets it. It is on disk when the command ends. The node stamps its source and
			who published it. Publishing the same --id again stores nothing.

			JSON: one api.Published.
		`),
		Example: examples(`
			casemate events publish orders --type order.created --data '{"id":7}'
			casemate events publish orders --type order.created --data @order.json --key customer-12
			generate | casemate events publish readings --type reading --data @- --content-type text/csv
		`),
		RunE: a.run(arguments{1, 1, "the name of a TOPIC"}, func(ctx context.Context, args []string) error {
			if e.Type == "" {
				return usagef("an event has a --type").hint("name what happened, as in --type order.created")
			}
			for _, x := range extensions {
				k, v, ok := strings.Cut(x, "=")
				if !ok {
					return usagef("--extension: %.80q has no value", x).hint("write name=value")
				}
				if e.Extensions == nil {
					e.Extensions = map[string]string{}
				}
				e.Extensions[k] = v
			}
			var err error
			if e.Data, err = a.eventData(data); err != nil {
				return err
			}
			if e.DataContentType == "" && len(e.Data) > 0 {
				e.DataContentType = "application/octet-stream"
				if json.Valid(e.Data) {
					e.DataContentType = "application/json"
				}
			}
			return a.eventsPublish(ctx, args[0], e)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&e.Type, "type", "", "What happened, as in order.created")
	f.StringVar(&data, "data", "", "The data, or @FILE, or @- for standard input")
	f.StringVar(&e.ID, "id", "", "Its id; the node makes one when there is none")
	f.StringVar(&e.Subject, "subject", "", "What it is about")
	f.StringVar(&e.DataContentType, "content-type", "", "Of the data; application/json for JSON")
	f.StringVar(&e.Key, "key", "", "Events of one key stay in order")
	f.StringArrayVar(&extensions, "extension", nil, "Another attribute, as in name=value; repeatable")
	return cmd
}

// eventData reads what --data names.
func (a *app) eventData(s string) ([]byte, error) {
	file, ok := strings.CutPrefix(s, "@")
	if !ok {
		return []byte(s), nil
	}
	in := a.env.Stdin
	if file != "-" {
		f, err := os.Open(a.abs(file))
		if err != nil {
			return nil, failf("reading the data: %v", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxEventData+1))
	if err != nil {
		return nil, failf("reading the data: %v", err)
	}
	if len(b) > maxEventData {
		return nil, failf("the data has more than %s", output.Bytes(maxEventData)).hint("store it elsewhere, and publish where it is")
	}
	return b, nil
}

func (a *app) eventsPublish(ctx context.Context, topic string, e api.EventIn) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	done, err := client.Publish(ctx, a.space(), topic, api.Publish{Events: []api.EventIn{e}})
	if err != nil {
		return err
	}
	if len(done) != 1 {
		return failf("the node answered for %d events instead of one", len(done)).hint("are client and node of one version?")
	}
	if a.p.JSON() {
		return a.p.Value(done[0])
	}
	again := ""
	if done[0].Duplicate {
		again = ", as before"
	}
	return a.p.Printf("stored %s in topic %s, sequence %d%s\n", a.p.Out().Bold(done[0].ID), a.p.Out().Plain(topic), done[0].Sequence, again)
}

func (a *app) eventsReplayCommand() *cobra.Command {
	var in api.Replay
	var since, until, filter string
	var all bool
	cmd := &cobra.Command{
		Use: "replay FUNCTION/TRIGGER", Short: "Have stored events of a trigger run again",
		Long: text(`
			Replay runs stored events of a trigger again, in their order: those with the
			ids given, those of a time, those that a filter selects, or all. With --to they
			run with another alias or version than the one that triggers follow. Event and
			receipt are marked as a replay. What to replay must be said; --all is everything.

			JSON: one api.ReplayJob.
		`),
		Example: examples(`
			casemate events replay billing/paid --id evt-17 --id evt-18
			casemate events replay billing/paid --since 2030-01-02T00:00:00Z --until 2030-01-03T00:00:00Z --to beta
			casemate events replay billing/paid --since 2h --filter '{"prefix":{"type":"order."}}'
		`),
		RunE: a.run(arguments{1, 1, "a FUNCTION/TRIGGER"}, func(ctx context.Context, args []string) error {
			fn, trigger, err := splitTrigger(args[0])
			if err != nil {
				return err
			}
			if !all && len(in.IDs) == 0 && since == "" && until == "" && filter == "" {
				return usagef("what to replay is not said").hint("name it with --id, --since, --until or --filter; --all is everything that is stored")
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
			if filter != "" {
				if !json.Valid([]byte(filter)) {
					return usagef("--filter is no JSON").hint(`write it as '{"exact":{"type":"order.created"}}'`)
				}
				in.Filter = json.RawMessage(filter)
			}
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			j, err := client.Replay(ctx, a.space(), fn, trigger, in)
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(j)
			}
			return a.p.Printf("replay %s of %s to %s has begun; `casemate events jobs` shows how far it is\n", a.p.Out().Bold(j.ID), a.p.Out().Plain(args[0]), a.p.Out().Plain(cmp.Or(j.To, liveAlias)))
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&in.IDs, "id", nil, "An event's id; repeatable")
	f.StringVar(&since, "since", "", "Stored at this time or later, or this long ago, as in 10m")
	f.StringVar(&until, "until", "", "Stored before this time, or longer ago, as in 10m")
	f.StringVar(&filter, "filter", "", "A CloudEvents filter as JSON, or a list of them")
	f.StringVar(&in.To, "to", "", "The alias or version to run")
	f.BoolVar(&all, "all", false, "Everything that is stored for the trigger")
	return cmd
}

func (a *app) eventsJobsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "jobs", Short: "List replays and how far they are",
		Long: text(`
			Jobs lists the replays of the namespace, newest first: what they run, how many
			events they have looked at and how many of these they have run again.

			JSON: an array of api.ReplayJob.
		`),
		Example: "casemate events jobs",
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			jobs, err := client.Replays(ctx, a.space())
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(append([]api.ReplayJob{}, jobs...))
			}
			if len(jobs) == 0 {
				a.p.Notef("nothing was replayed\n")
				return nil
			}
			c := a.p.Out()
			t := output.NewTable("ID", "TRIGGER", "TO", "STATE", "READ", "RUN AGAIN", "STARTED")
			for i := range jobs {
				j := &jobs[i]
				state := output.Cell{Text: strings.TrimSuffix(j.State+": "+j.Error, ": "), Style: c.Plain}
				if j.State == "failed" {
					state.Style = c.Bad
				}
				t.Row(output.Cell{Text: j.ID, Style: c.Accent}, j.Function+"/"+cmp.Or(j.Trigger, api.AsyncTrigger), cmp.Or(j.To, liveAlias), state,
					fmt.Sprint(j.Read), fmt.Sprint(j.Published), a.p.Time(j.Started))
			}
			return a.p.Table(t)
		}),
	}
}

func (a *app) eventsCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel JOB", Short: "End a replay",
		Long: text(`
			Cancel ends a replay. Events that it has published already are run.

			JSON: {"cancelled": "01890a5d-ac96-774b-bcce-b302099a8057"}
		`),
		Example: "casemate events cancel 01890a5d-ac96-774b-bcce-b302099a8057",
		RunE: a.run(arguments{1, 1, "the ID of a JOB"}, func(ctx context.Context, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.CancelReplay(ctx, a.space(), args[0]); err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(map[string]string{"cancelled": args[0]})
			}
			return a.p.Printf("cancelled %s\n", a.p.Out().Bold(args[0]))
		}),
	}
}

func (a *app) eventsPurgeCommand() *cobra.Command {
	var topic, until string
	var yes bool
	cmd := &cobra.Command{
		Use: "purge [FUNCTION[/TRIGGER]]", Short: "Remove stored events for good",
		Long: text(`
			Purge removes the events of a trigger, of a function's triggers and asynchronous
			invocations, or of a topic, that were stored before --until. Events that still
			wait are lost. It asks first; without a terminal it needs --yes.

			JSON: one api.Purged.
		`),
		Example: examples(`
			casemate events purge billing/paid --until 2d
			casemate events purge --topic orders --until 2030-01-02T00:00:00Z --yes
		`),
		ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{0, 1, "a FUNCTION or a FUNCTION/TRIGGER at most"}, func(ctx context.Context, args []string) error {
			in := api.PurgeEvents{Topic: topic}
			what := "topic " + topic
			switch {
			case (len(args) > 0) == (topic != ""):
				return usagef("what to purge is not said, or twice").hint("name a function, a trigger or --topic")
			case until == "":
				return usagef("purge needs --until").hint("--until 2d keeps the last two days")
			}
			var err error
			if len(args) > 0 {
				what = args[0]
				if in.Function, in.Trigger, err = splitFunction(args[0]); err != nil {
					return err
				}
			}
			if in.Until, err = timeFlag("--until", until, a.env.Clock()); err != nil {
				return err
			}
			client, node, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if !yes {
				if err := a.confirm(ctx, fmt.Sprintf("Remove the events of %s/%s before %s from %s, also those that wait?", a.space(), what, in.Until.UTC().Format(time.RFC3339), node.Name)); err != nil {
					return err
				}
			}
			done, err := client.PurgeEvents(ctx, a.space(), in)
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(done)
			}
			return a.p.Printf("removed %d events of %s\n", done.Purged, a.p.Out().Bold(what))
		}),
	}
	cmd.Flags().StringVar(&topic, "topic", "", "The events of this topic")
	cmd.Flags().StringVar(&until, "until", "", "Stored before this time, or longer ago, as in 2d")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

package cli

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// defaultTail is how many past records logs shows.
const defaultTail = 100

func (a *app) logsCommand() *cobra.Command {
	var q api.LogQuery
	var since string
	cmd := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Show what functions logged, and how each invocation ended",
		Long: text(`
			Logs shows the lines that a function wrote to standard error, in order of time,
			and the receipt that ends each invocation. Without a name it shows every
			function of the namespace. Control characters in a line are made visible on a
			terminal.

			JSON: one api.LogRecord to a line.
		`),
		Example: examples(`
			casemate logs hello
			casemate logs -f
			casemate logs hello --since 10m --tail 1000
			casemate logs --request 01890a5d-ac96-774b-bcce-b302099a8057
			casemate logs hello -f -o json | jq -r .text
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{0, 1, "the NAME of a function at most"}, func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				q.Function = args[0]
			}
			if since != "" {
				t, err := parseSince(since, a.env.Clock())
				if err != nil {
					return usagef("--since: %v", err).hint("write it as 10m, 2d or 2030-01-02T15:04:05Z")
				}
				q.Since = t
			}
			switch {
			case q.Tail < 0:
				return usagef("--tail must not be negative")
			case q.Tail == 0 && !q.Follow:
				return usagef("--tail 0 shows nothing").hint("add -f to see new records only")
			case q.Tail == 0: // to the node, 0 means all
				q.Tail, q.Since = 1, a.env.Clock()
			}
			return a.logs(ctx, q)
		}),
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "Go on with new records until interrupted")
	cmd.Flags().StringVar(&since, "since", "", "From this time on, or from this long ago, as in 10m")
	cmd.Flags().IntVar(&q.Tail, "tail", defaultTail, "At most this many past records")
	cmd.Flags().StringVar(&q.RequestID, "request", "", "Only the request with this id")
	return cmd
}

func (a *app) logs(ctx context.Context, q api.LogQuery) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	shown := 0
	for r, err := range client.Logs(ctx, a.space(), q) {
		if q.Follow && interrupted(ctx, err) {
			return &failure{Exit: exitInterrupted, Message: "interrupted", silent: true} // as announced
		}
		if err != nil {
			return err
		}
		shown++
		if err := a.showRecord(r); err != nil {
			return err
		}
	}
	if shown > 0 {
		return nil
	}
	if q.Function != "" {
		if _, err := client.Function(ctx, a.space(), q.Function); err != nil {
			return err // most often, there is no such function
		}
	}
	a.p.Notef("nothing is logged yet that fits\n")
	return nil
}

// showRecord prints one element of a log stream.
func (a *app) showRecord(r api.LogRecord) error {
	if a.p.JSON() {
		return a.p.Record(r)
	}
	c := a.p.Out()
	at := r.Time.UTC().Format(time.RFC3339Nano)
	if a.p.Pretty() {
		at = r.Time.Local().Format("15:04:05.000")
	}
	if r.Receipt == nil {
		return a.p.Printf("%s %s %s\n", c.Dim(at), c.Name(r.Function), c.Plain(r.Text))
	}
	rec := r.Receipt
	outcome := ""
	if rec.Outcome != "ok" {
		outcome = " " + rec.Outcome
	}
	end := c.Dim("← ") + c.Status(rec.Status) + c.Bad(outcome) + c.Dim(" in "+output.Millis(rec.WallMillis)+", CPU "+
		output.Millis(rec.CPUMillis)+", "+output.Bytes(rec.MemoryPeak)+", receipt "+rec.ID)
	return a.p.Printf("%s %s %s\n", c.Dim(at), c.Name(r.Function), end)
}

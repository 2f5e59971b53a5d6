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

func (a *app) receiptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "receipt ID",
		Short: "Show the record of one invocation",
		Long: text(`
			Receipt shows what the node recorded of one invocation: which version ran, for
			whom, in which sandbox, what it took and how it ended. It holds no payload.

			JSON: one api.Receipt.
		`),
		Example: examples(`
			casemate receipt 01890a5d-ac96-774b-bcce-b302099a8057
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{1, 1, "the ID of a receipt"}, func(ctx context.Context, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			r, err := client.Receipt(ctx, args[0])
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(r)
			}
			return a.showReceipt(r)
		}),
	}
}

func (a *app) showReceipt(r *api.Receipt) error {
	c := a.p.Out()
	t := output.NewTable()
	row := func(k, format string, args ...any) {
		t.Row(output.Cell{Text: k, Style: c.Dim}, fmt.Sprintf(format, args...))
	}
	row("receipt", "%s", r.ID)
	row("request", "%s", r.RequestID)
	row("function", "%s/%s", r.Namespace, r.Function)
	row("version", "%s via %s", r.Version, cmp.Or(r.Alias, "its id"))
	row("code", "%s", r.Artifact)
	row("trigger", "%s %s", r.Trigger, r.Route)
	row("principal", "%s", r.Principal)
	cold := ""
	if r.Cold {
		cold = ", cold"
	}
	row("sandbox", "%s, isolation %s%s", cmp.Or(r.Sandbox, "–"), cmp.Or(r.Isolation, "–"), cold)
	row("start", "%s", r.Start.UTC().Format(time.RFC3339Nano))
	row("took", "%s, CPU %s, memory up to %s", output.Millis(r.WallMillis), output.Millis(r.CPUMillis), output.Bytes(r.MemoryPeak))
	row("counted", "%d instructions at most, %d host calls", r.Fuel, r.Calls)
	row("bytes", "in %s, out %s, log %s", output.Bytes(r.BytesIn), output.Bytes(r.BytesOut), output.Bytes(r.LogBytes))
	outcome := c.Good
	if r.Outcome != "ok" {
		outcome = c.Bad
	}
	t.Row(output.Cell{Text: "outcome", Style: c.Dim}, output.Cell{Text: fmt.Sprintf("%d %s", r.Status, r.Outcome), Style: outcome})
	return a.p.Table(t)
}

package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) versionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "versions NAME",
		Short: "List the versions of a function",
		Long: text(`
			Versions lists the immutable versions of a function, newest first, and the
			aliases that point at each. A version's id is a digest of its code and its
			configuration; six digits of it are enough wherever one is asked for.

			JSON: an array of api.Version.
		`),
		Example: examples(`
			casemate versions hello
			casemate versions hello -o json
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{1, 1, "the NAME of a function"}, a.versions),
	}
}

func (a *app) versions(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	vs, err := client.Versions(ctx, a.space(), args[0])
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(append([]api.Version{}, vs...))
	}
	c := a.p.Out()
	t := output.NewTable("VERSION", "CREATED", "BY", "RUNTIME", "SIZE", "ALIASES")
	for _, v := range vs {
		t.Row(output.Cell{Text: a.p.ID(v.ID), Style: c.Accent}, a.p.Time(v.Created), v.Creator, v.Config.Runtime,
			output.Bytes(v.Size), output.Cell{Text: strings.Join(v.Aliases, " "), Style: c.Bold})
	}
	return a.p.Table(t)
}

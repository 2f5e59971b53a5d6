package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the functions of a namespace",
		Long: text(`
			List shows the functions of a namespace that your key may read: what live
			points at, how it was built, when, and where it answers.

			JSON: an array of api.Function.
		`),
		Example: examples(`
			casemate list
			casemate list -n shop -o json
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, a.list),
	}
}

func (a *app) list(ctx context.Context, _ []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ns := a.space()
	fns, err := client.Functions(ctx, ns)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(append([]api.Function{}, fns...))
	}
	if len(fns) == 0 {
		a.p.Notef("no functions in namespace %s; `casemate deploy` adds some\n", ns)
		return nil
	}
	c := a.p.Out()
	t := output.NewTable("NAME", "RUNTIME", "LIVE", "DEPLOYED", "URL")
	t.Flex = 4
	for _, f := range fns {
		runtime, live, when := "–", "–", "–"
		if f.Live != nil {
			runtime, live, when = f.Live.Config.Runtime, a.p.ID(f.Live.ID), a.p.Time(f.Live.Created)
		}
		if share := split(f.Aliases); share != "" {
			live += " " + share
		}
		t.Row(output.Cell{Text: f.Name, Style: c.Bold}, runtime, output.Cell{Text: live, Style: c.Accent}, when, strings.Join(slices.Compact(slices.Sorted(slices.Values(f.URLs))), " "))
	}
	return a.p.Table(t)
}

// split says that live sends traffic to several versions.
func split(aliases []api.Alias) string {
	for _, al := range aliases {
		if al.Name == liveAlias && len(al.Targets) > 1 {
			return "(" + percents(al.Targets) + ")"
		}
	}
	return ""
}

package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// liveAlias is the alias that routes follow and that a deployment moves.
const liveAlias = "live"

// minPrefix is how many digits of a version's id are enough.
const minPrefix = 6

func (a *app) aliasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alias",
		Short: "Point names at versions, with shares of the traffic",
		Long: text(`
			An alias is a name that points at one version, or at several with a share of
			the traffic each. Routes follow the alias live; an invocation may name any.
		`),
		Example: examples(`
			casemate alias list hello
			# a canary: 10% of the traffic goes to the new version
			casemate alias set hello live 3f2a9c=90 b81d04=10
			casemate alias set hello stable 3f2a9c
			casemate alias delete hello stable
		`),
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = a.group(cmd)
	var revision uint64
	set := &cobra.Command{
		Use:   "set NAME ALIAS TARGET...",
		Short: "Move an alias, or make one",
		Long: text(`
			Set points an alias at one version, or at several with percentages that add up
			to 100. A TARGET is VERSION or VERSION=PERCENT; one without a percentage gets
			what the others leave. A version is six or more digits of its id, or an alias
			that points at one version. The move is atomic and takes effect with the next
			request.

			JSON: one api.Alias.
		`),
		Example: examples(`
			casemate alias set hello live 3f2a9c
			casemate alias set hello live 3f2a9c b81d04=10%
			casemate alias set hello live stable=50 b81d04=50
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{3, -1, "NAME, ALIAS and at least one VERSION"}, func(ctx context.Context, args []string) error {
			return a.aliasSet(ctx, args[0], args[1], args[2:], revision)
		}),
	}
	set.Flags().Uint64Var(&revision, "revision", 0, "Only from this revision of the function (see describe)")
	cmd.AddCommand(set,
		&cobra.Command{
			Use:   "list NAME",
			Short: "List the aliases of a function",
			Long: text(`
				List shows where each alias of a function points, and who moved it last.

				JSON: an array of api.Alias.
			`),
			Example: "casemate alias list hello",
			Args:    cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
			RunE: a.run(arguments{1, 1, "the NAME of a function"}, a.aliasList),
		},
		&cobra.Command{
			Use:   "delete NAME ALIAS",
			Short: "Delete an alias",
			Long: text(`
				Delete removes an alias; the versions it pointed at stay. The alias live stays
				as long as its function does.

				JSON: {"deleted": "hello:stable"}
			`),
			Example: "casemate alias delete hello stable",
			Args:    cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
			RunE: a.run(arguments{2, 2, "NAME and ALIAS"}, a.aliasDelete),
		})
	return cmd
}

func (a *app) aliasList(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	f, err := client.Function(ctx, a.space(), args[0])
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(append([]api.Alias{}, f.Aliases...))
	}
	c := a.p.Out()
	t := output.NewTable("ALIAS", "POINTS AT", "SINCE", "BY")
	for _, al := range f.Aliases {
		since, by := "–", "–"
		if len(al.History) > 0 {
			since, by = a.p.Time(al.History[0].At), al.History[0].By
		}
		t.Row(output.Cell{Text: al.Name, Style: c.Bold}, output.Cell{Text: a.targets(al.Targets), Style: c.Accent}, since, by)
	}
	return a.p.Table(t)
}

func (a *app) aliasSet(ctx context.Context, name, alias string, targets []string, revision uint64) error {
	wanted, err := parseTargets(targets)
	if err != nil {
		return err
	}
	if !label.MatchString(alias) {
		return usagef("%.80q cannot name an alias", alias).hint("casemate alias set NAME ALIAS TARGET...")
	}
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ns := a.space()
	vs, err := client.Versions(ctx, ns, name)
	if err != nil {
		return err
	}
	for i := range wanted {
		if wanted[i].Version, err = resolveVersion(vs, name, wanted[i].Version); err != nil {
			return err
		}
	}
	al, err := client.SetAlias(ctx, ns, name, alias, api.SetAlias{Targets: wanted, Revision: revision})
	if err != nil {
		return err
	}
	return a.showAlias(name, al)
}

func (a *app) showAlias(function string, al *api.Alias) error {
	if a.p.JSON() {
		return a.p.Value(al)
	}
	c := a.p.Out()
	return a.p.Printf("%s now points at %s\n", c.Bold(function+":"+al.Name), c.Accent(a.targets(al.Targets)))
}

// parseTargets reads VERSION[=PERCENT]. One target may leave its share open.
func parseTargets(args []string) ([]api.Weight, error) {
	ws, open, total := make([]api.Weight, 0, len(args)), -1, 0
	for i, arg := range args {
		version, share, given := strings.Cut(arg, "=")
		w := api.Weight{Version: version}
		switch {
		case version == "":
			return nil, usagef("target %q names no version", arg).hint("write it as 3f2a9c=90")
		case given:
			n, err := strconv.Atoi(strings.TrimSuffix(share, "%"))
			if err != nil || n < 1 || n > 100 {
				return nil, usagef("the share of %s must be a whole percentage from 1 to 100, not %q", version, share).hint("write it as 3f2a9c=90")
			}
			w.Percent = n
		case open >= 0:
			return nil, usagef("only one target may leave its share open, and both %s and %s do", args[open], arg).hint("write it as 3f2a9c=90")
		default:
			open = i
		}
		total += w.Percent
		ws = append(ws, w)
	}
	switch {
	case open >= 0 && total < 100:
		ws[open].Percent = 100 - total
	case open >= 0 || total != 100:
		return nil, usagef("the shares add up to %d%%, not 100%%", total).hint("leave one share open, and it gets the rest")
	}
	return ws, nil
}

// resolveVersion turns digits of an id, or an alias, into the whole id.
func resolveVersion(vs []api.Version, function, want string) (string, error) {
	hex := strings.TrimPrefix(want, "sha256:")
	var byID, byAlias []string
	for _, v := range vs {
		if len(hex) >= minPrefix && strings.HasPrefix(strings.TrimPrefix(v.ID, "sha256:"), hex) {
			byID = append(byID, v.ID)
		}
		for _, al := range v.Aliases {
			if al == want {
				byAlias = append(byAlias, v.ID)
			}
		}
	}
	see := "casemate versions " + function
	switch {
	case len(byAlias) == 1:
		return byAlias[0], nil
	case len(byAlias) > 1:
		return "", usagef("the alias %s points at %d versions; name one of them", want, len(byAlias)).hint("%s", see)
	case len(byID) == 1:
		return byID[0], nil
	case len(byID) > 1:
		return "", usagef("%s fits %d versions; give more digits", want, len(byID)).hint("%s", see)
	}
	return "", (&failure{Exit: exitNotFound, Message: "function " + function + " has no version or alias " + strconv.Quote(want)}).hint("%s", see)
}

func (a *app) aliasDelete(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.DeleteAlias(ctx, a.space(), args[0], args[1]); err != nil {
		return err
	}
	return a.deleted(args[0] + ":" + args[1])
}

func (a *app) deleted(what string) error {
	if a.p.JSON() {
		return a.p.Value(map[string]string{"deleted": what})
	}
	return a.p.Printf("deleted %s\n", a.p.Out().Bold(what))
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

type deployFlags struct {
	plan     bool
	yes      bool
	only     []string
	prebuilt []string
	alias    string
}

func (a *app) deployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "deploy [PATH]",
		Short: "Build the functions of a manifest and put them to work",
		Long: text(`
			Deploy reads casemate.yaml from PATH, or from this folder or the nearest one
			above it, builds each function on this machine, uploads what the node does not
			have, shows what will change, and changes it in one step. Deploying the same
			thing again changes nothing. If somebody else deploys meanwhile, nothing is
			changed either, and the exit code is 5.

			A warning, such as a route that becomes public, is only shown when the function
			is new: the manifest asks for it. When it concerns a function that is deployed
			already, deploy asks first; without a terminal it then needs --yes.

			JSON: one api.Applied; with --plan, one api.Plan.
		`),
		Example: examples(`
			casemate deploy
			casemate deploy ./shop --only checkout
			casemate deploy --plan
			casemate deploy --alias canary
			casemate deploy --prebuilt hello=./hello.wasm --yes
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{0, 1, "a PATH at most"}, func(ctx context.Context, args []string) error {
			return a.deploy(ctx, args, f)
		}),
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.plan, "plan", false, "Only show what would change")
	fl.BoolVarP(&f.yes, "yes", "y", false, "Do not ask about warnings")
	fl.StringSliceVar(&f.only, "only", nil, "Only these functions; repeatable")
	fl.StringArrayVar(&f.prebuilt, "prebuilt", nil, "Module, for js and ts a bundle, for native runtimes a zip archive, to use in place of a build, as NAME=FILE; repeatable")
	fl.StringVar(&f.alias, "alias", "", "Alias to move (default live)")
	return cmd
}

func (a *app) deploy(ctx context.Context, args []string, f deployFlags) error {
	pr, err := a.loadProject(args)
	if err != nil {
		return err
	}
	if err := pr.only(f.only); err != nil {
		return err
	}
	if err := pr.usePrebuilt(f.prebuilt, a.abs); err != nil {
		return err
	}
	client, node, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Functions(ctx, pr.Namespace); err != nil && explain(ctx, err).Exit == exitUnreachable {
		return err // before minutes of building
	}
	steps := a.p.Steps()
	bs, plan, err := a.prepareDeploy(ctx, client, pr, f.alias, steps)
	steps.Close()
	if err != nil {
		return a.buildSaid(err)
	}
	if f.plan {
		if a.p.JSON() {
			return a.p.Value(plan)
		}
		return a.p.Printf("%s", a.planText(node, plan, a.p.Out()))
	}
	a.p.Notef("%s", a.planText(node, plan, a.p.Err()))
	if warnsAboutExisting(plan) && !f.yes {
		if err := a.confirm(ctx, "Deploy in spite of the warning?"); err != nil {
			return err
		}
	}
	applied, err := a.applyPlan(ctx, client, bs, plan)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(applied)
	}
	return a.showApplied(node, bs, applied)
}

// prepareDeploy builds, uploads and plans.
func (a *app) prepareDeploy(ctx context.Context, client *api.Client, pr *project, alias string, steps *output.Steps) ([]built, *api.Plan, error) {
	bs, err := a.buildAll(ctx, pr, pr.Functions, steps)
	if err != nil {
		return nil, nil, err
	}
	if err := a.upload(ctx, client, bs, steps); err != nil {
		return nil, nil, err
	}
	plan, err := client.Plan(ctx, pr.Namespace, api.PlanRequest{Functions: specs(bs), Alias: alias})
	return bs, plan, err
}

// applyPlan carries out a plan. The node compiles what it has not run before, which
// can take seconds.
func (a *app) applyPlan(ctx context.Context, client *api.Client, bs []built, plan *api.Plan) (*api.Applied, error) {
	steps := output.Silent()
	if slices.ContainsFunc(plan.Changes, func(c api.Change) bool { return c.Action != "none" }) {
		steps = a.p.Steps()
	}
	defer steps.Close()
	step := steps.Start("compile on the node, and switch over")
	applied, err := client.Apply(ctx, plan.Namespace, api.ApplyRequest{Plan: *plan, Functions: specs(bs)})
	if err != nil {
		step.Fail("")
		return nil, err
	}
	step.Done("")
	return applied, nil
}

// buildSaid prints what the tools of a failed build printed.
func (a *app) buildSaid(err error) error {
	var failed *buildFailure
	if errors.As(err, &failed) && len(failed.output) > 0 {
		a.p.Notef("%s\n", strings.TrimRight(a.p.Err().Plain(string(failed.output)), "\n"))
	}
	return err
}

func warnsAboutExisting(p *api.Plan) bool {
	for _, c := range p.Changes {
		if c.Action != "create" && len(c.Warnings) > 0 {
			return true
		}
	}
	return false
}

// planText renders what will change.
func (a *app) planText(node contexts.Context, p *api.Plan, c output.Palette) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", c.Dim(fmt.Sprintf("plan for namespace %s on %s (alias %s)", p.Namespace, node.Name, p.Alias)))
	for _, ch := range p.Changes {
		id := output.ShortID(ch.Version)
		switch ch.Action {
		case "create":
			fmt.Fprintf(&b, "  %s %s  new, version %s\n", c.Good("+"), c.Bold(ch.Function), c.Accent(id))
		case "update":
			was := "nothing"
			if ch.Current != "" {
				was = output.ShortID(ch.Current)
			}
			fmt.Fprintf(&b, "  %s %s  %s → %s\n", c.Warn("~"), c.Bold(ch.Function), c.Dim(was), c.Accent(id))
		case "delete":
			fmt.Fprintf(&b, "  %s %s  deleted\n", c.Bad("-"), c.Bold(ch.Function))
		default:
			fmt.Fprintf(&b, "  %s %s  %s\n", c.Dim("="), c.Plain(ch.Function), c.Dim("unchanged"))
		}
		for _, d := range ch.Diff {
			if ch.Action == "create" && !strings.HasSuffix(d.Field, "]") {
				continue // of a new function, its routes matter; the rest is all new
			}
			from, to := cmp.Or(d.From, "–"), cmp.Or(d.To, "–")
			fmt.Fprintf(&b, "      %s %s → %s\n", c.Plain(d.Field+":"), c.Dim(from), c.Plain(to))
		}
		for _, w := range ch.Warnings {
			fmt.Fprintf(&b, "      %s %s\n", c.Warn("warning:"), c.Plain(w))
		}
	}
	return b.String()
}

func (a *app) showApplied(node contexts.Context, bs []built, applied *api.Applied) error {
	c := a.p.Out()
	t := output.NewTable()
	for _, d := range applied.Functions {
		mark, word := output.Cell{Text: "✓", Style: c.Good}, "deployed"
		if !d.Changed {
			mark, word = output.Cell{Text: "=", Style: c.Dim}, "unchanged"
		}
		t.Row(mark, output.Cell{Text: d.Name, Style: c.Bold}, word, output.Cell{Text: a.p.ID(d.Version), Style: c.Accent}, strings.Join(slices.Compact(slices.Sorted(slices.Values(d.URLs))), " "))
	}
	if err := a.p.Table(t); err != nil {
		return err
	}
	a.tryIt(node, bs, applied)
	return nil
}

// tryIt remarks how to call what was deployed.
func (a *app) tryIt(node contexts.Context, bs []built, applied *api.Applied) {
	c := a.p.Err()
	for _, d := range applied.Functions {
		if len(d.URLs) == 0 {
			continue
		}
		for _, b := range bs {
			if b.fn.Name != d.Name || len(b.fn.Config.HTTP) == 0 {
				continue
			}
			ca, err := a.caFile(node)
			if err != nil {
				return // the deployment is done; a remark less is no failure
			}
			a.p.Notef("\n%s\n", c.Dim("Try it:"))
			if !b.fn.Config.HTTP[0].Public {
				a.p.Notef("  %s\n", c.Accent("casemate invoke "+d.Name+" '{}'"+a.elsewhere(applied.Namespace)))
				a.p.Notef("  %s\n", c.Dim("# or over HTTPS, with a key that may do this and nothing else"))
				a.p.Notef("  %s\n", c.Accent(a.makeKey(applied.Namespace, d.Name)))
			}
			a.p.Notef("  %s\n", c.Accent(a.curl(ca, b.fn.Config.HTTP[0], d.URLs[0])))
			return
		}
	}
	if len(applied.Functions) > 0 {
		a.p.Notef("\n%s\n  %s\n", c.Dim("Try it:"), c.Accent("casemate invoke "+applied.Functions[0].Name+" '{}'"+a.elsewhere(applied.Namespace)))
	}
}

// makeKey is a command to paste, which gives the shell variable KEY a new key. It is
// not called CASEMATE_KEY, which this program would read in place of its own.
func (a *app) makeKey(space, name string) string {
	where := ""
	if a.global.context != "" {
		where = " --context " + shellQuote(a.global.context)
	}
	return "KEY=$(casemate key create " + name + " --scope invoke:" + space + "/" + name + where + ")"
}

// curl is a command to paste. It names the variable that holds a key, never a key.
func (a *app) curl(ca string, h api.HTTPTrigger, url string) string {
	parts := []string{"curl --cacert " + shellQuote(ca)}
	method := h.Method
	if method == "ANY" || method == "" {
		method = "POST"
	}
	if method != "GET" && method != "POST" { // curl's own: GET, and POST with --json
		parts = append(parts, "-X "+method)
	}
	if !h.Public {
		parts = append(parts, `-H "Authorization: Bearer $KEY"`)
	}
	if method == "POST" || method == "PUT" || method == "PATCH" {
		parts = append(parts, "--json '{}'")
	}
	parts = append(parts, shellQuote(url))
	if line := strings.Join(parts, " "); len(line)+2 <= a.p.Width() || !a.p.PrettyErr() {
		return line
	}
	return strings.Join(parts, " \\\n    ")
}

// shellQuote makes s one word of a shell.
func shellQuote(s string) string {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-./:", r)
	}
	if s != "" && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

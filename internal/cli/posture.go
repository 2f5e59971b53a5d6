package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) postureCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "posture",
		Short: "Show what is enforced, and what is not",
		Long: text(`
			Posture asks the node what it enforces on its machine, and shows what it cannot
			enforce there with the reason.
		`),
		Example: examples(`
			casemate posture sandbox
			casemate posture sandbox --strict
		`),
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = a.group(cmd)
	cmd.AddCommand(a.postureSandboxCommand())
	return cmd
}

func (a *app) postureSandboxCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Show what separates functions from the machine",
		Long: text(`
			Sandbox lists, for the wasm tier and the native tier, each measure that stands
			between a function and the node's machine, whether it is in force, and why not.
			For the native tier it also lists which runtimes the machine has what they need
			for. Everything here was tried on a sandbox, not concluded from a version number.

			With --strict it exits 1 when any measure is missing.

			JSON: one api.SandboxPosture.
		`),
		Example: examples(`
			casemate posture sandbox
			casemate posture sandbox --strict -o json
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error { return a.postureSandbox(ctx, strict) }),
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "Exit 1 when a measure is not in force")
	return cmd
}

func (a *app) postureSandbox(ctx context.Context, strict bool) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	p, err := client.SandboxPosture(ctx)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		err = a.p.Value(p)
	} else {
		err = a.showPosture(p)
	}
	if err == nil && strict && !p.Complete {
		return &failure{Exit: exitFailed, silent: true}
	}
	return err
}

func (a *app) showPosture(p *api.SandboxPosture) error {
	c := a.p.Out()
	for i, tier := range p.Tiers {
		if i > 0 {
			if err := a.p.Printf("\n"); err != nil {
				return err
			}
		}
		state := c.Good("● available")
		if !tier.Available {
			state = c.Bad("● not available")
		}
		if err := a.p.Printf("%s  %s  %s\n", c.Bold(tier.Name), state, c.Plain(cmp.Or(tier.Reason, tier.Kind))); err != nil {
			return err
		}
		t := output.NewTable()
		for _, m := range tier.Measures {
			mark := output.Cell{Text: "✓ enforced", Style: c.Good}
			if !m.Enforced {
				mark = output.Cell{Text: "✗ missing", Style: c.Bad}
			}
			t.Row(m.Name, mark, output.Cell{Text: m.Reason, Style: c.Warn})
		}
		for _, r := range tier.Runtimes {
			mark := output.Cell{Text: "✓ " + r.Version, Style: c.Good}
			if !r.Available {
				mark = output.Cell{Text: "✗ missing", Style: c.Dim}
			}
			t.Row("runtime "+r.Name, mark, output.Cell{Text: r.Reason, Style: c.Dim})
		}
		if tier.Available {
			text := fmt.Sprintf("%d running, %d waiting", tier.Sandboxes, tier.Idle)
			if tier.Budget > 0 {
				text += fmt.Sprintf("; %s of %s claimed", output.Bytes(tier.Claimed), output.Bytes(tier.Budget))
			}
			t.Row("sandboxes", text)
		}
		if err := a.p.Indented(t); err != nil {
			return err
		}
	}
	return nil
}

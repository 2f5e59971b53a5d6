package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// How far the node's clock and ours may be apart. Signatures of webhooks and of AWS
// are refused beyond five minutes.
const (
	clockWarn = 5 * time.Second
	clockFail = 2 * time.Minute
)

func (a *app) doctorCommand() *cobra.Command {
	var quick bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine a node, and say what to do about what is found",
		Long: text(`
			Doctor has the node examine itself: its health and warnings, disk, bus, sources,
			triggers, the credentials of connections, and that every stored event and dead
			letter is whole and none is missing. It takes an administrator's key. Reading all
			events takes a while; --quick leaves it out.

			It exits 1 when a check fails.

			JSON: an array of api.DoctorCheck.
		`),
		Example: examples(`
			casemate doctor
			casemate doctor --quick -o json
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error { return a.doctor(ctx, quick) }),
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "Leave out reading all stored events")
	return cmd
}

func (a *app) doctor(ctx context.Context, quick bool) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	checks := []api.DoctorCheck{}
	status, err := client.Status(ctx)
	if err != nil {
		return err // with what to do about it: nothing else can be examined
	}
	checks = append(checks, api.DoctorCheck{Name: "connection", State: api.CheckOK, Detail: "the node answers at " + client.Address()}, a.sameVersion(status))
	steps := a.p.PrettyErr() && !a.p.JSON()
	for el, err := range client.Doctor(ctx, quick) {
		switch {
		case err != nil:
			return err
		case el.Time != nil:
			checks = append(checks, clocks(a.env.Clock().Sub(*el.Time)))
		case el.Progress != nil && steps:
			p := el.Progress
			a.p.Notef("%s\n", a.p.Err().Dim(fmt.Sprintf("%s: %d of %d", p.Name, p.Done, p.Of)))
		case el.Check != nil:
			checks = append(checks, *el.Check)
		}
	}
	if a.p.JSON() {
		err = a.p.Value(checks)
	} else {
		err = a.showChecks(checks)
	}
	if err != nil {
		return err
	}
	for _, c := range checks {
		if c.State == api.CheckFail {
			return &failure{Exit: exitFailed, silent: true}
		}
	}
	return nil
}

func (a *app) sameVersion(s *api.Status) api.DoctorCheck {
	if s.Version == a.env.Version {
		return api.DoctorCheck{Name: "versions", State: api.CheckOK, Detail: "client and node are " + s.Version}
	}
	return api.DoctorCheck{
		Name: "versions", State: api.CheckWarn, Detail: "the client is " + a.env.Version + ", the node " + s.Version,
		Remedy: "Use a client of the node's version.",
	}
}

func clocks(apart time.Duration) api.DoctorCheck {
	c := api.DoctorCheck{Name: "clocks", State: api.CheckOK, Detail: "the node's and ours agree"}
	if apart = apart.Abs(); apart >= clockWarn {
		c.State, c.Detail = api.CheckWarn, "the node's and ours are "+output.Span(apart)+" apart"
		c.Remedy = "Set both by NTP: signed requests and webhooks are refused when clocks differ."
	}
	if apart >= clockFail {
		c.State = api.CheckFail
	}
	return c
}

func (a *app) showChecks(checks []api.DoctorCheck) error {
	c := a.p.Out()
	t := output.NewTable("CHECK", "STATE", "WHAT WAS FOUND")
	for _, k := range checks {
		style := c.Good
		switch k.State {
		case api.CheckWarn:
			style = c.Warn
		case api.CheckFail:
			style = c.Bad
		}
		t.Row(output.Cell{Text: k.Name, Style: c.Bold}, output.Cell{Text: k.State, Style: style}, k.Detail)
		if k.Remedy != "" {
			t.Row("", "", output.Cell{Text: "→ " + k.Remedy, Style: c.Accent})
		}
	}
	return a.p.Table(t)
}

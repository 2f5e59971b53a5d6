package cli

import (
	"context"
	"crypto/sha1" //nolint:gosec // macOS names certificates by it; nothing is secured with it
	"encoding/hex"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) trustCommand() *cobra.Command {
	var show, undo, yes bool
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Let this machine's programs accept a node's certificate",
		Long: text(`
			Trust puts the authority of a node into the lists of this machine: the system's
			(with sudo, unless you are root), and those of Firefox and Chromium when
			certutil is there. It shows what it will do and asks first; without a terminal
			it needs --yes. An authority that is not limited to the node's own names is
			refused.

			With --print it changes nothing and shows how to use the authority's file for
			single programs.

			JSON: {"authority", "steps": [{"store", "commands"}], "skipped", "done"}
		`),
		Example: examples(`
			casemate trust
			casemate trust --print
			casemate trust --uninstall --yes
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error {
			if show {
				return a.trustPrint()
			}
			return a.trust(ctx, undo, yes)
		}),
	}
	cmd.Flags().BoolVar(&show, "print", false, "Only show the authority's file and how to use it")
	cmd.Flags().BoolVar(&undo, "uninstall", false, "Take the authority out again")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

func (a *app) trustPrint() error {
	node, err := a.node()
	if err != nil {
		return err
	}
	path, err := a.caFile(node)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(map[string]string{"authority": path})
	}
	c := a.p.Err()
	a.p.Notef("%s\n", c.Dim("# This path, for programs that take one (curl --cacert, NODE_EXTRA_CA_CERTS, REQUESTS_CA_BUNDLE):"))
	a.p.Notef("#   %s\n%s\n", c.Plain(path), c.Dim("# Go and OpenSSL read this variable, in place of the system's own list:"))
	return a.p.Printf("export SSL_CERT_FILE=%s\n", shellQuote(path))
}

// trustResult is what trust did.
type trustResult struct {
	Authority string      `json:"authority"`
	Steps     []trustStep `json:"steps"`
	Skipped   []string    `json:"skipped"`
	Done      bool        `json:"done"`
}

func (a *app) trust(ctx context.Context, undo, yes bool) error {
	node, err := a.node()
	if err != nil {
		return err
	}
	path, err := a.caFile(node)
	if err != nil {
		return err
	}
	ca, err := readAuthority(node, path)
	if err != nil {
		return err
	}
	steps, skipped := a.trustPlan(ca, undo)
	c := a.p.Err()
	for _, s := range steps {
		a.p.Notef("%s\n", c.Bold(s.Store))
		for _, cmd := range s.Commands {
			a.p.Notef("  %s\n", c.Accent(commandLine(cmd)))
		}
	}
	for _, s := range skipped {
		a.p.Notef("%s %s\n", c.Warn("left out:"), c.Plain(s))
	}
	if len(steps) == 0 {
		return failf("there is no store here that could be changed").hint("casemate trust --print")
	}
	if !yes {
		question := "Trust " + ca.name + " there?"
		if undo {
			question = "Take " + ca.name + " out there?"
		}
		if err := a.confirm(ctx, question); err != nil {
			return err
		}
	}
	if err := a.trustRun(ctx, steps, undo); err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(trustResult{path, steps, append([]string{}, skipped...), true})
	}
	word := "trusted"
	if undo {
		word = "no longer trusted"
	}
	return a.p.Printf("%s %s is %s here\n", a.p.Out().Good("✓"), ca.name, word)
}

// trustRun carries out the steps. To take out what is not there is no failure, so
// that an undo after half an installation reaches every store.
func (a *app) trustRun(ctx context.Context, steps []trustStep, undo bool) error {
	for _, s := range steps {
		for _, cmd := range s.Commands {
			err := a.env.Programs.Run(ctx, cmd[0], cmd[1:]...)
			if err == nil {
				continue
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !undo {
				return failf("%s: %v", s.Store, err).hint("casemate trust --uninstall takes back what was done; casemate trust --print needs no change")
			}
			a.p.Notef("%s %s: %s\n", a.p.Err().Warn("left as it is:"), s.Store, a.p.Err().Plain(err.Error()))
		}
	}
	return nil
}

func commandLine(cmd []string) string {
	out := make([]string, len(cmd))
	for i, w := range cmd {
		out[i] = shellQuote(w)
	}
	return strings.Join(out, " ")
}

func fingerprint1(der []byte) string {
	sum := sha1.Sum(der) //nolint:gosec // see the import
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

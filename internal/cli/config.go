package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// maxKey bounds a key read from standard input, in bytes.
const maxKey = 4 << 10

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check manifests, and choose between nodes",
		Long: text(`
			Config checks casemate.yaml and keeps the list of nodes you talk to. Each node
			is a context: its addresses, the authority of its certificate, and your key.
			They lie in a file that only you can read.
		`),
		Example: examples(`
			casemate config validate
			casemate config contexts
			casemate config use prod
		`),
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = a.group(cmd)
	cmd.AddCommand(a.manifestCommands()...)
	cmd.AddCommand(a.contextCommands()...)
	return cmd
}

func (a *app) manifestCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:   "validate [PATH]",
			Short: "Check a manifest without deploying",
			Long: text(`
				Validate reads casemate.yaml and reports everything wrong with it: file, line,
				column, the text meant, and what to write instead. It exits 1 if there is any.

				JSON: {"path", "namespace", "functions"}; the error holds an array "issues".
			`),
			Example: examples(`
				casemate config validate
				casemate config validate shop/casemate.yaml -o json
			`),
			Args: cobra.ArbitraryArgs,
			RunE: a.run(arguments{0, 1, "a PATH at most"}, a.configValidate),
		},
		{
			Use:   "schema",
			Short: "Print the JSON Schema of casemate.yaml",
			Long: text(`
				Schema prints the JSON Schema (2020-12) of casemate.yaml, for editors. Put this
				line first in the manifest to use it:
				  # yaml-language-server: $schema=./casemate.schema.json
			`),
			Example: "casemate config schema > casemate.schema.json",
			Args:    cobra.ArbitraryArgs,
			RunE: a.run(arguments{}, func(context.Context, []string) error {
				_, err := a.p.Write(manifest.Schema())
				return err
			}),
		},
	}
}

func (a *app) contextCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:   "contexts",
			Short: "List the nodes you know",
			Long: text(`
				Contexts lists the nodes you know; a star marks the current one. Keys are not
				shown.

				JSON: an array of {"name", "controlUrl", "gatewayUrl", "current", "hasKey"}.
			`),
			Example: "casemate config contexts",
			Args:    cobra.ArbitraryArgs,
			RunE:    a.run(arguments{}, a.configContexts),
		},
		{
			Use:     "use NAME",
			Short:   "Make a context the current one",
			Long:    "Use makes a context the one that commands talk to when none is named.",
			Example: "casemate config use prod",
			Args:    cobra.ArbitraryArgs,
			RunE: a.run(arguments{1, 1, "the NAME of a context"}, func(_ context.Context, args []string) error {
				err := a.changeContexts(func(f *contexts.File) error { return f.Use(args[0]) })
				if err != nil {
					return err
				}
				return a.said("current", args[0], "now talking to %s\n")
			}),
		},
		a.configAddCommand(),
		{
			Use:     "remove NAME",
			Short:   "Forget a context",
			Long:    "Remove forgets a node, with the key for it. The node itself is left alone, and so\nis its key: revoke that with casemate key revoke.",
			Example: "casemate config remove old",
			Args:    cobra.ArbitraryArgs,
			RunE: a.run(arguments{1, 1, "the NAME of a context"}, func(_ context.Context, args []string) error {
				err := a.changeContexts(func(f *contexts.File) error { return f.Remove(args[0]) })
				if err != nil {
					return err
				}
				return a.said("removed", args[0], "forgot %s\n")
			}),
		},
		{
			Use:     "path",
			Short:   "Print where the client configuration lies",
			Long:    "Path prints the file that holds the contexts: $CASEMATE_CONFIG, or\ncasemate/config.json under $XDG_CONFIG_HOME or ~/.config.",
			Example: "casemate config path",
			Args:    cobra.ArbitraryArgs,
			RunE: a.run(arguments{}, func(context.Context, []string) error {
				path, err := contexts.Path(a.env.Getenv)
				if err != nil {
					return err
				}
				return a.said("path", path, "%s\n")
			}),
		},
	}
}

// said prints one value, as {"key": value} in JSON.
func (a *app) said(key, value, format string) error {
	if a.p.JSON() {
		return a.p.Value(map[string]string{key: value})
	}
	return a.p.Printf(format, value)
}

func (a *app) changeContexts(change func(*contexts.File) error) error {
	path, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return err
	}
	return contexts.Update(path, change)
}

// manifestPath finds the manifest that the user means: a file, a folder, or the
// nearest one above the working directory.
func (a *app) manifestPath(args []string) (string, error) {
	if len(args) == 0 {
		return findManifest(a.env.Dir)
	}
	path := a.abs(args[0])
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, manifest.FileName)
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", (&failure{Exit: exitNotFound, Message: "there is no " + path}).
			hint("name a manifest, or a folder that holds %s; `casemate init NAME` makes one", manifest.FileName)
	}
	return path, nil
}

func (a *app) configValidate(_ context.Context, args []string) error {
	path, err := a.manifestPath(args)
	if err != nil {
		return err
	}
	m, err := manifest.Load(path)
	if err != nil {
		return err
	}
	names := make([]string, len(m.Functions))
	for i, f := range m.Functions {
		names[i] = f.Name
	}
	if a.p.JSON() {
		return a.p.Value(struct {
			Path      string   `json:"path"`
			Namespace string   `json:"namespace"`
			Functions []string `json:"functions"`
		}{path, m.Namespace, names})
	}
	return a.p.Printf("%s %s is valid: namespace %s, functions %s\n", a.p.Out().Good("✓"), path, m.Namespace, strings.Join(names, ", "))
}

func (a *app) configContexts(context.Context, []string) error {
	path, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return err
	}
	f, err := contexts.Load(path)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		type row struct {
			Name       string `json:"name"`
			ControlURL string `json:"controlUrl"`
			GatewayURL string `json:"gatewayUrl,omitempty"`
			Current    bool   `json:"current"`
			HasKey     bool   `json:"hasKey"`
		}
		rows := []row{}
		for _, c := range f.Contexts {
			rows = append(rows, row{c.Name, c.ControlURL, c.GatewayURL, c.Name == f.Current, c.Key != ""})
		}
		return a.p.Value(rows)
	}
	if len(f.Contexts) == 0 {
		a.p.Notef("no node is known yet; `casemate up` starts one\n")
		return nil
	}
	c := a.p.Out()
	t := output.NewTable("", "NAME", "CONTROL", "GATEWAY", "KEY")
	for _, x := range f.Contexts {
		star, key := "", "none"
		if x.Name == f.Current {
			star = "*"
		}
		if x.Key != "" {
			key = "yes"
		}
		t.Row(output.Cell{Text: star, Style: c.Good}, output.Cell{Text: x.Name, Style: c.Bold}, x.ControlURL, x.GatewayURL, key)
	}
	return a.p.Table(t)
}

func (a *app) configAddCommand() *cobra.Command {
	var in contexts.Context
	var ca string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a node that runs elsewhere",
		Long: text(`
			Add makes a context for a node, or replaces one. The key is read from standard
			input, or from CASEMATE_KEY, so that it appears in no shell history and no list
			of processes. The authority is the file ca.pem that the node's operator gives
			you.
		`),
		Example: examples(`
			pass casemate/prod | casemate config add prod --control https://casemate.example.com:8444 --ca ca.pem
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{1, 1, "a NAME for the context"}, func(_ context.Context, args []string) error {
			in.Name = args[0]
			return a.configAdd(in, ca)
		}),
	}
	cmd.Flags().StringVar(&in.ControlURL, "control", "", "Address of the control listener, as in https://host:8444")
	cmd.Flags().StringVar(&in.GatewayURL, "gateway", "", "Address of the gateway, as in https://host:8443")
	cmd.Flags().StringVar(&ca, "ca", "", "File of the node's authority, in PEM")
	return cmd
}

func (a *app) configAdd(in contexts.Context, ca string) error {
	if in.ControlURL == "" || ca == "" {
		return usagef("a context needs --control and --ca").hint("casemate config add --help")
	}
	pem, err := os.ReadFile(a.abs(ca))
	if err != nil {
		return failf("reading the authority: %v", err)
	}
	in.CA = string(pem)
	in.Key = a.env.Getenv("CASEMATE_KEY")
	if in.Key == "" {
		if a.env.IsTerminal(a.env.Stdin) {
			return usagef("no key: standard input is a terminal, and CASEMATE_KEY is not set").hint("pipe the key in, as in `pass casemate/prod | casemate config add …`")
		}
		b, err := io.ReadAll(io.LimitReader(a.env.Stdin, maxKey))
		if err != nil {
			return failf("reading the key: %v", err)
		}
		in.Key = strings.TrimSpace(string(b))
	}
	if in.Key == "" {
		return usagef("no key on standard input").hint("pipe the key in, as in `pass casemate/prod | casemate config add …`")
	}
	client, err := a.clientFor(in) // checks the URL, the authority and the key's form
	if err != nil {
		return err
	}
	client.Close()
	if err := a.changeContexts(func(f *contexts.File) error { return f.Put(in) }); err != nil {
		return err
	}
	return a.said("added", in.Name, "added %s\n")
}

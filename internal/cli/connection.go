package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// maxSettings is the most of a settings file that is read, in bytes; the node takes less.
const maxSettings = 64 << 10

func (a *app) connectionCommand() *cobra.Command {
	return a.holder(&cobra.Command{
		Use: "connection", Aliases: []string{"connections"},
		Short: "Make, list and delete connections to far sides",
		Long: text(`
			A connection is a far side that triggers listen to or destinations send to: a
			broker, a database, a webhook, with its settings and where its credentials are.
			Credentials stay in files on the node's machine. A trigger may use a connection
			if the key that deploys it has the scope connect:NAMESPACE/NAME.
		`),
		Example: examples(`
			casemate connection create rabbit --kind amqp --settings mq.json --secret password=/etc/mq.key
			casemate connection list
			casemate connection delete rabbit
		`),
	}, a.connectionCreateCommand(), a.connectionListCommand(), a.connectionShowCommand(), a.connectionDeleteCommand())
}

func (a *app) connectionCreateCommand() *cobra.Command {
	var kind, file string
	var set, secrets []string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a connection, or replace it",
		Long: text(`
			Create makes a connection in the namespace, or replaces the one of that name. It
			takes an administrator's key, since it names files on the node's machine: each
			--secret is the absolute path of a file there that only the node's user can read
			(mode 0600). Changing the file changes the credential.

			The value of a --set is read as JSON where it is true, false, a number, a list or
			an object, and as text otherwise.

			JSON: one api.Connection.
		`),
		Example: examples(`
			casemate connection create rabbit --kind amqp --settings mq.json --secret password=/etc/mq.key
			casemate connection create stripe --kind webhook --secret key=/etc/casemate/stripe
			casemate connection create orders --kind postgres --settings orders.json --secret password=/etc/pg.key
		`),
		RunE: a.run(arguments{1, 1, "a NAME"}, func(ctx context.Context, args []string) error {
			in := api.PutConnection{Kind: kind, Files: map[string]string{}}
			if kind == "" {
				return usagef("a connection has a --kind").hint("such as amqp, kafka, mqtt, nats, postgres or webhook")
			}
			var err error
			if in.Settings, err = a.connectionSettings(file, set); err != nil {
				return err
			}
			for _, s := range secrets {
				name, path, ok := strings.Cut(s, "=")
				if !ok || !filepath.IsAbs(path) {
					// The text may be a credential given in place of a file's name.
					return usagef("--secret %.40q does not name a file", name).hint("write name=/absolute/path of a file on the node's machine; credentials themselves are not taken")
				}
				in.Files[name] = path
			}
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			n, err := client.PutConnection(ctx, a.space(), args[0], in)
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(n)
			}
			return a.p.Printf("connection %s of kind %s; keys use it with the scope connect:%s/%s\n", a.p.Out().Bold(n.Name), a.p.Out().Plain(n.Kind), n.Namespace, n.Name)
		}),
	}
	cmd.Flags().StringVar(&kind, "kind", "", "What is there, as in amqp, kafka, postgres or webhook")
	cmd.Flags().StringArrayVar(&set, "set", nil, "A setting, as in username=shop; what is JSON is taken as such; repeatable")
	cmd.Flags().StringVar(&file, "settings", "", "A file with all settings, as one JSON object")
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "A credential's name and file, as in password=/etc/mq.key; repeatable")
	return cmd
}

// connectionSettings makes one object of a file and of single settings.
func (a *app) connectionSettings(file string, set []string) (json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	if file != "" {
		f, err := os.Open(a.abs(file))
		if err != nil {
			return nil, failf("reading the settings: %v", err)
		}
		b, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
		_ = f.Close() // it was only read
		if err != nil || len(b) > maxSettings {
			return nil, failf("reading the settings: %s cannot be read, or has more than %s", file, output.Bytes(maxSettings))
		}
		if json.Unmarshal(b, &all) != nil || all == nil {
			return nil, failf("reading the settings: %s is not one JSON object", file)
		}
	}
	for _, s := range set {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, usagef("--set: %.40q has no value", k).hint("write name=value")
		}
		raw := json.RawMessage(v)
		if !json.Valid(raw) || v == "null" || strings.HasPrefix(strings.TrimSpace(v), `"`) {
			b, err := json.Marshal(v)
			if err != nil {
				return nil, failf("reading --set %s: %v", k, err)
			}
			raw = b
		}
		all[k] = raw
	}
	b, err := json.Marshal(all)
	if err != nil {
		return nil, failf("reading the settings: %v", err)
	}
	return b, nil
}

func (a *app) connectionListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the connections of a namespace",
		Long: text(`
			List shows the connections that your key may use or see, and which triggers in
			force use them.

			JSON: an array of api.Connection.
		`),
		Example: "casemate connection list",
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Connections(ctx, a.space())
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(append([]api.Connection{}, all...))
			}
			if len(all) == 0 {
				a.p.Notef("no connections in namespace %s; an administrator makes one with `casemate connection create`\n", a.space())
				return nil
			}
			t := output.NewTable("NAME", "KIND", "SECRETS", "USED BY", "CREATED")
			t.Flex = 3
			for i := range all {
				n := &all[i]
				t.Row(output.Cell{Text: n.Name, Style: a.p.Out().Bold}, n.Kind, cmp.Or(strings.Join(n.Secrets, " "), "–"),
					cmp.Or(strings.Join(n.UsedBy, " "), "–"), a.p.Time(n.Created))
			}
			return a.p.Table(t)
		}),
	}
}

func (a *app) connectionShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one connection",
		Long: text(`
			Show shows a connection's settings and the names of its credentials; to an
			administrator also in which files on the node's machine these are.

			JSON: one api.Connection.
		`),
		Example: "casemate connection show rabbit",
		RunE: a.run(arguments{1, 1, "the NAME of a connection"}, func(ctx context.Context, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			n, err := client.Connection(ctx, a.space(), args[0])
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(n)
			}
			t, row := a.pairs()
			row("connection", "%s/%s", n.Namespace, n.Name)
			row("kind", "%s", n.Kind)
			row("created", "%s by %s", a.p.Time(n.Created), n.Creator)
			var settings map[string]json.RawMessage
			if err := json.Unmarshal(n.Settings, &settings); err == nil {
				for _, k := range slices.Sorted(maps.Keys(settings)) {
					row("setting", "%s: %s", k, settings[k])
				}
			}
			for _, s := range n.Secrets {
				row("secret", "%s  %s", s, n.Files[s])
			}
			for _, u := range n.UsedBy {
				row("used by", "%s", u)
			}
			return a.p.Table(t)
		}),
	}
}

func (a *app) connectionDeleteCommand() *cobra.Command {
	var inUse, yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a connection",
		Long: text(`
			Delete removes a connection; the files with its credentials stay. One that
			triggers in force use is only removed with --in-use, and their sources fail from
			then on. It asks first; without a terminal it needs --yes.

			JSON: {"deleted": "default/rabbit"}
		`),
		Example: examples(`
			casemate connection delete rabbit
			casemate connection delete rabbit --in-use --yes
		`),
		RunE: a.run(arguments{1, 1, "the NAME of a connection"}, func(ctx context.Context, args []string) error {
			client, node, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			ns := a.space()
			if !yes {
				question := "Delete the connection " + ns + "/" + args[0] + " from " + node.Name
				if inUse {
					question += ", though triggers use it"
				}
				if err := a.confirm(ctx, question+"?"); err != nil {
					return err
				}
			}
			if err := client.DeleteConnection(ctx, ns, args[0], inUse); err != nil {
				return err
			}
			return a.deleted(ns + "/" + args[0])
		}),
	}
	cmd.Flags().BoolVar(&inUse, "in-use", false, "Also when triggers in force use it; their sources fail then")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

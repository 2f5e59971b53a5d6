package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// Bounds of what is stored and shown.
const (
	maxKV     = 1 << 20 // bytes of a value; the node's own bound
	kvPage    = 1000    // keys in one answer of the node
	maxListed = 100_000
)

func (a *app) kvCommand() *cobra.Command {
	return a.holder(&cobra.Command{
		Use: "kv", Short: "Read and change keys and values",
		Long: text(`
			Each namespace has buckets of keys and values, which clients and functions'
			triggers share. A bucket is there while a key is in it. Every change gives its
			key a new revision.

			These commands go by the gateway. Reading takes the scope fetch:NAMESPACE/BUCKET,
			changing store:NAMESPACE/BUCKET. To be told of changes, have a trigger of kind kv.
		`),
		Example: examples(`
			casemate kv put settings theme dark
			casemate kv get settings theme
			casemate kv list settings --prefix th
			casemate kv delete settings theme
			casemate kv buckets
		`),
	}, a.kvBucketsCommand(), a.kvListCommand(), a.kvGetCommand(), a.kvPutCommand(), a.kvDeleteCommand())
}

// values connects to the gateway of the context.
func (a *app) values() (*api.Client, error) {
	c, err := a.node()
	if err != nil {
		return nil, err
	}
	if c.GatewayURL == "" {
		return nil, usagef("the context %s does not say where the gateway is", c.Name).
			hint("casemate config add %s --gateway https://HOST:8443 --control %s --ca ca.pem", c.Name, c.ControlURL)
	}
	c.ControlURL = c.GatewayURL
	return a.clientFor(c)
}

func (a *app) kvBucketsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "buckets", Short: "List the buckets of a namespace",
		Long: text(`
			Buckets lists the buckets that the key may read, with how many keys are in each.

			JSON: an array of api.Bucket.
		`),
		Example: "casemate kv buckets -n shop",
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error {
			client, err := a.values()
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Buckets(ctx, a.space())
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(append([]api.Bucket{}, all...))
			}
			if len(all) == 0 {
				a.p.Notef("the namespace %s has no buckets that the key may read\n", a.space())
				return nil
			}
			t := output.NewTable("BUCKET", "KEYS")
			for _, b := range all {
				t.Row(output.Cell{Text: b.Bucket, Style: a.p.Out().Bold}, fmt.Sprint(b.Keys))
			}
			return a.p.Table(t)
		}),
	}
}

func (a *app) kvListCommand() *cobra.Command {
	var prefix, after string
	var limit int
	cmd := &cobra.Command{
		Use: "list BUCKET", Aliases: []string{"ls"}, Short: "List the keys of a bucket",
		Long: text(`
			List shows the keys of a bucket in the order of their bytes, with revision and
			size. It never shows values.

			JSON: one api.ValueKeys; its next, if there is one, is for --after.
		`),
		Example: examples(`
			casemate kv list settings
			casemate kv list sessions --prefix user/42/ --limit 10
			casemate kv list sessions -o json | jq -r '.keys[].key'
		`),
		RunE: a.run(arguments{1, 1, "the name of a BUCKET"}, func(ctx context.Context, args []string) error {
			if limit < 1 || limit > maxListed {
				return usagef("--limit is 1 to %d", maxListed)
			}
			return a.kvList(ctx, args[0], prefix, after, limit)
		}),
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "Only keys that begin so")
	cmd.Flags().StringVar(&after, "after", "", "Only keys behind this one")
	cmd.Flags().IntVar(&limit, "limit", kvPage, "At most so many")
	return cmd
}

func (a *app) kvList(ctx context.Context, bucket, prefix, after string, limit int) error {
	client, err := a.values()
	if err != nil {
		return err
	}
	defer client.Close()
	all := api.ValueKeys{Keys: []api.ValueKey{}}
	for {
		page, err := client.ValueKeys(ctx, a.space(), bucket, prefix, after, min(limit-len(all.Keys), kvPage))
		if err != nil {
			return err
		}
		all.Keys, all.Next = append(all.Keys, page.Keys...), page.Next
		if page.Next == "" || page.Next <= after || len(all.Keys) >= limit {
			break
		}
		after = page.Next
	}
	if a.p.JSON() {
		return a.p.Value(all)
	}
	if len(all.Keys) == 0 {
		a.p.Notef("the bucket %s has no such keys\n", bucket)
		return nil
	}
	t := output.NewTable("KEY", "REVISION", "SIZE", "EXPIRES")
	for i := range all.Keys {
		k := &all.Keys[i]
		expires := "–"
		if k.Expires != nil {
			expires = a.p.Time(*k.Expires)
		}
		t.Row(output.Cell{Text: k.Key, Style: a.p.Out().Bold}, fmt.Sprint(k.Revision), output.Bytes(k.Size), expires)
	}
	if err := a.p.Table(t); err != nil {
		return err
	}
	if all.Next != "" {
		a.p.Notef("%s\n", a.p.Err().Dim("there are more; --limit shows them, or --after "+shellQuote(all.Next)))
	}
	return nil
}

func (a *app) kvGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get BUCKET KEY", Short: "Read a value",
		Long: text(`
			Get writes the value as it is to standard output, without a line break of its
			own. Its revision goes to standard error on a terminal.

			JSON: one api.Value (the data is base64).
		`),
		Example: examples(`
			casemate kv get settings theme
			casemate kv get photos cat.png > cat.png
			casemate kv get settings theme -o json | jq .revision
		`),
		RunE: a.run(arguments{2, 2, "a BUCKET and a KEY"}, func(ctx context.Context, args []string) error {
			client, err := a.values()
			if err != nil {
				return err
			}
			defer client.Close()
			v, err := client.Value(ctx, a.space(), args[0], args[1])
			if err != nil {
				return err
			}
			if a.p.JSON() {
				return a.p.Value(v)
			}
			if err := a.writeBody(v.Data); err != nil {
				return err
			}
			if a.p.PrettyErr() {
				a.p.Notef("%s\n", a.p.Err().Dim(fmt.Sprintf("revision %d, %s, %s", v.Revision, output.Bytes(int64(len(v.Data))), v.ContentType)))
			}
			return nil
		}),
	}
}

// kvCondition are the flags for what must hold of a key.
type kvCondition struct {
	revision uint64
	absent   bool
}

func (k *kvCondition) read(cmd *cobra.Command) (c api.ValueCondition, err error) {
	given := cmd.Flags().Changed("if-revision")
	switch {
	case given && k.revision == 0:
		return c, usagef("--if-revision 0: no key has that revision").hint("for a key that must not be there, use `casemate kv put --if-absent`")
	case given && k.absent:
		return c, usagef("a key cannot have a revision and be absent").hint("give --if-revision or --if-absent")
	}
	return api.ValueCondition{Absent: k.absent, Revision: k.revision}, nil
}

func (a *app) kvPutCommand() *cobra.Command {
	var condition kvCondition
	var file, contentType string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "put BUCKET KEY [VALUE]", Short: "Store a value",
		Long: text(`
			Put stores a value: the argument, a file, or standard input when the argument is -
			or when there is a pipe and nothing else is given. It is on disk when the command
			ends. The bucket need not be there before.

			With --if-absent it is stored only if there is no such key, with --if-revision
			only if the key still has that revision; otherwise the command exits 5.

			JSON: one api.ValueChange.
		`),
		Example: examples(`
			casemate kv put settings theme dark
			casemate kv put photos cat.png --file cat.png --content-type image/png
			generate | casemate kv put reports today -
			casemate kv put locks nightly "$HOSTNAME" --if-absent --ttl 10m
			casemate kv put settings theme light --if-revision 42
		`),
	}
	cmd.RunE = a.run(arguments{2, 3, "a BUCKET and a KEY, and perhaps a VALUE"}, func(ctx context.Context, args []string) error {
		in := api.PutValue{ContentType: contentType, TTL: ttl}
		var err error
		if in.If, err = condition.read(cmd); err != nil {
			return err
		}
		if ttl < 0 || ttl%time.Second != 0 || ttl == 0 && cmd.Flags().Changed("ttl") {
			return usagef("--ttl is a number of whole seconds, as in 90s or 10m")
		}
		if in.Data, err = a.kvData(args[2:], file, cmd.Flags().Changed("file")); err != nil {
			return err
		}
		if in.ContentType == "" {
			in.ContentType = kvType(in.Data)
		}
		client, err := a.values()
		if err != nil {
			return err
		}
		defer client.Close()
		done, err := client.PutValue(ctx, a.space(), args[0], args[1], in)
		if err != nil {
			return err
		}
		return a.kvChanged("stored", done)
	})
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "The value is what this file holds; - for standard input")
	f.StringVar(&contentType, "content-type", "", "Of the value; a guess when there is none")
	f.DurationVar(&ttl, "ttl", 0, "How long it stays, as in 10m; for ever when there is none")
	f.Uint64Var(&condition.revision, "if-revision", 0, "Only if the key has this revision")
	f.BoolVar(&condition.absent, "if-absent", false, "Only if there is no such key")
	return cmd
}

func (a *app) kvDeleteCommand() *cobra.Command {
	var condition kvCondition
	cmd := &cobra.Command{
		Use: "delete BUCKET KEY", Aliases: []string{"rm"}, Short: "Delete a key",
		Long: text(`
			Delete removes a key and its value. With --if-revision it does so only if the key
			still has that revision; otherwise the command exits 5.

			JSON: one api.ValueChange.
		`),
		Example: examples(`
			casemate kv delete settings theme
			casemate kv delete locks nightly --if-revision 42
		`),
	}
	cmd.RunE = a.run(arguments{2, 2, "a BUCKET and a KEY"}, func(ctx context.Context, args []string) error {
		c, err := condition.read(cmd)
		if err != nil {
			return err
		}
		client, err := a.values()
		if err != nil {
			return err
		}
		defer client.Close()
		done, err := client.DeleteValue(ctx, a.space(), args[0], args[1], c)
		if err != nil {
			return err
		}
		return a.kvChanged("deleted", done)
	})
	cmd.Flags().Uint64Var(&condition.revision, "if-revision", 0, "Only if the key has this revision")
	return cmd
}

func (a *app) kvChanged(what string, done *api.ValueChange) error {
	if a.p.JSON() {
		return a.p.Value(done)
	}
	until := ""
	if done.Expires != nil {
		until = ", until " + a.p.Time(*done.Expires)
	}
	return a.p.Printf("%s %s, revision %d%s\n", what, a.p.Out().Bold(done.Bucket+"/"+done.Key), done.Revision, until)
}

// kvData finds the value: the argument, the file, or standard input.
func (a *app) kvData(args []string, file string, given bool) ([]byte, error) {
	switch {
	case len(args) > 0 && given:
		return nil, usagef("the value is given twice: as an argument and with --file").hint("give one of them")
	case given && file == "":
		return nil, usagef("--file names no file")
	case len(args) == 0 && !given && !piped(a.env.Stdin):
		return nil, usagef("there is no value").hint("give it as an argument, with --file, or on standard input")
	case len(args) > 0 && args[0] != "-":
		return a.kvBounded(strings.NewReader(args[0]))
	case given && file != "-":
		f, err := os.Open(a.abs(file))
		if err != nil {
			return nil, failf("reading the value: %v", err)
		}
		defer func() { _ = f.Close() }()
		return a.kvBounded(f)
	}
	return a.kvBounded(a.env.Stdin)
}

func (a *app) kvBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxKV+1))
	if err != nil {
		return nil, failf("reading the value: %v", err)
	}
	if len(b) > maxKV {
		return nil, failf("the value has more than %s", output.Bytes(maxKV)).hint("store it as an object, and here where it is")
	}
	return b, nil
}

func kvType(b []byte) string {
	switch {
	case len(b) > 0 && (b[0] == '{' || b[0] == '[') && json.Valid(b):
		return "application/json"
	case utf8.Valid(b):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list and revoke API keys",
		Long: text(`
			An API key opens a node to whoever holds it, as far as its scopes go. A scope
			is an action, a colon, a namespace, a slash and a name, where * stands for all:
			invoke:shop/*. On functions the actions are invoke, read and deploy, on topics
			publish, on connections connect, and on buckets fetch, which reads, and store,
			which also writes, deletes and makes them. admin stands alone and allows all.
		`),
		Example: examples(`
			casemate key create checkout --scope 'invoke:shop/*' --expires 90d
			casemate key create lambda --aws --scope 'invoke:default/orders'
			casemate key create photos --aws --scope 'store:default/photos'
			casemate key list
			casemate key revoke k7f3q2m9x4b1c8d5
		`),
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = a.group(cmd)
	cmd.AddCommand(a.keyCreateCommand(),
		&cobra.Command{
			Use:   "list",
			Short: "List the keys",
			Long: text(`
				List shows every key with its scopes, without secrets: the node does not have
				them.

				JSON: an array of api.Key.
			`),
			Example: "casemate key list",
			Args:    cobra.ArbitraryArgs,
			RunE:    a.run(arguments{}, a.keyList),
		},
		&cobra.Command{
			Use:   "revoke ID",
			Short: "End the use of a key at once",
			Long: text(`
				Revoke ends the use of a key with the next request. It cannot be undone.

				JSON: {"revoked": "k7f3q2m9x4b1c8d5"}
			`),
			Example: "casemate key revoke k7f3q2m9x4b1c8d5",
			Args:    cobra.ArbitraryArgs,
			RunE:    a.run(arguments{1, 1, "the ID of a key"}, a.keyRevoke),
		})
	return cmd
}

func (a *app) keyCreateCommand() *cobra.Command {
	var scopes []string
	var expires string
	var aws bool
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make a key and show it, once",
		Long: text(`
			Create makes a key and prints its secret, which is shown this once and kept
			nowhere. The secret alone goes to standard output, so that it can be piped
			into a password store.

			With --aws it makes an access key, with which clients of AWS call functions
			by the Lambda API of the gateway and use the object store, which speaks S3. What
			goes to standard output then is the environment for them, ready for a shell. It
			takes invoke and read scopes for functions, and fetch and store for buckets. To
			clients, the bucket photos of the namespace default is photos, and that of the
			namespace shop is shop.photos.

			To deploy triggers that read buckets or topics, publish or call, a key needs the
			scopes for that; see docs/events.md.

			JSON: one api.CreatedKey.
		`),
		Example: examples(`
			casemate key create checkout --scope 'invoke:shop/*' --expires 90d
			casemate key create ci --scope 'deploy:shop/*' --scope 'read:shop/*' | pass insert -m casemate/ci
			eval "$(casemate key create lambda --aws --scope 'invoke:default/*')"
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{0, 1, "a NAME at most"}, func(ctx context.Context, args []string) error {
			return a.keyCreate(ctx, strings.Join(args, ""), scopes, expires, aws)
		}),
	}
	cmd.Flags().StringArrayVarP(&scopes, "scope", "s", nil, "What the key allows, as in invoke:shop/*; repeatable")
	cmd.Flags().StringVar(&expires, "expires", "", "How long it is valid, as in 12h or 90d (default: for ever)")
	cmd.Flags().BoolVar(&aws, "aws", false, "Make an access key for clients of AWS Lambda and S3")
	return cmd
}

func (a *app) keyCreate(ctx context.Context, name string, scopes []string, expires string, aws bool) error {
	if len(scopes) == 0 {
		return usagef("a key needs at least one --scope").hint("--scope 'invoke:%s/*' lets it call every function there", a.space())
	}
	in := api.CreateKey{Name: name, Scopes: scopes}
	if aws {
		in.Kind = api.KeyAWS
	}
	if expires != "" {
		d, err := parseSpan(expires)
		if err != nil {
			return usagef("--expires: %v", err).hint("write it as 12h or 90d")
		}
		in.ExpiresMillis = d.Milliseconds()
	}
	client, node, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	k, err := client.CreateKey(ctx, in)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(k)
	}
	c := a.p.Err()
	until := "does not expire"
	if k.Expires != nil {
		until = "expires " + k.Expires.UTC().Format(time.RFC3339)
	}
	remark := "This is the only time its secret is shown:"
	if !a.p.Pretty() {
		remark = "Its secret went to standard output, this one time."
	}
	a.p.Notef("%s %s allows %s and %s.\n%s\n", c.Good("✓ key"), c.Bold(k.ID), c.Plain(strings.Join(k.Scopes, ", ")), until,
		c.Dim(remark))
	if k.Kind == api.KeyAWS {
		return a.awsEnvironment(k, node, a.objectsURL(ctx, client, scopes))
	}
	return a.p.Printf("%s\n", k.Secret)
}

// awsRegion is what clients of AWS are told, since they insist on a region: one
// that all of them know, and not one of the oldest, for which they sign URLs with
// Version 2. The node takes any.
const awsRegion = "eu-central-1"

// objectsURL asks the node where its object store is, if the scopes are for buckets. By
// then the key is made and must be shown, so that no answer is no failure.
func (a *app) objectsURL(ctx context.Context, client *api.Client, scopes []string) string {
	if !slices.ContainsFunc(scopes, func(s string) bool { return strings.HasPrefix(s, "fetch:") || strings.HasPrefix(s, "store:") }) {
		return ""
	}
	s, err := client.Status(ctx)
	switch {
	case err != nil:
		a.p.Notef("%s\n", a.p.Err().Warn("The node did not say where its object store is; `casemate status` may."))
	case s.Objects == nil:
		a.p.Notef("%s\n", a.p.Err().Warn("The node has no object store: it was started with --objects off."))
	default:
		return s.Objects.URL
	}
	return ""
}

// awsEnvironment prints what makes clients of AWS use the key on this node: the
// secret nowhere but on standard output.
func (a *app) awsEnvironment(k *api.CreatedKey, node contexts.Context, objects string) error {
	ca := ""
	if node.CA != "" {
		var err error
		if ca, err = a.caFile(node); err != nil {
			return err
		}
	}
	set, options := "", ""
	for _, v := range []struct{ name, value, option string }{
		{"AWS_ACCESS_KEY_ID", k.AccessKeyID, ""},
		{"AWS_SECRET_ACCESS_KEY", k.Secret, ""},
		{"AWS_SESSION_TOKEN", "", ""}, // one from elsewhere would be sent along, and refused
		{"AWS_REGION", awsRegion, ""},
		{"AWS_DEFAULT_REGION", awsRegion, ""}, // the AWS CLI and boto3 read this one
		{"AWS_ENDPOINT_URL_LAMBDA", node.GatewayURL, "--endpoint-url"},
		{"AWS_ENDPOINT_URL_S3", objects, ""},
		{"AWS_CA_BUNDLE", ca, "--ca-bundle"},
	} {
		switch {
		case v.name == "AWS_SESSION_TOKEN":
			set += "unset " + v.name + "\n"
		case v.value != "":
			set += "export " + v.name + "=" + shellQuote(v.value) + "\n"
		}
		if v.option != "" && v.value != "" {
			options += " " + v.option + " " + shellQuote(v.value)
		}
	}
	c := a.p.Err()
	use := "aws lambda invoke" + options + " --function-name NAME --payload fileb://event.json out.json"
	if objects != "" {
		use = "aws s3" + strings.Replace(options, shellQuote(node.GatewayURL), shellQuote(objects), 1) + " cp FILE s3://BUCKET/KEY"
	}
	a.p.Notef("%s\n  aws configure set aws_access_key_id %s\n  aws configure set aws_secret_access_key …\n  aws configure set region %s\n  %s\n",
		c.Dim("The environment of a shell, or, kept by the AWS CLI:"), k.AccessKeyID, awsRegion, use)
	return a.p.Printf("%s", set)
}

func (a *app) keyList(ctx context.Context, _ []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	keys, err := client.Keys(ctx)
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(append([]api.Key{}, keys...))
	}
	c := a.p.Out()
	t := output.NewTable("ID", "NAME", "KIND", "SCOPES", "CREATED", "STATE")
	t.Flex = 3
	for _, k := range keys {
		state := output.Cell{Text: "valid", Style: c.Good}
		switch {
		case k.Revoked != nil:
			state = output.Cell{Text: "revoked " + a.p.Time(*k.Revoked), Style: c.Bad}
		case k.Expires != nil && !k.Expires.After(a.env.Clock()):
			state = output.Cell{Text: "expired " + a.p.Time(*k.Expires), Style: c.Bad}
		case k.Expires != nil:
			state.Text = "expires " + a.p.Time(*k.Expires)
		}
		t.Row(output.Cell{Text: k.ID, Style: c.Accent}, k.Name, cmp.Or(k.Kind, api.KeyBearer), strings.Join(k.Scopes, " "), a.p.Time(k.Created), state)
	}
	return a.p.Table(t)
}

func (a *app) keyRevoke(ctx context.Context, args []string) error {
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.RevokeKey(ctx, args[0]); err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(map[string]string{"revoked": args[0]})
	}
	return a.p.Printf("revoked %s; the next request with it is refused\n", a.p.Out().Bold(args[0]))
}

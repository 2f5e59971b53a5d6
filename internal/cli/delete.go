package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) deleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"rm"},
		Short:   "Delete a function with all its versions",
		Long: text(`
			Delete removes a function, its aliases and its versions; its routes answer 404
			at once. It asks first; without a terminal it needs --yes.

			JSON: {"deleted": "default/hello"}
		`),
		Example: examples(`
			casemate delete hello
			casemate delete hello --yes
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{1, 1, "the NAME of a function"}, func(ctx context.Context, args []string) error {
			client, node, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			ns := a.space()
			if !yes {
				if _, err := client.Function(ctx, ns, args[0]); err != nil {
					return err
				}
				if err := a.confirm(ctx, "Delete "+ns+"/"+args[0]+" with all its versions from "+node.Name+"?"); err != nil {
					return err
				}
			}
			if err := client.DeleteFunction(ctx, ns, args[0]); err != nil {
				return err
			}
			return a.deleted(ns + "/" + args[0])
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

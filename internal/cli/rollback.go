package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
)

func (a *app) rollbackCommand() *cobra.Command {
	var in api.Rollback
	cmd := &cobra.Command{
		Use:   "rollback NAME",
		Short: "Move a function back to what it was before",
		Long: text(`
			Rollback moves an alias, live unless another is named, back to where it pointed
			before its last move, or to a version you name. The next request gets that
			version; requests that are under way end as they began.

			JSON: one api.Alias.
		`),
		Example: examples(`
			casemate rollback hello
			casemate rollback hello --to 3f2a9c
			casemate rollback hello --alias stable
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{1, 1, "the NAME of a function"}, func(ctx context.Context, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			al, err := client.Rollback(ctx, a.space(), args[0], in)
			if err != nil {
				return err
			}
			return a.showAlias(args[0], al)
		}),
	}
	cmd.Flags().StringVar(&in.To, "to", "", "Version to go back to, by six or more digits")
	cmd.Flags().StringVar(&in.Alias, "alias", "", "Alias to move (default live)")
	return cmd
}

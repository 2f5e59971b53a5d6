package cli

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long: text(`
			Version prints what this program is. The version of a node is in
			casemate status.

			JSON: {"version", "go", "os", "arch"}
		`),
		Example: examples(`
			casemate version
			casemate version -o json
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, func(context.Context, []string) error {
			if a.p.JSON() {
				return a.p.Value(map[string]string{"version": a.env.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			return a.p.Printf("casemate %s (%s, %s/%s)\n", a.env.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		}),
	}
}

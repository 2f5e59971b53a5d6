package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/internal/cli/output"
	"github.com/casemate-dev/casemate/internal/cli/scaffold"
)

func (a *app) initCommand() *cobra.Command {
	var runtime, dir string
	cmd := &cobra.Command{
		Use:   "init NAME",
		Short: "Make a new function in a folder of its own",
		Long: text(`
			Init writes a function that works, with its manifest, into a new folder of that
			name. Nothing that exists is overwritten.

			Runtimes: ` + strings.Join(scaffold.Runtimes(), ", ") + `.
			go to ts become WebAssembly modules. nodejs and python are AWS Lambda handlers,
			provided is a program on the Lambda Runtime API (in Go), http is a server on
			$PORT as for Cloud Run, azure is an Azure Functions custom handler; those run
			unmodified, in processes of their own.

			JSON: {"name", "runtime", "dir", "files"}
		`),
		Example: examples(`
			casemate init hello --runtime go
			casemate init shop --runtime ts
			casemate init resize --runtime rust --dir services/resize
			casemate init orders --runtime nodejs
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{1, 1, "a NAME for the function"}, func(_ context.Context, args []string) error {
			return a.initFunction(args[0], runtime, dir)
		}),
	}
	cmd.Flags().StringVarP(&runtime, "runtime", "r", "go", "What to write it in: "+strings.Join(scaffold.Runtimes(), ", "))
	cmd.Flags().StringVar(&dir, "dir", "", "Folder to write to (default ./NAME)")
	_ = cmd.RegisterFlagCompletionFunc("runtime", cobra.FixedCompletions(scaffold.Runtimes(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	return cmd
}

func (a *app) initFunction(name, runtime, dir string) error {
	if dir == "" {
		dir = name
	}
	files, err := scaffold.Write(a.abs(dir), name, runtime)
	var refused *scaffold.Error
	if errors.As(err, &refused) {
		return usagef("creating a function: %s", refused.Message).hint("%s", refused.Remedy)
	}
	if err != nil {
		return err
	}
	if a.p.JSON() {
		return a.p.Value(struct {
			Name    string   `json:"name"`
			Runtime string   `json:"runtime"`
			Dir     string   `json:"dir"`
			Files   []string `json:"files"`
		}{name, runtime, a.abs(dir), files})
	}
	c := a.p.Out()
	for _, f := range files {
		if err := a.p.Printf("  %s %s\n", c.Good("+"), filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	if err := a.p.Printf("\nNext:\n"); err != nil {
		return err
	}
	t := output.NewTable()
	next := func(command, why string) {
		t.Row(output.Cell{Text: command, Style: c.Accent}, output.Cell{Text: why, Style: c.Dim})
	}
	next("cd "+shellQuote(dir), "")
	next("casemate dev", "# builds, serves, and follows your changes")
	next("casemate deploy", "# to the current node")
	return a.p.Indented(t)
}

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout bounds how long a shell waits for names from the node.
const completionTimeout = time.Second

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes commands in your shell",
		Long: text(`
			Completion prints a script for bash, zsh, fish or powershell. With it, the tab
			key completes commands, flags and the names of deployed functions.
			In bash it needs the package bash-completion.
		`),
		Example: examples(`
			# bash, in this shell
			source <(casemate completion bash)
			# bash, for good
			casemate completion bash > ~/.local/share/bash-completion/completions/casemate
			# zsh
			casemate completion zsh > "${fpath[1]}/_casemate"
			# fish
			casemate completion fish > ~/.config/fish/completions/casemate.fish
		`),
		ValidArgs: shells,
		Args:      cobra.ArbitraryArgs,
		RunE: a.run(arguments{1, 1, "a SHELL: bash, zsh, fish or powershell"}, func(_ context.Context, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.p, true)
			case "zsh":
				return root.GenZshCompletion(a.p)
			case "fish":
				return root.GenFishCompletion(a.p, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.p)
			}
			return usagef("there is no completion for %q", args[0]).hint("use bash, zsh, fish or powershell")
		}),
	}
}

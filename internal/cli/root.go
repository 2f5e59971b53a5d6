package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help.
const (
	groupNode     = "node"
	groupBuild    = "build"
	groupRun      = "run"
	groupEvents   = "events"
	groupVersions = "versions"
	groupSetup    = "setup"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "casemate",
		Short: "Run functions behind walls",
		Long: text(`
			Casemate runs functions, each invocation in a sandbox of its own, behind one
			guarded door in and one guarded door out.

			Start a node, make a function, deploy it, call it: the first four examples.
			Results go to standard output, remarks and errors to standard error.

			Environment:
			  CASEMATE_CONFIG     client configuration (default ~/.config/casemate/config.json)
			  CASEMATE_CONTEXT    which node, when --context is not given
			  CASEMATE_NAMESPACE  which namespace, when --namespace is not given
			  CASEMATE_KEY        API key, instead of the one in the context
			  NO_COLOR            any value turns colour off

			` + exitCodes),
		Example: examples(`
			casemate up
			casemate init hello --runtime go
			casemate deploy hello
			casemate invoke hello '{"name":"Ada"}'
			casemate logs hello -f
			casemate dev
		`),
		Args:    cobra.ArbitraryArgs,
		Version: a.env.Version,
	}
	root.SetVersionTemplate("casemate {{.Version}}\n")
	root.RunE = a.group(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.err = usagef("%v", err).hint("%s --help", cmd.CommandPath())
		return nil
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.global.output, "output", "o", "text", "Format of the result: text or json")
	f.StringVar(&a.global.context, "context", "", "Which node, by the name of its context")
	f.StringVarP(&a.global.namespace, "namespace", "n", "", "Which namespace; the manifest's, or default")
	f.BoolVar(&a.global.noColor, "no-color", false, "No colour, also with NO_COLOR set")

	a.completeFlags(root)

	root.AddGroup(
		&cobra.Group{ID: groupNode, Title: "a node"},
		&cobra.Group{ID: groupBuild, Title: "making functions"},
		&cobra.Group{ID: groupRun, Title: "running functions"},
		&cobra.Group{ID: groupEvents, Title: "events and data"},
		&cobra.Group{ID: groupVersions, Title: "versions and traffic"},
		&cobra.Group{ID: groupSetup, Title: "access and settings"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupNode, a.upCommand(), a.statusCommand(), a.doctorCommand(), a.postureCommand(), a.trustCommand())
	add(groupBuild, a.initCommand(), a.devCommand(), a.deployCommand())
	add(groupRun, a.invokeCommand(), a.logsCommand(), a.listCommand(), a.describeCommand(), a.receiptCommand())
	add(groupEvents, a.eventsCommand(), a.triggersCommand(), a.deadLettersCommand(), a.connectionCommand(), a.kvCommand())
	add(groupVersions, a.versionsCommand(), a.aliasCommand(), a.rollbackCommand(), a.deleteCommand())
	add(groupSetup, a.keyCommand(), a.configCommand(), a.completionCommand(root), a.versionCommand())
	root.SetHelpCommandGroupID(groupSetup)
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Short = "Show the help of a command"
			c.Long = "Help shows what a command does, with examples and its flags; --help after the\ncommand does the same."
			c.Example = "casemate help deploy"
			c.Run, c.RunE = nil, a.help(root)
		}
	}
	return root
}

// help is the work of the help command: the help of what the words name.
func (a *app) help(root *cobra.Command) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return a.group(cmd)(cmd, rest)
		}
		cmd.InitDefaultHelpFlag() // else its table of flags lacks that one
		return cmd.Help()
	}
}

// text takes the indentation of the source away.
func text(s string) string {
	lines := strings.Split(strings.Trim(s, "\n\t "), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, "\t")
	}
	return strings.Join(lines, "\n")
}

func examples(s string) string { return text(s) }

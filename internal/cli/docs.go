package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Docs writes the reference of every command as Markdown.
func Docs(w io.Writer) error {
	a := &app{}
	a.env.Version = "devel"
	root := a.root()
	root.DisableAutoGenTag = true
	b := bufio.NewWriter(w)
	fmt.Fprint(b, "# The casemate command\n\nGenerated from the commands' own help by `make generate`; do not edit.\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(b, "\n**%s:** ", strings.ToUpper(g.Title[:1])+g.Title[1:])
		var links []string
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.Name() != "help" {
				links = append(links, fmt.Sprintf("[%s](#casemate-%s)", c.Name(), c.Name()))
			}
		}
		fmt.Fprintln(b, strings.Join(links, " · "))
	}
	document(b, root)
	return b.Flush() // keeps the first error of the writes above
}

func document(b *bufio.Writer, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n```text\n%s\n```\n", c.CommandPath(), c.Short, c.Long)
	if c.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", c.Example)
	}
	flags := c.LocalFlags()
	if flags.HasAvailableFlags() {
		title := "Flags"
		if !c.HasParent() {
			title = "Flags of every command"
		}
		fmt.Fprintf(b, "\n%s:\n\n| flag | meaning | default |\n|---|---|---|\n", title)
		flags.VisitAll(func(f *pflag.Flag) {
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			def := f.DefValue
			if def == "false" || def == "[]" || def == "0" {
				def = ""
			}
			if def != "" {
				def = "`" + def + "`"
			}
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, strings.ReplaceAll(f.Usage, "|", `\|`), def)
		})
	}
	for _, sub := range c.Commands() {
		document(b, sub)
	}
}

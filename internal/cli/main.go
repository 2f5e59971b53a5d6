package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/internal/cli/output"
)

// app is one run of the command.
type app struct {
	env    Env
	p      *output.Printer // set once the flags are read
	global struct {
		output    string
		context   string
		namespace string
		noColor   bool
	}
	err error // of the command that ran; cobra never sees it
}

// Main runs the command and returns its exit code. When ctx ends, or the process
// is interrupted or terminated, so does the command: `up` and `dev` in an orderly
// way, with exit code 0; any other one as soon as it can, with 130.
func Main(ctx context.Context, env Env) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // the second signal ends the program, as if nobody listened
	a := &app{env: env}
	if wrong := a.env.check(); wrong != "" {
		if env.Stderr != nil {
			_, _ = fmt.Fprintln(env.Stderr, "error: cli.Env: "+wrong) // nobody else to tell
		}
		return exitFailed
	}
	root := a.root()
	// Until flags are read, guess them, for an error about the flags themselves.
	a.global.noColor = slices.Contains(env.Args, "--no-color")
	a.global.output = "text"
	if guess := strings.Join(env.Args, " "); strings.Contains(guess, "-o json") || strings.Contains(guess, "-ojson") || strings.Contains(guess, "--output json") || strings.Contains(guess, "--output=json") {
		a.global.output = "json"
	}
	a.setPrinter()
	root.SetArgs(append([]string{}, env.Args...)) // never nil, which would mean os.Args
	root.SetIn(env.Stdin)
	root.SetErr(env.Stderr)
	root.SetOut(env.Stdout)
	if !a.color() || !env.isTerminal(env.Stdout) {
		root.SetOut(noTerminal{env.Stdout})
	}
	err := fang.Execute(ctx, root, fang.WithoutVersion(), fang.WithoutManpage(), fang.WithoutCompletions(),
		fang.WithColorSchemeFunc(fang.AnsiColorScheme),
		fang.WithErrorHandler(func(io.Writer, fang.Styles, error) {}))
	if a.err == nil && err != nil {
		a.err = usagef("%v", err) // cobra's own errors are all about the command line
	}
	if a.err != nil {
		return a.report(ctx, a.err)
	}
	return exitOK
}

func (e *Env) isTerminal(stream any) bool { return e.IsTerminal != nil && e.IsTerminal(stream) }

// noTerminal hides that a stream is one, so that help is printed without colour.
type noTerminal struct{ io.Writer }

// Write drops the spaces with which help fills its lines up: they are only of use
// to a terminal that colours them.
func (w noTerminal) Write(b []byte) (int, error) {
	if _, err := w.Writer.Write(fill.ReplaceAll(b, []byte("\n"))); err != nil {
		return 0, err
	}
	return len(b), nil
}

var fill = regexp.MustCompile(`[ \t]+\n`)

// color reports whether colour is wanted (no-color.org: any value but the empty
// one turns it off).
func (a *app) color() bool {
	return !a.global.noColor && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"
}

func (a *app) setPrinter() {
	dumb := a.env.Getenv("TERM") == "dumb"
	a.p = output.New(output.Options{
		Out: a.env.Stdout, Err: a.env.Stderr,
		OutTerminal: a.env.IsTerminal(a.env.Stdout),
		ErrTerminal: a.env.IsTerminal(a.env.Stderr) && !dumb, // no spinner where the cursor cannot move
		Color:       a.color(), JSON: a.global.output == "json", Width: a.env.Width(), Clock: a.env.Clock,
	})
}

// arguments says how many a command takes, and how they are called.
type arguments struct {
	least, most int // most < 0: any number
	names       string
}

// run wraps a command's work: checks the arguments and the global flags, and
// keeps its error from cobra, which would print it in its own way.
func (a *app) run(want arguments, work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.err = a.prepare(cmd, args, want)
		if a.err == nil {
			a.err = work(cmd.Context(), args)
		}
		return nil
	}
}

func (a *app) prepare(cmd *cobra.Command, args []string, want arguments) error {
	if a.err != nil { // a flag that could not be read
		return a.err
	}
	format := a.global.output
	if format != "json" {
		a.global.output = "text"
	}
	a.setPrinter()
	help := cmd.CommandPath() + " --help"
	switch {
	case format != "text" && format != "json":
		return usagef("output format %q is not known; use text or json", format).hint("%s", help)
	case a.global.namespace != "" && !label.MatchString(a.global.namespace):
		return usagef("--namespace: %.80q cannot name a namespace", a.global.namespace).hint("use 1 to 63 lower-case letters, digits and hyphens")
	case len(args) < want.least:
		return usagef("%s needs %s", cmd.CommandPath(), want.names).hint("%s", help)
	case want.most >= 0 && len(args) > want.most:
		return usagef("%s does not take %q", cmd.CommandPath(), args[want.most]).hint("%s", help)
	}
	return nil
}

// group is the work of a command that only holds others.
func (a *app) group(cmd *cobra.Command) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		f := usagef("%s has no command %q", cmd.CommandPath(), args[0]).hint("%s --help", cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			f = f.hint("did you mean `%s %s`?", cmd.CommandPath(), s[0])
		}
		a.err = f
		return nil
	}
}

// abs resolves a path that the user gave.
func (a *app) abs(path string) string {
	if path == "" {
		return ""
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(a.env.Dir, path)
}

// interactive reports whether there is a person to ask.
func (a *app) interactive() bool {
	return a.env.IsTerminal(a.env.Stdin) && a.env.IsTerminal(a.env.Stderr)
}

// errDeclined means that the user said no.
var errDeclined = errors.New("nothing was changed")

// confirm asks a question whose default is no. Without a terminal it fails and
// names the flag that answers in advance.
func (a *app) confirm(ctx context.Context, question string) error {
	if !a.interactive() {
		return usagef("nobody can be asked here: %s", question).hint("say yes in advance with --yes")
	}
	c := a.p.Err()
	a.p.Notef("%s %s ", c.Bold(question), c.Dim("[y/N]"))
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // reading a terminal cannot be interrupted; the process ends with it
		line, err := bufio.NewReader(a.env.Stdin).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		a.p.Notef("\n")
		return context.Cause(ctx)
	case ans := <-got:
		switch strings.ToLower(strings.TrimSpace(ans.line)) {
		case "y", "yes":
			return nil
		}
		if ans.err != nil && !errors.Is(ans.err, io.EOF) {
			return fmt.Errorf("reading the answer: %v", ans.err)
		}
		return errDeclined
	}
}

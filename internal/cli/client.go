package cli

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
)

// The contexts that commands make when no name is given.
const (
	upContext  = "local"
	devContext = "dev"
)

// contextName is the name that was asked for; "" means the current one.
func (a *app) contextName() string {
	return cmp.Or(a.global.context, a.env.Getenv("CASEMATE_CONTEXT"))
}

// node gives the context that a command is to use.
func (a *app) node() (contexts.Context, error) {
	path, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return contexts.Context{}, err
	}
	f, err := contexts.Load(path)
	if err != nil {
		return contexts.Context{}, err
	}
	name := a.contextName()
	if name == "" && f.Current == "" {
		if len(f.Contexts) == 0 {
			return contexts.Context{}, (&failure{Exit: exitUnreachable, Message: "no node is known yet"}).
				hint("start one with `casemate up`, or name one with `casemate config add`")
		}
		return contexts.Context{}, usagef("no context is the current one").hint("casemate config use NAME, or --context NAME")
	}
	c, err := f.Get(name)
	if err != nil {
		return contexts.Context{}, err
	}
	c.Key = cmp.Or(a.env.Getenv("CASEMATE_KEY"), c.Key)
	return c, nil
}

// client connects to the node of the context; nothing is sent yet.
func (a *app) client() (*api.Client, contexts.Context, error) {
	c, err := a.node()
	if err != nil {
		return nil, c, err
	}
	client, err := a.clientFor(c)
	return client, c, err
}

func (a *app) clientFor(c contexts.Context) (*api.Client, error) {
	client, err := api.NewClient(api.Options{
		URL: c.ControlURL, CA: []byte(c.CA), Key: c.Key,
		UserAgent: "casemate/" + a.env.Version,
	})
	if err != nil {
		return nil, failf("context %s: %v", c.Name, err).hint("casemate config contexts")
	}
	return client, nil
}

var label = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// space is the namespace that a command is to use: the flag's, the
// environment's, that of the manifest of the project we are in, or default.
func (a *app) space() string {
	if ns := cmp.Or(a.global.namespace, a.env.Getenv("CASEMATE_NAMESPACE")); ns != "" {
		return ns
	}
	if path, err := findManifest(a.env.Dir); err == nil {
		if m, err := manifest.Load(path); err == nil {
			return m.Namespace
		}
	}
	return manifest.DefaultNamespace
}

// elsewhere gives the flags that lead another command to the same node and
// namespace, with a space before each: those of this command, and the namespace
// when it is not the default.
func (a *app) elsewhere(space string) string {
	flags := ""
	if space != manifest.DefaultNamespace {
		flags += " -n " + shellQuote(space)
	}
	if a.global.context != "" {
		flags += " --context " + shellQuote(a.global.context)
	}
	return flags
}

// findManifest looks for casemate.yaml in dir and above.
func findManifest(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		path := filepath.Join(d, manifest.FileName)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", failf("looking for %s: %v", manifest.FileName, err)
		}
		if d == filepath.Dir(d) {
			return "", (&failure{Exit: exitNotFound, Message: "there is no " + manifest.FileName + " in " + dir + " or above it"}).
				hint("make a function with `casemate init NAME --runtime go`, or name the folder that holds one")
		}
	}
}

// caFile keeps the authority of a context in a file, for programs that want a
// path, and returns it.
func (a *app) caFile(c contexts.Context) (string, error) {
	config, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(config), "ca", c.Name+".pem")
	if old, err := os.ReadFile(path); err == nil && string(old) == c.CA {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", failf("keeping the authority: %v", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".pem-*")
	if err != nil {
		return "", failf("keeping the authority: %v", err)
	}
	_, err = tmp.WriteString(c.CA)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the first error is the one to report
		return "", failf("keeping the authority: %v", err)
	}
	return path, nil
}

// completeFlags offers the values of the flags that every command has.
func (a *app) completeFlags(root *cobra.Command) {
	offer := func(flag string, values func() []string) {
		_ = root.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return values(), cobra.ShellCompDirectiveNoFileComp
		}) // fails only for a flag that is not there, which a test would see
	}
	offer("output", func() []string { return []string{"text", "json"} })
	offer("namespace", func() []string { return nil })
	offer("context", func() []string {
		path, err := contexts.Path(a.env.Getenv)
		if err != nil {
			return nil
		}
		f, err := contexts.Load(path)
		if err != nil {
			return nil
		}
		names := make([]string, len(f.Contexts))
		for i, c := range f.Contexts {
			names[i] = c.Name
		}
		return names
	})
}

// completeFunctions offers the names of deployed functions to the shell.
func (a *app) completeFunctions(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	client, _, err := a.client()
	if err != nil {
		return nil, none
	}
	defer client.Close()
	fns, err := client.Functions(ctx, a.space())
	if err != nil {
		return nil, none
	}
	names := make([]string, len(fns))
	for i, f := range fns {
		names[i] = f.Name
	}
	return names, none
}

// Package runtimes says what a version needs of the machine, and lays it out: the files
// of an interpreter, and the platform's client of it. It describes a root; the launchers
// of native versions make one of it, each in its way.
//
// Only launchers below internal/sandbox/native import it. A Finder may be used from many
// goroutines; it looks at the machine once, when it is first asked.
package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/azure"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
	"github.com/casemate-dev/casemate/internal/sandbox/native/layout"
)

// Finder knows the machine's interpreters. The zero value is ready.
type Finder struct {
	once sync.Once
	host *layout.Host
}

// Needs says which program a version needs, from its configuration and its code. It
// fails with a *sandbox.Error when the code's own configuration is not in order.
func Needs(v *function.Version, code fs.FS) (layout.Program, error) {
	config := v.Config
	if config.Runtime == function.RuntimeAzure && len(config.Command) == 0 { // it stands in the code
		app, err := azure.Load(code)
		if err != nil {
			return "", &sandbox.Error{Kind: sandbox.BadModule, Public: err.Error(), Cause: err}
		}
		config.Command = []string{app.Executable}
	}
	return layout.NeedsOf(&config, beginning(&config, code)), nil
}

// beginning gives the first bytes of the file that a version starts with.
func beginning(c *function.Config, code fs.FS) []byte {
	name := "bootstrap"
	if len(c.Command) > 0 {
		name = path.Clean(c.Command[0])
	}
	f, err := code.Open(name)
	if err != nil {
		return nil // it is an interpreter, or missing, which is noticed elsewhere
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 256)
	n, _ := io.ReadFull(f, b)
	return b[:n]
}

// Layout describes the root for a program, with the platform's client of the runtime
// where there is one. It fails with a *sandbox.Error of kind Refused when the machine
// lacks the program.
func (f *Finder) Layout(needs layout.Program) (*layout.Layout, error) {
	laid, err := f.discovered().Layout(needs)
	if err != nil {
		var missing *layout.MissingError
		if errors.As(err, &missing) {
			return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node's machine lacks something: " + missing.Error(), Cause: err}
		}
		return nil, fmt.Errorf("finding what the runtime needs: %w", err)
	}
	dir := ""
	switch needs {
	case layout.Node:
		dir = "node"
	case layout.Python:
		dir = "python"
	default:
		return laid, nil
	}
	err = fs.WalkDir(clients.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := fs.ReadFile(clients.FS(), name)
		laid.Files = append(laid.Files, layout.File{Path: path.Join(clients.Dir, name), Mode: 0o444, Content: content})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("laying out the runtime client: %w", err)
	}
	return laid, nil
}

// discovered looks at the machine, once. Its interpreters are run for that.
func (f *Finder) discovered() *layout.Host {
	f.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), discoverTime)
		defer cancel()
		f.host = layout.Discover(ctx, layout.Options{Path: os.Getenv("PATH"), Run: run})
	})
	return f.host
}

// Bounds of asking an interpreter what it is.
const (
	discoverTime = 20 * time.Second
	maxSaid      = 64 << 10
)

// run runs an interpreter of the machine, as the node's user, on text of ours.
func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH")}, "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said, err := io.ReadAll(io.LimitReader(out, maxSaid))
	return said, errors.Join(err, cmd.Wait())
}

// Runtimes says what the machine has.
func (f *Finder) Runtimes() []native.RuntimeInfo {
	host := f.discovered()
	info := func(r function.Runtime, p layout.Program) native.RuntimeInfo {
		version, err := host.Version(p)
		if err != nil {
			return native.RuntimeInfo{Runtime: r, Reason: err.Error()}
		}
		return native.RuntimeInfo{Runtime: r, Version: version}
	}
	return []native.RuntimeInfo{
		{Runtime: function.RuntimeProvided},
		info(function.RuntimeNodeJS, layout.Node), info(function.RuntimePython, layout.Python),
		{Runtime: function.RuntimeHTTP},
		{Runtime: function.RuntimeAzure},
	}
}

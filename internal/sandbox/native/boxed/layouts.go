package boxed

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
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/azure"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
	"github.com/casemate-dev/casemate/internal/sandbox/native/layout"
)

// root is the root of boxes that need a program, shared by all of them.
type root struct {
	image        *box.Image
	interpreter  string // for receipts
	node, python string // paths inside
}

// layouts keeps the roots that were needed so far. The mutex guards the fields below it,
// and is held while a root is made: another would be of the same kind, most likely.
type layouts struct {
	broker *box.Broker

	mu    sync.Mutex
	host  *layout.Host
	roots map[layout.Program]*root
}

func newLayouts(b *box.Broker) *layouts {
	return &layouts{broker: b, roots: map[layout.Program]*root{}}
}

// find gives the root for a version. It fails with a *sandbox.Error of kind Refused when
// the machine lacks what the version needs.
func (l *layouts) find(ctx context.Context, v *function.Version, code fs.FS) (*root, error) {
	config := v.Config
	if config.Runtime == function.RuntimeAzure && len(config.Command) == 0 { // it stands in the code
		app, err := azure.Load(code)
		if err != nil {
			return nil, &sandbox.Error{Kind: sandbox.BadModule, Public: err.Error(), Cause: err}
		}
		config.Command = []string{app.Executable}
	}
	needs := layout.NeedsOf(&config, beginning(&config, code))
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.roots[needs]; r != nil {
		return r, nil
	}
	laid, err := l.discovered().Layout(needs)
	if err != nil {
		var missing *layout.MissingError
		if errors.As(err, &missing) {
			return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node's machine lacks something: " + missing.Error(), Cause: err}
		}
		return nil, fmt.Errorf("finding what the runtime needs: %w", err)
	}
	spec, err := imageOf(laid, needs)
	if err != nil {
		return nil, err
	}
	image, err := l.broker.NewImage(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("laying out the runtime: %w", err)
	}
	if err := image.Seal(); err != nil {
		return nil, errors.Join(fmt.Errorf("laying out the runtime: %w", err), image.Release())
	}
	r := &root{image: image, interpreter: laid.Version}
	switch needs {
	case layout.Node:
		r.node = laid.Interpreter
	case layout.Python:
		r.python = laid.Interpreter
	default:
	}
	l.roots[needs] = r
	return r, nil
}

// discovered looks at the machine, once. Its interpreters are run for that.
func (l *layouts) discovered() *layout.Host {
	if l.host == nil {
		ctx, cancel := context.WithTimeout(context.Background(), discoverTime)
		defer cancel()
		l.host = layout.Discover(ctx, layout.Options{Path: os.Getenv("PATH"), Run: run})
	}
	return l.host
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

// imageOf describes a root, with the platform's runtime clients where there are any.
func imageOf(laid *layout.Layout, needs layout.Program) (box.ImageSpec, error) {
	spec := box.ImageSpec{Root: true, Dirs: laid.Dirs, Masks: laid.Masks}
	for _, b := range laid.Binds {
		spec.Binds = append(spec.Binds, box.Bind{From: b.From, To: b.To})
	}
	for _, f := range laid.Files {
		spec.Files = append(spec.Files, box.File{Path: f.Path, Mode: f.Mode, Content: f.Content})
	}
	for _, k := range laid.Links {
		spec.Links = append(spec.Links, box.Link{Path: k.Path, Target: k.Target})
	}
	dir := ""
	switch needs {
	case layout.Node:
		dir = "node"
	case layout.Python:
		dir = "python"
	default:
		return spec, nil
	}
	err := fs.WalkDir(clients.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := fs.ReadFile(clients.FS(), name)
		spec.Files = append(spec.Files, box.File{Path: path.Join(clients.Dir, name), Mode: 0o444, Content: content})
		return err
	})
	if err != nil {
		return spec, fmt.Errorf("laying out the runtime client: %w", err)
	}
	return spec, nil
}

// runtimes says what the machine has.
func (l *layouts) runtimes() []native.RuntimeInfo {
	l.mu.Lock()
	host := l.discovered()
	l.mu.Unlock()
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

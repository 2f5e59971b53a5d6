package boxed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native/layout"
	"github.com/casemate-dev/casemate/internal/sandbox/native/runtimes"
)

// root is the root of boxes that need a program, shared by all of them.
type root struct {
	image        *box.Image
	interpreter  string // for receipts
	node, python string // paths inside
}

// layouts keeps the roots that were needed so far. The mutex guards the field below it,
// and is held while a root is made: another would be of the same kind, most likely.
type layouts struct {
	broker *box.Broker
	finder runtimes.Finder

	mu    sync.Mutex
	roots map[layout.Program]*root
}

func newLayouts(b *box.Broker) *layouts {
	return &layouts{broker: b, roots: map[layout.Program]*root{}}
}

// find gives the root for a version. It fails with a *sandbox.Error of kind Refused when
// the machine lacks what the version needs.
func (l *layouts) find(ctx context.Context, v *function.Version, code fs.FS) (*root, error) {
	needs, err := runtimes.Needs(v, code)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.roots[needs]; r != nil {
		return r, nil
	}
	laid, err := l.finder.Layout(needs)
	if err != nil {
		return nil, err
	}
	image, err := l.broker.NewImage(ctx, imageOf(laid))
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

// imageOf describes a root.
func imageOf(laid *layout.Layout) box.ImageSpec {
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
	return spec
}

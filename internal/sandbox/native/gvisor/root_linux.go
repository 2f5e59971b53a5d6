package gvisor

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/casemate-dev/casemate/internal/sandbox/native/layout"
)

// root is the root of sandboxes that need a program, shared by all of them: a folder
// with the small files, and what is mounted into it.
type root struct {
	dir          string
	mounts       []mount
	interpreter  string // for receipts
	node, python string // paths inside
}

// copied is the size up to which a file is copied into a root. Each one that is mounted
// costs a part of every start.
const copied = 16 << 20

// makeRoot makes the root for a program in an empty folder.
func makeRoot(dir string, needs layout.Program, laid *layout.Layout) (*root, error) {
	r := &root{dir: dir, interpreter: laid.Version}
	switch needs {
	case layout.Node:
		r.node = laid.Interpreter
	case layout.Python:
		r.python = laid.Interpreter
	default:
	}
	into, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("laying out the runtime: %w", err)
	}
	defer func() { _ = into.Close() }()
	w := writer{into}
	for _, d := range append([]string{"/proc", "/sys", "/dev", scratch, task}, laid.Dirs...) {
		w.dir(d, &err)
	}
	for _, f := range laid.Files {
		w.file(f.Path, f.Content, f.Mode, &err)
	}
	for _, b := range laid.Binds {
		if b.Dir {
			w.dir(b.To, &err)
		} else if w.copy(b.From, b.To, &err) {
			continue
		}
		r.mounts = append(r.mounts, mount{To: b.To, Type: "bind", From: b.From, Options: readOnly()})
	}
	for _, k := range laid.Links {
		w.dir(path.Dir(k.Path), &err)
		w.do(&err, func() error { return into.Symlink(k.Target, inner(k.Path)) })
	}
	for _, m := range laid.Masks {
		r.mounts = append(r.mounts, mount{To: m, Type: "tmpfs", From: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "noexec", "size=4096"}})
	}
	if err != nil {
		return nil, fmt.Errorf("laying out the runtime: %w", err)
	}
	return r, nil
}

// inner makes a path relative to the root.
func inner(p string) string { return filepath.Clean("." + path.Clean("/"+p)) }

// writer writes below a root. After a failure, which it keeps, it does nothing.
type writer struct{ root *os.Root }

func (w writer) do(failed *error, step func() error) {
	if *failed == nil {
		*failed = step()
	}
}

func (w writer) dir(p string, failed *error) {
	w.do(failed, func() error { return w.root.MkdirAll(inner(p), 0o755) })
}

func (w writer) file(p string, content []byte, mode os.FileMode, failed *error) {
	w.dir(path.Dir(p), failed)
	w.do(failed, func() error {
		if err := w.root.WriteFile(inner(p), content, 0o600); err != nil {
			return err
		}
		return w.root.Chmod(inner(p), mode)
	})
}

// copy copies a file of the machine, or makes a place for it to be mounted when it is
// large, and then gives false.
func (w writer) copy(from, to string, failed *error) (done bool) {
	w.dir(path.Dir(to), failed)
	w.do(failed, func() error {
		src, err := os.Open(from)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }()
		info, err := src.Stat()
		if err != nil {
			return err
		}
		dst, err := w.root.OpenFile(inner(to), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if done = info.Size() <= copied; done {
			_, err = io.Copy(dst, src)
		}
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		return w.root.Chmod(inner(to), info.Mode().Perm())
	})
	return done
}

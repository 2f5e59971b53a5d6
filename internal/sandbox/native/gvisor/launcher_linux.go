package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/bundle"
	"github.com/casemate-dev/casemate/internal/sandbox/native/layout"
	"github.com/casemate-dev/casemate/internal/sandbox/native/runtimes"
)

// Launcher starts sandboxes. It implements native.Launcher.
type Launcher struct {
	cfg     Config
	dir     *os.File // locked for as long as the Launcher lives
	holder  *os.File // the program that holds a box
	filter  []byte
	finder  runtimes.Finder
	spawner *spawner
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	next   uint64
	cells  map[*cell]struct{}

	rootsMu sync.Mutex // held while a root is made, which takes copying
	roots   map[layout.Program]*root
}

// New makes a Launcher. It fails with a *MissingError where gVisor cannot be had.
func New(cfg Config) (native.Launcher, error) {
	if err := ready(cfg.Broker.Posture()); err != nil {
		return nil, err
	}
	code, err := sleeper()
	if err != nil {
		return nil, &MissingError{Reason: err.Error(), Remedy: "leave out sandbox: gvisor"}
	}
	l := &Launcher{cfg: cfg, cells: map[*cell]struct{}{}, roots: map[layout.Program]*root{}}
	if l.filter, err = filter.Wasm(); err != nil {
		return nil, err
	}
	if l.holder, err = box.Executable(code); err != nil {
		return nil, err
	}
	if l.dir, err = makeDir(shared, cfg); err != nil {
		return nil, errors.Join(err, l.holder.Close())
	}
	l.spawner = newSpawner()
	return l, nil
}

// shared is where files are laid out: in memory, since the registry's are sealed.
const shared = "/dev/shm"

// prefix is what folders of Launchers begin with.
const prefix = "casemate-gvisor-"

// makeDir makes the Launcher's folder and removes those of nodes that were killed. What
// sandboxes need to walk through may be walked through by anybody, and not be listed.
func makeDir(base string, cfg Config) (*os.File, error) {
	old, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("looking for old folders: %w", err)
	}
	for _, name := range old {
		if f, err := lock(name); err == nil {
			if err := errors.Join(os.RemoveAll(name), f.Close()); err != nil {
				cfg.Logger.Warn("removing what a node left behind", "folder", name, "error", err)
			}
		}
	}
	name, err := os.MkdirTemp(base, prefix)
	if err != nil {
		return nil, fmt.Errorf("making a folder for gVisor: %w", err)
	}
	f, err := lock(name)
	for dir, mode := range map[string]fs.FileMode{"": 0o711, "roots": 0o711, "code": 0o700, "cells": 0o700} {
		if dir != "" && err == nil {
			err = os.Mkdir(filepath.Join(name, dir), 0o700)
		}
		if err == nil {
			err = os.Chmod(filepath.Join(name, dir), mode)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a folder for gVisor: %w", err), os.RemoveAll(name))
	}
	return f, nil
}

// lock opens a folder of root's that no living Launcher holds.
func lock(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != 0 {
		return nil, errors.Join(err, f.Close(), os.ErrPermission)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// path gives the name of something in the Launcher's folder.
func (l *Launcher) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir.Name()}, parts...)...)
}

// number gives one that was not given before.
func (l *Launcher) number() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return strconv.FormatUint(l.next, 10)
}

// Runtimes implements native.Launcher.
func (l *Launcher) Runtimes() []native.RuntimeInfo { return l.finder.Runtimes() }

// replaced are the box's measures for which gVisor has something else: files come from
// a gofer that is chrooted into them, and control groups are nothing that the code's
// kernel knows of.
func replaced() []string { return []string{box.MeasureLandlock, box.MeasureCgroupNS} }

// Posture implements native.Launcher.
func (l *Launcher) Posture() native.Posture {
	p := l.cfg.Broker.Posture()
	gone := func(m string) bool { return slices.Contains(replaced(), m) }
	enforced := append(slices.DeleteFunc(slices.Clone(p.Enforced), gone), MeasureKernel)
	slices.Sort(enforced)
	missing := maps.Clone(p.Missing)
	maps.DeleteFunc(missing, func(m, _ string) bool { return gone(m) })
	return native.Posture{Kind: Kind, Enforced: enforced, Missing: missing}
}

// Close implements native.Launcher.
func (l *Launcher) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	for c := range l.cells {
		c.Kill()
	}
	l.mu.Unlock()
	if !first {
		return nil
	}
	l.running.Wait()
	l.spawner.close()
	return errors.Join(l.holder.Close(), removeAll(l.dir.Name()), l.dir.Close())
}

// removeAll removes a folder in which some are read-only, which does not stop root.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing gVisor's files: %w", err)
	}
	return nil
}

// tree is a version's files.
type tree struct {
	root  *root
	dir   string // the folder around them, which only root may enter
	files *os.Root
}

// code is the name of the files' folder in the one around them.
const code = "code"

// Lay implements native.Launcher.
func (l *Launcher) Lay(_ context.Context, v *function.Version, archive []byte) (_ native.Tree, err error) {
	if m := v.Config.Limits.Memory; m < MinMemory {
		return nil, &sandbox.Error{Kind: sandbox.Refused, Public: fmt.Sprintf("sandbox gvisor takes at least %d MiB of memory, and the limit is %d: raise it, or leave out sandbox: gvisor", MinMemory>>20, m>>20)}
	}
	t := &tree{dir: l.path("code", l.number())}
	defer func() {
		if err != nil {
			t.Release()
		}
	}()
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making room for the code: %w", err)
	}
	if err := os.Mkdir(filepath.Join(t.dir, code), 0o700); err != nil {
		return nil, fmt.Errorf("making room for the code: %w", err)
	}
	into, err := os.Open(filepath.Join(t.dir, code))
	if err != nil {
		return nil, fmt.Errorf("opening the room for the code: %w", err)
	}
	_, err = bundle.Unpack(archive, into, bundle.Limits{})
	_ = into.Close()
	if err != nil {
		var e *bundle.Error
		if errors.As(err, &e) {
			return nil, &sandbox.Error{Kind: sandbox.BadModule, Public: "the code's archive is not in order: " + e.Error(), Cause: err}
		}
		return nil, fmt.Errorf("unpacking the code: %w", err)
	}
	if t.files, err = os.OpenRoot(filepath.Join(t.dir, code)); err != nil {
		return nil, fmt.Errorf("opening the code: %w", err)
	}
	t.root, err = l.root(v, t.files.FS())
	return t, err
}

// root gives the root for a version.
func (l *Launcher) root(v *function.Version, code fs.FS) (*root, error) {
	needs, err := runtimes.Needs(v, code)
	if err != nil {
		return nil, err
	}
	l.rootsMu.Lock()
	defer l.rootsMu.Unlock()
	if r := l.roots[needs]; r != nil {
		return r, nil
	}
	laid, err := l.finder.Layout(needs)
	if err != nil {
		return nil, err
	}
	dir := l.path("roots", l.number())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("laying out the runtime: %w", err)
	}
	r, err := makeRoot(dir, needs, laid)
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // sandboxes have a user of their own, who reads it
	}
	if err != nil {
		return nil, errors.Join(err, removeAll(dir))
	}
	l.roots[needs] = r
	return r, nil
}

// Files implements native.Tree.
func (t *tree) Files() fs.FS { return t.files.FS() }

// Interpreter implements native.Tree.
func (t *tree) Interpreter() string { return t.root.interpreter }

// Release implements native.Tree. A sandbox that runs on the files keeps what it has
// open, and no more: the Runner releases them when none is left.
func (t *tree) Release() {
	if t.files != nil {
		_ = t.files.Close()
	}
	_ = removeAll(t.dir) // what is left goes with the Launcher's folder
}

package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long the files must be left alone before a change counts: editors
// write several times in a row.
const quiet = 40 * time.Millisecond

// longest bounds how long a stream of changes can put off a rebuild.
const longest = 500 * time.Millisecond

// maxWatched bounds the folders that are watched.
const maxWatched = 4096

// ignoredFolder reports whether a folder holds nothing that is built from.
func ignoredFolder(name string) bool {
	switch name {
	case "target", "node_modules", "build", "dist", "vendor", "__pycache__":
		return true
	}
	return len(name) > 1 && strings.HasPrefix(name, ".")
}

// ignoredFile reports whether a file is what editors and builds leave lying about.
func ignoredFile(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") ||
		name == "4913" || slices.Contains([]string{".swp", ".swx", ".tmp", ".wasm", ".wat", ".map"}, filepath.Ext(name))
}

// watcher reports changes below some folders, once things are quiet again.
type watcher struct {
	fs    *fsnotify.Watcher
	roots []string
	// exact files count whatever they are called: a .wasm that a manifest names.
	exact map[string]bool
}

// change is a burst of changed files, and when the first was noticed.
type change struct {
	paths []string
	first time.Time
}

func newWatcher(roots []string, exact []string) (*watcher, error) {
	fw, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, failf("watching files: %v", err)
	}
	w := &watcher{fs: fw, roots: roots, exact: map[string]bool{}}
	for _, r := range roots {
		if err := w.add(r); err != nil {
			return nil, errors.Join(failf("watching %s: %v", r, err), fw.Close())
		}
	}
	for _, f := range exact {
		w.exact[f] = true
		if err := fw.Add(filepath.Dir(f)); err != nil {
			return nil, errors.Join(failf("watching %s: %v", f, err), fw.Close())
		}
	}
	return w, nil
}

func (w *watcher) close() error { return w.fs.Close() }

// add watches a folder and those in it. Links are not followed.
func (w *watcher) add(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone in the meantime
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case path != root && ignoredFolder(d.Name()), len(w.fs.WatchList()) >= maxWatched:
			return fs.SkipDir
		}
		if err := w.fs.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// relevant reports whether a change to path matters.
func (w *watcher) relevant(path string) bool {
	if w.exact[path] {
		return true
	}
	for _, r := range w.roots {
		rel, err := filepath.Rel(r, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			continue
		}
		parts := strings.Split(rel, string(filepath.Separator))
		if slices.ContainsFunc(parts[:len(parts)-1], ignoredFolder) {
			continue
		}
		return !ignoredFile(parts[len(parts)-1])
	}
	return false
}

// run sends a change each time files have changed and are quiet again, until ctx
// ends or the watch fails. While nobody receives, changes gather.
func (w *watcher) run(ctx context.Context, clock func() time.Time, out chan<- change) error {
	var pending change
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var ready chan<- change
	for {
		select {
		case <-ctx.Done():
			return nil
		case err, ok := <-w.fs.Errors:
			if !ok {
				return nil
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) { // something changed, we cannot tell what
				pending = note(pending, w.roots[0], clock())
				timer.Reset(quiet)
				continue
			}
			return failf("watching files: %v", err)
		case e, ok := <-w.fs.Events:
			if !ok {
				return nil
			}
			if !w.notice(e) {
				continue
			}
			pending = note(pending, e.Name, clock())
			ready = nil
			timer.Reset(min(quiet, max(0, longest-clock().Sub(pending.first))))
		case <-timer.C:
			ready = out
		case ready <- pending:
			pending, ready = change{}, nil
		}
	}
}

// notice reports whether an event matters, and watches a folder that is new.
func (w *watcher) notice(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			if ignoredFolder(filepath.Base(e.Name)) {
				return false
			}
			// A folder that cannot be watched shows as a change now and not later:
			// nothing better can be done about it here.
			_ = w.add(e.Name)
		}
	}
	return w.relevant(e.Name)
}

func note(c change, path string, now time.Time) change {
	if len(c.paths) == 0 {
		c.first = now
	}
	if !slices.Contains(c.paths, path) {
		c.paths = append(c.paths, path)
	}
	return c
}

// affected tells which functions of a project are built from the changed files:
// those whose folder holds one; all of them when a file belongs to none, as a
// package that several share does.
func (pr *project) affected(paths []string) map[string]bool {
	out := map[string]bool{}
	for _, p := range paths {
		owned := false
		for _, f := range pr.Functions {
			src := filepath.Join(pr.dir, filepath.FromSlash(f.Source))
			if rel, err := filepath.Rel(src, p); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
				out[f.Name], owned = true, true
			}
		}
		if !owned {
			for _, f := range pr.Functions {
				out[f.Name] = true
			}
		}
	}
	return out
}

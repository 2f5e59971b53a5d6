package bundle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Unpack writes the archive's files below the directory. It fails with an *Error
// when the archive is refused, with one that matches ErrUnsupported when the kernel
// cannot keep paths below a directory, and otherwise with the system's error, among
// them unix.ENOSPC when the directory's file system is full.
func Unpack(archive []byte, into *os.File, l Limits) (Summary, error) {
	a, err := Open(archive, l)
	if err != nil {
		return Summary{}, err
	}
	return a.Summary(), a.Unpack(into)
}

// Unpack writes the files below the directory; see the function of this name.
func (a *Archive) Unpack(into *os.File) error {
	w := writer{root: into, buffer: make([]byte, copyBuffer), parent: -1}
	defer w.leave()
	for _, d := range a.dirs {
		if err := w.directory(d); err != nil {
			return err
		}
	}
	for i := range a.entries {
		e := &a.entries[i]
		if err := w.enter(path.Dir(e.name)); err != nil {
			return err
		}
		if e.target != "" {
			if err := unix.Symlinkat(e.target, w.parent, path.Base(e.name)); err != nil {
				return fmt.Errorf("making link %q: %w", e.name, err)
			}
			continue
		}
		if err := w.file(e); err != nil {
			return err
		}
	}
	for _, d := range slices.Backward(a.dirs) {
		if err := w.seal(d); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(into.Fd()), 0o555); err != nil {
		return fmt.Errorf("sealing directory: %w", err)
	}
	return nil
}

// writer makes files below root. It keeps the directory it worked in last open.
type writer struct {
	root   *os.File
	buffer []byte
	parent int // descriptor, or -1
	inside string
}

// open resolves a name below the directory at, through real directories alone.
func open(at int, name string, flags int, mode uint64) (int, error) {
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Mode:    mode,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.ENOSYS) {
		return -1, ErrUnsupported
	}
	return fd, err
}

func (w *writer) leave() {
	if w.parent >= 0 {
		_ = unix.Close(w.parent)
		w.parent = -1
	}
}

// enter opens a directory as the one to work in.
func (w *writer) enter(dir string) error {
	if w.parent >= 0 && w.inside == dir {
		return nil
	}
	w.leave()
	fd, err := open(int(w.root.Fd()), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("opening directory %q: %w", dir, err)
	}
	w.parent, w.inside = fd, dir
	return nil
}

func (w *writer) directory(name string) error {
	if err := w.enter(path.Dir(name)); err != nil {
		return err
	}
	if err := unix.Mkdirat(w.parent, path.Base(name), 0o700); err != nil {
		return fmt.Errorf("making directory %q: %w", name, err)
	}
	return nil
}

func (w *writer) file(e *entry) error {
	fd, err := open(w.parent, path.Base(e.name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o400)
	if err != nil {
		return fmt.Errorf("making file %q: %w", e.name, err)
	}
	f := os.NewFile(uintptr(fd), e.name)
	defer f.Close()
	if err := e.copyTo(f, w.buffer); err != nil {
		return err
	}
	mode := uint32(0o444)
	if e.executable {
		mode = 0o555
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("sealing file %q: %w", e.name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing file %q: %w", e.name, err)
	}
	return nil
}

func (w *writer) seal(dir string) error {
	if err := w.enter(dir); err != nil {
		return err
	}
	if err := unix.Fchmod(w.parent, 0o555); err != nil {
		return fmt.Errorf("sealing directory %q: %w", dir, err)
	}
	return nil
}

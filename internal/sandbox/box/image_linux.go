package box

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// bindsAtOnce is how many binds one request carries.
const bindsAtOnce = 100

// Image is a tree that the broker holds: read-only once it is sealed. It is in no path
// of the machine. Its methods may be called from many goroutines.
type Image struct {
	b  *Broker
	id uint64

	mu       sync.Mutex
	dir      *os.File
	sealed   *top // what it holds, once that does not change
	released bool
}

// top is what an image holds at its top, and which devices below it.
type top struct {
	entries []landlock.Entry
	devices []string
}

// emptyRoot is what the broker's own image has, which boxes without a root get.
func emptyRoot() *top {
	t := new(top)
	for _, d := range []string{"tmp", "proc", "dev", "var"} {
		t.entries = append(t.entries, landlock.Entry{Name: d, Dir: true})
	}
	return t
}

// top looks what the image holds.
func (i *Image) top() (*top, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sealed != nil {
		return i.sealed, nil
	}
	if i.released {
		return nil, unix.ENOENT
	}
	return survey(i.dir)
}

// survey looks at an image by a descriptor of its root.
func survey(dir *os.File) (*top, error) {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	all, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	t := new(top)
	for _, e := range all {
		if e.Type()&fs.ModeSymlink == 0 {
			t.entries = append(t.entries, landlock.Entry{Name: e.Name(), Dir: e.IsDir()})
		}
	}
	for _, d := range devices() {
		if info, err := root.Lstat("dev/" + d); err == nil && info.Mode()&fs.ModeCharDevice != 0 {
			t.devices = append(t.devices, d)
		}
	}
	return t, nil
}

// devices are the device files of a root.
func devices() []string { return []string{"null", "zero", "full", "random", "urandom"} }

// NewImage makes an image: files, directories and links are written, then the binds are
// mounted over what was made for them.
func (b *Broker) NewImage(_ context.Context, s ImageSpec) (*Image, error) {
	binds, err := resolve(s)
	if err != nil {
		return nil, err
	}
	size, inodes := s.Size, s.Inodes
	if size == 0 {
		size = 64 << 10
		for _, f := range s.Files {
			size += int64(len(f.Content)) + 8<<10
		}
	}
	if inodes == 0 {
		inodes = 64 + 8*(len(s.Files)+len(s.Dirs)+len(s.Links)+len(s.Binds))
	}
	reply, fds, err := b.call(&message.Request{Op: message.OpImage, Size: size, Inodes: inodes})
	if err != nil {
		return nil, err
	}
	i := &Image{b: b, id: reply.Image, dir: os.NewFile(uintptr(fds[0]), "image")}
	if err := i.fill(s, binds); err != nil {
		return nil, errors.Join(err, i.Release())
	}
	return i, nil
}

// resolve finds what the binds name. Who changes it afterwards makes the broker refuse.
func resolve(s ImageSpec) ([]message.Bind, error) {
	var binds []message.Bind
	for _, one := range s.Binds {
		if !filepath.IsAbs(one.From) || !path.IsAbs(one.To) {
			return nil, &Error{Step: "binding " + one.From, Err: errors.New("the paths must be absolute")}
		}
		from, err := filepath.EvalSymlinks(one.From)
		if err != nil {
			return nil, &Error{Step: "binding " + one.From, Err: err}
		}
		binds = append(binds, message.Bind{From: from, To: within(one.To)})
	}
	for _, m := range s.Masks {
		binds = append(binds, message.Bind{To: within(m)})
	}
	if s.Root {
		for _, d := range devices() {
			binds = append(binds, message.Bind{From: "/dev/" + d, To: "dev/" + d, Device: true})
		}
	}
	return binds, nil
}

// within makes a path relative to the image's root.
func within(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// fill writes the image.
func (i *Image) fill(s ImageSpec, binds []message.Bind) error {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(i.dir.Fd())))
	if err != nil {
		return &Error{Step: "opening the image", Err: err}
	}
	defer func() { _ = root.Close() }()
	w := writer{root}
	dirs := s.Dirs
	if s.Root {
		dirs = append([]string{"/tmp", "/proc", "/dev", "/var/task"}, dirs...)
	}
	for _, d := range dirs {
		if err := w.dir(within(d)); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if err := w.file(within(f.Path), f.Content, f.Mode.Perm()); err != nil {
			return err
		}
	}
	for _, l := range s.Links {
		if err := w.dir(path.Dir(within(l.Path))); err != nil {
			return err
		}
		if err := root.Symlink(l.Target, within(l.Path)); err != nil {
			return &Error{Step: "making the image", Err: err}
		}
	}
	for len(binds) > 0 {
		n := min(len(binds), bindsAtOnce)
		if err := w.places(binds[:n]); err != nil {
			return err
		}
		if _, _, err := i.b.call(&message.Request{Op: message.OpBind, Image: i.id, Binds: binds[:n]}); err != nil {
			return err
		}
		binds = binds[n:]
	}
	return nil
}

// writer writes into an image.
type writer struct{ root *os.Root }

// dir makes a directory and those above it, whatever the process's umask.
func (w writer) dir(p string) error {
	if p == "." {
		return nil
	}
	if err := w.dir(path.Dir(p)); err != nil {
		return err
	}
	err := w.root.Mkdir(p, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = w.root.Chmod(p, 0o755)
	}
	if err != nil {
		return &Error{Step: "making the image", Err: err}
	}
	return nil
}

func (w writer) file(p string, content []byte, mode os.FileMode) error {
	if err := w.dir(path.Dir(p)); err != nil {
		return err
	}
	f, err := w.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return &Error{Step: "making the image", Err: err}
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return &Error{Step: "making the image", Err: err}
	}
	return nil
}

// places makes what binds are mounted on.
func (w writer) places(binds []message.Bind) error {
	for _, one := range binds {
		if one.From == "" {
			continue // a mask covers what is there
		}
		info, err := os.Lstat(one.From)
		if err != nil {
			return &Error{Step: "binding " + one.From, Err: err}
		}
		if info.IsDir() {
			err = w.dir(one.To)
		} else if err = w.file(one.To, nil, 0o444); errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("binding %s: %s is in the image already", one.From, one.To)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bind mounts one thing, as it is named, for tests of the broker's own checks.
func (i *Image) bind(from, to string) error {
	_, _, err := i.b.call(&message.Request{Op: message.OpBind, Image: i.id, Binds: []message.Bind{{From: from, To: to}}})
	return err
}

// Dir is the image's root, to be written to until Seal. It is closed by Seal.
func (i *Image) Dir() *os.File { return i.dir }

// Seal makes the image read-only for everybody. Files open for writing prevent it, for
// which it waits a little: a process that is being started has copies of all descriptors
// of who starts it until it executes its program, and among them may be that of a file
// which was just written.
func (i *Image) Seal() error {
	for tries := 1; ; tries++ {
		_, _, err := i.b.call(&message.Request{Op: message.OpSeal, Image: i.id})
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) || tries == patience {
			return err
		}
		<-time.After(time.Millisecond)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	t, err := survey(i.dir)
	if err == nil {
		i.sealed = t
	}
	return errors.Join(err, i.dir.Close())
}

// patience is how often a seal is tried, with a millisecond in between.
const patience = 1000

// Release lets the image go; boxes that run on it keep it until they end. A second call
// does nothing.
func (i *Image) Release() error {
	i.mu.Lock()
	first := !i.released
	i.released = true
	_ = i.dir.Close() // closed already when it was sealed
	i.mu.Unlock()
	if !first {
		return nil
	}
	_, _, err := i.b.call(&message.Request{Op: message.OpRelease, Image: i.id})
	return err
}

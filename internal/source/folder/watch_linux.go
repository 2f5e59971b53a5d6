package folder

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/seen"
)

// Run watches until ctx ends.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := k.settings(&b.Trigger)
	if err != nil {
		return err
	}
	root := k.roots[s.Root]
	if !root.mayWatch(b.Ref.Namespace) {
		return fmt.Errorf("watching folder %s: namespace %s may not: %w", s.Root, b.Ref.Namespace, source.ErrRefused)
	}
	dir, err := os.OpenFile(root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("watching folder %s: %v", s.Root, err)
	}
	defer dir.Close()
	memory, err := seen.Load(ctx, b.Store)
	if err != nil {
		return fmt.Errorf("watching folder %s: %w", s.Root, err)
	}
	w := &watcher{b: b, s: s, root: dir, seen: memory, folders: map[int32]string{}}
	if err := w.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watching folder %s: %w", s.Root, err)
	}
	return nil
}

// watcher belongs to one goroutine; another one only reads what the kernel says.
type watcher struct {
	b       source.Binding
	s       *Settings
	root    *os.File
	seen    *seen.Set
	notify  *os.File
	fd      int
	folders map[int32]string // watched, by the kernel's number: path below the root
}

// notice is something that the kernel said.
type notice struct {
	folder int32
	mask   uint32
	name   string
}

const mask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

func (w *watcher) run(ctx context.Context) error {
	var err error
	if w.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return err
	}
	w.notify = os.NewFile(uintptr(w.fd), "inotify")
	notices := make(chan notice)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() { ended <- read(ctx, w.notify, notices) }()
	defer func() {
		cancel()
		_ = w.notify.Close() // ends the read
		if err := <-ended; err != nil && !errors.Is(err, os.ErrClosed) {
			w.b.Log.Debug("watching a folder ended", "error", err)
		}
	}()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- nil
			return err
		case <-again.C:
			young, err := w.scan(ctx)
			if err != nil {
				return err
			}
			if young {
				again.Reset(time.Duration(w.s.SettleTime))
			}
			w.b.Report(source.Health{State: source.Running})
		case n := <-notices:
			rescan, err := w.notice(ctx, n)
			if err != nil {
				return err
			}
			if rescan {
				again.Reset(0)
			}
		}
	}
}

// read hands on what the kernel says. While nobody takes it the kernel's queue fills, and
// then says that it overflowed.
func read(ctx context.Context, from io.Reader, to chan<- notice) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return err
		}
		for raw := buffer[:n]; len(raw) >= unix.SizeofInotifyEvent; {
			length := int(binary.NativeEndian.Uint32(raw[12:]))
			if length > len(raw)-unix.SizeofInotifyEvent {
				return errors.New("the kernel's notice is malformed")
			}
			e := notice{
				folder: int32(binary.NativeEndian.Uint32(raw)), mask: binary.NativeEndian.Uint32(raw[4:]),
				name: strings.TrimRight(string(raw[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length]), "\x00"),
			}
			raw = raw[unix.SizeofInotifyEvent+length:]
			select {
			case to <- e:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (w *watcher) notice(ctx context.Context, n notice) (rescan bool, err error) {
	if n.mask&unix.IN_Q_OVERFLOW != 0 {
		return true, nil
	}
	folder, known := w.folders[n.folder]
	switch {
	case n.mask&unix.IN_IGNORED != 0:
		delete(w.folders, n.folder)
		if folder == w.s.Path && known {
			return false, errors.New("the folder itself has gone")
		}
		return false, nil
	case n.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0:
		if folder == w.s.Path && known {
			return false, errors.New("the folder itself has gone")
		}
		return true, nil
	case !known:
		return false, nil
	}
	p := path.Join(folder, n.name)
	switch {
	case n.mask&unix.IN_ISDIR != 0:
		return w.s.Recursive && n.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0, nil
	case n.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO) != 0:
		err = w.file(ctx, p, true)
	case n.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		err = w.removed(ctx, p)
	default: // made, and complete only if it is one more name of a file that is
		rescan, err = w.linked(ctx, p)
	}
	if err != nil {
		return false, err
	}
	return rescan, w.seen.Save(ctx)
}

// linked tells of a file that link(2) put there: the kernel says no more of that than of
// one that is about to be written. rescan means that it is too young to be taken for
// complete.
func (w *watcher) linked(ctx context.Context, p string) (rescan bool, err error) {
	f, err := w.open(p, unix.O_PATH)
	if err != nil {
		return false, nil //nolint:nilerr // it has gone, or is no file below the root
	}
	i, err := f.Stat()
	_ = f.Close() // only read
	if err != nil {
		return false, nil //nolint:nilerr // the same
	}
	st, ok := i.Sys().(*syscall.Stat_t)
	// Who links a file often takes its old name away at once; one just made is never old.
	if !ok || st.Nlink < 2 && w.b.Clock().Sub(i.ModTime()) < time.Duration(w.s.SettleTime) {
		return false, nil
	}
	err = w.file(ctx, p, false)
	if errors.Is(err, errYoung) {
		return true, nil
	}
	return false, err
}

// open opens what is at a path below the root, and nothing that is elsewhere.
func (w *watcher) open(p string, flags int) (*os.File, error) {
	if p == "" {
		p = "."
	}
	fd, err := unix.Openat2(int(w.root.Fd()), p, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return os.NewFile(uintptr(fd), p), nil
}

// scan looks at all files there are. young reports files that may not be complete yet.
func (w *watcher) scan(ctx context.Context) (young bool, err error) {
	var files []string
	if err := w.walk(w.s.Path, 0, &files); err != nil {
		return false, err
	}
	there := make(map[uint64]struct{}, len(files))
	for i, p := range files {
		there[seen.Digest(p)] = struct{}{}
		if i%1000 == 0 {
			w.b.Report(source.Health{State: source.Running, Lag: int64(len(files) - i)})
		}
		err := w.file(ctx, p, false)
		if errors.Is(err, errYoung) {
			young = true
			continue
		}
		if err != nil {
			return false, errors.Join(err, w.seen.Save(ctx))
		}
		if i%64 == 63 {
			if err := w.seen.Save(ctx); err != nil {
				return false, err
			}
		}
	}
	w.seen.Only(there)
	return young, w.seen.Save(ctx)
}

// walk watches a folder and lists its files. It watches first, so that none is missed.
func (w *watcher) walk(folder string, depth int, files *[]string) error {
	if depth > maxDepth || len(w.folders) > maxFolders {
		return fmt.Errorf("there are more than %d folders, or more than %d below each other", maxFolders, maxDepth)
	}
	d, err := w.open(folder, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		if folder != w.s.Path { // it has gone, or is another file system or a link by now
			return nil
		}
		return err
	}
	defer d.Close()
	// The open folder itself is watched, not what its name leads to by now.
	number, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", d.Fd()), mask)
	if err != nil {
		return fmt.Errorf("watching %s: %v", folder, err)
	}
	w.folders[int32(number)] = folder
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		p := path.Join(folder, e.Name())
		switch {
		case e.IsDir() && w.s.Recursive && !strings.HasPrefix(e.Name(), "."):
			if err := w.walk(p, depth+1, files); err != nil {
				return err
			}
		case e.Type().IsRegular() && w.s.wantsName(e.Name()):
			if len(*files) >= maxNames {
				return fmt.Errorf("there are more than %d files; have them archived or removed", maxNames)
			}
			*files = append(*files, p)
		}
	}
	return nil
}

// errYoung means that a file may be being written.
var errYoung = errors.New("it has changed just now")

// file tells of a file, unless it was told of in this state. complete means that the
// kernel said so.
func (w *watcher) file(ctx context.Context, p string, complete bool) error {
	name := path.Base(p)
	if !w.s.wantsName(name) || !utf8.ValidString(p) {
		return nil
	}
	// First without opening: the open of a device can do something by itself.
	f, err := w.open(p, unix.O_PATH)
	if err != nil {
		return nil //nolint:nilerr // it has gone, or is no file below the root
	}
	before, err := f.Stat()
	_ = f.Close() // only read
	if err != nil || !before.Mode().IsRegular() || !w.s.wantsSize(before.Size()) {
		return nil //nolint:nilerr // the same
	}
	stamp := state(before)
	was, known := w.seen.Get(p)
	if known && was == seen.Digest(stamp) {
		return nil
	}
	if age := w.b.Clock().Sub(before.ModTime()); !complete && age < time.Duration(w.s.SettleTime) && age > -time.Hour {
		return errYoung
	}
	ref := Reference{
		Root: w.s.Root, Path: p, Size: before.Size(), Modified: before.ModTime().UTC(),
		ContentType: contentType(name), Operation: "created",
	}
	m := event.Message{Event: event.Event{Type: TypeCreated, ID: id(p, stamp), Time: ref.Modified}}
	if known {
		ref.Operation, m.Type = "changed", TypeChanged
	}
	if w.s.Archive != "" {
		ref.Archived = path.Join(w.s.Archive, fmt.Sprintf("%016x-%s", seen.Digest(p+stamp), name))
	}
	if w.s.Content && before.Size() <= event.MaxData {
		if m.Data, err = w.content(p, before); err != nil {
			return err
		}
		if m.Data == nil { // it changed meanwhile; the kernel will say when it is complete
			return nil
		}
	}
	if err := w.accept(ctx, &m, &ref); err != nil {
		return err
	}
	if ref.Archived != "" {
		w.seen.Drop(p)
		return w.archive(p, ref.Archived)
	}
	return w.seen.Set(p, seen.Digest(stamp))
}

// state is what tells two states of a file apart.
func state(i os.FileInfo) string {
	ino := uint64(0)
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		ino = st.Ino
	}
	return fmt.Sprintf("%x-%x-%x", ino, i.ModTime().UnixNano(), i.Size())
}

func id(p, stamp string) string { return fmt.Sprintf("%s-%016x", stamp, seen.Digest(p)) }

// content reads a whole file, or nil if it is not the one that was looked at any more.
func (w *watcher) content(p string, before os.FileInfo) ([]byte, error) {
	f, err := w.open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, nil //nolint:nilerr // it has gone
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil || state(opened) != state(before) || !opened.Mode().IsRegular() {
		return nil, err
	}
	data := make([]byte, before.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, nil //nolint:nilerr // it became shorter
	}
	after, err := f.Stat()
	if err != nil || state(after) != state(before) {
		return nil, err
	}
	return data, nil
}

func (w *watcher) accept(ctx context.Context, m *event.Message, ref *Reference) error {
	if m.Data != nil {
		m.DataContentType = ref.ContentType
	} else {
		raw, err := json.Marshal(ref)
		if err != nil {
			return err
		}
		m.Data, m.DataContentType = raw, "application/json"
	}
	m.Subject, m.Key = subject(ref.Root, ref.Path), fmt.Sprintf("%016x", seen.Digest(ref.Path))
	m.Detail = map[string]string{
		"file.root": ref.Root, "file.path": ref.Path, "file.size": fmt.Sprint(ref.Size),
		"file.modified": ref.Modified.Format(time.RFC3339Nano), "file.contenttype": ref.ContentType, "file.operation": ref.Operation,
	}
	if ref.Archived != "" {
		m.Detail["file.archived"] = ref.Archived
	}
	return w.b.Sink.Accept(ctx, []event.Message{*m})
}

// removed tells that a file that was told of has gone.
func (w *watcher) removed(ctx context.Context, p string) error {
	was, known := w.seen.Get(p)
	if !known {
		return nil
	}
	if f, err := w.open(p, unix.O_PATH); err == nil { // there is one again, and that is told
		return f.Close()
	}
	if w.s.Removed {
		ref := Reference{Root: w.s.Root, Path: p, Modified: w.b.Clock().UTC(), ContentType: contentType(p), Operation: "removed"}
		m := event.Message{Event: event.Event{Type: TypeRemoved, ID: id(p, fmt.Sprintf("removed-%x", was)), Time: ref.Modified}}
		if err := w.accept(ctx, &m, &ref); err != nil {
			return err
		}
	}
	w.seen.Drop(p)
	return nil
}

// archive moves a file, below the root and over none that is there.
func (w *watcher) archive(p, to string) error {
	from, err := w.open(path.Dir(p), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil //nolint:nilerr // it has gone
	}
	defer from.Close()
	into, err := w.open(path.Dir(to), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("opening the archive: %v", err)
	}
	defer into.Close()
	err = unix.Renameat2(int(from.Fd()), path.Base(p), int(into.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("moving %s into the archive: %v", p, err)
	}
	return nil
}

//go:build linux

package folder_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/folder"
)

type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memory) Get(_ context.Context, k string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[k], nil
}

func (m *memory) Put(_ context.Context, k string, v []byte) error {
	if len(v) > 64<<10 {
		return errors.New("too long")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[k] = v
	return nil
}

func (m *memory) Delete(_ context.Context, k string) error { return m.Put(context.TODO(), k, nil) }

// sink hands each event to the test.
type sink chan event.Message

func (s sink) Accept(ctx context.Context, list []event.Message) error {
	for _, m := range list {
		m.Source = "/test"
		if err := m.Validate(); err != nil {
			return err
		}
		select {
		case s <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

type world struct {
	t     *testing.T
	root  string
	sink  sink
	store *memory
	kind  *folder.Kind
	stop  func()
	clock func() time.Time
}

func newWorld(t *testing.T) *world {
	root := t.TempDir()
	k, err := folder.New(map[string]folder.Root{"inbox": {Path: root, Namespaces: []string{"default"}}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, root: root, sink: make(sink), store: &memory{values: map[string][]byte{}}, kind: k, clock: time.Now}
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
	})
	return w
}

func trigger(settings string) function.Trigger {
	return function.Trigger{Name: "t", Kind: "folder", Settings: json.RawMessage(settings)}
}

// start watches and returns after the first scan, or the event that comes before its end.
func (w *world) start(settings string) {
	w.t.Helper()
	t := trigger(settings)
	if err := w.kind.Check(&t); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ready := make(chan struct{})
	once := sync.OnceFunc(func() { close(ready) })
	go func() {
		done <- w.kind.Run(ctx, source.Binding{
			Ref: function.Ref{Namespace: "default", Name: "f"}, Trigger: t, Sink: w.sink, Store: w.store,
			Log: slog.New(slog.DiscardHandler), Clock: w.clock,
			Report: func(h source.Health) {
				if h.Lag == 0 {
					once()
				}
			},
		})
	}()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
		w.stop = nil
	}
	select {
	case <-ready:
	case err := <-done:
		w.t.Fatalf("run: %v", err)
	}
}

func (w *world) write(name, body string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.root, name), []byte(body), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// next gives the next event as "type path".
func (w *world) next() (event.Message, string) {
	w.t.Helper()
	select {
	case m := <-w.sink:
		return m, strings.TrimPrefix(m.Type, "casemate.file.") + " " + m.Detail["file.path"]
	case <-time.After(time.Minute): // is only reached by a failure
		w.t.Fatal("no event came")
		return event.Message{}, ""
	}
}

func (w *world) want(want string) event.Message {
	w.t.Helper()
	m, got := w.next()
	if got != want {
		w.t.Fatalf("got %q, want %q", got, want)
	}
	return m
}

func (w *world) old(name string) {
	w.t.Helper()
	at := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(w.root, name), at, at); err != nil {
		w.t.Fatal(err)
	}
}

func TestOnlyCompleteFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(`{"root":"inbox","exclude":["*.part"],"removed":true}`)
	f, err := os.Create(filepath.Join(w.root, "slow.txt"))
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("first ")
	w.write("marker", "") // comes before slow.txt, which is not closed
	w.want("created marker")
	f.WriteString("second")
	f.Close()
	m := w.want("created slow.txt")
	var ref folder.Reference
	if json.Unmarshal(m.Data, &ref) != nil || ref.Size != 12 || ref.Path != "slow.txt" || ref.Operation != "created" || m.Subject != "inbox/slow.txt" {
		t.Errorf("data: %s", m.Data)
	}
	w.write("big.part", "in parts")
	os.Rename(filepath.Join(w.root, "big.part"), filepath.Join(w.root, "big"))
	w.want("created big")
	w.write("big", "again")
	w.want("changed big")
	os.Remove(filepath.Join(w.root, "big"))
	w.want("removed big")
}

// link(2) makes a complete file under a name, and the kernel tells of it as of one that
// will be written.
func TestLinkedFilesAreComplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(`{"root":"inbox","exclude":["*.part"],"settleNanos":1000000000}`)
	link := func(from, to string) {
		t.Helper()
		if err := os.Link(filepath.Join(w.root, from), filepath.Join(w.root, to)); err != nil {
			t.Fatal(err)
		}
	}
	w.write("old.part", "1")
	w.old("old.part")
	link("old.part", "old")
	w.want("created old")
	w.write("young.part", "1")
	link("young.part", "young")
	w.want("created young")
	// As programs for mail deliver: the old name goes away at once.
	w.write("mail.part", "1")
	w.old("mail.part")
	link("mail.part", "mail")
	os.Remove(filepath.Join(w.root, "mail.part"))
	w.want("created mail")
}

func TestAfterARestartOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a", "1")
	w.write("b", "1")
	w.old("a")
	w.old("b")
	go func() {
		for range 2 {
			<-w.sink
		}
	}()
	w.start(`{"root":"inbox"}`)
	w.stop()
	w.write("b", "2 and longer")
	w.write("c", "1")
	w.old("b")
	w.old("c")
	got := make(chan string, 2)
	go func() {
		for range 2 {
			m := <-w.sink
			got <- m.Type + " " + m.Detail["file.path"]
		}
	}()
	w.start(`{"root":"inbox"}`)
	w.write("end", "")
	w.want("created end") // and nothing of a before it
	if a, b := <-got, <-got; a != folder.TypeChanged+" b" || b != folder.TypeCreated+" c" {
		t.Errorf("got %s, %s", a, b)
	}
}

func TestAYoungFileIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("young", "1")
	w.start(`{"root":"inbox","settleNanos":200000000}`)
	w.want("created young")
}

// TestNothingLeadsOutOfTheFolder puts everything into the folder that is no file of it.
func TestNothingLeadsOutOfTheFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600)
	os.Mkdir(filepath.Join(w.root, "sub"), 0o700)
	plant := func(prefix string) {
		for name, target := range map[string]string{"link": filepath.Join(outside, "secret"), "dirlink": outside, "rel": "../../../../../../../../etc/passwd", "proc": "/proc/self/environ"} {
			if err := os.Symlink(target, filepath.Join(w.root, prefix+name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(filepath.Join(w.root, prefix+"fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plant("before-")
	w.start(`{"root":"inbox","recursive":true,"content":true}`)
	plant("after-")
	plant("sub/after-")
	os.WriteFile(filepath.Join(outside, "later"), []byte("x"), 0o600) // in a folder that a link leads to
	w.write("sub/end", "good")
	if m := w.want("created sub/end"); string(m.Data) != "good" {
		t.Errorf("content: %q", m.Data)
	}
	// A folder that becomes a link while it is watched.
	os.Mkdir(filepath.Join(w.root, "swap"), 0o700)
	w.write("swap/one", "1")
	w.old("swap/one")
	w.write("x", "")
	got := map[string]bool{}
	for range 2 {
		_, e := w.next()
		got[e] = true
	}
	if !got["created x"] || !got["created swap/one"] {
		t.Fatalf("got %v", got)
	}
	os.Rename(filepath.Join(w.root, "swap"), filepath.Join(w.root, ".gone"))
	os.Symlink(outside, filepath.Join(w.root, "swap"))
	os.WriteFile(filepath.Join(outside, "one"), []byte("evil"), 0o600)
	// The kernel still says of the folder that was moved what it says, under the name
	// that leads elsewhere now.
	if err := os.WriteFile(filepath.Join(w.root, ".gone", "one"), []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write("y", "")
	w.want("created y")
}

// watches says whether a watch of these settings begins at all.
func watches(t *testing.T, root, settings string) bool {
	t.Helper()
	k, err := folder.New(map[string]folder.Root{"inbox": {Path: root, Namespaces: []string{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := false
	err = k.Run(ctx, source.Binding{
		Ref: function.Ref{Namespace: "default", Name: "f"}, Trigger: trigger(settings), Sink: make(sink), Clock: time.Now,
		Store: &memory{values: map[string][]byte{}}, Log: slog.New(slog.DiscardHandler),
		Report: func(h source.Health) {
			if h.State == source.Running {
				began = true
				cancel()
			}
		},
	})
	return began || err == nil
}

// A path of the settings leads through folders alone: who may write there must not choose,
// by a link or a mount, what is watched.
func TestThePathLeadsThroughNoLinkAndNoMount(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "real", "in"), 0o700)
	os.Symlink("real", filepath.Join(root, "link"))
	if !watches(t, root, `{"root":"inbox","path":"real/in"}`) {
		t.Error("the folder itself is not watched")
	}
	if watches(t, root, `{"root":"inbox","path":"link/in"}`) {
		t.Error("a link is followed")
	}
	device := func(p string) uint64 {
		var st syscall.Stat_t
		if err := syscall.Stat(p, &st); err != nil {
			t.Skipf("%s: %v", p, err)
		}
		return uint64(st.Dev) //nolint:unconvert // is narrower elsewhere
	}
	if device("/dev") == device("/dev/pts") {
		t.Skip("/dev/pts is no file system of its own here")
	}
	if watches(t, "/dev", `{"root":"inbox","path":"pts"}`) {
		t.Error("another file system is watched")
	}
}

// TestWhatIsMovedInMustBeAFile moves in what is none, which the kernel tells like a file.
func TestWhatIsMovedInMustBeAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(`{"root":"inbox"}`)
	aside := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(aside, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(aside, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "link"} {
		if err := os.Rename(filepath.Join(aside, name), filepath.Join(w.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.write("end", "")
	w.want("created end")
}

func TestFiltersContentAndArchive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	os.Mkdir(filepath.Join(w.root, "done"), 0o700)
	w.start(`{"root":"inbox","include":["*.csv","*.json"],"exclude":["x*"],"types":["application/*"],"minSize":2,"maxSize":10,"content":true,"archive":"done"}`)
	for name, body := range map[string]string{"x.json": "four", "a.csv": "four", ".hidden.json": "four", "tiny.json": "1", "large.json": "more than ten", "other.txt": "four"} {
		w.write(name, body)
	}
	w.write("good.json", `{"a":1}`)
	m := w.want("created good.json")
	if string(m.Data) != `{"a":1}` || m.DataContentType != "application/json" {
		t.Errorf("%s: %s", m.DataContentType, m.Data)
	}
	w.write("next.json", "[]")
	w.want("created next.json") // so the first one was moved by now
	raw, err := os.ReadFile(filepath.Join(w.root, m.Detail["file.archived"]))
	if err != nil || string(raw) != `{"a":1}` {
		t.Errorf("in the archive: %q, %v", raw, err)
	}
	if _, err := os.Stat(filepath.Join(w.root, "good.json")); !os.IsNotExist(err) {
		t.Errorf("the file was not moved: %v", err)
	}
}

func TestSettingsAndNamespaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for settings, field := range map[string]string{
		`{}`:                                                 "root",
		`{"root":"etc"}`:                                     "root",
		`{"root":"inbox","path":"../x"}`:                     "path",
		`{"root":"inbox","path":"/etc"}`:                     "path",
		`{"root":"inbox","path":"a/../../b"}`:                "path",
		`{"root":"inbox","archive":"../x"}`:                  "archive",
		`{"root":"inbox","archive":"."}`:                     "archive",
		`{"root":"inbox","recursive":true,"archive":"done"}`: "archive",
		`{"root":"inbox","path":"in","archive":"in"}`:        "archive",
		`{"root":"inbox","include":["["]}`:                   "include",
		`{"root":"inbox","include":["a/b"]}`:                 "include",
		`{"root":"inbox","minSize":-1}`:                      "maxSize",
		`{"root":"inbox","settleNanos":-1}`:                  "settleNanos",
		`{"root":"inbox","follow":true}`:                     "follow",
		`{"root":"inbox","include":"*"}`:                     "include",
	} {
		tr := trigger(settings)
		var fe *source.FieldError
		if err := w.kind.Check(&tr); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v, want an error of %s", settings, err, field)
		}
	}
	tr := trigger(`{"root":"inbox"}`)
	err := w.kind.Run(t.Context(), source.Binding{Ref: function.Ref{Namespace: "other", Name: "f"}, Trigger: tr, Sink: w.sink, Store: w.store, Clock: time.Now, Report: func(source.Health) {}})
	if !errors.Is(err, source.ErrRefused) {
		t.Errorf("a namespace that may not: %v", err)
	}
	for name, r := range map[string]folder.Root{"Bad": {Path: "/x"}, "a": {Path: "rel"}, "b": {Path: "/"}, "c": {Path: "/x/../y"}} {
		if _, err := folder.New(map[string]folder.Root{name: r}); err == nil {
			t.Errorf("root %v was accepted", r)
		}
	}
}

// TestEveryFileOfManyComesOnce writes faster than is accepted.
func TestEveryFileOfManyComesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(`{"root":"inbox"}`)
	const n = 500
	go func() {
		for i := range n {
			os.WriteFile(filepath.Join(w.root, fmt.Sprintf("f%03d", i)), []byte("x"), 0o600)
		}
	}()
	ids := map[string]bool{}
	for range n {
		m, _ := w.next()
		if ids[m.ID] {
			t.Fatalf("%s came twice", m.Detail["file.path"])
		}
		ids[m.ID] = true
	}
}

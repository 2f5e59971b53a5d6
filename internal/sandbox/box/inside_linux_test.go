package box

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
)

// seen is what the guest says of its surroundings.
type seen struct {
	Env, FDs, Tree      []string
	PID, PPID, UID, GID int
	Groups              int
	Cwd, Host           string
	Status, Mounts      string
	Tried               map[string]string
}

func look(t *testing.T, b *Broker, s Spec) seen {
	t.Helper()
	_, out := start(t, b, s, "facts")
	var f seen
	if text := line(t, out); json.Unmarshal([]byte(text), &f) != nil {
		t.Fatalf("the guest said %s", text)
	}
	return f
}

func TestInside(t *testing.T) {
	needRoot(t)
	t.Setenv("CASEMATE_SECRET", "hunter2")
	secret, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	// A descriptor that is not closed at an exec, as a careless library leaves it.
	loose, err := syscall.Dup(int(secret.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(loose)
	b := open(t, Config{})
	code := image(t, b, ImageSpec{Files: []File{{Path: "/app/main.txt", Mode: 0o644, Content: []byte("code")}}})
	f := look(t, b, Spec{Proc: true, Tmp: 1 << 20, Code: code, Env: []string{"A=1"}, Dir: "/var/task"})

	if !slices.Equal(f.Env, []string{"A=1"}) {
		t.Errorf("environment %q", f.Env)
	}
	if f.UID != guestID || f.GID != guestID || f.Groups != 0 || f.PPID != 1 || f.Cwd != "/var/task" || f.Host != "sandbox" {
		t.Errorf("%+v", f)
	}
	for _, fd := range f.FDs {
		n, to, _ := strings.Cut(fd, " ")
		if n, _ := strconv.Atoi(n); n > 2 || (n == 0 && to != "/") {
			t.Errorf("descriptor %s", fd)
		}
	}
	want := []string{"/", "/dev", "/proc", "/tmp", "/var", "/var/task", "/var/task/app", "/var/task/app/main.txt"}
	slices.Sort(f.Tree)
	if !slices.Equal(f.Tree, want) {
		t.Errorf("files %q, want %q", f.Tree, want)
	}
	for _, l := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(f.Status, l) {
			t.Errorf("status lacks %q", l)
		}
	}
	for what, got := range f.Tried {
		if (got == "<nil>") != (what == "/tmp/x") {
			t.Errorf("%s: %s", what, got)
		}
	}
	if strings.Contains(f.Mounts, "/host") || strings.Count(f.Mounts, "\n") != 4 {
		t.Errorf("mounts:\n%s", f.Mounts)
	}
}

const guestID = 1000

func image(t testing.TB, b *Broker, s ImageSpec) *Image {
	t.Helper()
	i, err := b.NewImage(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Seal(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Release(); err != nil && !errors.Is(err, ErrEnded) {
			t.Error(err)
		}
	})
	return i
}

func TestRootImage(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	root := image(t, b, ImageSpec{
		Root:  true,
		Binds: []Bind{{From: built.guest, To: "/usr/bin/guest"}, {From: "/etc/ssl", To: "/etc/ssl"}},
		Files: []File{{Path: "/etc/passwd", Mode: 0o644, Content: []byte("guest:x:1000:1000::/tmp:/bin/false\n")}},
		Dirs:  []string{"/opt/empty"},
		Links: []Link{{Path: "/bin", Target: "usr/bin"}},
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	program, err := filter.Native()
	if err != nil {
		t.Fatal(err)
	}
	x, err := b.Start(context.Background(), Spec{
		Root: root, Program: "/bin/guest", Args: []string{"guest", "facts"}, Stdout: w, Proc: true, Tmp: 1 << 20, Filter: program,
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var f seen
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/etc/passwd", "/opt/empty", "/usr/bin/guest", "/bin"} {
		if !slices.Contains(f.Tree, p) {
			t.Errorf("%s is not there", p)
		}
	}
	if !strings.Contains(f.Status, "Seccomp:\t2") {
		t.Error("system calls are not filtered")
	}
	for _, l := range strings.Split(strings.TrimSpace(f.Mounts), "\n") {
		at, options := strings.Fields(l)[4], strings.Split(strings.Fields(l)[5], ",")
		if at != "/tmp" && !slices.Contains(options, "ro") {
			t.Errorf("%s can be written to: %s", at, l)
		}
		if !slices.Contains(options, "nosuid") || (!strings.HasPrefix(at, "/dev/") && !slices.Contains(options, "nodev")) {
			t.Errorf("%s: %s", at, l)
		}
		if (at == "/tmp" || at == "/proc") && !slices.Contains(options, "noexec") {
			t.Errorf("%s can be executed from", at)
		}
	}
	if x.Exit().Code != 0 {
		t.Error(x.Exit())
	}
}

func TestSealedImageIsSealed(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	i, err := b.NewImage(context.Background(), ImageSpec{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Release()
	dir, err := syscall.Dup(int(i.Dir().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(dir)
	if fd, err := syscall.Openat(dir, "before", syscall.O_CREAT|syscall.O_WRONLY, 0o600); err != nil {
		t.Error(err)
	} else {
		syscall.Close(fd)
	}
	if err := i.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Openat(dir, "after", syscall.O_CREAT|syscall.O_WRONLY, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing into a sealed image: %v", err)
	}
}

// A process that was started meanwhile has copies of the writer's descriptors until it
// executes its program.
func TestSealWaitsForWhoStillHasAFile(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	i, err := b.NewImage(context.Background(), ImageSpec{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Release()
	fd, err := syscall.Openat(int(i.Dir().Fd()), "late", syscall.O_CREAT|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = syscall.Close(fd) })
	if err := i.Seal(); err != nil {
		t.Error(err)
	}
}

// TestImageIsInNoPath looks for images in the mounts that the node sees.
func TestImageIsInNoPath(t *testing.T) {
	needRoot(t)
	before := mounts(t)
	b := open(t, Config{})
	image(t, b, ImageSpec{Root: true})
	if after := mounts(t); after != before {
		t.Errorf("mounts were %s and are %s", before, after)
	}
}

func mounts(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSymlinkSwap replaces what is to be bound by a symbolic link, after it was looked at.
func TestSymlinkSwap(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/runtime/lib", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/runtime/lib/a", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, swap := range []string{"/runtime/lib/a", "/runtime/lib", "/runtime"} {
		i, err := b.NewImage(context.Background(), ImageSpec{Files: []File{{Path: "/a"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+swap, dir+"/kept"); err != nil {
			t.Fatal(err)
		}
		// The link leads to the very same file: what counts is that it is one.
		if err := os.Symlink(dir+"/kept", dir+swap); err != nil {
			t.Fatal(err)
		}
		if err := i.bind(dir+"/runtime/lib/a", "a"); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("with a link at %s: %v", swap, err)
		}
		if err := errors.Join(os.Remove(dir+swap), os.Rename(dir+"/kept", dir+swap)); err != nil {
			t.Fatal(err)
		}
		if err := i.bind(dir+"/runtime/lib/a", "a"); err != nil {
			t.Errorf("without a link: %v", err)
		}
		if err := i.Release(); err != nil {
			t.Error(err)
		}
	}
	// The same for the place in the image.
	i, err := b.NewImage(context.Background(), ImageSpec{Files: []File{{Path: "/a"}}, Links: []Link{{Path: "/b", Target: "a"}, {Path: "/up", Target: "/"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"b", "up/images/0", "../images/0"} {
		if err := i.bind(dir+"/runtime/lib/a", to); err == nil {
			t.Errorf("bound to %s", to)
		}
	}
}

// TestCodeCannotRedirectMounts has links where the init mounts /tmp and /proc.
func TestCodeCannotRedirectMounts(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	root := image(t, b, ImageSpec{Dirs: []string{"/elsewhere"}, Links: []Link{{Path: "/tmp", Target: "elsewhere"}}})
	exe := guest(t)
	defer exe.Close()
	_, err := b.Start(context.Background(), Spec{Root: root, Executable: exe, Args: []string{"guest", "exit", "0"}, Tmp: 1 << 20})
	var e *Error
	if !errors.As(err, &e) || e.Step != "mounting the root" || !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link in place of /tmp: %v", err)
	}
}

func TestFailuresNameTheStep(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	api := netip.MustParseAddrPort("192.0.2.1:80")
	for step, s := range map[string]Spec{
		"executing the program":          {Program: "/nothing", Args: []string{"x"}},
		"listening inside":               {Executable: exe, Args: []string{"x"}, Listen: []netip.AddrPort{api}},
		"entering the working directory": {Executable: exe, Args: []string{"x"}, Dir: "/nothing"},
		"filtering system calls":         {Executable: exe, Args: []string{"x"}, Filter: make([]byte, 8)},
		"checking the order":             {Executable: exe},
	} {
		_, err := b.Start(context.Background(), s)
		var e *Error
		if !errors.As(err, &e) || e.Step != step {
			t.Errorf("%v, want a failure of %q", err, step)
		}
	}
}

// TestWithoutStubMain is what happens when a program plays the small one's role without
// knowing: it must not start itself for ever.
func TestWithoutStubMain(t *testing.T) {
	needRoot(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Open(context.Background(), Config{Program: exe}); !errors.Is(err, ErrEnded) {
		t.Errorf("%v, %v", b, err)
	}
}

// TestReleasedImage starts boxes on images that are being released and made anew: a box
// runs on its own image's code or not at all.
func TestReleasedImage(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for n := range 8 {
				name := fmt.Sprintf("%d-%d", w, n)
				i, err := b.NewImage(context.Background(), ImageSpec{Files: []File{{Path: "/" + name, Mode: 0o644}}})
				if err != nil {
					t.Error(err)
					return
				}
				released := make(chan error, 1)
				go func() { released <- i.Release() }()
				x, err := b.Start(context.Background(), Spec{Code: i, Executable: exe, Args: []string{"guest", "stat", "/var/task/" + name}})
				if err == nil {
					if e := x.Exit(); e.Code != 0 {
						t.Errorf("%s: %v", name, e)
					}
				} else if !errors.Is(err, syscall.ENOENT) {
					t.Error(err)
				}
				if err := <-released; err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

//go:build linux

// Package attack makes known attacks from inside a box, each by name, and checks that
// each fails and how. Each is also made where its defence is missing, on the host or in a
// box without the filter, where it has to get through: an attack that never works
// proves nothing.
package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
)

// tools are built once for all tests.
type tools struct {
	dir, stub, probe string
	why              string // they could not be built
}

var built tools

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "attack")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = tools{dir: dir, stub: filepath.Join(dir, "casemate-box"), probe: filepath.Join(dir, "probe")}
	if err := built.build(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func (b *tools) build() error {
	c := exec.Command("go", "build", "-trimpath", "-o", b.stub, "../../cmd/casemate-box")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building the small program: %v: %s", err, out)
	}
	out, err := exec.Command("cc", "-static", "-O1", "-o", b.probe, "testdata/probe.c").CombinedOutput()
	if err != nil {
		if _, missing := exec.LookPath("cc"); missing == nil {
			return fmt.Errorf("building the probe: %v: %s", err, out)
		}
		b.why = "there is no C compiler on this machine"
	}
	return nil
}

// verdict is what the probe says.
type verdict struct {
	Attack string `json:"attack"`
	Errno  string `json:"errno"` // "": it got through
	Count  int    `json:"count"`
	Text   string `json:"text"`
}

// machine is a broker with an image that holds the probe.
type machine struct {
	*box.Broker
	root, code *box.Image
}

// small are the limits of a box in these tests.
const (
	memory    = 96 << 20
	processes = 32
	scratch   = 4 << 20
	inodes    = 64
	openFiles = 64
)

// fortress opens a broker and makes the images.
func fortress(t testing.TB, c box.Config, files ...box.File) *machine {
	t.Helper()
	if built.why != "" {
		t.Skip(built.why)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it there are fewer layers, and package box tests those")
	}
	c.Program = built.stub
	b, err := box.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	program, err := os.ReadFile(built.probe)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Broker: b}
	files = append(files, box.File{Path: "/bin/probe", Mode: 0o755, Content: program},
		box.File{Path: "/etc/hosts", Mode: 0o644, Content: []byte("127.0.0.1 localhost\n")})
	if m.root, err = b.NewImage(t.Context(), box.ImageSpec{Root: true, Files: files}); err != nil {
		t.Fatal(err)
	}
	if err := m.root.Seal(); err != nil {
		t.Fatal(err)
	}
	if m.code, err = b.NewImage(t.Context(), box.ImageSpec{Files: []box.File{{Path: "/index.js", Mode: 0o644}}}); err != nil {
		t.Fatal(err)
	}
	if err := m.code.Seal(); err != nil {
		t.Fatal(err)
	}
	return m
}

// spec is how a native guest is started.
func (m *machine) spec(t testing.TB, args ...string) box.Spec {
	t.Helper()
	program, err := filter.Native()
	if err != nil {
		t.Fatal(err)
	}
	return box.Spec{
		Root: m.root, Code: m.code, Program: "/bin/" + args[0], Args: args, Env: []string{"HOME=/tmp"}, Proc: true,
		Tmp: scratch, TmpInodes: inodes, Filter: program, Memory: memory, Processes: processes, OpenFiles: openFiles,
	}
}

// running is a box and the end of its output.
type running struct {
	*box.Box
	out *os.File
}

func (m *machine) start(t testing.TB, s box.Spec) running {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdout, s.Stderr = w, w
	x, err := m.Start(t.Context(), s)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.Kill()
		<-x.Done()
		_ = r.Close()
	})
	return running{x, r}
}

// attack makes one attack in a box of its own.
func (m *machine) attack(t testing.TB, change func(*box.Spec), args ...string) verdict {
	t.Helper()
	s := m.spec(t, append([]string{"probe"}, args...)...)
	if change != nil {
		change(&s)
	}
	x := m.start(t, s)
	out, err := io.ReadAll(x.out)
	if err != nil {
		t.Fatal(err)
	}
	if e := x.Exit(); e.Code != 0 {
		t.Fatalf("%v: the probe ended with %v: %s", args, e, out)
	}
	return parse(t, out)
}

func parse(t testing.TB, out []byte) verdict {
	t.Helper()
	var v verdict
	if err := json.Unmarshal(bytes.TrimSpace(out), &v); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return v
}

// onHost makes an attack with all the privileges that there are, on copies of the
// machine's process and mount tables.
func onHost(t testing.TB, args ...string) verdict {
	t.Helper()
	c := exec.CommandContext(context.WithoutCancel(t.Context()), built.probe, args...)
	c.Env = []string{}
	c.SysProcAttr = &syscall.SysProcAttr{
		// Unshareflags make mounts private, Cloneflags would not.
		Unshareflags: syscall.CLONE_NEWNS,
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v on the host: %v", args, err)
	}
	return parse(t, out)
}

// lacks skips a test whose measure this machine does not have.
func (m *machine) lacks(t testing.TB, measure string) {
	t.Helper()
	if !m.Posture().Has(measure) {
		t.Skipf("%s: %s", measure, m.Posture().Missing[measure])
	}
}

func among(errno string, list string) bool {
	for e := range strings.FieldsSeq(list) {
		if e == errno || e == "-" && errno == "" {
			return true
		}
	}
	return false
}

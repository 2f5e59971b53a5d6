package box

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// programs are built once for all tests.
type programs struct{ stub, guest string }

var built programs

func TestMain(m *testing.M) {
	if strings.HasPrefix(os.Args[0], message.Roles) {
		_, err := Open(context.Background(), Config{})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if program := os.Getenv(helper); program != "" {
		fmt.Fprintln(os.Stderr, playNode(program))
		os.Exit(1)
	}
	if dir := os.Getenv(nobody); dir != "" {
		built = programs{stub: filepath.Join(dir, "casemate-box"), guest: filepath.Join(dir, "guest")}
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "box-test")
	if err == nil {
		built = programs{stub: filepath.Join(dir, "casemate-box"), guest: filepath.Join(dir, "guest")}
		err = build(built.stub, "../../../cmd/casemate-box")
	}
	if err == nil {
		err = build(built.guest, "./testdata/guest")
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		_ = os.Chmod(dir, 0o755)
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(out, pkg string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %v: %s", pkg, err, text)
	}
	return nil
}

func open(t testing.TB, c Config) *Broker {
	t.Helper()
	if c.Program == "" {
		c.Program = built.stub
	}
	b, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// guest puts the tests' guest into memory.
func guest(t testing.TB) *os.File {
	t.Helper()
	code, err := os.ReadFile(built.guest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Executable(code)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// start runs the guest with arguments and gives its output.
func start(t testing.TB, b *Broker, s Spec, args ...string) (*Box, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exe := guest(t)
	s.Executable, s.Stdout, s.Stderr, s.Args = exe, w, w, append([]string{"guest"}, args...)
	x, err := b.Start(context.Background(), s)
	exe.Close()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.Kill()
		<-x.Done()
		r.Close()
	})
	return x, bufio.NewReader(r)
}

func line(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	l, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("reading the guest's output: %q, %v", l, err)
	}
	return strings.TrimSuffix(l, "\n")
}

func TestHello(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	x, out := start(t, b, Spec{}, "echo", "hello")
	if got := line(t, out); got != "hello" {
		t.Errorf("the guest printed %q", got)
	}
	if e := x.Exit(); e.Code != 0 || e.Signal != 0 {
		t.Errorf("it ended with %v", e)
	}
}

func TestListenAndDial(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	api, port := netip.MustParseAddrPort("127.0.0.1:9001"), netip.MustParseAddrPort("127.0.0.1:8080")
	x, out := start(t, b, Spec{Listen: []netip.AddrPort{api}}, "net", api.String(), port.String())
	c, err := x.Listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, _ := bufio.NewReader(c).ReadString('\n'); l != "from inside\n" {
		t.Errorf("the guest sent %q", l)
	}
	if got := line(t, out); got != "listening" {
		t.Fatal(got)
	}
	d, err := x.Dial(context.Background(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fmt.Fprintln(d, "echo me")
	if l, _ := bufio.NewReader(d).ReadString('\n'); l != "echo me\n" {
		t.Errorf("the server inside answered %q", l)
	}
	if _, err := x.Dial(context.Background(), netip.MustParseAddrPort("127.0.0.1:1")); err == nil {
		t.Error("connected to a port that nobody listens on")
	}
}

func TestPosture(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	p := b.Posture()
	for _, m := range measures() {
		if why, lacking := p.Missing[m]; lacking {
			t.Errorf("%s: %s", m, why)
		} else if !p.Has(m) {
			t.Errorf("%s is neither in force nor missing", m)
		}
	}
}

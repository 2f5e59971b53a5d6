package process

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// TestMain is the test binary's second life as a sandbox.
func TestMain(m *testing.M) {
	if IsSandbox(os.Args[0]) {
		switch role {
		case "attacker":
			os.Exit(attack())
		case "bare", "advise", "copy":
			os.Exit(serveBare())
		}
		os.Exit(Main())
	}
	goleak.VerifyTestMain(closing{m}, goleak.Cleanup(func(code int) {
		removeBox()
		os.Exit(code)
	}))
}

// closing ends the broker of all tests before leaks are looked for.
type closing struct{ *testing.M }

func (c closing) Run() int {
	code := c.M.Run()
	if b, err := broker(); err == nil && b.Close() != nil {
		return 1
	}
	return code
}

// broker is that of all tests.
var broker = sync.OnceValues(func() (*box.Broker, error) {
	path, err := build("casemate-box", "../../../cmd/casemate-box")
	if err != nil {
		return nil, err
	}
	return box.Open(context.Background(), box.Config{Program: path})
})

// inBoxes has a runner start what it ships in boxes.
func inBoxes(t testing.TB) func(*Config) {
	t.Helper()
	b, err := broker()
	if err != nil {
		t.Skipf("there are no boxes on this machine: %v", err)
	}
	path, err := staticBox()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Boxes, c.Executable = b, path }
}

// unboxed has a runner start what it ships itself.
func unboxed(t testing.TB) func(*Config) {
	t.Helper()
	path, err := staticBox()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Executable = path }
}

// eachWay runs a test once for each way in which processes are started.
func eachWay(t *testing.T, test func(*testing.T, func(*Config))) {
	t.Parallel()
	t.Run("boxed", func(t *testing.T) {
		t.Parallel()
		test(t, inBoxes(t))
	})
	t.Run("unboxed", func(t *testing.T) {
		t.Parallel()
		test(t, unboxed(t))
	})
}

func newRunner(t testing.TB, artifacts Artifacts, change ...func(*Config)) *Runner {
	t.Helper()
	c := Config{
		Artifacts: artifacts, Code: &shelf{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: time.Now,
		Grace: hang, // a process that is late because the machine is busy is not stuck
	}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatalf("starting the runner: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, in := r.starter.way.(boxed); in != (c.Boxes != nil) {
		t.Fatalf("the processes are started by %T: %+v", r.starter.way, r.Posture())
	}
	return r
}

func kill(t *testing.T, r sandbox.Runner, namespace string) {
	t.Helper()
	pid, ok := r.(*Runner).Process(namespace)
	if !ok {
		t.Fatalf("no sandbox serves %s", namespace)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %d: %v", pid, err)
	}
}

// TestConformance runs the suite on sandboxes as they ship.
func TestConformance(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(*Config)) {
		sandboxtest.Run(t, sandboxtest.Harness{
			New:  func(t *testing.T, s *sandboxtest.Store) sandbox.Runner { return newRunner(t, s, way) },
			Kill: kill,
		})
	})
}

// hang is how long a test waits for what must come: only a failure reaches it.
const hang = 2 * time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Errorf("it never happened: %s", what)
}

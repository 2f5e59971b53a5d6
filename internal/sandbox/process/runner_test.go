package process

import (
	"io"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// TestMain is the test binary's second life as a sandbox.
func TestMain(m *testing.M) {
	if IsSandbox(os.Args[0]) {
		os.Exit(Main())
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeBox()
		os.Exit(code)
	}))
}

func newRunner(t testing.TB, artifacts Artifacts, change ...func(*Config)) *Runner {
	t.Helper()
	c := Config{Artifacts: artifacts, Code: &shelf{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: time.Now}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatalf("starting the runner: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
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
	t.Parallel()
	path, err := staticBox()
	if err != nil {
		t.Fatal(err)
	}
	sandboxtest.Run(t, sandboxtest.Harness{
		New: func(t *testing.T, s *sandboxtest.Store) sandbox.Runner {
			return newRunner(t, s, func(c *Config) { c.Executable = path })
		},
		Kill: kill,
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Errorf("it never happened: %s", what)
}

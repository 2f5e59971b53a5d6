package process

import (
	"context"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// freeze stops the process that serves alpha, without its consent.
func freeze(t *testing.T, r *Runner) {
	t.Helper()
	pid, ok := r.Process("alpha")
	if !ok {
		t.Fatal("no process serves alpha")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all threads stand still", func() bool {
		threads, err := os.ReadDir(proc(pid, "task"))
		for _, thread := range threads {
			if !strings.HasPrefix(fields(t, proc(pid, "task", thread.Name(), "status"))["State"], "T") {
				return false
			}
		}
		return err == nil
	})
}

// TestStuckSandboxIsKilled stops a process so that it answers nothing: the caller
// gets its own reason, its neighbours learn that the sandbox is lost, and the next
// call works.
func TestStuckSandboxIsKilled(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Grace = 200 * time.Millisecond })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	hasty := b.Version(sandboxtest.Hello(), sandboxtest.Within(300*time.Millisecond))
	v, patient := b.Version(sandboxtest.Hello()), b.Version(sandboxtest.Sleep())
	b.Want(v, "hello")
	for _, v := range []*function.Version{hasty, patient} {
		if err := r.Prepare(context.Background(), v); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.WantKind(b.Invoke(patient, ""), sandbox.Lost) })
	eventually(t, "the neighbour runs", func() bool { return r.active.Load() == 1 })
	freeze(t, r)
	b.WantKind(b.Invoke(hasty, ""), sandbox.Timeout)
	wg.Wait()
	b.Want(v, "hello")

	freeze(t, r)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	b.WantKind(b.InvokeContext(ctx, v, ""), sandbox.Canceled)
	b.Want(v, "hello")
}

// TestSandboxOverItsMemoryIsKilled lowers the bound below what any process has.
func TestSandboxOverItsMemoryIsKilled(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	build := &sandboxtest.Bench{T: t, Store: s}
	v := build.Version(sandboxtest.Sleep())
	if err := newRunner(t, s, func(c *Config) { c.Code = code }).Prepare(context.Background(), v); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, s, func(c *Config) { c.Code, c.Memory = code, 64<<20 })
	r.mostMemory = 1 << 20
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	b.WantKind(b.Invoke(v, ""), sandbox.Lost)
}

package process

import (
	"os"
	"strings"
	"syscall"
	"testing"
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

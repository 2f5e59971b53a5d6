package node

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestThreadsTakeShortTurns(t *testing.T) {
	// Not parallel: it changes the whole process.
	const want = 123 * time.Microsecond
	err := takeShortTurns(want)
	if errors.Is(err, syscall.ENOTSUP) {
		t.Skip("built with cgo, as the race detector wants, which cannot change all threads")
	}
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan uint64)
	go func() {
		runtime.LockOSThread() // never unlocked: a thread of its own, which goes with the goroutine
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Error(err)
			a = &unix.SchedAttr{}
		}
		got <- a.Runtime
	}()
	if n := <-got; n != uint64(want) && n != 0 { // 0: a kernel that has no such thing
		t.Errorf("a thread takes turns of %d ns", n)
	}
}

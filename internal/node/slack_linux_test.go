package node

import (
	"errors"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAllThreadsAllowSlack(t *testing.T) {
	// Not parallel: it changes the whole process.
	const want = 321 * time.Microsecond
	const threads = 8
	var before, after, ended sync.WaitGroup
	before.Add(threads / 2)
	after.Add(1)
	got := make([]int, threads)
	look := func(i int, ready func()) {
		ended.Go(func() {
			runtime.LockOSThread() // and a thread of its own with that
			defer runtime.UnlockOSThread()
			ready()
			after.Wait()
			got[i], _ = unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		})
	}
	for i := range threads / 2 {
		look(i, before.Done)
	}
	before.Wait()
	err := allowTimerSlack(want)
	for i := range threads / 2 {
		look(threads/2+i, func() {})
	}
	after.Done()
	ended.Wait()
	if errors.Is(err, syscall.ENOTSUP) {
		t.Skip("built with cgo, as the race detector wants, which cannot change all threads")
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i] != int(want) {
			t.Errorf("thread %d: %d ns", i, got[i])
		}
	}
}

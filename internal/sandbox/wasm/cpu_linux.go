package wasm

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadCPU is the time that the calling thread has spent on a processor. It
// means something only between runtime.LockOSThread and its undoing.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// demotion is how much the rank of a thread falls (setpriority(2)): it gets about a
// tenth of a processor that others want, and all of one that nobody wants.
const demotion = 10

// demoteThread makes the calling thread give way to others from now on. Where it is
// not allowed, nothing changes.
func demoteThread() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), demotion) }

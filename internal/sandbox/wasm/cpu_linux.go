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

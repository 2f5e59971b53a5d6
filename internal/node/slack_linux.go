package node

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// allowTimerSlack sets the timer slack of all threads there are; those to come, and
// processes that are started, inherit it (prctl(2), PR_SET_TIMERSLACK). It fails with
// syscall.ENOTSUP in a program built with cgo.
func allowTimerSlack(d time.Duration) error {
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(d), 0); e != 0 {
		return e
	}
	return nil
}

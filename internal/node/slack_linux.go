package node

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// allowTimerSlack sets the timer slack of all threads there are; those to come, and
// processes that are started, inherit it (prctl(2), PR_SET_TIMERSLACK). It fails in a
// program built with cgo, which is slower for it and nothing else.
func allowTimerSlack(d time.Duration) {
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(d), 0)
}

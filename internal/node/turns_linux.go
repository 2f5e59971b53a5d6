package node

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeShortTurns has all threads there are ask for turns of d on a processor
// (sched_setattr(2), sched_runtime of SCHED_OTHER, since Linux 6.12; older kernels take
// no notice). Threads to come, and processes that are started, inherit it. A thread
// that wakes and wants a short turn goes before one in the middle of a long one; shares
// stay equal. Policies other than the ordinary one are left as they are. It fails with
// syscall.ENOTSUP in a program built with cgo.
func takeShortTurns(d time.Duration) error {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	if a.Policy != unix.SCHED_NORMAL {
		return nil
	}
	a.Runtime = uint64(d)
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(a)), 0); e != 0 {
		return e
	}
	return nil
}

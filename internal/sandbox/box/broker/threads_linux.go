package broker

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// allThreads makes a system call in every thread. The error is a syscall.Errno.
func allThreads(trap, a1, a2 uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall(trap, a1, a2, 0); e != 0 {
		return e
	}
	return nil
}

func setNoNewPrivileges() error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

func setgroups() error { return allThreads(unix.SYS_SETGROUPS, 0, 0) }

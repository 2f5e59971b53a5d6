package filter

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Seal adds a program of this package to those that all threads of this process are
// under, for good. The process must have renounced new privileges (no_new_privs).
func Seal(program []byte) error {
	if len(program) == 0 || len(program)%8 != 0 {
		return errors.New("adding filter: that is not a program")
	}
	f := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	var pin runtime.Pinner
	pin.Pin(&program[0])
	defer pin.Unpin()
	const setModeFilter = 1
	r, _, e := syscall.Syscall(unix.SYS_SECCOMP, setModeFilter, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if e != 0 {
		return fmt.Errorf("adding filter: %v", e)
	}
	if r != 0 {
		return fmt.Errorf("adding filter: thread %d is under another one", r)
	}
	return nil
}

package inner

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
	"github.com/casemate-dev/casemate/internal/sandbox/box/spawn"
)

// child is what the forked child is to do, made ready before the fork.
type child struct {
	spawn.Plan
	moved []int // copies of descriptors, for the child
}

// startGuest forks the guest, which executes its program, and gives its process id.
func (i *initial) startGuest() (int, *message.Failure) {
	c, f := i.plan()
	if f != nil {
		return 0, f
	}
	pid, err := c.Start(unix.CLONE_VFORK, nil)
	message.Close(c.moved)
	if err != nil {
		return 0, failure("forking the guest", err)
	}
	for _, fd := range append(append([]int{i.exe}, i.files...), i.trees...) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	for _, fd := range []int{i.stdout, i.stderr} {
		if fd > 2 {
			_ = unix.Close(fd) // the node is to see their end when the guest closes them
		}
	}
	if step, why, failed := c.Failure(); failed {
		return 0, failure(step, why)
	}
	return pid, nil
}

// plan lists what the child does between the fork and its program.
func (i *initial) plan() (*child, *message.Failure) {
	c := new(child)
	// The first descriptors are the guest's; everything else closes at the exec. What is
	// still needed moves out of the way first.
	want := append([]int{0, i.stdout, i.stderr}, i.files...)
	high := len(want) + 16
	for n := range want {
		fd, err := unix.FcntlInt(uintptr(want[n]), unix.F_DUPFD_CLOEXEC, high)
		if err != nil {
			return nil, failure("arranging descriptors", err)
		}
		want[n] = fd
		c.moved = append(c.moved, fd)
	}
	var err error
	exe := i.exe
	if exe >= 0 {
		if exe, err = unix.FcntlInt(uintptr(i.exe), unix.F_DUPFD_CLOEXEC, high); err != nil {
			return nil, failure("arranging descriptors", err)
		}
		c.moved = append(c.moved, exe)
	}
	for n, fd := range want {
		c.Want("arranging descriptors", uintptr(n), unix.SYS_DUP3, uintptr(fd), uintptr(n), 0)
	}
	c.Do("closing descriptors", unix.SYS_CLOSE_RANGE, uintptr(len(want)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	c.Succeed("making a session", unix.SYS_SETSID)
	i.planUser(c)
	for _, l := range i.spec.Limits {
		limit := &unix.Rlimit{Cur: l.Value, Max: l.Value}
		c.Keep(limit)
		c.Do("limiting "+l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(limit)), 0)
	}
	if i.spec.UsualTimes {
		usual := &unix.SchedAttr{Size: unix.SizeofSchedAttr}
		c.Keep(usual)
		c.Try("taking usual turns", unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(usual)), 0)
		c.Try("having usual timers", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack)
	}
	if n := len(i.spec.Filter); n > 0 {
		prog := &unix.SockFprog{Len: uint16(n / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&i.spec.Filter[0]))}
		c.Keep(prog, i.spec.Filter)
		c.Do("filtering system calls", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(prog)))
	}
	if err := c.Exec("executing the program", exe, i.spec.Program, i.spec.Args, i.spec.Env); err != nil {
		return nil, failure("reading the order", err)
	}
	return c, nil
}

// usualSlack is how late a timer may be where nobody said otherwise, in nanoseconds
// (prctl(2), PR_SET_TIMERSLACK).
const usualSlack = 50_000

// planUser makes the child the guest's user, without any capability.
func (i *initial) planUser(c *child) {
	if !i.gate.One {
		c.Do("leaving groups", unix.SYS_SETGROUPS, 0, 0)
		c.Do("becoming the guest's group", unix.SYS_SETRESGID, guestID, guestID, guestID)
		c.Do("becoming the guest's user", unix.SYS_SETRESUID, guestID, guestID, guestID)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := new([2]unix.CapUserData)
	c.Keep(header, none)
	c.Do("clearing ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	c.Do("dropping capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(none)))
}

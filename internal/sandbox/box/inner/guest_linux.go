package inner

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// call is one system call that the forked child makes.
type call struct {
	number uintptr
	args   [6]uintptr
	step   string
	result uintptr // what it gives, besides 0, when it went well
	may    bool    // it may fail: it takes nothing from anybody's safety
}

// child is what the forked child is to do, made ready before the fork: the child is a
// copy of one thread of a Go program, in which nothing of Go's runtime works. It can
// make system calls, and nothing else.
type child struct {
	calls []call
	pipe  int
	sent  [8]byte // the number of the call that failed, and why
	keep  []any   // what calls point to
	moved []int   // copies of descriptors, for the child
}

func (c *child) add(step string, number uintptr, args ...uintptr) *call {
	one := call{number: number, step: step}
	copy(one.args[:], args)
	c.calls = append(c.calls, one)
	return &c.calls[len(c.calls)-1]
}

// startGuest forks the guest, which executes its program, and gives its process id.
func (i *initial) startGuest() (int, *message.Failure) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, failure("starting the guest", err)
	}
	c, f := i.plan(pipe[1])
	if f != nil {
		return 0, f
	}
	pid, e := fork(c)
	runtime.KeepAlive(c)
	_ = unix.Close(c.pipe)
	message.Close(c.moved)
	if e != 0 {
		return 0, failure("forking the guest", e)
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
	var said [8]byte
	n, err := unix.Read(pipe[0], said[:])
	_ = unix.Close(pipe[0])
	switch {
	case err != nil:
		return 0, failure("starting the guest", err)
	case n == len(said):
		return 0, failure(c.calls[said[0]].step, syscall.Errno(uint32(said[4])|uint32(said[5])<<8))
	case n != 0:
		return 0, failure("starting the guest", unix.EBADMSG)
	}
	return int(pid), nil
}

// plan lists what the child does between the fork and its program.
func (i *initial) plan(pipe int) (*child, *message.Failure) {
	c := &child{pipe: pipe}
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
	if c.pipe, err = unix.FcntlInt(uintptr(pipe), unix.F_DUPFD_CLOEXEC, high); err != nil {
		return nil, failure("arranging descriptors", err)
	}
	_ = unix.Close(pipe)
	exe := i.exe
	if exe >= 0 {
		if exe, err = unix.FcntlInt(uintptr(i.exe), unix.F_DUPFD_CLOEXEC, high); err != nil {
			return nil, failure("arranging descriptors", err)
		}
		c.moved = append(c.moved, exe)
	}
	for n, fd := range want {
		c.add("arranging descriptors", unix.SYS_DUP3, uintptr(fd), uintptr(n), 0).result = uintptr(n)
	}
	c.add("closing descriptors", unix.SYS_CLOSE_RANGE, uintptr(len(want)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	c.add("making a session", unix.SYS_SETSID).result = anything
	i.planUser(c)
	for _, l := range i.spec.Limits {
		limit := &unix.Rlimit{Cur: l.Value, Max: l.Value}
		c.keep = append(c.keep, limit)
		c.add("limiting "+l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(limit)), 0)
	}
	if i.spec.UsualTimes {
		usual := &unix.SchedAttr{Size: unix.SizeofSchedAttr}
		c.keep = append(c.keep, usual)
		c.add("taking usual turns", unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(usual)), 0).may = true
		c.add("having usual timers", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack).may = true
	}
	if n := len(i.spec.Filter); n > 0 {
		prog := &unix.SockFprog{Len: uint16(n / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&i.spec.Filter[0]))}
		c.keep = append(c.keep, prog, i.spec.Filter)
		c.add("filtering system calls", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(prog)))
	}
	return c, i.planExec(c, exe)
}

// usualSlack is how late a timer may be where nobody said otherwise, in nanoseconds
// (prctl(2), PR_SET_TIMERSLACK).
const usualSlack = 50_000

// anything stands for a result that does not matter.
const anything = ^uintptr(0)

// planUser makes the child the guest's user, without any capability.
func (i *initial) planUser(c *child) {
	if !i.gate.One {
		c.add("leaving groups", unix.SYS_SETGROUPS, 0, 0)
		c.add("becoming the guest's group", unix.SYS_SETRESGID, guestID, guestID, guestID)
		c.add("becoming the guest's user", unix.SYS_SETRESUID, guestID, guestID, guestID)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := new([2]unix.CapUserData)
	c.keep = append(c.keep, header, none)
	c.add("clearing ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	c.add("dropping capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(none)))
}

// planExec makes the child execute the guest's program.
func (i *initial) planExec(c *child, exe int) *message.Failure {
	program := i.spec.Program
	if exe >= 0 {
		program = ""
	}
	path, err := syscall.BytePtrFromString(program)
	if err != nil {
		return failure("reading the order", unix.EINVAL)
	}
	argv, err := syscall.SlicePtrFromStrings(i.spec.Args)
	if err != nil {
		return failure("reading the order", unix.EINVAL)
	}
	env, err := syscall.SlicePtrFromStrings(i.spec.Env)
	if err != nil {
		return failure("reading the order", unix.EINVAL)
	}
	c.keep = append(c.keep, path, argv, env)
	args := []uintptr{uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0]))}
	if exe >= 0 {
		c.add("executing the program", unix.SYS_EXECVEAT, append(append([]uintptr{uintptr(exe)}, args...), unix.AT_EMPTY_PATH)...)
	} else {
		c.add("executing the program", unix.SYS_EXECVE, args...)
	}
	return nil
}

// fork forks the process and has the child make its calls. It gives the child's process
// id. The child has one thread and a copy of the memory, so no lock of the runtime is
// ever released in it and its stack must not grow: hence nosplit, and only system calls.
//
//go:nosplit
//go:noinline
//go:norace
func fork(c *child) (uintptr, syscall.Errno) {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		return pid, e
	}
	for n := range c.calls {
		one := &c.calls[n]
		r, _, e := syscall.RawSyscall6(one.number, one.args[0], one.args[1], one.args[2], one.args[3], one.args[4], one.args[5])
		if one.may || e == 0 && (r == one.result || one.result == anything) {
			continue
		}
		c.sent[0], c.sent[4], c.sent[5] = byte(n), byte(e), byte(e>>8)
		_, _, _ = syscall.RawSyscall6(unix.SYS_WRITE, uintptr(c.pipe), uintptr(unsafe.Pointer(&c.sent)), 8, 0, 0, 0)
		break
	}
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 127, 0, 0, 0, 0, 0)
	}
}

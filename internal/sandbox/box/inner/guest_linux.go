package inner

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/machine"
)

// startGuest starts the guest, which executes its program, and gives the address of its
// process id. The guest's process shares the machine's memory until then, and the machine
// waits so long.
func (p *plan) startGuest() (pid uintptr) {
	const step = "forking the guest"
	pid = p.Numbers(0)
	theirs, ours := p.Numbers(0), p.Numbers(0) // handlers of failures
	// struct clone_args: of its eight numbers, the first are flags, the fifth is the signal.
	args := p.Numbers(unix.CLONE_VM|unix.CLONE_VFORK|unix.CLONE_CLEAR_SIGHAND, 0, 0, 0, uint64(unix.SIGCHLD), 0, 0, 0)
	fork := p.Store(p.Want(step, 0, unix.SYS_CLONE3, args, 8*8), pid)
	// The machine goes on here, the guest's process at child.
	p.Copy(step, ours, machine.Handler)
	p.Good(step, pid)
	well := p.If(step, machine.Failed, 0)
	p.Jump(step, p.report)

	child := p.Here()
	p.Branch(fork, child)
	p.Copy(step, theirs, machine.Handler)
	p.becomeGuest()
	p.Put(theirs, uint64(p.Try(step, unix.SYS_EXIT_GROUP, 127).At()))
	p.Put(ours, uint64(p.report.At()))
	p.Goto(well, p.Here())
	return pid
}

// becomeGuest is what the child does between the fork and its program.
func (p *plan) becomeGuest() {
	// The first descriptors are the guest's; everything else closes at the exec. What is
	// still needed moves out of the way first.
	const step = "arranging descriptors"
	want := []int{0, p.stdout, p.stderr}
	for n := range p.o.Files {
		want = append(want, p.files+n)
	}
	high := max(p.free, len(want))
	for n, fd := range want {
		p.Want(step, uintptr(high+n), unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, uintptr(high))
	}
	exe := high + len(want)
	if p.exe >= 0 {
		p.Want(step, uintptr(exe), unix.SYS_FCNTL, uintptr(p.exe), unix.F_DUPFD_CLOEXEC, uintptr(high))
	}
	for n := range want {
		p.Want(step, uintptr(n), unix.SYS_DUP3, uintptr(high+n), uintptr(n), 0)
	}
	p.Do("closing descriptors", unix.SYS_CLOSE_RANGE, uintptr(len(want)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	p.Succeed("making a session", unix.SYS_SETSID)
	p.becomeUser()
	for _, l := range p.o.Limits {
		limit := p.Numbers(l.Value, l.Value)
		p.Do("limiting "+l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), limit, 0)
	}
	if p.o.UsualTimes {
		usual := unix.SchedAttr{Size: unix.SizeofSchedAttr}
		p.Try("taking usual turns", unix.SYS_SCHED_SETATTR, 0, p.Bytes(bytesOf(&usual)), 0)
		p.Try("having usual timers", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack, 0, 0, 0)
	}
	args, env := p.Texts(p.o.Args), p.Texts(p.o.Env)
	path := p.Text(p.o.Program)
	if n := len(p.o.Filter); n > 0 {
		prog := p.Numbers(uint64(n/8), uint64(p.Bytes(p.o.Filter))) // struct sock_fprog
		p.Do("filtering system calls", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, prog)
	}
	const executing = "executing the program"
	if p.exe >= 0 {
		p.Do(executing, unix.SYS_EXECVEAT, uintptr(exe), p.Text(""), args, env, unix.AT_EMPTY_PATH)
	} else {
		p.Do(executing, unix.SYS_EXECVE, path, args, env)
	}
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// usualSlack is how late a timer may be where nobody said otherwise, in nanoseconds
// (prctl(2), PR_SET_TIMERSLACK).
const usualSlack = 50_000

// becomeUser makes the child the guest's user, without any capability.
func (p *plan) becomeUser() {
	if !p.o.One {
		p.Do("leaving groups", unix.SYS_SETGROUPS, 0, 0)
		p.Do("becoming the guest's group", unix.SYS_SETRESGID, guestID, guestID, guestID)
		p.Do("becoming the guest's user", unix.SYS_SETRESUID, guestID, guestID, guestID)
	}
	p.Do("clearing ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	p.capabilities("dropping capabilities", 0)
}

// capabilities sets the effective and permitted ones, among the first 32.
func (p *plan) capabilities(step string, kept uint32) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
	p.Do(step, unix.SYS_CAPSET, p.Bytes(bytesOf(&header)), p.Bytes(bytesOf(&data)))
}

// renounce gives up the init's capabilities, and any way to get one. It keeps that of
// sending signals to the guest, whose user it is not.
func (p *plan) renounce() {
	const step = "dropping the init's capabilities"
	// What a process that shared this memory did to its user the kernel may have taken for
	// this one's, too.
	p.Do(step, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	kept := uint32(1 << unix.CAP_KILL)
	if p.o.One {
		kept = 0
	}
	p.capabilities(step, kept)
}

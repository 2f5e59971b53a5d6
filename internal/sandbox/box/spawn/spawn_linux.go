package spawn

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is one system call of a Plan. The assembly knows its fields.
type Call struct {
	number uintptr
	args   [6]uintptr
	want   uintptr
	rule   uintptr
}

// What a call's result has to be: see start in assembly.
const (
	exactly  uintptr = iota // equal to want
	anything                // no error
	whatever                // errors too
)

// record says which call failed. The assembly knows its fields.
type record struct {
	call   uintptr // counted from 1; 0: none
	result uintptr
}

// Plan is what a new process does, ending with the execution of a program.
type Plan struct {
	calls  []Call
	steps  []string
	keep   []any // what calls point to
	failed *record
}

// cloneArgs is clone3's (struct clone_args, the first version of it).
type cloneArgs struct {
	flags, pidfd uint64
	_            [2]uint64 // where thread ids go
	exitSignal   uint64
	_            [3]uint64 // a stack, and storage of threads
}

// start makes a process that makes the calls, and gives its id, or an error as the
// kernel gives it. All is there for the compiler, which puts on no stack what is handed
// to assembly, nor what can be reached from it: stacks move.
func start(args *cloneArgs, size uintptr, calls *Call, count uintptr, failed *record, all *Plan) uintptr

// Keep keeps alive, and off the stack, what calls point to.
func (p *Plan) Keep(v ...any) { p.keep = append(p.keep, v...) }

func (p *Plan) add(step string, rule, want, number uintptr, args []uintptr) {
	c := Call{number: number, want: want, rule: rule}
	copy(c.args[:], args)
	p.calls, p.steps = append(p.calls, c), append(p.steps, step)
}

// Do adds a call that must give 0. Args are numbers, or addresses of what is kept.
func (p *Plan) Do(step string, number uintptr, args ...uintptr) {
	p.add(step, exactly, 0, number, args)
}

// Want adds a call that must give a certain result.
func (p *Plan) Want(step string, want, number uintptr, args ...uintptr) {
	p.add(step, exactly, want, number, args)
}

// Succeed adds a call that must not fail.
func (p *Plan) Succeed(step string, number uintptr, args ...uintptr) {
	p.add(step, anything, 0, number, args)
}

// Try adds a call that may fail: it takes nothing from anybody's safety.
func (p *Plan) Try(step string, number uintptr, args ...uintptr) {
	p.add(step, whatever, 0, number, args)
}

// Exec adds the execution of a program: of the descriptor if that is one, or else of
// the path.
func (p *Plan) Exec(step string, exe int, path string, args, env []string) error {
	if exe >= 0 {
		path = ""
	}
	file, err := syscall.BytePtrFromString(path)
	if err != nil {
		return unix.EINVAL
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return unix.EINVAL
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return unix.EINVAL
	}
	p.Keep(file, argv, envv)
	a, b, c := uintptr(unsafe.Pointer(file)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0]))
	if exe >= 0 {
		p.Do(step, unix.SYS_EXECVEAT, uintptr(exe), a, b, c, unix.AT_EMPTY_PATH)
	} else {
		p.Do(step, unix.SYS_EXECVE, a, b, c)
	}
	return nil
}

// Start makes the process, with flags for clone3 besides those that every one has. Its
// end is told by SIGCHLD. It may be called once.
//
// With unix.CLONE_VFORK it returns when the program is executed, or the process has
// ended. Without, the caller finds that out, and has the Plan and its descriptors live
// until then. If pidfd is not nil, it gets one.
func (p *Plan) Start(flags uint64, pidfd *int32) (int, error) {
	p.failed = new(record)
	// Handlers of signals are Go's. The process does not take over any.
	a := &cloneArgs{flags: flags | unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	if pidfd != nil {
		a.flags |= unix.CLONE_PIDFD
		a.pidfd = uint64(uintptr(unsafe.Pointer(pidfd)))
	}
	r := start(a, unsafe.Sizeof(*a), &p.calls[0], uintptr(len(p.calls)), p.failed, p)
	runtime.KeepAlive(p)
	runtime.KeepAlive(pidfd)
	if r > ^uintptr(4095) {
		return 0, syscall.Errno(-r)
	}
	return int(r), nil
}

// Failure gives the step that did not go well, and why: 0 when the call went well, but
// not as planned. It may be asked when the process has executed its program, or ended.
func (p *Plan) Failure() (step string, why syscall.Errno, failed bool) {
	n := p.failed.call
	if n == 0 {
		return "", 0, false
	}
	if r := p.failed.result; r > ^uintptr(4095) {
		why = syscall.Errno(-r)
	}
	return p.steps[n-1], why, true
}

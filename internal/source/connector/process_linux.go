package connector

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a connector may use at most. Events in flight fit many times.
const (
	limitData      = 1 << 30 // bytes of memory of its own
	limitFiles     = 256
	limitProcesses = 128 // and threads; only where it has a user id of its own
)

// readable is what a connector may read: names, certificates, time zones, libraries. Not
// /proc/self, which at the time of the rule is the node's.
var readable = []string{
	"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/localtime",
	"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/ld.so.cache", "/run/systemd/resolve",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/zoneinfo",
	"/dev/null", "/dev/urandom", "/dev/random", "/proc/sys/net", "/sys/kernel/mm/transparent_hugepage",
	"/lib", "/lib64", "/usr/lib", "/usr/lib64",
}

// executable are where the dynamic loader lies.
var executable = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"}

// find opens a kind's program.
func (h *Host) find(kind string) (*os.File, error) {
	for _, folder := range h.cfg.Folders {
		f, err := os.OpenFile(filepath.Join(folder, Prefix+kind), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("opening the connector: %v", err)
		}
		if err := trusted(f, folder); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return nil, fmt.Errorf("%s%s is not installed: put the program into one of the folders for connectors", Prefix, kind)
}

// trusted wants that nobody but root and we could have put a program there.
func trusted(f *os.File, folder string) error {
	dir, err := os.Stat(folder)
	if err != nil {
		return fmt.Errorf("looking at the folder for connectors: %v", err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at the connector: %v", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", filepath.Base(f.Name()))
	}
	for _, i := range []os.FileInfo{dir, info} {
		owner := int(i.Sys().(*syscall.Stat_t).Uid)
		if i.Mode()&0o022 != 0 || (owner != 0 && owner != os.Geteuid()) {
			return fmt.Errorf("%s may be written to by others than root and the node: take that right away (chmod go-w)", i.Name())
		}
	}
	return nil
}

// process is a connector that runs.
type process struct {
	in, out, err *os.File
	p            *os.Process
	done         chan struct{} // closed when it has ended and nothing of it is left
	state        *os.ProcessState
}

// start starts a kind's program. It has been told nothing yet.
func (h *Host) start(kind string) (*process, error) {
	slot, err := h.take()
	if err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	onThread(func() {
		defer h.free(slot)
		if err := h.launch(p, kind, slot); err != nil {
			started <- err
			return
		}
		started <- nil
		// The kernel kills the connector when this thread ends: not before we are done.
		p.wait()
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s%s: %w", Prefix, kind, err)
	}
	return p, nil
}

// onThread runs f on a thread that nobody else ever uses, before or after, since f limits it.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and what it may do is taken for what the node
			// may do. While we hold it the next one is another.
			other := make(chan struct{})
			onThread(func() { close(other); f() })
			<-other
			runtime.UnlockOSThread()
			return
		}
		f() // and the thread ends, because it is still locked
	}()
}

// launch renounces on the calling thread what the connector must not have, and starts it.
func (h *Host) launch(p *process, kind string, slot int) error {
	program, err := h.find(kind)
	if err != nil {
		return err
	}
	defer program.Close()
	var theirs [3]*os.File
	defer func() {
		for _, f := range theirs {
			if f != nil {
				f.Close()
			}
		}
		if p.p == nil {
			p.closeAll()
		}
	}()
	for i, pipe := range []struct{ r, w **os.File }{{&theirs[0], &p.in}, {&p.out, &theirs[1]}, {&p.err, &theirs[2]}} {
		if *pipe.r, *pipe.w, err = os.Pipe(); err != nil {
			return fmt.Errorf("making pipe %d: %v", i, err)
		}
	}
	own := os.Geteuid() == 0
	if err := h.renounce(program, own, h.first+slot); err != nil {
		return err
	}
	if p.p, err = h.spawn(program, kind, theirs[:], own); err != nil {
		return err
	}
	q := p.p
	if err := limit(q.Pid, own); err != nil {
		_ = q.Kill()
		_, _ = q.Wait()
		p.closeAll()
		return err
	}
	return nil
}

// spawn starts the program from the calling thread, under the filter if there is one.
func (h *Host) spawn(program *os.File, kind string, pipes []*os.File, own bool) (*os.Process, error) {
	f := &h.cfg.Filter
	if f.Sealed == nil {
		return execute(program, kind, pipes, own, false)
	}
	why := errors.ErrUnsupported
	if canSeal {
		var q *os.Process
		if q, why = execute(program, kind, pipes, own, true); why == nil {
			if why = seal(q.Pid, f.Sealed); why == nil {
				return q, nil
			}
			_ = q.Kill()
			_, _ = q.Wait()
		}
		// Some containers let nobody be traced. If it was something else it fails once more.
	}
	if err := restrict(f.Start); err != nil {
		return nil, err
	}
	q, err := execute(program, kind, pipes, own, false)
	if err == nil && h.cfg.Weaker != nil {
		h.cfg.Weaker(kind, why)
	}
	return q, err
}

// restrict puts a filter upon the calling thread.
func restrict(program []byte) error {
	const setModeFilter = 1
	f := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&f))); e != 0 {
		return fmt.Errorf("adding filter: %v", e)
	}
	return nil
}

// execute starts the program. If it is traced it stands before its first instruction.
func execute(program *os.File, kind string, pipes []*os.File, own, traced bool) (*os.Process, error) {
	attr := &os.ProcAttr{Dir: "/", Env: []string{}, Files: pipes, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Ptrace: traced}}
	if own {
		// In a namespace of processes of its own nothing that it starts outlives it.
		attr.Sys.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC
	}
	for {
		// By its descriptor it is the file that was looked at, wherever its folder lies.
		p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), []string{Prefix + kind}, attr)
		if err == nil || attr.Sys.Cloneflags == 0 || !errors.Is(err, syscall.EPERM) {
			return p, err
		}
		attr.Sys.Cloneflags = 0 // a container may not allow namespaces; its group is killed then
	}
}

// renounce takes from the calling thread, and so from what it starts: privileges that a
// file could give, those that would be inherited, and files. With own it gives it a user
// id of its own.
func (h *Host) renounce(program *os.File, own bool, uid int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renouncing new privileges: %v", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing capabilities: %v", err)
	}
	if own {
		if err := become(uid); err != nil {
			return err
		}
	}
	if h.cfg.Confine == nil {
		return nil
	}
	if err := h.cfg.Confine(readable, executable, program); err != nil {
		return fmt.Errorf("confining it: %v", err)
	}
	return nil
}

// become gives the calling thread alone another user. The thread, and not only what it
// starts, because it then may limit that without being privileged. It keeps its
// capabilities for the namespaces; they end when another program is executed, since that
// has none and the user is not root.
func become(uid int) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %v", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("reading capabilities: %v", err)
	}
	id := uintptr(uid)
	for _, call := range []struct {
		what          string
		trap, a, b, c uintptr
	}{
		{"leaving groups", unix.SYS_SETGROUPS, 0, 0, 0},
		{"taking a group of its own", unix.SYS_SETRESGID, id, id, id},
		{"taking a user of its own", unix.SYS_SETRESUID, id, id, id},
	} {
		// The functions of syscall would do it to all threads.
		if _, _, e := unix.RawSyscall(call.trap, call.a, call.b, call.c); e != 0 {
			return fmt.Errorf("%s: %v", call.what, e)
		}
	}
	for i := range caps {
		caps[i].Effective, caps[i].Inheritable = caps[i].Permitted, 0
	}
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return fmt.Errorf("setting capabilities: %v", err)
	}
	return nil
}

// limit bounds what a process uses. It is done before the process is told anything.
func limit(pid int, ownUser bool) error {
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: limitFiles, unix.RLIMIT_DATA: limitData, unix.RLIMIT_MEMLOCK: 0,
	}
	if ownUser {
		limits[unix.RLIMIT_NPROC] = limitProcesses
	}
	for what, most := range limits {
		if err := unix.Prlimit(pid, what, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil && err != unix.ESRCH {
			return fmt.Errorf("limiting its resource %d: %v", what, err)
		}
	}
	return nil
}

// wait waits for the end, and ends what the process may have started.
func (p *process) wait() {
	defer close(p.done)
	for {
		err := unix.Waitid(unix.P_PID, p.p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	// Nobody else has got the number yet, since it was not waited for.
	_ = unix.Kill(-p.p.Pid, unix.SIGKILL)
	if state, err := p.p.Wait(); err == nil {
		p.state = state
	}
}

// kill ends it. It may have ended.
func (p *process) kill() { _ = p.p.Kill() }

// closeAll closes our ends of the pipes.
func (p *process) closeAll() {
	for _, f := range []*os.File{p.in, p.out, p.err} {
		if f != nil {
			f.Close()
		}
	}
}

func (h *Host) take() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, taken := range h.slots {
		if !taken {
			h.slots[i] = true
			return i, nil
		}
	}
	return 0, fmt.Errorf("%d connectors run already, the most that may", len(h.slots))
}

func (h *Host) free(slot int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slots[slot] = false
}

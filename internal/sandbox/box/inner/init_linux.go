package inner

import (
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// The descriptors that the broker starts an init with; 0, 1 and 2 are /dev/null.
const (
	connection = 3 // to the node
	gate       = 4 // to the broker: closed once it has spoken
)

// guestID is the user and group inside a box.
const guestID = 1000

// initial is the init's state.
type initial struct {
	conn      *message.Conn
	gate      message.Gate
	spec      message.Spec
	trees     []int // the root's, the code's
	stdout    int
	stderr    int
	exe       int // -1: Spec.Program
	files     []int
	listeners []int
	missing   map[string]string
}

// Main is the init's program. It gives the exit code, which ends the box.
func Main() int {
	// What a thread takes upon itself (capabilities, Landlock) is inherited by the
	// process that it forks, so all steps are the main thread's.
	runtime.LockOSThread()
	unix.CloseOnExec(connection)
	unix.CloseOnExec(gate)
	i := &initial{conn: message.NewConn(connection), exe: -1, missing: map[string]string{}}
	pid, f := i.run()
	if f != nil {
		_ = i.conn.Send(&message.Told{Failure: f})
		return 1
	}
	if i.conn.Send(&message.Told{Started: true, Missing: i.missing}, i.listeners...) != nil {
		return 1
	}
	message.Close(i.listeners)
	go i.serve(pid)
	i.reap(pid)
	return 0
}

// run does the steps in their order (see the documentation of package box) and gives
// the guest's process id.
func (i *initial) run() (int, *message.Failure) {
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"waiting for the broker", i.wait},
		{"reading the order", i.read},
		{"separating control groups", func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"offering the box first when memory is short", offerFirst},
		{"bringing the loopback network up", loopback},
		{"listening inside", i.listen},
		{"naming the box", func() error { return unix.Sethostname([]byte("sandbox")) }},
		{"separating mounts", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mounting the root", i.mountRoot},
		{"swapping the root", i.swapRoot},
		{"entering the working directory", func() error { return unix.Chdir(i.dir()) }},
		{"forbidding dumps of the init", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		{"renouncing new privileges", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"emptying the bounding set", dropBounding},
		{"setting Landlock rules", i.landlock},
	} {
		if err := s.do(); err != nil {
			return 0, failure(s.name, err)
		}
	}
	pid, f := i.startGuest()
	if f != nil {
		return 0, f
	}
	if err := i.renounce(); err != nil {
		return 0, failure("dropping the init's capabilities", err)
	}
	return pid, nil
}

// wait returns when the broker has put the box into its control groups.
func (i *initial) wait() error {
	c := message.NewConn(gate)
	fds, err := c.Recv(&i.gate)
	c.Close()
	if err != nil {
		return err
	}
	if want := 1 + one(i.gate.Code); len(fds) != want {
		return unix.EBADMSG
	}
	i.trees = fds
	return nil
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// read reads the node's order, which was sent before the init was started.
func (i *initial) read() error {
	fds, err := i.conn.Recv(&i.spec)
	if err != nil {
		return err
	}
	s := &i.spec
	if len(fds) != one(s.Stdout)+one(s.Stderr)+one(s.Executable)+s.Files || len(s.Args) == 0 {
		return unix.EBADMSG
	}
	next := func(there bool, or int) int {
		if !there {
			return or
		}
		fd := fds[0]
		fds = fds[1:]
		return fd
	}
	i.stdout, i.stderr, i.exe = next(s.Stdout, 1), next(s.Stderr, 2), next(s.Executable, -1)
	i.files = fds
	return nil
}

// offerFirst makes the box the first to go when the machine is out of memory.
func offerFirst() error {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("1000"))
	_ = unix.Close(fd)
	return err
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// backlog is how many connections may wait on a listener of ours inside.
const backlog = 128

func (i *initial) listen() error {
	for _, text := range i.spec.Listen {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			return unix.EINVAL
		}
		family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port()), Addr: as4(at)})
		if at.Addr().Is6() {
			family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		i.listeners = append(i.listeners, fd)
		if err := unix.Bind(fd, addr); err != nil {
			return err
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return err
		}
	}
	return nil
}

func as4(a netip.AddrPort) [4]byte {
	if !a.Addr().Is4() {
		return [4]byte{}
	}
	return a.Addr().As4()
}

// dropBounding takes every capability from the bounding set, for what the main thread
// forks: no program that is executed can have one.
func dropBounding() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			return nil // this kernel does not know it, nor any after it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// renounce gives up the init's capabilities, in all of its threads, and any way to get
// one. It keeps that of sending signals to the guest, whose user it is not.
func (i *initial) renounce() error {
	// What a process that shared this memory did to its user the kernel may have taken for
	// this one's, too.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var kept [2]unix.CapUserData
	if !i.gate.One {
		kept[0].Effective, kept[0].Permitted = 1<<unix.CAP_KILL, 1<<unix.CAP_KILL
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&kept[0])), 0); e != 0 {
		return e
	}
	return nil
}

// reap collects what dies in the box and returns when the guest has, having told the
// node how.
func (i *initial) reap(guest int) {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if pid == guest && (s.Exited() || s.Signaled()) {
			_ = i.conn.Send(&message.Told{Exited: true, Status: uint32(s)})
			return
		}
	}
}

// serve hands out sockets and passes signals on until the node is gone, which ends the
// box.
func (i *initial) serve(guest int) {
	for {
		var ask message.Ask
		fds, err := i.conn.Recv(&ask)
		if err != nil {
			os.Exit(1) //nolint:forbidigo // the first process's end is how a box ends
		}
		message.Close(fds)
		if ask.Op == message.OpKill {
			t := &message.Told{ID: ask.ID}
			if err := unix.Kill(guest, syscall.Signal(ask.Signal)); err != nil {
				t.Failure = failure("sending a signal", err)
			}
			_ = i.conn.Send(t)
			continue
		}
		family := unix.AF_INET
		if ask.Op == message.OpSocket6 {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			_ = i.conn.Send(&message.Told{ID: ask.ID, Failure: failure("making a socket", err)})
			continue
		}
		_ = i.conn.Send(&message.Told{ID: ask.ID}, fd)
		_ = unix.Close(fd)
	}
}

// failure describes a step that did not succeed.
func failure(step string, err error) *message.Failure {
	f := &message.Failure{Step: step}
	if n, ok := err.(syscall.Errno); ok { //nolint:errorlint // system calls give it bare
		f.Errno = int(n)
	} else {
		f.Text = err.Error()
	}
	return f
}

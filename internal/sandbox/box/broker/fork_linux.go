package broker

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
	"github.com/casemate-dev/casemate/internal/sandbox/box/spawn"
)

// Descriptors of a child. An init begins with the first five: /dev/null three times, its
// connection, and the gate.
const (
	inherited = 5
	program   = 5 // until it is executed
	own       = 7 // from here on they are other children's; before it: what the broker waits for the end of
)

// fork starts an init and sets x.pid, even when something fails after there is a process.
func (b *broker) fork(x *box, conn int, gate [2]int) error {
	var ends [2]int // the child's copy of the second one closes when it executes the init
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	p, fds, err := b.plan(conn, gate[1], ends[1])
	if err != nil {
		message.Close(ends[:])
		message.Close(fds)
		return err
	}
	const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	done := make(chan struct{})
	b.forks <- func() {
		defer close(done)
		pidfd := int32(-1)
		x.pid, err = p.Start(namespaces, &pidfd)
		x.pidfd = int(pidfd)
	}
	<-done
	message.Close(fds)
	message.Close(ends[1:])
	if err == nil {
		err = b.mapUsers(x)
		if err == nil {
			_, err = unix.Write(gate[0], []byte{0}) // the child waits for it
		}
		if err != nil {
			_ = unix.PidfdSendSignal(x.pidfd, unix.SIGKILL, nil, 0)
		}
		for { // until the program is executed, or the process is gone
			if _, e := unix.Read(ends[0], make([]byte, 1)); e != unix.EINTR {
				break
			}
		}
		if _, why, failed := p.Failure(); failed && err == nil {
			err = why
		}
	}
	message.Close(ends[:1])
	return err
}

// plan lists what the child does before it executes the init. The descriptors are for
// the child, and the caller's to close.
func (b *broker) plan(conn, gate, end int) (*spawn.Plan, []int, error) {
	null, err := unix.Open("/proc/self/fd/"+strconv.Itoa(b.null), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	fds := []int{null}
	var to [own]int
	for n, fd := range []int{null, null, null, conn, gate, b.exe, end} {
		// Out of the way of where others go.
		if to[n], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, own); err != nil {
			return nil, fds, err
		}
		fds = append(fds, to[n])
	}
	p := new(spawn.Plan)
	// First, as it has copies of what is for other children, and of their ends.
	for n, fd := range to {
		flags := uintptr(0)
		if n >= inherited {
			flags = unix.O_CLOEXEC
		}
		p.Want("arranging descriptors", uintptr(n), unix.SYS_DUP3, uintptr(fd), uintptr(n), flags)
	}
	p.Do("closing descriptors", unix.SYS_CLOSE_RANGE, own, 1<<32-1, 0)
	one := make([]byte, 8)
	p.Keep(one)
	p.Want("waiting for users", 1, unix.SYS_READ, inherited-1, uintptr(unsafe.Pointer(&one[0])), uintptr(len(one)))
	p.Succeed("making a session", unix.SYS_SETSID)
	if b.root {
		p.Do("leaving groups", unix.SYS_SETGROUPS, 0, 0)
		p.Do("becoming root of the box", unix.SYS_SETRESGID, 0, 0, 0)
		p.Do("becoming root of the box", unix.SYS_SETRESUID, 0, 0, 0)
	} else {
		// The exec would take the capabilities from a user that is not root.
		keep := []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE}
		header, data := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, new([2]unix.CapUserData)
		for _, c := range keep {
			data[0].Effective |= 1 << c
		}
		data[0].Permitted, data[0].Inheritable = data[0].Effective, data[0].Effective
		p.Keep(header, data)
		p.Do("keeping capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
		for _, c := range keep {
			p.Do("keeping capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
	root := []byte("/\x00")
	p.Keep(root)
	p.Do("entering the root", unix.SYS_CHDIR, uintptr(unsafe.Pointer(&root[0])))
	return p, fds, p.Exec("executing the init", program, "", []string{message.RoleInit}, nil)
}

// mapUsers says who on the host the box's users are: its root and its guest, or, without
// privileges, the guest alone.
func (b *broker) mapUsers(x *box) error {
	dir := "/proc/" + strconv.Itoa(x.pid) + "/"
	guest := strconv.Itoa(guestID)
	ids := guest + " 0 1\n"
	if b.root {
		ids = "0 " + strconv.Itoa(x.uid) + " 1\n" + guest + " " + strconv.Itoa(x.uid+1) + " 1\n"
	} else if err := put(dir+"setgroups", "deny"); err != nil { // it is asked for before the groups are mapped
		return err
	}
	if err := put(dir+"uid_map", ids); err != nil {
		return err
	}
	return put(dir+"gid_map", ids)
}

// put writes a file in one call, as these files require.
func put(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, []byte(text))
	return err
}

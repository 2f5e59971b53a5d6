package inner

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/sandbox/box/machine"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// The descriptors that the broker starts an init with; 0, 1 and 2 are /dev/null.
const (
	connection = machine.Connection // to the node
	gate       = 4                  // to the broker, which speaks once
	received   = 5                  // the first of those beside the order
)

// guestID is the user and group inside a box.
const guestID = 1000

// Limit is a resource limit, hard and soft.
type Limit struct {
	Name     string
	Resource int
	Value    uint64
}

// Order is what an init is to do.
type Order struct {
	Program    string
	Args, Env  []string
	Dir        string
	Listen     []netip.AddrPort
	Proc       bool
	UsualTimes bool
	Tmp        int64 // bytes; 0: none
	TmpInodes  int
	Filter     []byte
	Limits     []Limit

	// Descriptors that are sent with it, in this order; Files of the last kind.
	Stdout, Stderr, Executable bool
	Files                      int

	Code bool // the broker sends a tree of code after that of the root
	One  bool // one user id is mapped: the init has the guest's
	// Capabilities is how many the kernel knows.
	Capabilities int
	// Landlock are the rules for what the root has; nil: none. The one without a path is
	// about the executable.
	Landlock *landlock.Prepared
}

// List is what the init is told, and what its calls are for.
type List struct {
	Packet []byte
	Steps  Steps
}

// Steps name the steps that the calls of a list are part of.
type Steps = machine.Steps

// plan is the making of a list. Descriptors are known beforehand: the kernel gives the
// lowest one that is free, and the list holds it to that.
type plan struct {
	*machine.Program
	o    *Order
	free int // the lowest descriptor that is free

	stdout, stderr, exe, files int // descriptors; exe: -1 for none
	root, code                 int
	listeners                  []int
	report                     machine.Place // where failures are told
	frame                      uintptr       // what is said to the node
}

// Room for a usual list.
const (
	usualCalls = 320
	usualData  = 6 << 10
)

// Make makes the list of an order, whose texts must have no zero bytes. It fails with
// unix.E2BIG when it is larger than an init takes.
func Make(o *Order) (*List, error) {
	p := &plan{Program: machine.New(usualCalls, usualData+len(o.Filter)), o: o}
	p.descriptors()
	p.tellFailures()
	p.awaitBroker()
	p.surroundings()
	p.network()
	p.mountRoot()
	p.swapRoot()
	p.renounceAhead()
	p.restrict()
	guest := p.startGuest()
	p.renounce()
	p.letGo()
	p.expectEnds()
	p.tellStarted()
	p.serve(guest)
	packet, err := p.Packet()
	if err != nil {
		return nil, err
	}
	return &List{packet, p.Steps()}, nil
}

// descriptors numbers what comes with the order.
func (p *plan) descriptors() {
	p.free = received
	next := func(there bool, or int) int {
		if !there {
			return or
		}
		p.free++
		return p.free - 1
	}
	p.stdout, p.stderr, p.exe = next(p.o.Stdout, 1), next(p.o.Stderr, 2), next(p.o.Executable, -1)
	p.files = p.free
	p.free += p.o.Files
}

// opens adds a call that gives a descriptor.
func (p *plan) opens(step string, number uintptr, args ...uintptr) int {
	fd := p.free
	p.free++
	p.Want(step, uintptr(fd), number, args...)
	return fd
}

// closes adds the closing of what was opened last.
func (p *plan) closes(step string, fd int) {
	p.free--
	p.Do(step, unix.SYS_CLOSE, uintptr(fd))
}

// at is a descriptor that stands for the working directory.
func at(fd int) uintptr { return uintptr(fd) }

// awaitBroker waits until the broker has put the box into its control groups.
func (p *plan) awaitBroker() {
	const step = "waiting for the broker"
	trees := 1
	if p.o.Code {
		trees++
	}
	// One descriptor more than there should be has a place, and is noticed.
	control := p.Bytes(make([]byte, unix.CmsgSpace(4*(trees+1))))
	heard := p.Numbers(0)
	packet := p.Numbers(0, 0, uint64(p.Numbers(uint64(heard), 1)), 1, uint64(control), uint64(unix.CmsgSpace(4*(trees+1))), 0)
	p.Want(step, 1, unix.SYS_RECVMSG, gate, packet, unix.MSG_CMSG_CLOEXEC)
	p.Check(step, heard, message.GateByte)
	p.Check(step, control, uintptr(unix.CmsgLen(4*trees)))
	p.root = p.free
	p.code = p.root + 1
	p.free += trees
}

// surroundings are those of the process.
func (p *plan) surroundings() {
	p.Do("separating control groups", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	const step = "offering the box first when memory is short"
	fd := p.opens(step, unix.SYS_OPENAT, at(unix.AT_FDCWD), p.Text("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC)
	const first = "1000"
	p.Want(step, uintptr(len(first)), unix.SYS_WRITE, uintptr(fd), p.Text(first), uintptr(len(first)))
	p.closes(step, fd)
	const name = "sandbox"
	p.Do("naming the box", unix.SYS_SETHOSTNAME, p.Text(name), uintptr(len(name)))
}

// backlog is how many connections may wait on a listener of ours inside.
const backlog = 128

// network brings the loopback network up and listens.
func (p *plan) network() {
	const step = "bringing the loopback network up"
	fd := p.opens(step, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	up := make([]byte, 40) // struct ifreq
	copy(up, "lo")
	binary.NativeEndian.PutUint16(up[unix.IFNAMSIZ:], unix.IFF_UP)
	p.Do(step, unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, p.Bytes(up))
	p.closes(step, fd)
	for _, to := range p.o.Listen {
		const step = "listening inside"
		family, addr := uintptr(unix.AF_INET), address(to)
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		fd := p.opens(step, unix.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		p.listeners = append(p.listeners, fd)
		p.Do(step, unix.SYS_BIND, uintptr(fd), p.Bytes(addr), uintptr(len(addr)))
		p.Do(step, unix.SYS_LISTEN, uintptr(fd), backlog)
	}
}

// address is an address as the kernel takes it: struct sockaddr_in or sockaddr_in6.
func address(a netip.AddrPort) []byte {
	if a.Addr().Is6() {
		out := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
		out = append(binary.BigEndian.AppendUint16(out, a.Port()), 0, 0, 0, 0)
		ip := a.Addr().As16()
		return append(append(out, ip[:]...), 0, 0, 0, 0)
	}
	out := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	out = binary.BigEndian.AppendUint16(out, a.Port())
	var ip [4]byte
	if a.Addr().Is4() {
		ip = a.Addr().As4()
	}
	return append(append(out, ip[:]...), make([]byte, 8)...)
}

// newDir is where the root is put together; the broker made it.
const newDir = "/new"

// mounting is the step of all that mountRoot does.
const mounting = "mounting the root"

// mountRoot puts the box's tree together. Nothing in it is reached by a path that could
// lead elsewhere: each place is opened below the root, without symbolic links.
func (p *plan) mountRoot() {
	const step = mounting
	p.Do("separating mounts", unix.SYS_MOUNT, 0, p.Text("/"), 0, unix.MS_REC|unix.MS_PRIVATE)
	empty, dir := p.Text(""), p.Text(newDir)
	p.Do(step, unix.SYS_MOVE_MOUNT, uintptr(p.root), empty, at(unix.AT_FDCWD), dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	root := p.opens(step, unix.SYS_OPENAT, at(unix.AT_FDCWD), dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if p.o.Code {
		p.put(p.code, root, "var/task")
	}
	if p.o.Tmp > 0 {
		const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		p.mount("tmpfs", root, "tmp", attrs,
			"size", strconv.FormatInt(p.o.Tmp, 10), "nr_inodes", strconv.Itoa(p.o.TmpInodes), "mode", "1777")
	}
	if p.o.Proc {
		const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY
		p.mount("proc", root, "proc", attrs, "subset", "pid", "hidepid", "invisible")
	}
	p.closes(step, root)
}

// mount mounts a new file system of the kernel's.
func (p *plan) mount(kind string, root int, to string, attrs uintptr, options ...string) {
	fs := p.opens(mounting, unix.SYS_FSOPEN, p.Text(kind), unix.FSOPEN_CLOEXEC)
	for i := 0; i < len(options); i += 2 {
		p.Do(mounting, unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_SET_STRING, p.Text(options[i]), p.Text(options[i+1]), 0)
	}
	p.Do(mounting, unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	tree := p.opens(mounting, unix.SYS_FSMOUNT, uintptr(fs), unix.FSMOUNT_CLOEXEC, attrs)
	p.put(tree, root, to)
	p.closes(mounting, tree)
	p.closes(mounting, fs)
}

// put attaches a tree to a directory below root.
func (p *plan) put(tree, root int, to string) {
	how := p.Numbers(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS) // struct open_how
	fd := p.opens(mounting, unix.SYS_OPENAT2, uintptr(root), p.Text(to), how, unsafe.Sizeof(unix.OpenHow{}))
	empty := p.Text("")
	p.Do(mounting, unix.SYS_MOVE_MOUNT, uintptr(tree), empty, uintptr(fd), empty, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	p.closes(mounting, fd)
}

// swapRoot makes the tree the root and lets go of everything else.
func (p *plan) swapRoot() {
	const step = "swapping the root"
	here := p.Text(".")
	p.Do(step, unix.SYS_CHDIR, p.Text(newDir))
	p.Do(step, unix.SYS_PIVOT_ROOT, here, here)
	p.Do(step, unix.SYS_UMOUNT2, here, unix.MNT_DETACH)
	dir := p.o.Dir
	if dir == "" {
		dir = "/"
	}
	p.Do("entering the working directory", unix.SYS_CHDIR, p.Text(dir))
}

// renounceAhead has nothing that is executed from now on gain anything.
func (p *plan) renounceAhead() {
	p.Do("forbidding dumps of the init", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.Do("renouncing new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	for c := range p.o.Capabilities {
		p.Do("emptying the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
	}
}

// restrict sets the Landlock rules.
func (p *plan) restrict() {
	const step = "setting Landlock rules"
	l := p.o.Landlock
	if l == nil {
		return
	}
	set := p.opens(step, unix.SYS_LANDLOCK_CREATE_RULESET, p.Bytes(l.Attributes), uintptr(len(l.Attributes)), 0)
	attr := p.free // what a rule is about
	for _, r := range l.Paths {
		if r.Path == "" {
			p.allowProgram(step, set, r.Allowed)
			continue
		}
		p.opens(step, unix.SYS_OPENAT, at(unix.AT_FDCWD), p.Text(r.Path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		p.Do(step, unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH, p.beneath(attr, r.Allowed), 0)
		p.closes(step, attr)
	}
	p.Do(step, unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(set), 0)
	p.closes(step, set)
}

// allowProgram adds a rule for the executable, which is not below the root: the kernel
// reads what it executes. A file in memory has no path, so no rule is about it: the
// kernel refuses one, and lets the file be used without.
func (p *plan) allowProgram(step string, set int, allowed uint64) {
	const inMemory = ^uintptr(unix.EBADFD - 1) // the error
	result := p.Numbers(0)
	p.Store(p.Try(step, unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH, p.beneath(p.exe, allowed), 0), result)
	over := p.If(step, result, inMemory)
	p.Check(step, result, 0)
	p.Goto(over, p.Here())
}

// beneath is struct landlock_path_beneath_attr.
func (p *plan) beneath(fd int, allowed uint64) uintptr {
	b := binary.NativeEndian.AppendUint64(nil, allowed)
	return p.Bytes(binary.NativeEndian.AppendUint32(b, uint32(fd)))
}

package landlock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what a rule allows below a path.
type Access uint8

// Kinds of access.
const (
	List    Access = 1 << iota // read directories
	Read                       // read files and directories
	Execute                    // execute files
	Write                      // write, make, rename and remove files; no device files
)

// Rule allows access to a file, or to a directory and all below it.
type Rule struct {
	Path     string
	File     int // a descriptor of it, when Path is empty: what lies outside of the root, too
	Access   Access
	Optional bool // it need not exist
	Plain    bool // it is no directory: for Prepare, which cannot look
}

// Rules are what is allowed.
type Rules struct {
	Paths []Rule
	// Bind and Connect are TCP ports.
	Bind, Connect []uint16
	// AnyTCP leaves TCP alone.
	AnyTCP bool
}

// Error is a step that did not succeed.
type Error struct {
	Step  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap gives the kernel's error.
func (e *Error) Unwrap() error { return e.Errno }

// First ABI in which the kernel knows something: Documentation/userspace-api/landlock.rst.
const (
	abiRefer    = 2 // renaming across directories is not refused altogether
	abiTruncate = 3
	abiTCP      = 4
	abiIoctl    = 5 // of devices
	abiScopes   = 6 // signals and abstract sockets
)

// rulePort is LANDLOCK_RULE_NET_PORT, and portAttr its struct landlock_net_port_attr:
// linux/landlock.h.
const rulePort = 2

type portAttr struct{ access, port uint64 }

const (
	accessFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	accessWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	accessFirst = 1<<13 - 1 // all that the first ABI knows
)

// ABI gives the version of Landlock that the kernel has. Without Landlock the error is
// unix.ENOSYS, and unix.EOPNOTSUPP when it was disabled at boot.
func ABI() (int, error) {
	v, _, e := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0, &Error{"asking for Landlock", e}
	}
	return int(v), nil
}

// Missing says what a kernel with this ABI does not enforce of what Rules say, nothing
// when that is all.
func Missing(abi int) string {
	switch {
	case abi < 1:
		return "this kernel has no Landlock"
	case abi < abiTruncate:
		return "this kernel's Landlock limits neither truncating, nor TCP, nor devices, nor signals"
	case abi < abiTCP:
		return "this kernel's Landlock limits neither TCP, nor devices, nor signals"
	case abi < abiIoctl:
		return "this kernel's Landlock limits neither devices nor signals"
	case abi < abiScopes:
		return "this kernel's Landlock does not limit signals"
	}
	return ""
}

// Prepared are rules as the kernel takes them, for who has to make the calls himself:
// struct landlock_ruleset_attr, and of each path what struct landlock_path_beneath_attr
// has, besides a descriptor of the path.
type Prepared struct {
	Attributes []byte
	Paths      []PreparedRule
}

// PreparedRule is one of Prepared.
type PreparedRule struct {
	Path    string // or, when it is empty,
	File    int    // a descriptor
	Allowed uint64
}

// Prepare gives the rules for a kernel of an ABI. Ports are not among them: they must not
// be limited.
func (r Rules) Prepare(abi int) (Prepared, error) {
	if !r.AnyTCP {
		return Prepared{}, &Error{"preparing rules about ports", unix.EINVAL}
	}
	attr, size := attributes(r, abi)
	p := Prepared{Attributes: append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&attr)), size)...)}
	for _, one := range r.Paths {
		allowed := one.Access.bits() & attr.Handled_access_fs
		if one.Plain {
			allowed &= accessFile
		}
		p.Paths = append(p.Paths, PreparedRule{one.Path, one.File, allowed})
	}
	return p, nil
}

// Restrict enforces the rules on the calling thread, for good. The thread must have
// renounced new privileges (no_new_privs).
func Restrict(r Rules) error {
	abi, err := ABI()
	if err != nil {
		return err
	}
	return restrict(r, abi)
}

// restrict enforces as much as one ABI knows.
func restrict(r Rules, abi int) error {
	attr, size := attributes(r, abi)
	fd, _, e := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return &Error{"making a rule set", e}
	}
	set := int(fd)
	defer unix.Close(set)
	for _, p := range r.Paths {
		if err := addPath(set, p, attr.Handled_access_fs); err != nil {
			return err
		}
	}
	if attr.Handled_access_net != 0 {
		if err := addPorts(set, r.Bind, unix.LANDLOCK_ACCESS_NET_BIND_TCP); err != nil {
			return err
		}
		if err := addPorts(set, r.Connect, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP); err != nil {
			return err
		}
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(set), 0, 0); e != 0 {
		return &Error{"enforcing the rules", e}
	}
	return nil
}

// attributes says what is forbidden unless a rule allows it. A kernel takes as much of
// the structure as it knows.
func attributes(r Rules, abi int) (unix.LandlockRulesetAttr, uintptr) {
	a := unix.LandlockRulesetAttr{Handled_access_fs: accessFirst}
	size := unsafe.Sizeof(a.Handled_access_fs)
	if abi >= abiRefer {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= abiTruncate {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiIoctl {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= abiTCP {
		size = unsafe.Offsetof(a.Handled_access_net) + unsafe.Sizeof(a.Handled_access_net)
		if !r.AnyTCP {
			a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= abiScopes {
		size = unsafe.Offsetof(a.Scoped) + unsafe.Sizeof(a.Scoped)
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a, size
}

func (a Access) bits() uint64 {
	var b uint64
	if a&List != 0 {
		b |= unix.LANDLOCK_ACCESS_FS_READ_DIR
	}
	if a&Read != 0 {
		b |= unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_READ_FILE
	}
	if a&Execute != 0 {
		b |= unix.LANDLOCK_ACCESS_FS_EXECUTE
	}
	if a&Write != 0 {
		b |= accessWrite
	}
	return b
}

func addPath(set int, r Rule, known uint64) error {
	if r.Path == "" {
		return addFile(set, r, known)
	}
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && r.Optional {
		return nil
	}
	if err != nil {
		return failed("opening "+r.Path, err)
	}
	defer unix.Close(fd)
	return addOpened(set, fd, r, known)
}

// addFile allows access to what a descriptor names. A file in memory has no path, so no
// rule is about it: the kernel refuses one, and lets the file be used without.
func addFile(set int, r Rule, known uint64) error {
	err := addOpened(set, r.File, r, known)
	if e, ok := err.(*Error); ok && e.Errno == unix.EBADFD { //nolint:errorlint // it is given bare
		return nil
	}
	return err
}

func addOpened(set, fd int, r Rule, known uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed("examining "+r.Path, err)
	}
	allowed := r.Access.bits() & known
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		allowed &= accessFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: allowed, Parent_fd: int32(fd)}
	_, _, e := syscall.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return &Error{"allowing " + r.Path, e}
	}
	return nil
}

func addPorts(set int, ports []uint16, access uint64) error {
	for _, p := range ports {
		attr := portAttr{access, uint64(p)}
		_, _, e := syscall.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), rulePort,
			uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
		if e != 0 {
			return &Error{"allowing a port", e}
		}
	}
	return nil
}

func failed(step string, err error) error {
	if e, ok := err.(syscall.Errno); ok { //nolint:errorlint // a plain number
		return &Error{step, e}
	}
	return &Error{step, unix.EINVAL}
}

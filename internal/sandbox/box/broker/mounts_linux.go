package broker

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// Where things are in the broker's view of the mounts.
const (
	hostDir   = "/host"
	imagesDir = "/images"
	newDir    = "/new" // the init puts its root here
)

// initialUserNamespace reports whether all of the host's users exist here.
func initialUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && len(strings.Fields(string(b))) == 3 && strings.Fields(string(b))[2] == "4294967295"
}

// ownMounts moves the host's tree to /host below a root of the broker's own. The node
// gave the broker a copy of its mounts; the host's unmounts still reach it, so that it
// does not keep a disk busy, and nothing goes the other way.
func (b *broker) ownMounts() *message.Failure {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return failure("separating mounts", err)
	}
	const at = "/proc" // any directory that is there on every machine
	if err := unix.Mount("casemate", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,nr_inodes=64,mode=0755"); err != nil {
		return failure("mounting the broker's root", err)
	}
	if err := unix.Mount("", at, "", unix.MS_PRIVATE, ""); err != nil {
		return failure("separating the broker's root", err)
	}
	for _, d := range []string{hostDir, imagesDir, newDir, "/proc"} {
		if err := unix.Mkdir(at+d, 0o755); err != nil {
			return failure("making the broker's directories", err)
		}
	}
	if err := unix.Chdir(at); err != nil {
		return failure("entering the broker's root", err)
	}
	if err := unix.PivotRoot(".", "."+hostDir); err != nil {
		return failure("swapping the broker's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return failure("entering the broker's root", err)
	}
	// Of the broker's own pid namespace, since it names its children by the ids it knows.
	// Besides, a box may mount its own /proc only where another can be seen in full.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return failure("mounting the broker's /proc", err)
	}
	fd, err := unix.Open(hostDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failure("opening the host's tree", err)
	}
	b.host = fd
	// Boxes get it opened, and nothing of the host's tree should hang on it.
	if b.null, err = unix.OpenTree(fd, "dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
		return failure("finding /dev/null", err)
	}
	return b.emptyImage()
}

// forkView leaves the calling thread with mounts of its own: an empty root and /proc.
// Every box starts from a copy of them, so there must be few.
func forkView() *message.Failure {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return failure("separating the starting thread", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return failure("separating the starting thread's mounts", err)
	}
	images, err := os.ReadDir(imagesDir)
	if err != nil {
		return failure("listing images", err)
	}
	for _, i := range images {
		if err := unix.Unmount(imagesDir+"/"+i.Name(), unix.MNT_DETACH); err != nil {
			return failure("leaving the images", err)
		}
	}
	if err := unix.Unmount(hostDir, unix.MNT_DETACH); err != nil {
		return failure("leaving the host's tree", err)
	}
	return nil
}

// keptCapabilities are those that the broker needs after its own set-up, as root: mounts
// and namespaces, the maps of user ids, and signals to other users' processes.
const keptCapabilities = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL

// dropPrivileges gives up, in all threads, what the broker does not need. In a user
// namespace of its own it keeps them: they mean nothing outside, and the map of the one
// user id needs more of them.
func (b *broker) dropPrivileges() *message.Failure {
	if err := setNoNewPrivileges(); err != nil {
		return failure("renouncing new privileges", err)
	}
	if !b.root {
		return nil
	}
	if err := setgroups(); err != nil {
		return failure("leaving groups", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keptCapabilities, Permitted: keptCapabilities}}
	if err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return failure("dropping capabilities", err)
	}
	return nil
}

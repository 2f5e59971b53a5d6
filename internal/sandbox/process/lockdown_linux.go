package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// The lockdown of a sandbox process. One that was started in a box (boxed.go) has
// everything around it before its first instruction, and control groups, Landlock and a
// filter of system calls besides. It opens the map of its own pages, forbids dumps of
// itself, and takes step 6.
//
// One that the node started itself is in fresh namespaces (spawn_linux.go); the rest it
// does itself, in this order, before it reads the first byte from its connection:
//
//  1. close what it was started with, besides the five descriptors it keeps, and open
//     the one file that it will need: the map of its own pages
//  2. offer itself first when memory is short, and forbid dumps
//  3. swap the root for an empty one that cannot be written
//  4. limit what the kernel gives it
//  5. give up privileges for good: no_new_privs, bounding set, all capabilities
//
//  6. seal itself: a filter of system calls, for all threads, that leaves what it takes to
//     compute and to talk over the descriptors that are there

// executable is the descriptor through which the node starts a sandbox.
const executable = 5

// lockDown locks the process in. It gives the map of its own pages, nil when that
// cannot be had. An error means that a step failed which this
// machine was expected to allow: the process must not go on.
func lockDown(p plan) (wire.Hello, *os.File, error) {
	if p.boxed {
		return lockDownInBox()
	}
	h := wire.Hello{Missing: map[string]string{}}
	if err := closeDescriptors(); err != nil {
		return h, nil, err
	}
	h.Enforced = append(h.Enforced, measureDescriptors)
	pagemap := openPagemap()
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		h.Missing[measureOOM] = err.Error()
	} else {
		h.Enforced = append(h.Enforced, measureOOM)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return h, nil, fmt.Errorf("forbidding dumps: %v", err)
	}
	h.Enforced = append(h.Enforced, measureDump)
	if p.isolated {
		if err := emptyRoot(); err != nil {
			return h, nil, err
		}
		if err := unix.Sethostname([]byte("sandbox")); err != nil {
			return h, nil, fmt.Errorf("setting host name: %v", err)
		}
		h.Enforced = append(h.Enforced, measureUser, measureMounts, measurePID, measureNetwork,
			measureIPC, measureUTS, measureCgroupNS)
	}
	if p.ownUID {
		h.Enforced = append(h.Enforced, measureUID)
	}
	if err := limit(p); err != nil {
		return h, nil, err
	}
	h.Enforced = append(h.Enforced, measureRlimits)
	if err := dropPrivileges(); errors.Is(err, syscall.ENOTSUP) {
		h.Missing[measureCapabilities] = "the program was built with cgo, which cannot change all its threads"
		h.Missing[measurePrivileges] = h.Missing[measureCapabilities]
	} else if err != nil {
		return h, nil, err
	} else {
		h.Enforced = append(h.Enforced, measureCapabilities, measurePrivileges)
	}
	if err := seal(); err != nil {
		h.Missing[measureSyscalls], h.Missing[measureSealed] = err.Error(), err.Error()
	} else {
		h.Enforced = append(h.Enforced, measureSyscalls, measureSealed)
	}
	return h, pagemap, nil
}

// lockDownInBox does what is left to do in a box.
func lockDownInBox() (wire.Hello, *os.File, error) {
	pagemap := openPagemap()
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return wire.Hello{}, nil, fmt.Errorf("forbidding dumps: %v", err)
	}
	if err := seal(); err != nil {
		return wire.Hello{}, nil, err
	}
	return wire.Hello{Enforced: []string{measureDump, measureSealed}}, pagemap, nil
}

// openPagemap opens the map of the process's own pages. Without it restoring memory is
// slower, and no less safe: Hello.Restore tells.
func openPagemap() *os.File {
	f, err := memory.OpenPagemap()
	if err != nil {
		return nil
	}
	return f
}

// seal leaves this process, all its threads, those system calls alone that it takes to
// serve.
func seal() error {
	program, err := filter.WasmSealed()
	if err != nil {
		return err
	}
	// In a program built with cgo, this thread alone can have renounced them. The filter
	// takes it to the others, as it takes itself.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renouncing new privileges: %v", err)
	}
	return filter.Seal(program)
}

// closeDescriptors closes all but the standard ones, the connection, and those
// that Go's runtime has for waiting.
func closeDescriptors() error {
	unix.CloseOnExec(connection)
	unix.CloseOnExec(placedCode)
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("listing descriptors: %v", err)
	}
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd <= placedCode {
			continue
		}
		to, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") {
			continue // it was the listing's own, or is the runtime's
		}
		_ = unix.Close(fd)
	}
	return nil
}

// emptyRoot makes an empty file system, that nobody can write to, the root, and
// lets go of the machine's.
func emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating mounts: %v", err)
	}
	const at = "/proc" // any directory that is there on every machine
	err := unix.Mount("none", at, "tmpfs",
		unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=2,mode=0555")
	if err != nil {
		return fmt.Errorf("mounting the empty root: %v", err)
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("entering the empty root: %v", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("swapping the root: %v", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the old root: %v", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the new root: %v", err)
	}
	return nil
}

// limit sets resource limits, which nothing can raise again.
func limit(p plan) error {
	type bound struct {
		name     string
		resource int
		value    uint64
	}
	bounds := []bound{
		// One byte, not none: the kernel hands a dump to a program that the host has set even
		// when the limit is 0, but not when it is 1 (fs/coredump.c).
		{"core", unix.RLIMIT_CORE, 1},
		// The images of guests' memory are files without a name (memfd_create).
		{"file size", unix.RLIMIT_FSIZE, uint64(min(p.memory, maxFileSize))},
		{"open files", unix.RLIMIT_NOFILE, maxFiles},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
	}
	if p.ownUID {
		// The kernel counts by user, so this is for a user of its own only.
		bounds = append(bounds, bound{"processes", unix.RLIMIT_NPROC, maxProcesses})
	}
	for _, b := range bounds {
		if err := unix.Setrlimit(b.resource, &unix.Rlimit{Cur: b.value, Max: b.value}); err != nil {
			return fmt.Errorf("limiting %s: %v", b.name, err)
		}
	}
	return nil
}

// dropPrivileges gives up, in all threads, whatever privilege the process has and
// any way to get one. It fails with syscall.ENOTSUP in a program built with cgo.
func dropPrivileges() error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		if e == syscall.ENOTSUP {
			return e
		}
		return fmt.Errorf("renouncing new privileges: %v", e)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil || v == 0 {
			continue // this kernel does not know it, or it is gone
		}
		_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		if e == syscall.EPERM {
			break // without privileges there are none to take from the bounding set
		}
		if e != 0 {
			return fmt.Errorf("dropping capability %d: %v", c, e)
		}
	}
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("clearing ambient capabilities: %v", e)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, e = syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if e != 0 {
		return fmt.Errorf("dropping capabilities: %v", e)
	}
	return nil
}

// codeOfNode gives the inherited file for compiled code.
func codeOfNode() *os.File { return os.NewFile(placedCode, "code") }

// nodeConnection makes the inherited socket usable. It blocks the thread that reads it:
// whoever reads runs the guests too, keeps its thread for that, and would only be woken
// by way of another thread that waits for descriptors.
func nodeConnection() (*os.File, error) {
	if err := unix.SetNonblock(connection, false); err != nil {
		return nil, fmt.Errorf("opening the connection: %v", err)
	}
	return os.NewFile(connection, "node"), nil
}

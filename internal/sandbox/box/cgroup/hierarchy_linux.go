package cgroup

import (
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What a hierarchy can do for a group, as [Hierarchy.Missing] names it.
const (
	Memory    = "memory"
	Processes = "processes"
	CPU       = "cpu"
	Usage     = "cpu usage"
	Freezing  = "freezing"
	Killing   = "killing"
)

// DefaultRoot is where systems mount control groups.
const DefaultRoot = "/sys/fs/cgroup"

// Options say where a program's groups go.
type Options struct {
	// Name is of the directory that the groups of all programs of this kind are below.
	Name string
	// Self is the file that tells which groups this program is in; "" is
	// /proc/self/cgroup.
	Self string
	// Movable are the processes that may be moved to a group beside the others, this one
	// and its parent when there are none. Version 2 gives controllers only to groups
	// whose parent has no processes. Other processes are left alone, and then there are
	// no limits.
	Movable []int

	tree  tree // the kernel's, but in tests
	alone bool // of version 1, what version 2 does better too: in tests
}

// controller is one part of what limits and measures a group. Under version 1 each may
// have a directory of its own.
type controller int

const (
	memory controller = iota
	pids
	cpu
	cpuacct
	freezer
	unified // version 2's own: killing, freezing, and what time was used
	controllers
)

func (c controller) String() string {
	return [...]string{"memory", "pids", "cpu", "cpuacct", "freezer", "unified"}[c]
}

// Hierarchy is where this program's groups are.
type Hierarchy struct {
	version int
	dirs    [controllers]string // "": not offered
	missing map[string]string
	tree    tree

	mu    sync.Mutex
	locks map[string]int // directories of this program, each with its lock
}

// Open finds the control groups below a directory, makes this program's place in them,
// and removes what programs left behind that have died.
func Open(root string, o Options) (*Hierarchy, error) {
	if o.Name == "" {
		return nil, &Error{"opening control groups without a name", unix.EINVAL}
	}
	if o.Self == "" {
		o.Self = "/proc/self/cgroup"
	}
	if len(o.Movable) == 0 {
		o.Movable = []int{unix.Getpid(), unix.Getppid()}
	}
	if o.tree.mkdir == nil {
		o.tree = kernelTree()
	}
	own, err := memberships(o.Self)
	if err != nil {
		return nil, err
	}
	h := &Hierarchy{version: 1, missing: map[string]string{}, tree: o.tree, locks: map[string]int{}}
	if exists(root + "/cgroup.controllers") {
		h.version = 2
		err = h.openV2(root, own[""], o)
	} else {
		err = h.openV1(root, own, o)
	}
	if err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

// Version is 1 or 2.
func (h *Hierarchy) Version() int { return h.version }

// Missing gives what groups go without here, and why.
func (h *Hierarchy) Missing() map[string]string {
	m := make(map[string]string, len(h.missing))
	for k, v := range h.missing {
		m[k] = v
	}
	return m
}

// Close removes this program's place. Groups that still exist keep theirs, until another
// program finds them.
func (h *Hierarchy) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var first error
	for dir, fd := range h.locks {
		if err := h.tree.rmdir(dir); err != nil && err != unix.ENOENT && first == nil { //nolint:errorlint // a plain number
			first = failed("removing "+dir, err)
		}
		_ = unix.Close(fd)
		delete(h.locks, dir)
	}
	return first
}

// memberships reads lines "number:controllers:path": the path by controller, and by ""
// that of version 2.
func memberships(file string) (map[string]string, error) {
	s, err := read(file)
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(s) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			return nil, &Error{"reading " + file, unix.EINVAL}
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			own[name] = strings.TrimRight(parts[2], "/")
			if strings.Contains(parts[1], ",") {
				own["mount of "+name] = parts[1]
			}
		}
	}
	return own, nil
}

// place makes this program's directory below a group, and removes dead ones beside it.
// It returns the directory as soon as it is locked.
func (h *Hierarchy) place(parent string, o Options) (string, error) {
	if err := h.tree.make(parent); err != nil {
		return "", err
	}
	if err := h.sweep(parent); err != nil {
		return "", err
	}
	for n := range 1000 {
		dir := parent + "/" + strconv.Itoa(unix.Getpid()) + "." + strconv.Itoa(n)
		err := h.tree.mkdir(dir)
		if err == unix.EEXIST { //nolint:errorlint // a plain number
			continue // of another process namespace's process with our number, and alive
		}
		if err != nil {
			return "", failed("making "+dir, err)
		}
		fd, err := lock(dir)
		if err != nil {
			// Somebody took it for dead between the two calls.
			continue
		}
		if !exists(dir) {
			_ = unix.Close(fd)
			continue
		}
		h.mu.Lock()
		h.locks[dir] = fd
		h.mu.Unlock()
		return dir, nil
	}
	return "", &Error{"making a place below " + parent, unix.EEXIST}
}

// lock takes a directory for this program. The kernel takes the lock back when the last
// descriptor is closed, however the program ends.
func lock(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, failed("opening "+dir, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		return -1, failed("locking "+dir, err)
	}
	return fd, nil
}

// sweep kills and removes what dead programs left. It fails only when it cannot look:
// what it cannot remove is in nobody's way.
func (h *Hierarchy) sweep(parent string) error {
	names, err := children(parent)
	if err != nil {
		return err
	}
	for _, name := range names {
		dir := parent + "/" + name
		fd, err := lock(dir)
		if err != nil {
			continue // its program lives, or swept itself
		}
		if groups, err := children(dir); err == nil {
			for _, g := range groups {
				killAll(dir + "/" + g)
				_ = h.tree.remove(dir + "/" + g)
			}
		}
		_ = h.tree.rmdir(dir)
		_ = unix.Close(fd)
	}
	return nil
}

// killAll ends every process of a group, whatever the version.
func killAll(dir string) {
	if write(dir+"/cgroup.kill", "1") == nil {
		return
	}
	if exists(dir + "/freezer.state") {
		// What is frozen does not even die.
		_ = write(dir+"/freezer.state", "THAWED")
	}
	for range patience {
		list, err := processes(dir)
		if err != nil || len(list) == 0 {
			return
		}
		for _, pid := range list {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		// Those that fork meanwhile are found the next time.
		pause()
	}
}

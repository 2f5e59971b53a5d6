package process

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstUID is where the host's user ids for sandboxes begin, and uidCount how many
// there are: far from people, daemons and the ranges that containers are given.
const (
	firstUID = 1_600_000_000
	uidCount = 1 << 16
)

const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// profile is one way to start a process; stricter ones come first.
type profile struct {
	isolated bool
	ownUID   bool
	missing  map[string]string // what it lacks in comparison, with the reason
}

// profiles lists the ways to try on this machine.
func profiles() []profile {
	var all []profile
	if os.Geteuid() == 0 {
		all = append(all, profile{isolated: true, ownUID: true})
	}
	return append(all,
		profile{isolated: true, missing: map[string]string{measureUID: "only root can give a sandbox a user of its own"}},
		profile{})
}

// lacks says what a profile does not enforce, given why a stricter one failed.
func (p profile) lacks(why error) map[string]string {
	missing := p.missing
	if why == nil || p.isolated && p.ownUID {
		return missing
	}
	missing = map[string]string{measureUID: why.Error()}
	if !p.isolated {
		for _, m := range []string{
			measureUser, measureMounts, measurePID, measureNetwork, measureIPC, measureUTS, measureCgroupNS,
		} {
			missing[m] = why.Error()
		}
	}
	return missing
}

// command describes the process: nothing of the node's environment, directory or
// descriptors reaches it. The binary is named by a descriptor, since its path may
// be closed to the user that the process becomes.
func (p profile) command(binary *os.File, serial uint64, memory int64) *exec.Cmd {
	cmd := &exec.Cmd{
		Path: "/proc/self/fd/" + strconv.Itoa(executable),
		Args: plan{memory: memory, isolated: p.isolated, ownUID: p.ownUID}.args(),
		Env:  []string{},
		Dir:  "/",
	}
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if p.isolated {
		attr.Cloneflags = namespaces
		uid, gid := os.Geteuid(), os.Getegid()
		if p.ownUID {
			uid = firstUID + int(serial%uidCount)
			gid = uid
			attr.GidMappingsEnableSetgroups = true
		}
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !p.ownUID}
	}
	cmd.SysProcAttr = attr
	return cmd
}

// startEnforces are the measures that the start itself takes.
func startEnforces() []string { return []string{measureParent} }

// socketPair gives both ends of the connection.
func socketPair() (node, sandbox *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %v", err)
	}
	return os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "node"), nil
}

// resident gives the memory that a process holds, in bytes, or 0 when it has ended.
func resident(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// groups are the control groups of a box, as folders.
type groups struct {
	dirs []string
	held []int // the box's own processes
}

// groupsOf finds the groups that a process is in and the node is not: those that the
// broker made for it. Without any, nothing bounds what is put into them: the posture
// says that these limits are missing.
func groupsOf(pid int) (*groups, error) {
	theirs, err := memberships("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	ours, err := memberships("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding control groups: %w", err)
	}
	g := &groups{}
	for controllers, at := range theirs {
		if ours[controllers] == at {
			continue
		}
		dir := hierarchy(string(mounts), controllers, at)
		if dir == "" {
			return nil, fmt.Errorf("finding control groups: that of %q is mounted nowhere", controllers)
		}
		g.dirs = append(g.dirs, dir)
	}
	slices.Sort(g.dirs)
	g.held, err = g.members()
	return g, err
}

// memberships reads what group a process is in, by the controllers of the hierarchy:
// cgroups(7), /proc/PID/cgroup.
func memberships(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("finding control groups: %w", err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); ok {
			controllers, at, _ := strings.Cut(rest, ":")
			all[controllers] = at
		}
	}
	return all, nil
}

// hierarchy gives the folder of a group, from /proc/self/mountinfo: proc_pid_mountinfo(5).
func hierarchy(mounts, controllers, at string) string {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup2" && controllers == "":
		case kind[0] == "cgroup" && controllers != "" && within(strings.Split(controllers, ","), strings.Split(kind[2], ",")):
		default:
			continue
		}
		if below, ok := strings.CutPrefix(at, strings.TrimSuffix(fields[3], "/")); ok && (below == "" || below[0] == '/') {
			return path.Join(fields[4], below)
		}
	}
	return ""
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// add moves a process into the groups.
func (g *groups) add(pid int) error {
	for _, dir := range g.dirs {
		f, err := os.OpenFile(dir+"/cgroup.procs", os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("joining the box's control groups: %w", err)
		}
		_, err = f.WriteString(strconv.Itoa(pid))
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("joining the box's control groups: %w", err)
		}
	}
	return nil
}

// members lists the processes in the groups.
func (g *groups) members() ([]int, error) {
	if len(g.dirs) == 0 {
		return nil, nil
	}
	text, err := os.ReadFile(g.dirs[0] + "/cgroup.procs")
	if err != nil {
		return nil, fmt.Errorf("listing the box's processes: %w", err)
	}
	var all []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			all = append(all, pid)
		}
	}
	return all, nil
}

// kill ends every process in the groups, but those that held the box from the start and
// the one that is spared (0: none), and returns when they have ended.
func (g *groups) kill(spared int) error {
	guests := func() ([]int, error) {
		all, err := g.members()
		return slices.DeleteFunc(all, func(pid int) bool { return pid == spared || slices.Contains(g.held, pid) }), err
	}
	for {
		pids, err := guests()
		if err != nil || len(pids) == 0 {
			if errors.Is(err, os.ErrNotExist) {
				return nil // the box has ended, and its groups with it
			}
			return err
		}
		if err := end(pids, guests); err != nil {
			return err
		}
	}
}

// end kills those of the processes that are still what they were listed as.
func end(pids []int, listed func() ([]int, error)) error {
	fds := map[int]int{}
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
		fds[pid] = fd
	}
	// A process id may have become another's before it was opened, but not after.
	still, err := listed()
	if err != nil {
		return err
	}
	for pid, fd := range fds {
		if !slices.Contains(still, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return nil
}

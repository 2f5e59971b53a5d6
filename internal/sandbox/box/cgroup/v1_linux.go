package cgroup

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Version 1: Documentation/admin-guide/cgroup-v1. Each controller is mounted by itself
// or together with others, and each is used when it is there.

func (h *Hierarchy) openV1(root string, own map[string]string, o Options) error {
	var reason [controllers]string
	// Version 2 comes first: beside version 1 it has no controllers, but what every group
	// has. Each directory more is a fiftieth of what a box costs.
	for _, c := range []controller{unified, memory, pids, cpu, cpuacct, freezer} {
		name := c.String()
		if c == unified {
			name = ""
		}
		if c == unified && o.alone || h.spared(c) {
			continue
		}
		dir, err := h.openMount(root, c, own, name, o)
		if err != nil {
			reason[c] = err.Error()
			continue
		}
		h.dirs[c] = dir
	}
	if dir := h.dirs[cpu]; dir != "" {
		weigh("cpu.shares", 1024, parentOf(dir), dir)
	}
	for what, c := range map[string]controller{Memory: memory, Processes: pids, CPU: cpu} {
		if h.dirs[c] == "" {
			h.missing[what] = reason[c]
		}
	}
	if h.dirs[cpuacct] == "" && h.dirs[unified] == "" {
		h.missing[Usage] = reason[cpuacct]
	}
	if h.dirs[freezer] == "" && h.dirs[unified] == "" {
		h.missing[Freezing] = reason[freezer]
	}
	for _, dir := range h.dirs {
		if dir != "" {
			return nil
		}
	}
	return &Error{"looking for control groups below " + root + ": " + reason[memory], unix.ENOENT}
}

// spared says that version 2, beside this one, does what a controller is for.
func (h *Hierarchy) spared(c controller) bool {
	dir := h.dirs[unified]
	return dir != "" && (c == cpuacct && exists(dir+"/cpu.stat") || c == freezer && exists(dir+"/cgroup.freeze"))
}

// weigh has all groups of a program weigh as much as one ordinary process for each
// processor: a group competes as one with everything beside it, however much is in it.
// Where that is refused, groups get less of a machine that is busy with something else.
func weigh(file string, perProcessor int64, dirs ...string) {
	for _, dir := range dirs {
		_ = writeNumber(dir+"/"+file, perProcessor*int64(runtime.NumCPU()))
	}
}

// openMount gives this program's directory in the hierarchy of a controller.
func (h *Hierarchy) openMount(root string, c controller, own map[string]string, name string, o Options) (string, error) {
	mount := root + "/" + c.String()
	if joined, ok := own["mount of "+name]; ok && !exists(mount+"/cgroup.procs") {
		mount = root + "/" + joined
	}
	path, member := own[name]
	if !member || !exists(mount+"/cgroup.procs") {
		return "", &Error{"looking for " + mount, unix.ENOENT}
	}
	if !exists(mount + path + "/cgroup.procs") {
		path = "" // in a container the mount may begin with our own group
	}
	parent := mount + path + "/" + o.Name
	// Controllers that are mounted together share a directory.
	for other := range controllers {
		if dir := h.dirs[other]; dir != "" && sameDir(parentOf(dir), parent) {
			return dir, nil
		}
	}
	return h.place(parent, o)
}

func sameDir(a, b string) bool {
	var s, t unix.Stat_t
	return unix.Stat(a, &s) == nil && unix.Stat(b, &t) == nil && s.Dev == t.Dev && s.Ino == t.Ino
}

func parentOf(dir string) string {
	for i := len(dir) - 1; i > 0; i-- {
		if dir[i] == '/' {
			return dir[:i]
		}
	}
	return dir
}

// period is over which processor time is shared out, in microseconds: the kernel's own.
const period = 100_000

func (g *Group) limitV1(l Limits) error {
	if l.Memory > 0 && g.dirs[memory] != "" {
		dir := g.dirs[memory]
		if err := writeNumber(dir+"/memory.limit_in_bytes", l.Memory); err != nil {
			return err
		}
		// The sum of memory and swap is limited only where swap is counted, and never
		// below the limit of memory. Without it, no swap by way of swappiness.
		if exists(dir + "/memory.memsw.limit_in_bytes") {
			if err := writeNumber(dir+"/memory.memsw.limit_in_bytes", l.Memory); err != nil {
				return err
			}
		}
		if err := write(dir+"/memory.swappiness", "0"); err != nil && number(err) != unix.ENOENT {
			return err
		}
	}
	if l.Processes > 0 && g.dirs[pids] != "" {
		if err := writeNumber(g.dirs[pids]+"/pids.max", int64(l.Processes)); err != nil {
			return err
		}
	}
	if l.CPUPercent > 0 && g.dirs[cpu] != "" {
		if err := writeNumber(g.dirs[cpu]+"/cpu.cfs_period_us", period); err != nil {
			return err
		}
		// More than a group above has is refused. That group's share holds then, which is less.
		if err := writeNumber(g.dirs[cpu]+"/cpu.cfs_quota_us", int64(l.CPUPercent)*period/100); err != nil && number(err) != unix.EINVAL {
			return err
		}
	}
	return nil
}

// freezeV1 asks until it is so: the kernel freezes processes one by one, tells nobody
// when it has them all, and looks after those that got away when the state is read.
func (g *Group) freezeV1() error {
	file := g.dirs[freezer] + "/freezer.state"
	if err := write(file, "FROZEN"); err != nil {
		return err
	}
	for range patience {
		state, err := read(file)
		if err != nil {
			return err
		}
		if state == "FROZEN" {
			return nil
		}
		pause()
	}
	_ = write(file, "THAWED")
	return &Error{"freezing " + g.dirs[freezer], unix.ETIMEDOUT}
}

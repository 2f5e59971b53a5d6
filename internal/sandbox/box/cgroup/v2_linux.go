package cgroup

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Version 2: Documentation/admin-guide/cgroup-v2.rst. There is one hierarchy, and a
// group's parent hands controllers down to it.

// selfGroup is where the program itself goes, so that the group it was in has no
// processes and may hand controllers down.
const selfGroup = ".self"

func (h *Hierarchy) openV2(root, own string, o Options) error {
	base := root + own
	if !exists(base + "/cgroup.procs") {
		base = root
	}
	offered, err := read(base + "/cgroup.controllers")
	if err != nil {
		return err
	}
	parent := base + "/" + o.Name
	place, err := h.place(parent, o)
	if err != nil {
		return err
	}
	for c := range controllers {
		h.dirs[c] = ""
	}
	// What every group of version 2 has, without a controller: processes are killed and
	// frozen, and their time is counted.
	h.dirs[unified] = place
	reasons := map[controller]string{}
	if err := leave(base, o); err != nil {
		for _, c := range []controller{memory, pids, cpu} {
			reasons[c] = err.Error()
		}
	}
	for _, c := range []controller{memory, pids, cpu} {
		if reasons[c] != "" {
			continue
		}
		if !contains(offered, c.String()) {
			reasons[c] = "the group " + base + " has no controller of that name; systemd gives it with Delegate=yes"
			continue
		}
		// From the top down: each hands on what it was given.
		for _, dir := range []string{base, parent, place} {
			if err := write(dir+"/cgroup.subtree_control", "+"+c.String()); err != nil {
				reasons[c] = err.Error()
				break
			}
		}
		if reasons[c] == "" {
			h.dirs[c] = place
		}
	}
	for what, c := range map[string]controller{Memory: memory, Processes: pids, CPU: cpu} {
		if reasons[c] != "" {
			h.missing[what] = reasons[c]
		}
	}
	if h.dirs[cpu] != "" {
		weigh("cpu.weight", 100, parent, place)
	}
	if !exists(place + "/cgroup.freeze") {
		h.missing[Freezing] = "this kernel is older than 5.2"
	}
	return nil
}

// leave moves the program out of the group that is to hand controllers down. The root
// is excepted from the rule; it alone has no type.
func leave(base string, o Options) error {
	if !exists(base + "/cgroup.type") {
		return nil
	}
	list, err := processes(base)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return nil
	}
	self := base + "/" + o.Name + selfGroup
	for _, pid := range list {
		if !isOneOf(pid, o.Movable) {
			return &Error{"sharing " + base + " with other programs; give this one a group of its own", unix.EBUSY}
		}
	}
	if err := o.tree.make(self); err != nil {
		return err
	}
	for _, pid := range list {
		if err := writeNumber(self+"/cgroup.procs", int64(pid)); err != nil && number(err) != unix.ESRCH {
			return err
		}
	}
	return nil
}

func isOneOf(pid int, list []int) bool {
	for _, p := range list {
		if p == pid {
			return true
		}
	}
	return false
}

func contains(list, name string) bool {
	for f := range strings.FieldsSeq(list) {
		if f == name {
			return true
		}
	}
	return false
}

func (g *Group) limitV2(l Limits) error {
	if l.Memory > 0 && g.dirs[memory] != "" {
		dir := g.dirs[memory]
		if err := writeNumber(dir+"/memory.max", l.Memory); err != nil {
			return err
		}
		if err := write(dir+"/memory.swap.max", "0"); err != nil && number(err) != unix.ENOENT {
			return err // without swap in the kernel there is no such file
		}
		// When memory is short, all of the group goes, and not one process of many.
		if err := write(dir+"/memory.oom.group", "1"); err != nil && number(err) != unix.ENOENT {
			return err
		}
	}
	if l.Processes > 0 && g.dirs[pids] != "" {
		if err := writeNumber(g.dirs[pids]+"/pids.max", int64(l.Processes)); err != nil {
			return err
		}
	}
	if l.CPUPercent > 0 && g.dirs[cpu] != "" {
		return write(g.dirs[cpu]+"/cpu.max", quota(l.CPUPercent))
	}
	return nil
}

// freezeV2 freezes and waits for the kernel's notice in cgroup.events.
func (g *Group) freezeV2() error {
	dir := g.dirs[unified]
	events := dir + "/cgroup.events"
	fd, err := unix.Open(events, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("opening "+events, err)
	}
	defer unix.Close(fd)
	if err := write(dir+"/cgroup.freeze", "1"); err != nil {
		return err
	}
	// The notice is an exceptional condition of the descriptor, from the change until
	// it is read again, so a change between the two is not missed.
	for range patience {
		var buf [256]byte
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil {
			return failed("reading "+events, err)
		}
		frozen, err := fieldOf(string(buf[:n]), events, "frozen")
		if err != nil {
			return err
		}
		if frozen == 1 {
			return nil
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, 1)
	}
	_ = write(dir+"/cgroup.freeze", "0")
	return &Error{"freezing " + dir, unix.ETIMEDOUT}
}

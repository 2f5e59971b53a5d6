package cgroup

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is returned for what [Hierarchy.Missing] has.
var ErrUnsupported = errors.New("this machine's control groups do not offer that")

// Limits of a group; zero is none. What the hierarchy lacks is not limited.
type Limits struct {
	Memory     int64 // bytes, of all its processes, what they wrote to a tmpfs included
	Processes  int   // and threads
	CPUPercent int   // of one processor
}

// Group is a set of processes.
type Group struct {
	h    *Hierarchy
	dirs [controllers]string
	peak int // version 2: memory.peak, which starts anew for the descriptor it is told by; or -1
}

// New makes a group. A name must not have been given before, unless its group was
// removed.
func (h *Hierarchy) New(name string, l Limits) (*Group, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return nil, &Error{"making the group " + strconv.Quote(name), unix.EINVAL}
	}
	g := &Group{h: h, peak: -1}
	made := map[string]bool{}
	for c, dir := range h.dirs {
		if dir == "" || controller(c) == cpu && h.version == 1 && l.CPUPercent == 0 {
			// A group of this controller competes for processors as one, which what has no
			// limit shall not: all guests of a program would be one thread beside each of its
			// own. Where controllers share a directory, or with version 2, it cannot be had
			// without.
			continue
		}
		path := dir + "/" + name
		if !made[path] {
			if err := h.tree.mkdir(path); err != nil {
				return nil, errors.Join(failed("making "+path, err), g.Remove())
			}
			made[path] = true
		}
		g.dirs[c] = path
	}
	limit := g.limitV1
	if h.version == 2 {
		limit = g.limitV2
	}
	if err := limit(l); err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	if h.version == 2 && g.dirs[memory] != "" {
		// To write to it takes Linux 6.12, to read it 5.19; without either there is no peak.
		if fd, err := unix.Open(g.dirs[memory]+"/memory.peak", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
			g.peak = fd
		}
	}
	return g, nil
}

// each calls f for each directory once.
func (g *Group) each(f func(dir string) error) error {
	done := map[string]bool{"": true}
	for _, dir := range g.dirs {
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := f(dir); err != nil {
			return err
		}
	}
	return nil
}

// Add moves a process and its threads into the group. What it starts is in it too.
func (g *Group) Add(pid int) error {
	return g.each(func(dir string) error { return writeNumber(dir+"/cgroup.procs", int64(pid)) })
}

// FD opens the group for clone3 to start a process in it. With version 1 the process
// must be added too; it is a member of the hierarchy beside it only.
func (g *Group) FD() (int, error) {
	if g.dirs[unified] == "" {
		return -1, ErrUnsupported
	}
	fd, err := unix.Open(g.dirs[unified], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fd, failed("opening "+g.dirs[unified], err)
}

// CPU is the processor time that the group has used.
func (g *Group) CPU() (time.Duration, error) {
	if g.dirs[cpuacct] != "" {
		n, err := readNumber(g.dirs[cpuacct] + "/cpuacct.usage")
		return time.Duration(n), err
	}
	if g.dirs[unified] != "" {
		n, err := field(g.dirs[unified]+"/cpu.stat", "usage_usec")
		return time.Duration(n) * time.Microsecond, err
	}
	return 0, ErrUnsupported
}

// Memory is what the group holds, in bytes: with the files it wrote to a tmpfs, and
// those of a disk that the kernel keeps for it.
func (g *Group) Memory() (int64, error) {
	if g.dirs[memory] == "" {
		return 0, ErrUnsupported
	}
	return readNumber(g.dirs[memory] + pick(g.h.version, "/memory.usage_in_bytes", "/memory.current"))
}

// Peak is the most memory that the group held since it was made, or since ResetPeak.
func (g *Group) Peak() (int64, error) {
	switch {
	case g.dirs[memory] == "":
		return 0, ErrUnsupported
	case g.h.version == 1:
		return readNumber(g.dirs[memory] + "/memory.max_usage_in_bytes")
	case g.peak < 0:
		return readNumber(g.dirs[memory] + "/memory.peak")
	}
	var buf [32]byte
	n, err := unix.Pread(g.peak, buf[:], 0)
	if err != nil {
		return 0, failed("reading "+g.dirs[memory]+"/memory.peak", err)
	}
	return parse("memory.peak", strings.TrimSpace(string(buf[:n])))
}

// ResetPeak lets Peak begin with what the group holds now.
func (g *Group) ResetPeak() error {
	switch {
	case g.dirs[memory] == "":
		return ErrUnsupported
	case g.h.version == 1:
		return write(g.dirs[memory]+"/memory.max_usage_in_bytes", "0")
	case g.peak < 0:
		return ErrUnsupported
	}
	_, err := unix.Pwrite(g.peak, []byte("reset"), 0)
	return failed("resetting "+g.dirs[memory]+"/memory.peak", err)
}

// OOMKills is how many processes the kernel ended because the group was out of memory.
func (g *Group) OOMKills() (int64, error) {
	if g.dirs[memory] == "" {
		return 0, ErrUnsupported
	}
	return field(g.dirs[memory]+pick(g.h.version, "/memory.oom_control", "/memory.events"), "oom_kill")
}

// Yield has the group's processes make way for whatever else wants a processor, at once
// and as often as it does (cpu.idle, since Linux 5.15), or compete as others do again.
func (g *Group) Yield(on bool) error {
	if g.dirs[cpu] == "" || !exists(g.dirs[cpu]+"/cpu.idle") {
		return ErrUnsupported
	}
	if on {
		return write(g.dirs[cpu]+"/cpu.idle", "1")
	}
	return write(g.dirs[cpu]+"/cpu.idle", "0")
}

// Freeze stops all processes and returns when they have stopped.
func (g *Group) Freeze() error {
	switch {
	case g.dirs[unified] != "" && exists(g.dirs[unified]+"/cgroup.freeze"):
		return g.freezeV2()
	case g.dirs[freezer] != "":
		return g.freezeV1()
	}
	return ErrUnsupported
}

// Thaw lets them go on.
func (g *Group) Thaw() error {
	switch {
	case g.dirs[unified] != "" && exists(g.dirs[unified]+"/cgroup.freeze"):
		return write(g.dirs[unified]+"/cgroup.freeze", "0")
	case g.dirs[freezer] != "":
		return write(g.dirs[freezer]+"/freezer.state", "THAWED")
	}
	return ErrUnsupported
}

// Kill ends all processes of the group, frozen ones too. It does not wait for
// their parents to take note.
func (g *Group) Kill() {
	if g.dirs[unified] != "" && write(g.dirs[unified]+"/cgroup.kill", "1") == nil {
		return
	}
	_ = g.Thaw()
	_ = g.each(func(dir string) error {
		killAll(dir)
		return nil
	})
}

// Remove removes the group, which must have no processes but ones about to go: it
// waits for those, up to two seconds.
func (g *Group) Remove() error {
	if g.peak >= 0 {
		_ = unix.Close(g.peak)
		g.peak = -1
	}
	var all error
	_ = g.each(func(dir string) error {
		all = errors.Join(all, g.h.tree.remove(dir))
		return nil
	})
	return all
}

func pick(version int, first, second string) string {
	if version == 2 {
		return second
	}
	return first
}

// quota is a line of cpu.max.
func quota(percent int) string {
	return strconv.Itoa(percent*period/100) + " " + strconv.Itoa(period)
}

package cgroup

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Meters are files of a group that tell what it uses, open, so that whoever holds them
// can read them without asking: processor time, memory, its peak, in this order. The
// holder closes them; of a group that was removed they fail with unix.ENODEV. They are
// nil when any of them is missing.
func (g *Group) Meters() []int {
	var names [3]string
	switch {
	case g.dirs[memory] == "":
		return nil
	case g.dirs[cpuacct] != "":
		names[0] = g.dirs[cpuacct] + "/cpuacct.usage"
	case g.dirs[unified] != "":
		names[0] = g.dirs[unified] + "/cpu.stat"
	default:
		return nil
	}
	names[1] = g.dirs[memory] + pick(g.h.version, "/memory.usage_in_bytes", "/memory.current")
	var fds []int
	for i := range 2 {
		fd, err := unix.Open(names[i], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(fds)
			return nil
		}
		fds = append(fds, fd)
	}
	fd, err := g.openPeak()
	if err != nil {
		closeAll(fds)
		return nil
	}
	return append(fds, fd)
}

// openPeak opens the peak for reading and for letting it begin anew.
func (g *Group) openPeak() (int, error) {
	if g.h.version == 1 {
		return unix.Open(g.dirs[memory]+"/memory.max_usage_in_bytes", unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if g.peak < 0 {
		return -1, unix.ENODATA
	}
	// The same open file: what begins anew is told by this one alone.
	return unix.FcntlInt(uintptr(g.peak), unix.F_DUPFD_CLOEXEC, 0)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ParseMeter reads what one of Meters says: a number, or of version 2's cpu.stat the
// time, in ns.
func ParseMeter(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	micros, err := fieldOf(text, "cpu.stat", "usage_usec")
	return micros * 1000, err
}

// ResetMeter gives what to write to the peak to let it begin anew: version 1 takes any
// number, version 2 any text.
const ResetMeter = "0\n"

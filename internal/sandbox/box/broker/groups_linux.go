package broker

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/cgroup"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// groups are the control groups of all boxes.
type groups struct {
	h    *cgroup.Hierarchy // nil: there are none
	lack map[string]string
}

// group is that of one box. Its methods may be called when there is none.
type group struct {
	g      *cgroup.Group
	frozen bool
}

// groupsName is the directory of all programs of this kind.
const groupsName = "casemate"

// openGroups finds the control groups; without any, boxes go without.
func openGroups(root, memberships string) groups {
	o := cgroup.Options{Name: groupsName}
	if memberships != "" {
		fd, err := unix.MemfdCreate("memberships", unix.MFD_CLOEXEC)
		if err == nil {
			defer func() { _ = unix.Close(fd) }()
			_, err = unix.Write(fd, []byte(memberships))
		}
		if err != nil {
			return groups{lack: lackAll(err)}
		}
		o.Self = "/proc/self/fd/" + strconv.Itoa(fd)
	}
	h, err := cgroup.Open(hostDir+root, o)
	if err != nil {
		return groups{lack: lackAll(err)}
	}
	return groups{h: h, lack: h.Missing()}
}

func lackAll(err error) map[string]string {
	lack := map[string]string{}
	for _, what := range []string{cgroup.Memory, cgroup.Processes, cgroup.CPU, cgroup.Usage, cgroup.Freezing} {
		lack[what] = err.Error()
	}
	return lack
}

func (g groups) close() {
	if g.h != nil {
		_ = g.h.Close() // what is left, the next broker removes
	}
}

// make makes a box's group.
func (g groups) make(name string, s *message.Start) (*group, *message.Failure) {
	if g.h == nil {
		return &group{}, nil
	}
	one, err := g.h.New(name, cgroup.Limits{Memory: s.Memory, Processes: s.Processes, CPUPercent: s.CPUPercent})
	if err != nil {
		return &group{}, groupFailure("making the control group", err)
	}
	return &group{g: one}, nil
}

func (g *group) add(pid int) *message.Failure {
	if g.g == nil {
		return nil
	}
	if err := g.g.Add(pid); err != nil {
		return groupFailure("entering the control group", err)
	}
	return nil
}

func (g *group) usage() message.Usage {
	if g.g == nil {
		return message.Usage{}
	}
	var u message.Usage
	cpu, noCPU := g.g.CPU()
	memory, noMemory := g.g.Memory()
	u.CPU, u.Memory = int64(cpu), memory
	u.MemoryPeak, _ = g.g.Peak() // 0: not known
	u.Group = noCPU == nil && noMemory == nil
	return u
}

// meters gives files that tell what the group uses, if it has them.
func (g *group) meters() []int {
	if g.g == nil {
		return nil
	}
	return g.g.Meters()
}

func (g *group) oom() bool {
	if g.g == nil {
		return false
	}
	n, err := g.g.OOMKills()
	return err == nil && n > 0
}

func (g *group) remove() {
	if g.g != nil {
		_ = g.g.Remove() // what is left, the next broker removes
		g.g = nil
	}
}

// thaw lets a frozen box die.
func (g *group) thaw() {
	if g.g != nil && g.frozen {
		g.frozen = false
		_ = g.g.Thaw()
	}
}

func (g *group) resetPeak() *message.Failure {
	const step = "resetting the peak"
	if g.g == nil {
		return failure(step, unix.ENOTSUP)
	}
	if err := g.g.ResetPeak(); err != nil {
		return groupFailure(step, err)
	}
	return nil
}

func (g *group) freeze(on bool) *message.Failure {
	const step = "freezing or thawing"
	if g.g == nil {
		return failure(step, unix.ENOTSUP)
	}
	do := g.g.Thaw
	if on {
		do = g.g.Freeze
	}
	if err := do(); err != nil {
		return groupFailure(step, err)
	}
	g.frozen = on
	return nil
}

func (g *group) makeWay(on bool) *message.Failure {
	const step = "making way"
	if g.g == nil {
		return failure(step, unix.ENOTSUP)
	}
	if err := g.g.Yield(on); err != nil {
		return groupFailure(step, err)
	}
	return nil
}

// groupFailure describes an error of package cgroup.
func groupFailure(step string, err error) *message.Failure {
	if err == cgroup.ErrUnsupported { //nolint:errorlint // it is given bare, and errors is not small
		return failure(step, unix.ENOTSUP)
	}
	if e, ok := err.(*cgroup.Error); ok { //nolint:errorlint // it is given bare
		return &message.Failure{Step: step + ": " + e.Step, Errno: int(e.Errno)}
	}
	if e, ok := err.(syscall.Errno); ok { //nolint:errorlint // it is given bare
		return failure(step, e)
	}
	return &message.Failure{Step: step, Text: err.Error()}
}

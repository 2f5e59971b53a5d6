package wasm

import (
	"time"

	"golang.org/x/sys/unix"
)

// slice sets for how long a thread may go on before the kernel looks for another
// (sched_setattr(2), sched_runtime of SCHED_OTHER, since Linux 6.12; older ones take no
// notice). A thread that wakes with a shorter slice runs at once in place of one with
// a longer slice, if it had no more than its share before. Shares stay equal: unlike a lower
// rank, a long slice keeps nobody from finishing what others wait for, like a lock of
// Go's scheduler. It needs no privilege.
type slice struct {
	attr unix.SchedAttr // of the process's threads, rank included; without size, not known
}

// newSlice looks at the calling thread. Policies other than the ordinary one have no
// slices of this kind, and are left as they are.
func newSlice() slice {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil || a.Policy != unix.SCHED_NORMAL {
		return slice{}
	}
	return slice{*a}
}

// lengthen gives the calling thread a slice of d, restore the one that it had before.
// What the process began with is never shortened: a thread with a shorter slice than the
// node's would go before the node. A kernel that refuses leaves the thread as it
// was, and neighbours wait longer for their turn.
func (s *slice) lengthen(d time.Duration) { s.set(max(uint64(d), s.attr.Runtime)) }

func (s *slice) restore() { s.set(s.attr.Runtime) }

func (s *slice) set(nanoseconds uint64) {
	if s.attr.Size == 0 {
		return
	}
	a := s.attr
	a.Runtime = nanoseconds
	_ = unix.SchedSetAttr(0, &a, 0)
}

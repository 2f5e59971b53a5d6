package broker

import (
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// guestID is the user and group inside a box.
const guestID = 1000

// box is one living box.
type box struct {
	id    uint64
	pid   int
	pidfd int
	uid   int // 0: the broker's own
	group *group

	unknown bool // to the node, whose request failed
	listed  bool // in broker.boxes; guarded by broker.mu

	mu    sync.Mutex
	ended bool
}

// forker is the thread that makes the inits' processes.
func (b *broker) forker(ready chan<- *message.Failure) {
	runtime.LockOSThread() // never unlocked: its mounts are not the other threads'
	f := forkView()
	ready <- f
	if f != nil {
		return
	}
	for do := range b.forks {
		do()
	}
}

// start starts an init, puts it into its groups, and only then tells it to go on. The
// box given back is to be registered once the node has its answer.
func (b *broker) start(r *message.Request, fds []int, reply *message.Reply) ([]int, *box) {
	if r.Start == nil || len(fds) != 1 {
		reply.Failure = failure("reading the request", unix.EINVAL)
		return nil, nil
	}
	b.mu.Lock()
	ending := b.ending
	b.starting++
	trees, noTrees := b.trees(r.Start)
	b.next++
	x := &box{id: b.next, pidfd: -1, group: &group{}}
	ok := true
	if b.root {
		x.uid, ok = b.uids.take()
	}
	b.mu.Unlock()
	defer func() { message.Close(trees) }()
	if !ok {
		reply.Failure = failure("finding a user id", unix.EAGAIN)
		b.forget(x)
		return nil, nil
	}
	give := func(f *message.Failure) ([]int, *box) {
		reply.Failure = f
		b.forget(x)
		return nil, nil
	}
	if ending {
		noTrees = unix.ESHUTDOWN
	}
	if noTrees != nil {
		return give(failure("copying the images", noTrees))
	}
	// The groups are made while the init is started: it waits at the gate until it is in them.
	made := make(chan *message.Failure, 1)
	go func() {
		var f *message.Failure
		x.group, f = b.groups.make(strconv.FormatUint(x.id, 10), r.Start)
		made <- f
	}()
	gate, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = b.fork(x, fds[0], gate)
		message.Close(gate[1:])
		defer message.Close(gate[:1])
	}
	f := <-made
	if err != nil {
		f = failure("starting the init in its namespaces", err)
	}
	if x.pid == 0 {
		return give(f)
	}
	// Before the node can know of it, and ask for its end.
	b.mu.Lock()
	b.boxes[x.id] = x
	x.listed = true
	b.starting--
	ending = b.ending
	b.mu.Unlock()
	if ending {
		f = failure("starting the box", unix.ESHUTDOWN)
	}
	pidfd := -1
	if f == nil {
		f = b.admit(x, trees, gate[0])
	}
	if f == nil {
		if pidfd, err = unix.FcntlInt(uintptr(x.pidfd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			f = failure("handing out the process", err)
		}
	}
	if f != nil {
		_ = x.signal(unix.SIGKILL)
		x.unknown = true
		reply.Failure = f
		return nil, x
	}
	reply.Box = x.id
	return append([]int{pidfd}, x.group.meters()...), x
}

// trees copies the images of a start, the root's and then the code's. The caller holds
// mu: the descriptor of an image that is released meanwhile could be another image's.
func (b *broker) trees(s *message.Start) ([]int, error) {
	ids := []uint64{s.Root}
	if s.Code != 0 {
		ids = append(ids, s.Code)
	}
	var trees []int
	for _, id := range ids {
		img := b.images[id]
		if img == nil {
			message.Close(trees)
			return nil, unix.ENOENT
		}
		fd, err := img.tree()
		if err != nil {
			message.Close(trees)
			return nil, err
		}
		trees = append(trees, fd)
	}
	return trees, nil
}

// admit puts the init into its groups and lets it go on.
func (b *broker) admit(x *box, trees []int, gate int) *message.Failure {
	if f := x.group.add(x.pid); f != nil {
		return f
	}
	if err := unix.Sendmsg(gate, []byte{message.GateByte}, unix.UnixRights(trees...), nil, unix.MSG_NOSIGNAL); err != nil {
		return failure("opening the gate", err)
	}
	return nil
}

// register has a started box's end handled, now if that has come already.
func (b *broker) register(x *box) {
	b.mu.Lock()
	s, gone := b.early[x.pid]
	if gone {
		delete(b.early, x.pid)
	} else {
		b.byPID[x.pid] = x
	}
	b.alive.Broadcast()
	b.mu.Unlock()
	if gone {
		go b.ended(x, s)
	}
}

// ended cleans up after a box: its init is gone, and so is everything in it.
func (b *broker) ended(x *box, s status) {
	x.mu.Lock()
	x.ended = true
	u := x.group.usage()
	if u.CPU == 0 {
		u.CPU = s.usage.Utime.Nano() + s.usage.Stime.Nano()
	}
	if u.MemoryPeak == 0 {
		u.MemoryPeak = s.usage.Maxrss << 10
	}
	oom := x.group.oom()
	x.mu.Unlock()
	b.forget(x)
	if !x.unknown {
		_ = b.conn.Send(&message.Reply{Ended: &message.Ended{Box: x.id, Status: uint32(s.wait), OOM: oom, Usage: u}})
	}
}

// forget gives back what a box held. No process of it is left.
func (b *broker) forget(x *box) {
	x.mu.Lock()
	x.ended = true
	x.group.remove()
	if x.pidfd >= 0 {
		_ = unix.Close(x.pidfd)
		x.pidfd = -1
	}
	x.mu.Unlock()
	b.mu.Lock()
	if x.uid != 0 {
		b.uids.free(x.uid)
	}
	delete(b.boxes, x.id)
	if !x.listed {
		b.starting--
	}
	b.alive.Broadcast()
	b.mu.Unlock()
}

// signal sends a signal to the init; SIGKILL ends the box.
func (x *box) signal(s unix.Signal) *message.Failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended || x.pidfd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(x.pidfd, s, nil, 0); err != nil && err != unix.ESRCH {
		return failure("sending a signal", err)
	}
	if s == unix.SIGKILL {
		x.group.thaw()
	}
	return nil
}

func (x *box) usage() *message.Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	u := x.group.usage()
	return &u
}

func (x *box) resetPeak() *message.Failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.group.resetPeak()
}

func (x *box) makeWay(on bool) *message.Failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.group.makeWay(on)
}

func (x *box) freeze(on bool) *message.Failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.group.freeze(on)
}

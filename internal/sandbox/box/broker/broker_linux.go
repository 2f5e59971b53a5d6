package broker

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/machine"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// The descriptors that the node starts the broker with.
const (
	connection = 3
	executable = 4 // the small program itself, which it needs no more
)

// broker is the process's whole state. Lock order: mu, then a box's own lock; neither
// is held while a packet is sent or a box is started.
type broker struct {
	conn  *message.Conn
	forks chan func() // to the thread that starts boxes
	root  bool        // not in a user namespace of its own
	exe   int         // the machine that inits are
	null  int         // /dev/null, in a tree of its own
	host  int         // the host's tree, a directory

	mu       sync.Mutex
	ending   bool
	starting int // boxes not in boxes yet
	images   map[uint64]*image
	boxes    map[uint64]*box
	byPID    map[int]*box
	early    map[int]status // ended before they were known
	next     uint64
	uids     *uids
	alive    *sync.Cond // a child was started, or a box is gone
	groups   groups
}

// status is how a child ended.
type status struct {
	wait  unix.WaitStatus
	usage unix.Rusage
}

// Main is the broker's program. It gives the exit code.
func Main() int {
	unix.CloseOnExec(connection)
	_ = unix.Close(executable)
	b := &broker{
		conn: message.NewConn(connection), root: os.Getuid() == 0 && initialUserNamespace(),
		forks: make(chan func()), images: map[uint64]*image{}, boxes: map[uint64]*box{},
		byPID: map[int]*box{}, early: map[int]status{}, uids: newUIDs(),
	}
	b.alive = sync.NewCond(&b.mu)
	var hello message.Request
	if _, err := b.conn.Recv(&hello); err != nil || hello.Op != message.OpHello {
		return 1
	}
	reply := message.Reply{ID: hello.ID}
	if f := b.setUp(&hello); f != nil {
		reply.Failure = f
		_ = b.conn.Send(&reply)
		return 1
	}
	reply.Missing, reply.One = b.groups.lack, !b.root
	if b.conn.Send(&reply) != nil {
		return 1
	}
	go b.reap()
	b.serve()
	b.end()
	return 0
}

// setUp makes the broker what it is to be. The order matters: the thread that starts
// boxes takes its view before the first image is given out, and privileges go last.
func (b *broker) setUp(hello *message.Request) *message.Failure {
	if f := b.ownMounts(); f != nil {
		return f
	}
	exe, err := machine.Open()
	if err != nil {
		return failure("making the init's executable", err)
	}
	b.exe = exe
	b.groups = openGroups(hello.Cgroups, hello.Memberships)
	ready := make(chan *message.Failure)
	go b.forker(ready)
	if f := <-ready; f != nil {
		return f
	}
	return b.dropPrivileges()
}

// serve handles requests until the node is gone.
func (b *broker) serve() {
	for {
		r := new(message.Request)
		fds, err := b.conn.Recv(r)
		if err != nil {
			return
		}
		if r.Op == message.OpRelease || r.Op == message.OpSeal || r.Op == message.OpBind {
			// In the order in which they came: they change what a start sees.
			b.handle(r, fds)
			continue
		}
		go b.handle(r, fds)
	}
}

func (b *broker) handle(r *message.Request, fds []int) {
	reply := message.Reply{ID: r.ID}
	var out []int
	switch r.Op {
	case message.OpImage:
		out = b.newImage(r, &reply)
	case message.OpBind:
		reply.Failure = b.bind(r)
	case message.OpSeal:
		reply.Failure = b.seal(r.Image)
	case message.OpRelease:
		reply.Failure = b.release(r.Image)
	case message.OpStart:
		var x *box
		if out, x = b.start(r, fds, &reply); x != nil {
			// The node is to hear of the box before it hears of its end.
			defer b.register(x)
		}
	default:
		b.onBox(r, &reply)
	}
	message.Close(fds)
	_ = b.conn.Send(&reply, out...) // an error means that the node is gone
	message.Close(out)
}

// onBox handles what concerns one living box.
func (b *broker) onBox(r *message.Request, reply *message.Reply) {
	b.mu.Lock()
	x := b.boxes[r.Box]
	b.mu.Unlock()
	if x == nil {
		reply.Failure = failure("finding the box", unix.ESRCH)
		return
	}
	switch r.Op {
	case message.OpSignal:
		reply.Failure = x.signal(unix.Signal(r.Signal))
	case message.OpUsage:
		reply.Usage = x.usage()
	case message.OpPeak:
		reply.Failure = x.resetPeak()
	case message.OpFreeze:
		reply.Failure = x.freeze(true)
	case message.OpYield, message.OpCompete:
		reply.Failure = x.makeWay(r.Op == message.OpYield)
	case message.OpThaw:
		reply.Failure = x.freeze(false)
	default:
		reply.Failure = failure("reading the request", unix.EOPNOTSUPP)
	}
}

// end kills every box and waits until their groups are removed.
func (b *broker) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	for _, x := range b.boxes {
		_ = x.signal(unix.SIGKILL)
	}
	for len(b.boxes)+b.starting > 0 {
		b.alive.Wait()
	}
	b.groups.close()
}

// reap waits for inits. One thread waits for all of them.
func (b *broker) reap() {
	for {
		var s status
		pid, err := unix.Wait4(-1, &s.wait, unix.WALL, &s.usage)
		if err == unix.EINTR {
			continue
		}
		b.mu.Lock()
		if err != nil { // there are no children
			for len(b.byPID) == 0 {
				b.alive.Wait()
			}
			b.mu.Unlock()
			continue
		}
		x := b.byPID[pid]
		if x == nil {
			b.early[pid] = s
			b.mu.Unlock()
			continue
		}
		delete(b.byPID, pid)
		b.mu.Unlock()
		go b.ended(x, s)
	}
}

// failure describes a step that did not succeed.
func failure(step string, err error) *message.Failure {
	f := &message.Failure{Step: step}
	if n, ok := err.(syscall.Errno); ok { //nolint:errorlint // system calls give it bare
		f.Errno = int(n)
	} else {
		f.Text = err.Error()
	}
	return f
}

package inner

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/machine"
)

// What an init says: four numbers.
const (
	saysAnswer  = iota + 1 // the request's number, and what came of it: an error, or none
	saysStarted            // its descriptors: the listeners
	saysExited             // nothing, and how the guest ended
	saysFailed             // which call failed, and with what
	numbers     = 4
	FrameSize   = 8 * numbers
)

// What an init is asked: three numbers, the first that of the request.
const (
	asksSocket = iota + 1 // a stream socket of the box's network, and its family
	asksKill              // a signal to the guest's program, and its number
	askSize    = 24
)

// Said is what an init says.
type Said struct {
	Started bool
	Answer  uint64        // which request it answers; 0: it is no answer
	Err     syscall.Errno // of an answer; 0: it is done. A socket comes beside it.
	Exited  bool
	Status  syscall.WaitStatus // with Exited
	// Failed is the step that ended it, which did so with an error, or otherwise than
	// planned, if that is 0.
	Failed string
	Why    syscall.Errno
}

// Read reads what an init says whose list has these steps. It fails with unix.EBADMSG for
// what no init says.
func Read(frame []byte, steps Steps) (Said, error) {
	if len(frame) != FrameSize {
		return Said{}, unix.EBADMSG
	}
	var n [numbers]uint64
	for i := range n {
		n[i] = binary.NativeEndian.Uint64(frame[8*i:])
	}
	switch n[0] {
	case saysStarted:
		return Said{Started: true}, nil
	case saysAnswer:
		if n[1] != 0 {
			return Said{Answer: n[1], Err: errno(n[2])}, nil
		}
	case saysExited:
		return Said{Exited: true, Status: syscall.WaitStatus(n[2])}, nil
	case saysFailed:
		if step, ok := steps.Of(uintptr(n[2])); ok {
			return Said{Failed: step, Why: errno(n[3])}, nil
		}
	}
	return Said{}, unix.EBADMSG
}

// errno gives the error in a result.
func errno(result uint64) syscall.Errno {
	if result > ^uint64(4095) {
		return syscall.Errno(-result)
	}
	return 0
}

// AskSocket asks for a socket.
func AskSocket(request uint64, family int) []byte { return ask(request, asksSocket, uint64(family)) }

// AskKill asks for a signal to the guest.
func AskKill(request uint64, signal syscall.Signal) []byte {
	return ask(request, asksKill, uint64(signal))
}

func ask(all ...uint64) []byte {
	out := make([]byte, 0, askSize)
	for _, n := range all {
		out = binary.NativeEndian.AppendUint64(out, n)
	}
	return out
}

// say adds the sending of what is in the frame.
func (p *plan) say(step string) machine.Place {
	return p.Want(step, FrameSize, unix.SYS_SENDTO, connection, p.frame, FrameSize, unix.MSG_NOSIGNAL, 0, 0)
}

// with is say, with descriptors beside it. It gives where the first one is to be.
func (p *plan) with(step string, fds ...int) (machine.Place, uintptr) {
	control := unix.UnixRights(fds...)
	at := p.Bytes(control) // the last of an odd number has eight bytes
	message := p.Numbers(0, 0, uint64(p.Numbers(uint64(p.frame), FrameSize)), 1, uint64(at), uint64(len(control)), 0)
	return p.Want(step, FrameSize, unix.SYS_SENDMSG, connection, message, unix.MSG_NOSIGNAL), at + unix.SizeofCmsghdr
}

// tellFailures has every call that fails told to the node, and ends the box then.
func (p *plan) tellFailures() {
	const step = "telling of a failure"
	p.frame = p.Numbers(saysFailed, 0, 0, 0)
	over := p.If(step, p.Numbers(0), 0)
	p.report = p.Here()
	quit := p.Numbers(0)
	p.Copy(step, quit, machine.Handler) // the node may be gone
	p.Copy(step, machine.Failed, p.frame+16)
	p.Copy(step, machine.Result, p.frame+24)
	p.say(step)
	p.Put(quit, uint64(p.end(1).At()))
	p.Goto(over, p.Here())
	p.Copy(step, p.Numbers(uint64(p.report.At())), machine.Handler)
}

// end ends the box, since the init is its first process.
func (p *plan) end(code uintptr) machine.Place {
	return p.Try("ending the box", unix.SYS_EXIT_GROUP, code)
}

// letGo closes what the guest was given: the node is to see its end when the guest closes
// it. What is left are the connection and the listeners.
func (p *plan) letGo() {
	last := p.free - 1
	if len(p.listeners) > 0 {
		last = p.listeners[0] - 1
	}
	p.Do("closing descriptors", unix.SYS_CLOSE_RANGE, gate, uintptr(last), 0)
}

// ended is the descriptor that ends of children are read from: the lowest that is free.
const ended = gate

// expectEnds has the end of a child wake the init as the node's requests do.
func (p *plan) expectEnds() {
	const step = "waiting for ends"
	children := p.Numbers(1 << (unix.SIGCHLD - 1))
	p.Do(step, unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, children, 0, 8)
	p.Want(step, ended, unix.SYS_SIGNALFD4, ^uintptr(0), children, 8, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
}

// tellStarted says that the program runs, and hands out the listeners.
func (p *plan) tellStarted() {
	const step = "handing out the listeners"
	p.Copy(step, p.Numbers(saysStarted), p.frame)
	if len(p.listeners) == 0 {
		p.say(step)
		return
	}
	p.with(step, p.listeners...)
	p.Do(step, unix.SYS_CLOSE_RANGE, uintptr(p.listeners[0]), 1<<32-1, 0)
}

// serve collects what dies, hands out sockets and passes signals on, until the guest has
// ended or the node is gone. Either ends the box.
func (p *plan) serve(guest uintptr) {
	const step = "serving"
	// From here on a failure means that the node is gone.
	quit := p.Numbers(0)
	p.Copy(step, quit, machine.Handler)
	p.Copy(step, p.Numbers(saysAnswer), p.frame)

	watched := p.Numbers(connection|unix.POLLIN<<32, ended|unix.POLLIN<<32) // struct pollfd
	found, status, asked := p.Numbers(0), p.Numbers(0), p.frame+8

	// Children that ended before there was the descriptor are found all the same.
	again := p.Here()
	p.Try(step, unix.SYS_READ, ended, p.Bytes(make([]byte, signalInfo)), signalInfo)
	another := p.Here()
	p.Store(p.Succeed(step, unix.SYS_WAIT4, ^uintptr(0), status, unix.WNOHANG|unix.WALL, 0), found)
	none := p.If(step, found, 0)
	expect := p.Copy(step, guest, 0)
	exited := p.If(step, found, 0)
	p.Store(expect, exited.Wanted())
	p.Jump(step, another)

	p.Goto(none, p.Here())
	const nothing = ^uintptr(unix.EAGAIN - 1) // the error
	p.Store(p.Try(step, unix.SYS_RECVFROM, connection, asked, askSize, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0), found)
	idle := p.If(step, found, nothing)
	p.Check(step, found, askSize)
	socket, kill := p.If(step, asked+8, asksSocket), p.If(step, asked+8, asksKill)
	p.Put(quit, uint64(p.end(1).At()))

	p.Goto(idle, p.Try(step, unix.SYS_PPOLL, watched, 2, 0, 0, 8))
	p.Jump(step, again)

	p.Goto(kill, p.Here())
	signal := p.Copy(step, asked+16, 0)
	whom := p.Copy(step, guest, 0)
	sent := p.Store(p.Try(step, unix.SYS_KILL, 0, 0), p.frame+16)
	p.Store(signal, sent.Arg(1))
	p.Store(whom, sent.Arg(0))
	p.say(step)
	p.Jump(step, again)

	p.Goto(socket, p.Here())
	p.serveSocket(step, asked+16, quit, again)

	p.Goto(exited, p.Copy(step, p.Numbers(saysExited), p.frame))
	p.Copy(step, status, p.frame+16)
	p.say(step)
	p.end(0)
}

// serveSocket makes a socket of the family at an address, and hands it out.
func (p *plan) serveSocket(step string, family, quit uintptr, again machine.Place) {
	refused := p.Numbers(0)
	p.Copy(step, refused, machine.Handler)
	which := p.Copy(step, family, 0)
	made := p.Succeed(step, unix.SYS_SOCKET, 0, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	p.Store(which, made.Arg(0))
	p.Copy(step, quit, machine.Handler)
	_, beside := p.with(step, 0)
	p.Store(made, beside)
	which = p.Copy(step, beside, 0)
	p.Store(which, p.Do(step, unix.SYS_CLOSE, 0).Arg(0))
	p.Jump(step, again)

	p.Put(refused, uint64(p.Copy(step, quit, machine.Handler).At()))
	p.Copy(step, machine.Result, p.frame+16)
	p.say(step)
	p.Jump(step, again)
}

// signalInfo is the size of struct signalfd_siginfo.
const signalInfo = 128

package box

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/cgroup"
	"github.com/casemate-dev/casemate/internal/sandbox/box/inner"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// inside is what a Box has on Linux.
type inside struct {
	b    *Broker
	id   uint64
	conn *net.UnixConn

	started chan told     // the first thing that the init says
	heard   chan struct{} // closed when the init says nothing any more
	done    chan struct{}
	exit    Exit // before done is closed: finish's alone
	// meters are files of its control group: processor time, memory, peak. All of them,
	// or none, and then the broker is asked.
	meters [3]*os.File

	mu      sync.Mutex
	next    uint64
	asked   map[uint64]chan told
	guest   *syscall.WaitStatus
	killing bool
}

// told is what the init says, with its descriptors.
type told struct {
	inner.Said
	fds []int
	err error
}

func (b *Broker) newBox(conn *net.UnixConn) *Box {
	return &Box{inside: inside{
		b: b, conn: conn, started: make(chan told, 1), heard: make(chan struct{}), done: make(chan struct{}),
		asked: map[uint64]chan told{},
	}}
}

// begin is called once, when the broker has started the init.
func (x *Box) begin(id uint64, fds []int) {
	x.id, x.ID = id, x.b.boxName(id)
	f := os.NewFile(uintptr(fds[0]), "init")
	if len(fds) == 1+len(x.meters) {
		for i, fd := range fds[1:] {
			x.meters[i] = os.NewFile(uintptr(fd), "meter")
		}
	}
	x.PID = pidOf(f)
	_ = f.Close()
}

// Start starts a box and returns when its program was executed. The files in the Spec
// stay the caller's.
func (b *Broker) Start(ctx context.Context, s Spec) (*Box, error) {
	list, fds, err := b.order(&s)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	conn, err := unixConn(ours)
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	if err := sendPacket(conn, list.Packet, fds...); err != nil {
		return nil, errors.Join(&Error{Step: "sending the order to the init", Err: err}, conn.Close(), theirs.Close())
	}
	start := &message.Start{Memory: s.Memory, Processes: s.Processes, CPUPercent: s.CPUPercent}
	if s.Root != nil {
		start.Root = s.Root.id
	}
	if s.Code != nil {
		start.Code = s.Code.id
	}
	if start.Processes > 0 {
		start.Processes += initProcesses
	}
	x := b.newBox(conn)
	go x.listen(list.Steps)
	_, _, err = b.callFor(x, &message.Request{Op: message.OpStart, Start: start}, int(theirs.Fd()))
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := x.await(ctx); err != nil {
		return nil, err
	}
	return x, nil
}

// await waits until the program runs.
func (x *Box) await(ctx context.Context) error {
	var t told
	var err error
	select {
	case t = <-x.started:
	case <-x.heard:
		select {
		case t = <-x.started:
		default:
			err = &Error{Step: "starting the box", Err: ErrEnded}
		}
	case <-ctx.Done():
		err = &Error{Step: "starting the box", Err: context.Cause(ctx)}
	}
	if err == nil && t.Failed != "" {
		err = &Error{Step: t.Failed, Err: cause(t.Why)}
	}
	if err == nil {
		err = t.err
	}
	if err != nil {
		x.Kill()
		<-x.done
		if errors.Is(err, ErrEnded) && x.exit.OOM {
			err = &Error{Step: "starting the box", Err: syscall.ENOMEM}
		}
	}
	return err
}

func (x *Box) listeners(fds []int) error {
	var first error
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			first = &Error{Step: "taking over a listener", Err: err}
			continue
		}
		x.Listeners = append(x.Listeners, l)
	}
	return first
}

// cause is why the init failed: an error, or that something went well, but otherwise than
// it had to.
func cause(why syscall.Errno) error {
	if why == 0 {
		return errors.New("it went otherwise than planned")
	}
	return why
}

// listen hears what the init says, which was given a list of these steps, until it is
// gone.
func (x *Box) listen(steps inner.Steps) {
	defer close(x.heard)
	var buf [inner.FrameSize + 1]byte
	oob := make([]byte, unix.CmsgSpace(4*message.MaxFDs))
	first := true
	for {
		n, fds, err := receivePacket(x.conn, buf[:], oob)
		if err != nil {
			break
		}
		t := told{fds: fds}
		if t.Said, err = inner.Read(buf[:n], steps); err != nil {
			message.Close(fds)
			_ = x.conn.Close() // it is none of ours any more: this ends it
			break
		}
		if first {
			first, steps = false, nil     // it fails at none any more
			oob = oob[:unix.CmsgSpace(4)] // one descriptor at most, from now on
			t.err = x.listeners(fds)
			x.started <- t
			continue
		}
		x.mu.Lock()
		if t.Exited {
			x.guest = &t.Status
		}
		ch := x.asked[t.Answer]
		delete(x.asked, t.Answer)
		x.mu.Unlock()
		if ch != nil {
			ch <- t
		} else {
			message.Close(fds)
		}
	}
	x.mu.Lock()
	asked := x.asked
	x.asked = nil
	x.mu.Unlock()
	for _, ch := range asked {
		close(ch)
	}
}

// finish ends a box whose processes and groups are gone.
func (x *Box) finish(e *message.Ended) {
	<-x.heard
	_ = x.conn.Close()
	for _, l := range x.Listeners {
		_ = l.Close()
	}
	for _, m := range x.meters {
		if m != nil {
			_ = m.Close()
		}
	}
	s := syscall.WaitStatus(e.Status)
	x.mu.Lock()
	if x.guest != nil {
		s = *x.guest
	}
	x.mu.Unlock()
	x.exit = Exit{Code: s.ExitStatus(), OOM: e.OOM, CPU: time.Duration(e.Usage.CPU), MemoryPeak: e.Usage.MemoryPeak}
	if s.Signaled() {
		x.exit.Signal = s.Signal()
	}
	close(x.done)
}

// ask has the init do something.
func (x *Box) ask(ctx context.Context, step string, request func(id uint64) []byte) (told, error) {
	ch := make(chan told, 1)
	x.mu.Lock()
	if x.asked == nil {
		x.mu.Unlock()
		return told{}, &Error{Step: "asking the init", Err: ErrEnded}
	}
	x.next++
	id := x.next
	x.asked[id] = ch
	x.mu.Unlock()
	if err := sendPacket(x.conn, request(id)); err != nil {
		x.mu.Lock()
		delete(x.asked, id)
		x.mu.Unlock()
		return told{}, &Error{Step: "asking the init", Err: err}
	}
	select {
	case t, ok := <-ch:
		if !ok {
			return told{}, &Error{Step: "asking the init", Err: ErrEnded}
		}
		if t.Err != 0 {
			message.Close(t.fds)
			return told{}, &Error{Step: step, Err: t.Err}
		}
		return t, nil
	case <-ctx.Done():
		x.mu.Lock()
		delete(x.asked, id)
		x.mu.Unlock()
		select {
		case t, ok := <-ch:
			if ok {
				message.Close(t.fds)
			}
		default:
		}
		return told{}, &Error{Step: "asking the init", Err: context.Cause(ctx)}
	}
}

// Socket makes an unconnected TCP socket in the box's network.
func (x *Box) Socket(ctx context.Context) (*os.File, error) {
	return x.socket(ctx, unix.AF_INET)
}

func (x *Box) socket(ctx context.Context, family int) (*os.File, error) {
	t, err := x.ask(ctx, "making a socket", func(id uint64) []byte { return inner.AskSocket(id, family) })
	if err != nil {
		return nil, err
	}
	if len(t.fds) != 1 {
		message.Close(t.fds)
		return nil, &Error{Step: "asking the init", Err: syscall.EBADMSG}
	}
	return os.NewFile(uintptr(t.fds[0]), "socket"), nil
}

// Dial connects to a server inside.
func (x *Box) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	family, addr := unix.AF_INET, unix.Sockaddr(nil)
	if to.Addr().Is4() {
		addr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	f, err := x.socket(ctx, family)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := connect(ctx, f, addr); err != nil {
		return nil, &Error{Step: "connecting to " + to.String() + " inside", Err: err}
	}
	return net.FileConn(f)
}

// connect connects a socket that does not block.
func connect(ctx context.Context, f *os.File, addr unix.Sockaddr) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	begun, failed := false, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), addr)
			return failed != unix.EINPROGRESS //nolint:errorlint // a system call gives it bare
		}
		var n int
		if n, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed == nil && n != 0 {
			failed = syscall.Errno(n)
		}
		return true
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, failed)
}

// Signal sends a signal to the guest's program, SIGTERM for example.
func (x *Box) Signal(ctx context.Context, s syscall.Signal) error {
	_, err := x.ask(ctx, "sending a signal", func(id uint64) []byte { return inner.AskKill(id, s) })
	return err
}

// Usage says what the box has used so far.
func (x *Box) Usage() (Usage, error) {
	if u, err := x.metered(); err == nil {
		return u, nil
	}
	reply, _, err := x.b.call(&message.Request{Op: message.OpUsage, Box: x.id})
	if err != nil {
		return Usage{}, err
	}
	u := Usage{CPU: time.Duration(reply.Usage.CPU), Memory: reply.Usage.Memory, MemoryPeak: reply.Usage.MemoryPeak}
	if !reply.Usage.Group {
		processes(x.PID, &u)
	}
	return u, nil
}

// ResetPeak has MemoryPeak begin anew. It fails with ErrUnsupported where it cannot.
func (x *Box) ResetPeak() error {
	if m := x.meters[2]; m != nil {
		if _, err := m.WriteAt([]byte(cgroup.ResetMeter), 0); err == nil {
			return nil
		}
	}
	return x.do(message.OpPeak)
}

// metered reads what the box uses from its control group, which takes a twentieth of
// asking the broker for it.
func (x *Box) metered() (Usage, error) {
	var n [len(x.meters)]int64
	for i, m := range x.meters {
		if m == nil {
			return Usage{}, ErrUnsupported
		}
		var buf [1024]byte
		k, err := readOnce(m, buf[:])
		if err != nil {
			return Usage{}, err
		}
		if n[i], err = cgroup.ParseMeter(string(buf[:k])); err != nil {
			return Usage{}, err
		}
	}
	return Usage{CPU: time.Duration(n[0]), Memory: n[1], MemoryPeak: n[2]}, nil
}

// readOnce reads a file of the kernel's from its start, in one system call: a meter comes
// whole, and ReadAt would make another one to learn that nothing is behind it.
func readOnce(f *os.File, buf []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if controlErr := raw.Control(func(fd uintptr) { n, err = unix.Pread(int(fd), buf, 0) }); controlErr != nil {
		return 0, controlErr
	}
	return n, err
}

// Freeze stops everything in the box until Thaw. It fails with ErrUnsupported without a
// control group that can.
func (x *Box) Freeze() error { return x.do(message.OpFreeze) }

// Yield has everything in the box make way for whatever else wants a processor, at once
// and as often as it does, until Compete. It fails with ErrUnsupported without a control
// group that can.
func (x *Box) Yield() error { return x.do(message.OpYield) }

// Compete undoes Yield.
func (x *Box) Compete() error { return x.do(message.OpCompete) }

// Thaw undoes Freeze.
func (x *Box) Thaw() error { return x.do(message.OpThaw) }

func (x *Box) do(op string) error {
	_, _, err := x.b.call(&message.Request{Op: op, Box: x.id})
	if errors.Is(err, syscall.ENOTSUP) {
		return &Error{Step: op, Err: ErrUnsupported}
	}
	return err
}

// Missing gives the measures that this box goes without, with the reason, besides those
// that the broker's Posture lists.
func (x *Box) Missing() map[string]string { return x.b.lacksLandlock() }

// Program gives the process id, on the host, of the guest's program, or 0 when it
// cannot be told.
func (x *Box) Program() int {
	if x.PID == 0 {
		return 0
	}
	// The init forked it, and nothing else, from its first thread. Orphans that the init
	// takes in come after it.
	pid := strconv.Itoa(x.PID)
	text, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}

// Kill ends everything in the box. It does not wait: see Done.
func (x *Box) Kill() {
	x.mu.Lock()
	first := !x.killing
	x.killing = true
	x.mu.Unlock()
	if !first {
		return
	}
	go func() {
		// An error means that the box or the broker has ended.
		_, _, _ = x.b.call(&message.Request{Op: message.OpSignal, Box: x.id, Signal: int(syscall.SIGKILL)})
	}()
}

// Done is closed when the box has ended and what it held is free again.
func (x *Box) Done() <-chan struct{} { return x.done }

// Exit says how the box ended. It waits for Done.
func (x *Box) Exit() Exit {
	<-x.done
	return x.exit
}

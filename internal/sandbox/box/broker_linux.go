package box

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/cgroup"
	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// socketBuffer is how much may wait in a socket: one large packet must fit.
const socketBuffer = 2 * message.MaxSize

// Broker is a running broker. Its methods may be called from many goroutines.
type Broker struct {
	log     *slog.Logger
	name    string // part of every box's id
	cmd     *exec.Cmd
	conn    *net.UnixConn
	program *os.File
	done    chan struct{}
	posture Posture
	rootful bool
	missing map[string]string // control groups
	one     bool              // boxes have one user id mapped
	// What the kernel has: how many capabilities, and which Landlock, 0 for none.
	capabilities, landlock int
	noLandlock             error

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*request
	boxes   map[uint64]*Box
	closed  bool
}

// answer is a Reply with its descriptors.
type answer struct {
	reply *message.Reply
	fds   []int
}

// request waits for its answer.
type request struct {
	answer chan answer
	box    *Box // that is being started
}

// Open starts a broker and finds out what the machine can do. It fails when there can be
// no broker at all; what boxes lack is in Posture.
func Open(ctx context.Context, c Config) (*Broker, error) {
	if len(os.Args) > 0 && strings.HasPrefix(os.Args[0], message.Roles) {
		// Somebody uses this program as the small one, and its main does not call stub.Main.
		// It would start itself for ever.
		return nil, &Error{Step: "starting the broker", Err: errors.New("this program does not play that role: build it with the embedded one")}
	}
	program, err := openProgram(c.Program)
	if err != nil {
		return nil, err
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // it never fails
	b := &Broker{
		log: c.Logger, name: hex.EncodeToString(id[:]), program: program, done: make(chan struct{}),
		waiting: map[uint64]*request{}, boxes: map[uint64]*Box{}, rootful: os.Geteuid() == 0 && !c.Unprivileged,
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	root := c.Cgroups
	if root == "" {
		root = cgroup.DefaultRoot
	}
	memberships := settle(root, "/proc/self/cgroup")
	if err := b.start(); err != nil {
		_ = program.Close()
		return nil, err
	}
	go b.read()
	reply, _, err := b.call(&message.Request{Op: message.OpHello, Cgroups: root, Memberships: memberships})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.missing, b.one = reply.Missing, reply.One
	b.capabilities = capabilities()
	b.landlock, b.noLandlock = landlock.ABI()
	b.posture = b.probe(ctx)
	return b, nil
}

// start starts the broker's process. It is the first one of its pid namespace, and has
// mounts, a network and System V IPC of its own.
func (b *Broker) start() error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }()
	conn, err := unixConn(ours)
	if err != nil {
		return err
	}
	b.conn = conn
	b.cmd = &exec.Cmd{
		Path: "/proc/self/fd/4", Args: []string{message.RoleBroker}, Dir: "/",
		Env:        []string{"GOMAXPROCS=2", "GOTRACEBACK=single"},
		ExtraFiles: []*os.File{theirs, b.program},
		Stderr:     &lineLog{log: b.log},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		},
	}
	if !b.rootful {
		b.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		b.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		b.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := b.cmd.Start(); err != nil {
		_ = conn.Close()
		return &Error{Step: "starting the broker in its namespaces", Err: err}
	}
	return nil
}

// Posture says what is enforced on this machine.
func (b *Broker) Posture() Posture { return b.posture }

// Done is closed when the broker's process has ended, and every box with it.
func (b *Broker) Done() <-chan struct{} { return b.done }

// Close kills every box and ends the broker; it returns when nothing is left.
func (b *Broker) Close() error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	b.mu.Unlock()
	if first {
		// The broker's end of the connection sees the end and cleans up.
		_ = b.conn.CloseWrite()
	}
	<-b.done
	return nil
}

// read hands out what the broker says, until it is gone.
func (b *Broker) read() {
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4*message.MaxFDs))
	for {
		reply := new(message.Reply)
		fds, err := receive(b.conn, buf, oob, reply)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.log.Error("connection to the broker failed", "cause", err)
			}
			break
		}
		if reply.Ended != nil {
			b.mu.Lock()
			x := b.boxes[reply.Ended.Box]
			delete(b.boxes, reply.Ended.Box)
			b.mu.Unlock()
			if x != nil {
				go x.finish(reply.Ended)
			}
			continue
		}
		b.mu.Lock()
		w := b.waiting[reply.ID]
		delete(b.waiting, reply.ID)
		if w != nil && w.box != nil && reply.Failure == nil && len(fds) >= 1 {
			// Before its end can come.
			w.box.begin(reply.Box, fds)
			b.boxes[reply.Box] = w.box
		}
		b.mu.Unlock()
		if w == nil {
			message.Close(fds)
			continue
		}
		w.answer <- answer{reply: reply, fds: fds}
	}
	b.gone()
}

// gone cleans up after the broker.
func (b *Broker) gone() {
	_ = b.conn.Close()
	if err := b.cmd.Wait(); err != nil {
		b.mu.Lock()
		closed := b.closed
		b.mu.Unlock()
		b.log.Error("the broker ended", "cause", err, "asked", closed)
	}
	_ = b.program.Close()
	b.mu.Lock()
	b.closed = true
	waiting, boxes := b.waiting, b.boxes
	b.waiting, b.boxes = nil, nil
	b.mu.Unlock()
	for _, w := range waiting {
		close(w.answer)
	}
	var all sync.WaitGroup
	for id, x := range boxes {
		all.Go(func() { x.finish(&message.Ended{Box: id, Status: uint32(syscall.SIGKILL)}) })
	}
	all.Wait()
	close(b.done)
}

// call asks the broker and waits for its answer. The caller owns its descriptors.
func (b *Broker) call(r *message.Request, fds ...int) (*message.Reply, []int, error) {
	return b.callFor(nil, r, fds...)
}

// callFor is call for the start of a box.
func (b *Broker) callFor(x *Box, r *message.Request, fds ...int) (*message.Reply, []int, error) {
	w := &request{answer: make(chan answer, 1), box: x}
	b.mu.Lock()
	if b.waiting == nil || b.closed {
		b.mu.Unlock()
		return nil, nil, &Error{Step: "asking the broker", Err: ErrEnded}
	}
	b.next++
	r.ID = b.next
	b.waiting[r.ID] = w
	b.mu.Unlock()
	if err := send(b.conn, r, fds...); err != nil {
		b.mu.Lock()
		delete(b.waiting, r.ID)
		b.mu.Unlock()
		return nil, nil, &Error{Step: "asking the broker", Err: err}
	}
	a, ok := <-w.answer
	if !ok {
		return nil, nil, &Error{Step: "asking the broker", Err: ErrEnded}
	}
	if f := a.reply.Failure; f != nil {
		message.Close(a.fds)
		return nil, nil, asError(f)
	}
	return a.reply, a.fds, nil
}

// asError makes an error of what another process said.
func asError(f *message.Failure) error {
	e := &Error{Step: f.Step, Err: syscall.Errno(f.Errno)}
	if f.Errno == 0 {
		e.Err = errors.New(f.Text)
	}
	return e
}

// socketPair makes the two ends of a connection.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &Error{Step: "making a socket pair", Err: err}
	}
	for _, fd := range fds {
		// The kernel bounds it by net.core.wmem_max; too large a packet fails by itself.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}
	return os.NewFile(uintptr(fds[0]), "box"), os.NewFile(uintptr(fds[1]), "box"), nil
}

// unixConn makes a connection of a socket, which it closes.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, &Error{Step: "opening a socket", Err: err}
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, &Error{Step: "opening a socket", Err: fmt.Errorf("it is a %T", c)}
	}
	return u, nil
}

func send(c *net.UnixConn, v any, fds ...int) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > message.MaxSize {
		return unix.EMSGSIZE
	}
	return sendPacket(c, text, fds...)
}

func sendPacket(c *net.UnixConn, packet []byte, fds ...int) error {
	if len(fds) > message.MaxFDs {
		return unix.EMSGSIZE
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(packet, oob, nil)
	return err
}

// receive reads one packet into v. It gives io.EOF when the other side is gone.
func receive(c *net.UnixConn, buf, oob []byte, v any) ([]int, error) {
	n, fds, err := receivePacket(c, buf, oob)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		message.Close(fds)
		return nil, err
	}
	return fds, nil
}

// receivePacket reads one packet and gives its length. It gives io.EOF when the other
// side is gone.
func receivePacket(c *net.UnixConn, buf, oob []byte) (int, []int, error) {
	n, on, flags, _, err := c.ReadMsgUnix(buf, oob)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return 0, nil, io.EOF
	}
	if err != nil {
		return 0, nil, err
	}
	fds, err := message.Rights(oob[:on])
	if err != nil {
		return 0, nil, err
	}
	switch {
	case n == 0:
		err = io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = unix.EMSGSIZE
	}
	if err != nil {
		message.Close(fds)
		return 0, nil, err
	}
	return n, fds, nil
}

// capabilities gives how many the kernel knows.
func capabilities() int {
	n := 0
	for {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil {
			return n
		}
		n++
	}
}

// lacksLandlock says what boxes go without of Landlock.
func (b *Broker) lacksLandlock() map[string]string {
	text := landlock.Missing(b.landlock)
	if b.noLandlock != nil {
		text = "the kernel has none: " + b.noLandlock.Error()
	}
	if text == "" {
		return nil
	}
	return map[string]string{MeasureLandlock: text}
}

// lineLog logs what the broker prints, which it does when it breaks.
type lineLog struct{ log *slog.Logger }

func (l *lineLog) Write(p []byte) (int, error) {
	l.log.Error("the broker says", "text", string(p))
	return len(p), nil
}

// openProgram opens the small program.
func openProgram(path string) (f *os.File, err error) {
	var code []byte
	if path == "" {
		code, err = embedded()
	} else {
		code, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, &Error{Step: "reading the small program", Err: err}
	}
	if code != nil {
		return Executable(code)
	}
	if f, err = os.Open("/proc/self/exe"); err != nil {
		return nil, &Error{Step: "opening this program", Err: err}
	}
	return f, nil
}

// Executable puts a program into memory, where nobody can change it, for Spec.Executable.
func Executable(code []byte) (*os.File, error) {
	const step = "putting a program into memory"
	fd, err := unix.MemfdCreate("casemate-box", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where every one can be executed
		fd, err = unix.MemfdCreate("casemate-box", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, &Error{Step: step, Err: err}
	}
	f := os.NewFile(uintptr(fd), "casemate-box")
	if _, err := f.Write(code); err != nil {
		return nil, errors.Join(&Error{Step: step, Err: err}, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(&Error{Step: step, Err: err}, f.Close())
	}
	return f, nil
}

// boxName names a box for people and receipts.
func (b *Broker) boxName(id uint64) string { return b.name + "-" + strconv.FormatUint(id, 10) }

// Package boxed launches native versions in boxes: it lays out their files as images
// that a broker holds, and starts programs on them with everything locked that a box
// can lock.
//
// Only internal/node makes a Launcher. It may be used from many goroutines. The files of
// an interpreter are laid out once and shared, read-only, by all versions that need it.
package boxed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/bundle"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
)

// Kind is what receipts call these sandboxes.
const Kind = "native/process"

// Where things are inside.
const (
	task    = "/var/task"
	scratch = "/tmp"
)

// Ports inside. What leaves a box will have 9002.
const (
	apiPort    = 9001
	serverPort = 8080
)

// processors is how many of the machine's one box may use, in percent of one.
const processors = 100

// Launcher starts boxes. It implements native.Launcher.
type Launcher struct {
	broker *box.Broker
	layout *layouts
	filter []byte
}

// New makes a Launcher, which owns the broker from now on.
func New(broker *box.Broker) (*Launcher, error) {
	program, err := filter.Native()
	if err != nil {
		return nil, err
	}
	return &Launcher{broker: broker, filter: program, layout: newLayouts(broker)}, nil
}

// Runtimes implements native.Launcher.
func (l *Launcher) Runtimes() []native.RuntimeInfo { return l.layout.finder.Runtimes() }

// Posture implements native.Launcher.
func (l *Launcher) Posture() native.Posture {
	p := l.broker.Posture()
	return native.Posture{Kind: Kind, Enforced: p.Enforced, Missing: p.Missing}
}

// Close implements native.Launcher.
func (l *Launcher) Close() error { return l.broker.Close() }

// tree is a version's files.
type tree struct {
	root   *root
	code   *box.Image
	files  *os.Root
	ending sync.Once
}

// Lay implements native.Launcher.
func (l *Launcher) Lay(ctx context.Context, v *function.Version, archive []byte) (native.Tree, error) {
	a, err := bundle.Open(archive, bundle.Limits{})
	if err != nil {
		return nil, refused(err)
	}
	s := a.Summary()
	code, err := l.broker.NewImage(ctx, box.ImageSpec{
		Size:   s.Unpacked + int64(s.Files+s.Directories+s.Links+16)*pageSize,
		Inodes: s.Files + s.Directories + s.Links + 16,
	})
	if err != nil {
		return nil, fmt.Errorf("making room for the code: %w", err)
	}
	t := &tree{code: code}
	if err := a.Unpack(code.Dir()); err != nil {
		t.Release()
		return nil, refused(err)
	}
	if t.files, err = os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(code.Dir().Fd()))); err != nil {
		t.Release()
		return nil, fmt.Errorf("opening the code: %w", err)
	}
	if err := seal(ctx, code); err != nil {
		t.Release()
		return nil, fmt.Errorf("sealing the code: %w", err)
	}
	if t.root, err = l.layout.find(ctx, v, t.files.FS()); err != nil {
		t.Release()
		return nil, err
	}
	return t, nil
}

// seal seals an image. A process that the node starts at the same moment holds copies of
// the files just written until it executes its program, and then it is only a matter of
// time.
func seal(ctx context.Context, i *box.Image) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := i.Seal()
		if !errors.Is(err, syscall.EBUSY) || wait > time.Second {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// pageSize is what a small file takes in memory.
const pageSize = 4096

// refused tells an archive that is not in order from a machine that is not.
func refused(err error) error {
	var e *bundle.Error
	if errors.As(err, &e) {
		return &sandbox.Error{Kind: sandbox.BadModule, Public: "the code's archive is not in order: " + e.Error(), Cause: err}
	}
	return fmt.Errorf("unpacking the code: %w", err)
}

// Files implements native.Tree.
func (t *tree) Files() fs.FS { return t.files.FS() }

// Interpreter implements native.Tree.
func (t *tree) Interpreter() string { return t.root.interpreter }

// Release implements native.Tree.
func (t *tree) Release() {
	t.ending.Do(func() {
		if t.files != nil {
			_ = t.files.Close()
		}
		_ = t.code.Release() // it fails when the broker is gone, and the image with it
	})
}

// Launch implements native.Launcher.
func (l *Launcher) Launch(ctx context.Context, laid native.Tree, o native.Order) (native.Cell, error) {
	t, ok := laid.(*tree)
	if !ok {
		return nil, errors.New("launching: the files were laid out by another launcher")
	}
	api := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), apiPort)
	args, env := o.Command(native.Place{
		Task: task, Clients: clients.Dir, Node: t.root.node, Python: t.root.python, Scratch: scratch, API: api.String(), Port: serverPort,
	})
	b, err := l.broker.Start(ctx, box.Spec{
		Root: t.root.image, Code: t.code, Program: args[0], Args: args, Env: env, Dir: path.Join(task, o.Dir),
		Stdout: o.Output, Stderr: o.Output, Listen: []netip.AddrPort{api}, Proc: true, UsualTimes: true, Tmp: o.Scratch,
		Filter: l.filter, Memory: o.Memory, Processes: o.Processes, CPUPercent: processors,
	})
	if err != nil {
		return nil, launchFailure(err)
	}
	c := &cell{box: b}
	c.excess.Store(math.MaxInt64) // nobody has asked
	return c, nil
}

// launchFailure tells code that cannot be executed from a machine that cannot.
func launchFailure(err error) error {
	var e *box.Error
	if errors.As(err, &e) && e.Step == stepExecute {
		reason := "the program cannot be executed: " + e.Err.Error()
		switch {
		case errors.Is(err, syscall.ENOEXEC):
			reason = "the program is not one for this machine"
		case errors.Is(err, syscall.ENOENT):
			reason = "the program, or what it needs to be loaded with, is not there: build it without dynamic libraries, or for the node's system"
		case errors.Is(err, syscall.EACCES):
			reason = "the program is not executable"
		}
		return &sandbox.Error{Kind: sandbox.BadModule, Public: reason, Cause: err}
	}
	return err
}

// cell is one box.
type cell struct {
	box *box.Box
	// excess is by how much the peak was above what the box held, in bytes, when somebody
	// asked last. To begin anew would lower it by that much.
	excess atomic.Int64
}

// peakSlack is by how much the peak may be too large, in bytes. To ask the broker to let
// it begin anew takes longer than a short invocation.
const peakSlack = 256 << 10

// ID implements native.Cell.
func (c *cell) ID() string { return c.box.ID }

// API implements native.Cell.
func (c *cell) API() net.Listener { return c.box.Listeners[0] }

// Dial implements native.Cell.
func (c *cell) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.box.Dial(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), serverPort))
	if errors.Is(err, syscall.ECONNREFUSED) { // what listens on "localhost" may mean the other one
		return c.box.Dial(ctx, netip.AddrPortFrom(netip.IPv6Loopback(), serverPort))
	}
	return conn, err
}

// Usage implements native.Cell.
func (c *cell) Usage() (time.Duration, int64, error) {
	u, err := c.box.Usage()
	if err == nil {
		c.excess.Store(u.MemoryPeak - u.Memory)
	}
	return u.CPU, u.MemoryPeak, err
}

// ResetPeak implements native.Cell. It does nothing when there is next to nothing to
// gain.
func (c *cell) ResetPeak() error {
	if c.excess.Load() <= peakSlack {
		return nil
	}
	err := c.box.ResetPeak()
	if err == nil {
		c.excess.Store(0)
	}
	return err
}

// Yield implements native.Cell.
func (c *cell) Yield() error { return c.box.Yield() }

// Compete implements native.Cell.
func (c *cell) Compete() error { return c.box.Compete() }

// Freeze implements native.Cell.
func (c *cell) Freeze() error { return c.box.Freeze() }

// Thaw implements native.Cell.
func (c *cell) Thaw() error { return c.box.Thaw() }

// Kill implements native.Cell.
func (c *cell) Kill() { c.box.Kill() }

// Terminate implements native.Cell.
func (c *cell) Terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.box.Signal(ctx, syscall.SIGTERM) // whoever does not hear it is killed
}

// Done implements native.Cell.
func (c *cell) Done() <-chan struct{} { return c.box.Done() }

// Ended implements native.Cell.
func (c *cell) Ended() native.Ending {
	e := c.box.Exit()
	end := native.Ending{Code: e.Code, OOM: e.OOM, CPU: e.CPU, Peak: e.MemoryPeak}
	if e.Signal != 0 {
		end.Signal = e.Signal.String()
	}
	return end
}

// stepExecute is the step at which a program that is none of this machine's fails.
const stepExecute = "executing the program"

package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
)

// Of the machine, for one sandbox.
const (
	// processors is how much of the machine's processors one may use, in percent of one.
	processors = 100
	// Each thread of the code has one on the machine, and each process one more; the rest
	// is gVisor's own.
	threadsEach, threadsBesides = 3, 256
)

// holder is a box that holds a network, users and control groups for gVisor.
type holder struct {
	box    *box.Box
	groups *groups
	mapped []mapping
}

func (h *holder) network() string { return "/proc/" + strconv.Itoa(h.box.PID) + "/ns/net" }

func (h *holder) users() []mapping { return h.mapped }

// hold starts a box.
func (l *Launcher) hold(ctx context.Context, o *native.Order) (*holder, error) {
	api := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), apiPort)
	b, err := l.cfg.Broker.Start(ctx, box.Spec{
		Executable: l.holder, Args: []string{"hold"}, Listen: []netip.AddrPort{api}, Filter: l.filter,
		Memory: o.Memory, Processes: threadsEach*o.Processes + threadsBesides, CPUPercent: processors,
	})
	if err != nil {
		return nil, fmt.Errorf("starting a box for gVisor: %w", err)
	}
	h := &holder{box: b}
	if h.groups, err = groupsOf(b.PID); err == nil {
		h.mapped, err = usersOf(b.PID)
	}
	if err != nil {
		h.end()
		return nil, err
	}
	return h, nil
}

// end ends the box and returns when nothing is left of it.
func (h *holder) end() {
	h.box.Kill()
	<-h.box.Done()
	for _, l := range h.box.Listeners {
		_ = l.Close()
	}
}

// usersOf reads the map of a box's user ids: user_namespaces(7). Its groups are alike.
func usersOf(pid int) ([]mapping, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/uid_map")
	if err != nil {
		return nil, fmt.Errorf("reading the box's users: %w", err)
	}
	var all []mapping
	for line := range strings.Lines(string(text)) {
		var m mapping
		if _, err := fmt.Sscan(line, &m.Inside, &m.Outside, &m.Size); err != nil {
			return nil, fmt.Errorf("reading the box's users: %w", err)
		}
		if m.Outside == 0 {
			return nil, errors.New("reading the box's users: one is the machine's root")
		}
		all = append(all, m)
	}
	return all, nil
}

// Launch implements native.Launcher.
func (l *Launcher) Launch(ctx context.Context, laid native.Tree, o native.Order) (native.Cell, error) {
	t, ok := laid.(*tree)
	if !ok {
		return nil, errors.New("launching: the files were laid out by another launcher")
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.running.Add(1)
	}
	l.mu.Unlock()
	if closed {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the node is stopping"}
	}
	c, err := l.launch(ctx, t, &o)
	if err != nil {
		l.running.Done()
		return nil, err
	}
	l.mu.Lock()
	l.cells[c] = struct{}{}
	closed = l.closed
	l.mu.Unlock()
	if closed {
		c.Kill()
	}
	go func() {
		defer l.running.Done()
		c.wait()
		l.mu.Lock()
		delete(l.cells, c)
		l.mu.Unlock()
	}()
	return c, nil
}

func (l *Launcher) launch(ctx context.Context, t *tree, o *native.Order) (_ *cell, err error) {
	args, env := o.Command(native.Place{
		Task: task, Clients: clients.Dir, Node: t.root.node, Python: t.root.python, Scratch: scratch,
		API: net.JoinHostPort("127.0.0.1", strconv.Itoa(apiPort)), Port: serverPort,
	})
	if args[0] == "" {
		return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node's machine lacks the interpreter that the command names"}
	}
	h, err := l.hold(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &cell{launcher: l, holder: h, dir: l.path("cells", l.number()), done: make(chan struct{})}
	defer func() {
		if err != nil {
			c.clean()
		}
	}()
	text, err := json.Marshal(describe(t.root, filepath.Join(t.dir, code), args, env, path.Join(task, o.Dir), o, h))
	if err != nil {
		return nil, fmt.Errorf("describing the sandbox: %w", err)
	}
	if err = os.Mkdir(c.dir, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("describing the sandbox: %w", err)
	}
	c.cmd = &exec.Cmd{Path: l.cfg.Program, Args: c.arguments(), Env: []string{}, Dir: "/", Stdout: o.Output, Stderr: o.Output}
	if err = l.spawner.start(c.cmd, h.groups.add); err != nil {
		return nil, fmt.Errorf("starting runsc: %w", err)
	}
	return c, nil
}

// arguments are runsc's. What it would do anyhow is said where safety hangs on it.
func (c *cell) arguments() []string {
	return []string{
		"runsc", "--root=" + c.state(), "--log=" + filepath.Join(c.dir, "log"),
		"--platform=systrap", "--network=host", "--net-raw=false", "--host-uds=none", "--ignore-cgroups",
		"--overlay2=none", "--file-access-mounts=exclusive",
		// The sentry is then not allowed to open any file of the machine: the gofer does.
		"--directfs=false",
		"run", "--bundle=" + c.dir, guest,
	}
}

// cell is one sandbox.
type cell struct {
	launcher *Launcher
	holder   *holder
	dir      string
	cmd      *exec.Cmd
	killing  sync.Once
	killed   atomic.Bool
	done     chan struct{}
	ended    native.Ending
}

// patience is how long runsc may take to clear away what was killed below it.
const patience = 5 * time.Second

// wait waits for the sandbox's end and removes what is left of it.
func (c *cell) wait() {
	over := make(chan struct{})
	go func() {
		select {
		case <-c.holder.box.Done(): // killed for its memory, or the broker is gone
			c.Kill()
		case <-over:
		}
	}()
	_ = c.cmd.Wait() // its state says how
	close(over)
	if !c.killed.Load() {
		c.explain()
	}
	if err := c.holder.groups.kill(0); err != nil {
		c.launcher.cfg.Logger.Warn("ending gVisor's processes", "sandbox", c.ID(), "error", err)
	}
	c.clean()
	exit := c.holder.box.Exit()
	c.ended = native.Ending{Code: c.cmd.ProcessState.ExitCode(), OOM: exit.OOM, CPU: exit.CPU, Peak: exit.MemoryPeak}
	if s, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		c.ended.Signal = s.Signal().String()
	}
	close(c.done)
}

// maxSaid bounds what is taken over from runsc's log, in bytes.
const maxSaid = 4 << 10

// explain logs what runsc had to complain about: a sandbox that does not start is the
// operator's concern too.
func (c *cell) explain() {
	said, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err == nil && len(said) > 0 {
		c.launcher.cfg.Logger.Warn("runsc complains", "sandbox", c.ID(), "text", string(said[:min(len(said), maxSaid)]))
	}
}

func (c *cell) clean() {
	c.holder.end()
	_ = removeAll(c.dir) // what is left goes with the Launcher's folder
}

// ID implements native.Cell.
func (c *cell) ID() string { return c.holder.box.ID }

// API implements native.Cell.
func (c *cell) API() net.Listener { return c.holder.box.Listeners[0] }

// Dial implements native.Cell.
func (c *cell) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.holder.box.Dial(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), serverPort))
	if errors.Is(err, syscall.ECONNREFUSED) { // what listens on "localhost" may mean the other one
		return c.holder.box.Dial(ctx, netip.AddrPortFrom(netip.IPv6Loopback(), serverPort))
	}
	return conn, err
}

// Usage implements native.Cell. It is that of the kernel in user space too.
func (c *cell) Usage() (time.Duration, int64, error) {
	u, err := c.holder.box.Usage()
	return u.CPU, u.MemoryPeak, err
}

// ResetPeak implements native.Cell.
func (c *cell) ResetPeak() error { return c.holder.box.ResetPeak() }

// Yield implements native.Cell.
func (c *cell) Yield() error { return c.holder.box.Yield() }

// Compete implements native.Cell.
func (c *cell) Compete() error { return c.holder.box.Compete() }

// Freeze implements native.Cell.
func (c *cell) Freeze() error { return c.holder.box.Freeze() }

// Thaw implements native.Cell.
func (c *cell) Thaw() error { return c.holder.box.Thaw() }

// Kill implements native.Cell. The sandbox goes first and runsc, which clears away after
// it, when it has or takes too long.
func (c *cell) Kill() {
	c.killing.Do(func() {
		c.killed.Store(true)
		go func() {
			_ = c.holder.box.Thaw() // what is frozen does not die
			if err := c.holder.groups.kill(c.cmd.Process.Pid); err != nil || len(c.holder.groups.dirs) == 0 {
				_ = c.cmd.Process.Kill()
			}
			select {
			case <-c.done:
			case <-time.After(patience):
				_ = c.cmd.Process.Kill()
			}
		}()
	})
}

// signalTime bounds how long runsc may take to deliver a signal.
const signalTime = 2 * time.Second

// Terminate implements native.Cell. The runsc that runs the sandbox would not pass a
// signal on; another one does.
func (c *cell) Terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), signalTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.launcher.cfg.Program, "--root="+c.state(), "kill", guest, "TERM")
	cmd.Env = []string{}
	_ = cmd.Run() // whoever does not hear it is killed
}

func (c *cell) state() string { return filepath.Join(c.dir, "state") }

// guest is the sandbox's name to its runsc, which knows no other.
const guest = "guest"

// Done implements native.Cell.
func (c *cell) Done() <-chan struct{} { return c.done }

// Ended implements native.Cell.
func (c *cell) Ended() native.Ending { return c.ended }

// Package unsandboxed launches native versions as plain processes of the user that runs
// the node. It is for machines that have no sandbox to offer, and only where an operator
// asked for it by name: such code can read whatever the node's user can, and use the
// machine's network. Its Posture says so, and every receipt does.
//
// Only internal/node makes a Launcher. It may be used from many goroutines.
package unsandboxed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/bundle"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
)

// Kind is what receipts call these processes.
const Kind = "native/unsandboxed"

// Launcher starts processes. It implements native.Launcher.
type Launcher struct {
	dir     string
	missing map[string]string
	serial  atomic.Uint64
	running sync.WaitGroup
	lock    *os.File // on dir; nil where the system has none
	// starts runs what starts a process on one thread that lives as long as the Launcher.
	starts chan func()
	stop   chan struct{}
	ending sync.Once

	mu     sync.Mutex
	closed bool
	cells  map[*cell]struct{}
}

// New makes a Launcher. why is why there are no sandboxes.
func New(why string) (*Launcher, error) {
	base := "/dev/shm" // memory, where there is any: what is in the registry is sealed
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		base = ""
	}
	removeAbandoned(base)
	dir, lock, err := newFolder(base)
	if err != nil {
		return nil, fmt.Errorf("making a folder for native functions: %w", err)
	}
	l := &Launcher{
		dir: dir, lock: lock, starts: make(chan func()), stop: make(chan struct{}),
		missing: map[string]string{"sandbox": "--unsandboxed was given: " + why}, cells: map[*cell]struct{}{},
	}
	if err := l.writeClients(); err != nil {
		l.unlock()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its processes
		for {
			select {
			case start := <-l.starts:
				start()
			case <-l.stop:
				return
			}
		}
	}()
	return l, nil
}

// prefix begins the names of folders of Launchers.
const prefix = "casemate-native-"

// newFolder makes a folder and locks it. Another Launcher that starts at the same moment
// may take it for an abandoned one before it is locked, and then there is another.
func newFolder(base string) (dir string, lock *os.File, err error) {
	for range 10 {
		if dir, err = os.MkdirTemp(base, prefix); err != nil {
			return "", nil, err
		}
		lock, err = own(dir)
		if errors.Is(err, errors.ErrUnsupported) {
			return dir, nil, nil
		}
		if err != nil {
			continue
		}
		if _, err = os.Stat(dir); err == nil {
			return dir, lock, nil
		}
		_ = lock.Close()
	}
	return "", nil, err
}

// removeAbandoned removes what Launchers left behind that were killed: nobody has it
// locked.
func removeAbandoned(base string) {
	if base == "" {
		base = os.TempDir()
	}
	dirs, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return // the pattern is a constant
	}
	for _, dir := range dirs {
		if lock, err := own(dir); err == nil {
			_ = removeAll(dir)
			_ = lock.Close()
		}
	}
}

// unlock lets go of the folder; a second time is harmless.
func (l *Launcher) unlock() {
	if l.lock != nil {
		_ = l.lock.Close() // nothing was written by it
	}
}

func (l *Launcher) writeClients() error {
	if err := os.CopyFS(filepath.Join(l.dir, "clients"), clients.FS()); err != nil {
		return fmt.Errorf("laying out the runtime clients: %v", err)
	}
	return nil
}

// Posture implements native.Launcher.
func (l *Launcher) Posture() native.Posture {
	return native.Posture{Kind: Kind, Missing: maps.Clone(l.missing)}
}

// interpreters are the programs that runtimes need, by the names they are looked up by.
func interpreters() map[function.Runtime]string {
	return map[function.Runtime]string{function.RuntimeNodeJS: "node", function.RuntimePython: "python3"}
}

// Runtimes implements native.Launcher.
func (l *Launcher) Runtimes() []native.RuntimeInfo {
	var all []native.RuntimeInfo
	for _, r := range []function.Runtime{function.RuntimeProvided, function.RuntimeNodeJS, function.RuntimePython, function.RuntimeHTTP, function.RuntimeAzure} {
		info := native.RuntimeInfo{Runtime: r}
		if name := interpreters()[r]; name != "" {
			if _, err := exec.LookPath(name); err != nil {
				info.Reason = name + " is not on the PATH: install it and restart the node"
			}
		}
		all = append(all, info)
	}
	return all
}

// Close implements native.Launcher.
func (l *Launcher) Close() error {
	l.ending.Do(func() { close(l.stop) })
	l.mu.Lock()
	l.closed = true
	for c := range l.cells {
		c.Kill()
	}
	l.mu.Unlock()
	l.running.Wait()
	defer l.unlock()
	return removeAll(l.dir)
}

// tree is a version's files, in a folder.
type tree struct{ dir string }

// Lay implements native.Launcher.
func (l *Launcher) Lay(_ context.Context, v *function.Version, archive []byte) (native.Tree, error) {
	if name := interpreters()[v.Config.Runtime]; name != "" {
		if _, err := exec.LookPath(name); err != nil {
			return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node's machine lacks something: " + name + " is not on its PATH", Cause: err}
		}
	}
	dir := filepath.Join(l.dir, "code-"+strconv.FormatUint(l.serial.Add(1), 10))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making room for the code: %v", err)
	}
	t := &tree{dir: dir}
	into, err := os.Open(dir)
	if err != nil {
		t.Release()
		return nil, fmt.Errorf("opening the room for the code: %v", err)
	}
	_, err = bundle.Unpack(archive, into, bundle.Limits{})
	_ = into.Close()
	if err != nil {
		t.Release()
		var e *bundle.Error
		if errors.As(err, &e) {
			return nil, &sandbox.Error{Kind: sandbox.BadModule, Public: "the code's archive is not in order: " + e.Error(), Cause: err}
		}
		return nil, fmt.Errorf("unpacking the code: %w", err)
	}
	return t, nil
}

// Files implements native.Tree.
func (t *tree) Files() fs.FS { return os.DirFS(t.dir) }

// Interpreter implements native.Tree.
func (t *tree) Interpreter() string { return "" }

// Release implements native.Tree. Programs that run keep what they have open.
func (t *tree) Release() { _ = removeAll(t.dir) }

// removeAll removes a folder whose own folders may be read-only.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(name, 0o700) //nolint:gosec // a folder that is about to go
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// errClosed is what comes of starting something when the Launcher ends.
var errClosed = errors.New("launching: the launcher is closed")

// Launch implements native.Launcher.
func (l *Launcher) Launch(ctx context.Context, laid native.Tree, o native.Order) (_ native.Cell, err error) {
	t, ok := laid.(*tree)
	if !ok {
		return nil, errors.New("launching: the files were laid out by another launcher")
	}
	// From here on Close waits for it.
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, errClosed
	}
	l.running.Add(1)
	l.mu.Unlock()
	id := Kind + "-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(l.serial.Add(1), 10)
	c := &cell{id: id, done: make(chan struct{})}
	defer func() {
		if err != nil {
			c.clean()
			l.running.Done()
		}
	}()
	if c.scratch, err = os.MkdirTemp(l.dir, "scratch-"); err != nil {
		return nil, fmt.Errorf("making a scratch folder: %v", err)
	}
	var lc net.ListenConfig
	if c.api, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listening for the runtime: %v", err)
	}
	if c.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	place := native.Place{Task: t.dir, Clients: filepath.Join(l.dir, "clients"), Scratch: c.scratch, API: c.api.Addr().String(), Port: c.port}
	place.Node, _ = exec.LookPath("node")
	place.Python, _ = exec.LookPath("python3")
	args, env := o.Command(place)
	if args[0] == "" {
		return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node's machine lacks the interpreter that the command names"}
	}
	started := make(chan struct{})
	launch := func() {
		defer close(started)
		c.cmd, err = start(ctx, func() *exec.Cmd {
			return &exec.Cmd{
				Path: args[0], Args: args, Env: env, Dir: path.Join(t.dir, o.Dir), Stdout: o.Output, Stderr: o.Output, SysProcAttr: ownGroup(),
			}
		})
	}
	select {
	case l.starts <- launch:
		<-started
	case <-l.stop:
		return nil, errClosed
	}
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.BadModule, Public: "the program cannot be executed", Cause: err}
	}
	l.mu.Lock()
	l.cells[c] = struct{}{}
	closed := l.closed
	l.mu.Unlock()
	if closed { // which did not know of it yet
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

// start starts a program that was written a moment ago. Another process that starts at
// the same time may hold a copy of the descriptor it was written by, until it executes.
func start(ctx context.Context, command func() *exec.Cmd) (*exec.Cmd, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		cmd := command()
		err := cmd.Start()
		if !errors.Is(err, textBusy) || wait > time.Second {
			return cmd, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// freePort finds a port for a server to listen on. Somebody else may take it before
// the server does; without a network of its own there is no better way.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a port: %v", err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("finding a port: %v", err)
	}
	return strconv.Atoi(port)
}

// cell is one process, and what it started.
type cell struct {
	id      string
	cmd     *exec.Cmd
	api     net.Listener
	port    int
	scratch string
	done    chan struct{}
	ended   native.Ending
}

func (c *cell) wait() {
	err := c.cmd.Wait()
	killGroup(c.cmd.Process) // what it left behind
	s := c.cmd.ProcessState
	c.ended = native.Ending{Code: s.ExitCode(), CPU: s.UserTime() + s.SystemTime()}
	if s.ExitCode() < 0 && err != nil {
		c.ended.Signal = signalName(s)
	}
	c.clean()
	close(c.done)
}

func (c *cell) clean() {
	if c.api != nil {
		_ = c.api.Close()
	}
	if c.scratch != "" {
		_ = removeAll(c.scratch)
	}
}

// ID implements native.Cell.
func (c *cell) ID() string { return c.id }

// API implements native.Cell.
func (c *cell) API() net.Listener { return c.api }

// Dial implements native.Cell.
func (c *cell) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)))
}

// Usage implements native.Cell.
func (c *cell) Usage() (time.Duration, int64, error) { return processUsage(c.cmd.Process.Pid) }

// ResetPeak implements native.Cell. The system keeps one peak for a process's life.
func (c *cell) ResetPeak() error { return errors.ErrUnsupported }

// Yield implements native.Cell.
func (c *cell) Yield() error { return errors.ErrUnsupported }

// Compete implements native.Cell.
func (c *cell) Compete() error { return nil }

// Freeze implements native.Cell.
func (c *cell) Freeze() error { return errors.ErrUnsupported }

// Thaw implements native.Cell.
func (c *cell) Thaw() error { return nil }

// Kill implements native.Cell.
func (c *cell) Kill() { killGroup(c.cmd.Process) }

// Terminate implements native.Cell.
func (c *cell) Terminate() { terminate(c.cmd.Process) }

// Done implements native.Cell.
func (c *cell) Done() <-chan struct{} { return c.done }

// Ended implements native.Cell.
func (c *cell) Ended() native.Ending { return c.ended }

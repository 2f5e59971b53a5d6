package gvisor

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts runsc. All are started by one thread, which lives as long as the
// Launcher: they die with the thread that started them.
type spawner struct {
	orders chan order
	done   chan struct{}
}

type order struct {
	cmd   *exec.Cmd
	admit func(pid int) error
	done  chan error
}

func newSpawner() *spawner {
	s := &spawner{orders: make(chan order), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends here
	for o := range s.orders {
		o.done <- spawn(o.cmd, o.admit)
	}
}

// start starts a program. It does not run before admit has returned.
func (s *spawner) start(cmd *exec.Cmd, admit func(pid int) error) error {
	done := make(chan error, 1)
	s.orders <- order{cmd, admit, done}
	return <-done
}

// close ends the thread. All that it started has ended.
func (s *spawner) close() {
	close(s.orders)
	<-s.done
}

// spawn starts a traced process, which stops before its program's first instruction, and
// lets it go when it is admitted. Version 1 of control groups has no other way to have a
// program begin in a group.
func spawn(cmd *exec.Cmd, admit func(pid int) error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL, Ptrace: true,
		// What runsc mounts for itself is not to be seen by anybody else.
		Unshareflags: syscall.CLONE_NEWNS,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	err := stopped(pid)
	if err == nil {
		// gVisor's processes hold the code's memory. One byte, not none, and why: see the
		// limits of a box.
		err = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}, nil)
	}
	if err == nil {
		err = admit(pid)
	}
	if err == nil {
		err = unix.PtraceDetach(pid)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("starting %s in the box's control groups: %w", cmd.Path, err)
	}
	return nil
}

func stopped(pid int) error {
	for {
		var s unix.WaitStatus
		_, err := unix.Wait4(pid, &s, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case !s.Stopped():
			return errors.New("it ended at once")
		default:
			return nil
		}
	}
}

package spawn

import (
	"errors"
	"io"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run starts a plan and gives how its process ended.
func run(t *testing.T, p *Plan, flags uint64) unix.WaitStatus {
	t.Helper()
	var pidfd int32 = -1
	pid, err := p.Start(flags, &pidfd)
	if err != nil {
		t.Fatal(err)
	}
	if pidfd < 0 {
		t.Error("there is no pidfd")
	}
	_ = unix.Close(int(pidfd))
	var s unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &s, 0, nil); err != unix.EINTR {
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
}

func TestTheProgramIsExecuted(t *testing.T) {
	for name, flags := range map[string]uint64{"vfork": unix.CLONE_VFORK, "beside": 0} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := new(Plan)
			p.Want("arranging", 1, unix.SYS_DUP3, w.Fd(), 1, 0)
			p.Succeed("making a session", unix.SYS_SETSID)
			p.Try("nothing", unix.SYS_CLOSE, ^uintptr(0))
			if err := p.Exec("executing", -1, "/bin/sh", []string{"sh", "-c", `echo "$1 $WHAT"; exit 7`, "sh", "said"}, []string{"WHAT=this"}); err != nil {
				t.Fatal(err)
			}
			s := run(t, p, flags)
			if step, why, failed := p.Failure(); failed {
				t.Fatalf("%s: %v", step, why)
			}
			_ = w.Close()
			out, err := io.ReadAll(r)
			if err != nil || string(out) != "said this\n" || s.ExitStatus() != 7 {
				t.Errorf("said %q (%v), status %d", out, err, s.ExitStatus())
			}
		})
	}
}

// A call that does not go well ends the process: nothing after it is done.
func TestACallThatFailsEndsIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := []byte("on")
	for name, c := range map[string]struct {
		add  func(*Plan)
		want unix.Errno
	}{
		"an error":                  {func(p *Plan) { p.Do("this", unix.SYS_CLOSE, ^uintptr(0)) }, unix.EBADF},
		"an error of any result":    {func(p *Plan) { p.Succeed("this", unix.SYS_CLOSE, ^uintptr(0)) }, unix.EBADF},
		"another result":            {func(p *Plan) { p.Want("this", 99, unix.SYS_UMASK, 0o22) }, 0},
		"a program that is missing": {func(p *Plan) { _ = p.Exec("this", -1, "/nothing/there", []string{"x"}, nil) }, unix.ENOENT},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(Plan)
			p.Succeed("before", unix.SYS_GETPID)
			c.add(p)
			p.write(w, text)
			s := run(t, p, unix.CLONE_VFORK)
			step, why, failed := p.Failure()
			if !failed || step != "this" || why != c.want || s.ExitStatus() != 127 {
				t.Errorf("%q %v %v, status %d", step, why, failed, s.ExitStatus())
			}
		})
	}
	_ = w.Close()
	if out, _ := io.ReadAll(r); len(out) > 0 {
		t.Errorf("it went on: %q", out)
	}
}

// write is a call after which no test expects anything.
func (p *Plan) write(w *os.File, text []byte) {
	p.Keep(text)
	p.Succeed("going on", unix.SYS_WRITE, w.Fd(), addr(text), uintptr(len(text)))
}

// What Go handles, the process does not: it has no stack to do so.
func TestNoHandlerOfGoRunsInIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := new(Plan)
	buf := make([]byte, 1)
	p.Keep(buf)
	p.Succeed("waiting", unix.SYS_READ, r.Fd(), addr(buf), 1)
	pid, err := p.Start(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGPROF); err != nil { // Go has a handler for it
		t.Fatal(err)
	}
	var s unix.WaitStatus
	if _, err := unix.Wait4(pid, &s, 0, nil); err != nil || s.Signal() != unix.SIGPROF {
		t.Errorf("it ended by %v (%v), %v", s.Signal(), s, err)
	}
	_ = w.Close()
}

func TestStartSaysWhatTheKernelRefuses(t *testing.T) {
	p := new(Plan)
	p.Do("nothing", unix.SYS_GETPID)
	if _, err := p.Start(unix.CLONE_NEWNS|unix.CLONE_FS, nil); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
	if err := p.Exec("x", -1, "a\x00b", []string{"x"}, nil); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

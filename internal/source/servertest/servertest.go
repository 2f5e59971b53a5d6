// Package servertest gives tests of sources what they need on the far side: real servers
// on loopback, certificates, a proxy that cuts connections, and a sink and a store in
// memory. Only tests import it.
//
// A server belongs to the test that started it and is killed at its end. A program that is
// not installed skips the test, unless the environment variable CASEMATE_TEST_REQUIRE is
// set, as it is where all of them must be there: then the test fails.
package servertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for something that must happen: only a failure
// reaches it.
const Patience = 5 * time.Minute

// Program finds a program, also where only root looks for them.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	Missing(t, name+" is not installed")
	return ""
}

// Missing skips the test, or fails it where everything must be there.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CASEMATE_TEST_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Port gives a free port of loopback. Somebody else may take it before it is used.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Local is the address of a port of loopback.
func Local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Process is a server that can be killed and started again.
type Process struct {
	t       testing.TB
	command func() *exec.Cmd
	ready   func(context.Context) error

	mu  sync.Mutex
	cmd *exec.Cmd // nil when it does not run
	log *output
}

// Start starts what command gives and waits until ready succeeds.
func Start(t testing.TB, command func() *exec.Cmd, ready func(context.Context) error) *Process {
	t.Helper()
	p := &Process{t: t, command: command, ready: ready, log: &output{}}
	t.Cleanup(p.Kill)
	p.Restart()
	return p
}

// Restart starts the server again after Kill or Stop.
func (p *Process) Restart() {
	p.t.Helper()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// A group of its own, so that what a script starts ends with it; and it does not
	// outlive a test that dies.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.cmd = cmd
	p.mu.Unlock()
	if err := Eventually(p.t.Context(), p.ready); err != nil {
		p.t.Fatalf("%s is not ready: %v\n%s", cmd.Path, err, p.log)
	}
}

// Kill ends the server as a lost machine does.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the server to end, and waits.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(s syscall.Signal) {
	p.mu.Lock()
	cmd := p.cmd
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = syscall.Kill(-cmd.Process.Pid, s)
	_ = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// Log is what the server has written.
func (p *Process) Log() string { return p.log.String() }

// Eventually calls try until it succeeds, and fails after Patience with its last error.
func Eventually(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		one, stop := context.WithTimeout(ctx, 30*time.Second)
		err := try(one)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited %v: %w", Patience, err)
		}
	}
}

// Listening says whether a port of loopback is open.
func Listening(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", Local(port))
		if err == nil {
			err = c.Close()
		}
		return err
	}
}

// output keeps the end of what a server writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() > 1<<20 {
		o.buf.Reset()
	}
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// readyTimeout bounds how long a process may take until it is locked in.
const readyTimeout = 15 * time.Second

// writeTimeout bounds how long a process may take nothing from its socket.
const writeTimeout = 10 * time.Second

// maxLastWords bounds what is kept of a process's standard error, in bytes: enough
// to say how a crash began.
const maxLastWords = 4 << 10

// starter starts processes, all from one thread that lives as long as it does: the
// kernel kills a child when the thread that made it ends, not the program.
type starter struct {
	binary *os.File
	memory int64
	jobs   chan func()
	done   chan struct{}

	mu      sync.Mutex
	serial  uint64
	profile profile
	missing map[string]string
}

// newStarter opens the binary and finds the strictest way to start a process that
// this machine allows. It gives the process that proved it.
func newStarter(path string, memory int64, adopt func(*child)) (*starter, error) {
	binary, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the sandbox's program: %v", err)
	}
	s := &starter{binary: binary, memory: memory, jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
		close(s.done)
	}()
	var why, last error
	for _, p := range profiles() {
		s.profile, s.missing = p, p.lacks(why)
		c, err := s.start()
		if err == nil {
			adopt(c)
			return s, nil
		}
		if why == nil {
			why = err
		}
		last = err
	}
	s.close()
	return nil, fmt.Errorf("starting a sandbox process: %v", last)
}

func (s *starter) close() {
	close(s.jobs)
	<-s.done
	_ = s.binary.Close()
}

// child is a process that has locked itself in and said so.
type child struct {
	cmd     *exec.Cmd
	conn    *os.File
	reader  *wire.Reader
	posture Posture
	words   *lastWords
	serial  uint64
}

// start starts one process and waits until it is ready.
func (s *starter) start() (*child, error) {
	s.mu.Lock()
	s.serial++
	serial := s.serial
	s.mu.Unlock()
	node, box, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = box.Close() }()
	// The uid varies with the process, so that two runners share few of them.
	cmd := s.profile.command(s.binary, serial+uint64(os.Getpid())*64, s.memory)
	cmd.ExtraFiles = []*os.File{box, s.binary}
	words := &lastWords{done: make(chan struct{})}
	theirs, err := words.pipe()
	if err != nil {
		_ = node.Close()
		return nil, err
	}
	cmd.Stderr = theirs
	started := make(chan error)
	s.jobs <- func() { started <- cmd.Start() }
	err = <-started
	_ = theirs.Close()
	if err != nil {
		_ = node.Close()
		words.wait()
		return nil, fmt.Errorf("starting: %v", err)
	}
	c := &child{cmd: cmd, conn: node, reader: wire.NewReader(node), words: words, serial: serial}
	if err := c.awaitReady(startEnforces(), s.missing); err != nil {
		_ = cmd.Process.Kill()
		_ = node.Close()
		words.wait()
		state := cmd.Wait()
		return nil, fmt.Errorf("%v (process: %v, it said: %q)", err, state, words.text())
	}
	return c, nil
}

func (c *child) awaitReady(enforced []string, missing map[string]string) error {
	// A deadline in real time: this is about a process, not about a clock's value.
	timer := time.AfterFunc(readyTimeout, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	f, err := c.reader.Next()
	if err != nil {
		return fmt.Errorf("waiting for the process to be ready: %v", err)
	}
	var h wire.Hello
	if f.Type != wire.Ready {
		return fmt.Errorf("waiting for the process to be ready: got a %v frame", f.Type)
	}
	if err := wire.ParseJSON(f.Payload, &h); err != nil {
		return err
	}
	if h.Protocol != wire.Version {
		return fmt.Errorf("the process speaks version %d of the protocol, want %d", h.Protocol, wire.Version)
	}
	c.posture = postureOf(h, enforced, missing)
	return nil
}

// lastWords keeps the first of what a process writes on its standard error and
// reads the rest away.
type lastWords struct {
	done chan struct{}

	mu   sync.Mutex
	kept []byte
}

// pipe gives the end to write to and starts reading the other, until all writers
// have gone.
func (l *lastWords) pipe() (*os.File, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %v", err)
	}
	go func() {
		defer close(l.done)
		defer func() { _ = ours.Close() }()
		_, err := io.Copy(l, ours)
		_ = err // the pipe ended, one way or the other
	}()
	return theirs, nil
}

// Write implements io.Writer.
func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, p[:min(len(p), maxLastWords-len(l.kept))]...)
	return len(p), nil
}

func (l *lastWords) wait() { <-l.done }

func (l *lastWords) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.kept)
}

// errEnded is why calls fail when the runner ends.
var errEnded = errors.New("the runner was closed")

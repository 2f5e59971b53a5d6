package process

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

// way is one way to start a process. Whatever way it is, the process has the plan's
// arguments, the connection and a pipe for its last words, and nothing else of the
// node's.
type way interface {
	start(ctx context.Context, o order) (life, error)
	close()
}

// order asks for a process.
type order struct {
	binary *os.File
	memory int64    // of all guests, in bytes
	most   int64    // of the whole process, in bytes
	conn   *os.File // the sandbox's end
	code   *os.File // where compiled code is put for it, nil without
	words  *os.File // its standard error
	serial uint64
}

// life is a process that was started.
type life interface {
	// pid is that of the process on this machine, 0 when it cannot be told.
	pid() int
	kill()
	// wait returns when nothing is left of the process, and says how it ended.
	wait() string
	// walls are the measures that the way of the start has put around it, and those that
	// it has not, with the reason.
	walls() (enforced []string, missing map[string]string)
}

// starter starts processes in the strictest way that this machine allows. The mutex
// guards the number of the last one.
type starter struct {
	binary *os.File
	memory int64
	way    way
	ctx    context.Context // ends when no more are to be started
	stop   context.CancelFunc

	mu     sync.Mutex
	serial uint64
}

// newStarter opens the binary and tries the ways, stricter ones first. It gives the
// process that proved one.
func newStarter(c *Config, most int64, adopt func(*child)) (*starter, error) {
	binary, err := openBinary(c.Executable)
	if err != nil {
		return nil, err
	}
	s := &starter{binary: binary, memory: c.Memory}
	s.ctx, s.stop = context.WithCancel(context.Background())
	unboxed := c.Unboxed
	var why, last error
	if c.Boxes != nil {
		first, err := s.prove(newBoxed(c.Boxes), most)
		if err == nil {
			adopt(first)
			return s, nil
		}
		if needsFiles(binary) {
			err = fmt.Errorf("%w: this program was linked dynamically, and there are no libraries in a box; build it with CGO_ENABLED=0, as make build does", err)
		}
		c.Logger.Warn("sandboxes cannot be started in boxes; the node starts them itself, with less around them", "error", err)
		unboxed = err.Error()
	}
	for _, p := range profiles() {
		first, err := s.prove(newSpawner(p, p.lacks(why), unboxed), most)
		if err == nil {
			adopt(first)
			return s, nil
		}
		if why == nil {
			why = err
		}
		last = err
	}
	_ = s.binary.Close()
	return nil, fmt.Errorf("starting a sandbox process: %v", last)
}

// needsFiles reports whether a program is loaded by another one, with libraries: such a
// program starts where those are, and nowhere else.
func needsFiles(binary *os.File) bool {
	f, err := elf.NewFile(binary)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// prove starts the first process in a way, which is the starter's from then on.
func (s *starter) prove(w way, most int64) (*child, error) {
	s.way = w
	c, err := s.start(most)
	if err != nil {
		w.close()
	}
	return c, err
}

func (s *starter) close() {
	s.stop()
	s.way.close()
	_ = s.binary.Close()
}

// child is a process that has locked itself in and said so.
type child struct {
	life    life
	conn    *os.File
	reader  *wire.Reader
	code    *codeFile // nil where there is none
	posture Posture
	words   *lastWords
	serial  uint64
}

// start starts one process, which may hold so much memory, in bytes, and waits until
// it is ready.
func (s *starter) start(most int64) (*child, error) {
	ctx, cancel := context.WithTimeout(s.ctx, readyTimeout)
	defer cancel()
	s.mu.Lock()
	s.serial++
	serial := s.serial
	s.mu.Unlock()
	node, sandbox, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = sandbox.Close() }()
	code, err := newCodeFile()
	if err != nil {
		_ = node.Close()
		return nil, err
	}
	words := &lastWords{done: make(chan struct{})}
	theirs, err := words.pipe()
	if err != nil {
		_ = node.Close()
		code.close()
		return nil, err
	}
	o := order{binary: s.binary, memory: s.memory, most: most, conn: sandbox, words: theirs, serial: serial}
	if code != nil {
		o.code = code.theirs
	}
	l, err := s.way.start(ctx, o)
	_ = theirs.Close()
	if err != nil {
		_ = node.Close()
		code.close()
		words.wait()
		return nil, fmt.Errorf("starting: %v%s", err, words.quoted())
	}
	_ = sandbox.Close() // so that the connection ends when the process does
	code.handed()
	c := &child{life: l, conn: node, reader: wire.NewReader(node), code: code, words: words, serial: serial}
	if err := c.awaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%v (process: %s%s)", err, c.end(), words.quoted())
	}
	return c, nil
}

// end ends a process that nobody uses, and says how it ended.
func (c *child) end() string {
	c.life.kill()
	_ = c.conn.Close()
	c.code.close()
	c.words.wait()
	return c.life.wait()
}

func (c *child) awaitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.life.kill)
	defer stop()
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
	enforced, missing := c.life.walls()
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

// quoted is for the end of an error: nothing when nothing was said.
func (l *lastWords) quoted() string {
	if text := l.text(); text != "" {
		return fmt.Sprintf(", it said: %q", text)
	}
	return ""
}

// errEnded is why calls fail when the runner ends.
var errEnded = errors.New("the runner was closed")

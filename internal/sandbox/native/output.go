package native

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// output reads what the processes of one sandbox print, and gives each line to the
// invocation during which it was printed. What was printed while none was under way
// (module scope, or after an answer) goes to the next one.
//
// The pipe is read by one goroutine as bytes arrive, and by whoever ends an invocation,
// who takes what is in the pipe by then: a guest prints before it answers, so its lines
// are there. The mutex guards the fields below it, and reading the pipe.
type output struct {
	clock func() time.Time
	pipe  *os.File
	pause func(time.Duration)
	done  chan struct{}

	mu      sync.Mutex
	partial []byte
	early   []sandbox.LogLine // printed while there was no listener
	last    [][]byte          // the end of what was printed, for explanations
	sink    func(sandbox.LogLine)
	limit   int64
	kept    int64
	dropped int64
	buffer  []byte
	ended   bool
}

// What is kept of lines that nobody listens to, in bytes, and of the last ones.
const (
	maxEarly    = 64 << 10
	lastLines   = 20
	readAtOnce  = 16 << 10
	readsInARow = 16 // of readAtOnce, before somebody else may have a turn
	// floodPause is between two looks at a pipe of which everything is dropped. It holds
	// 64 KiB, so that some 12 MB a second are read.
	floodPause = 5 * time.Millisecond
)

// newOutput begins to read from the pipe, which it owns.
func newOutput(pipe *os.File, clock func() time.Time) *output {
	pause := func(d time.Duration) { <-time.After(d) }
	o := &output{clock: clock, pipe: pipe, pause: pause, done: make(chan struct{}), limit: maxEarly, buffer: make([]byte, readAtOnce)}
	go o.run()
	return o
}

func (o *output) run() {
	defer close(o.done)
	raw, err := o.pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { return o.read(int(fd)) })
	o.mu.Lock()
	o.flush()
	o.ended = true
	o.mu.Unlock()
}

// read takes what is in the pipe. It reports whether the pipe has ended. Of what is
// dropped anyhow it takes a bounded amount in a time: who prints that much waits, and
// not whoever else needs the processor.
func (o *output) read(fd int) (ended bool) {
	for {
		o.mu.Lock()
		more, end := o.readSome(fd)
		flood := o.dropped > 0
		o.mu.Unlock()
		if end {
			return true
		}
		if flood {
			o.pause(floodPause)
		}
		if !more {
			return false
		}
	}
}

// readSome reads for a bounded time with the lock held: a flood must not keep others
// from it.
func (o *output) readSome(fd int) (more, ended bool) {
	for range readsInARow {
		n, err := syscall.Read(fd, o.buffer)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return false, false
		case err != nil || n <= 0:
			return false, true
		}
		o.take(o.buffer[:n])
	}
	return true, false
}

// drain takes what was printed until now. A guest that never stops printing does not
// hold it up: what comes later is the next one's.
func (o *output) drain() {
	raw, err := o.pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.ended {
			o.readSome(int(fd))
		}
	})
}

// begin gives lines to sink from now on, those that came before first, limit bytes of
// them at the most.
func (o *output) begin(limit int64, sink func(sandbox.LogLine)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	early := o.early
	o.early, o.sink, o.limit, o.kept, o.dropped = nil, sink, limit, 0, 0
	for _, l := range early {
		o.emit(l)
	}
}

// end takes what was printed, and stops giving lines. It reports how many bytes were
// kept and how many dropped.
func (o *output) end() (kept, dropped int64) {
	o.drain()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
	kept, dropped = o.kept, o.dropped
	o.sink, o.limit, o.kept, o.dropped = nil, maxEarly, 0, 0
	return kept, dropped
}

// tail gives the last lines that were printed.
func (o *output) tail() string {
	o.drain()
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.last
	if len(o.partial) > 0 {
		lines = append(lines[:len(lines):len(lines)], o.partial)
	}
	return string(bytes.Join(lines, []byte("\n")))
}

// close stops reading. The writers are gone by then, or do not matter any more.
func (o *output) close() {
	_ = o.pipe.Close()
	<-o.done
}

func (o *output) take(b []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		room := sandbox.MaxLogLine - len(o.partial)
		switch {
		case i >= 0 && i <= room:
			o.partial = append(o.partial, b[:i]...)
			b = b[i+1:]
			o.line()
		case len(b) > room:
			o.partial = append(o.partial, b[:room]...)
			b = b[room:]
			o.line()
		default:
			o.partial = append(o.partial, b...)
			b = nil
		}
	}
}

func (o *output) flush() {
	if len(o.partial) > 0 {
		o.line()
	}
}

func (o *output) line() {
	text := bytes.TrimSuffix(o.partial, []byte("\r"))
	if n := int64(len(text)) + 1; o.kept+n > o.limit { // a flood is not worth a copy of each line
		o.dropped += n
		o.partial = o.partial[:0]
		return
	}
	if len(o.last) == lastLines {
		o.last = append(o.last[:0:0], o.last[1:]...)
	}
	o.last = append(o.last, bytes.Clone(text))
	o.emit(sandbox.LogLine{Time: o.clock(), Text: string(bytes.ToValidUTF8(text, []byte("\uFFFD")))})
	o.partial = o.partial[:0]
}

func (o *output) emit(l sandbox.LogLine) {
	n := int64(len(l.Text)) + 1
	if o.kept+n > o.limit {
		o.dropped += n
		return
	}
	o.kept += n
	if o.sink != nil {
		o.sink(l)
		return
	}
	o.early = append(o.early, l)
}

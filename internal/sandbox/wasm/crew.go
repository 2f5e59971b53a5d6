package wasm

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// crew is who reads a connection and runs the guests. One worker leads: it reads a
// frame, and when that completes an invocation it runs the guest itself, at once, on
// the same thread, since waking somebody for it would cost more than most guests do.
// A guest that takes long must not keep others waiting, so a leader passes the lead on
// at the guest's first tick, and before the guest waits for anything. Somebody else
// reads on then, and the old leader parks when its guest has ended.
//
// Each worker keeps its thread, so that a thread's clock is its guest's.
type crew struct {
	srv    *server
	reader *wire.Reader // the leader's
	most   int          // workers that park

	running atomic.Int32 // guests that are being run

	mu     sync.Mutex
	parked int
	baton  chan struct{} // the lead, for one that is parked
	ended  chan struct{} // closed when nobody will read any more
	err    error         // why
}

// worker is one goroutine of a crew.
type worker struct {
	crew    *crew
	leading bool
	held    int // answers that were put down and not sent yet
}

// mostHeld is how many answers a leader puts down before it sends them, when more
// work is waiting to be read.
const mostHeld = 8

// longGuest is how long a guest takes before another processor is given the lead at
// once, when more work is waiting; slowGuest is how long it takes before somebody else
// reads in any case. A guest that faults in much memory takes long without a tick, and
// so does clearing away after it.
const (
	longGuest = 60 * time.Microsecond
	slowGuest = 500 * time.Microsecond
)

// longSlice is the slice of a thread whose guest takes long: longer than the kernel
// gives by itself, so that all others go before it.
const longSlice = 20 * time.Millisecond

func newCrew(s *server, r *wire.Reader) *crew {
	most := 2 * runtime.NumCPU()
	return &crew{srv: s, reader: r, most: most, baton: make(chan struct{}, most), ended: make(chan struct{})}
}

// run serves until the connection ends, and gives the reason. Guests may still run
// then.
func (c *crew) run() error {
	c.srv.work.Go(c.work)
	<-c.ended
	return c.err
}

// work is a worker's life. It begins with the lead.
func (c *crew) work() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &worker{crew: c}
	for {
		if err := w.lead(); !w.leading {
			if !c.park() {
				return
			}
		} else {
			c.err = err
			close(c.ended)
			return
		}
	}
}

// lead reads and runs until the lead was passed on, or reading has ended; then it
// gives the reason, nil for an orderly end.
func (w *worker) lead() error {
	c := w.crew
	w.leading = true
	for {
		if w.held > 0 && !c.reader.Buffered() { // what was read meanwhile was no invocation
			w.flush()
		}
		f, err := c.reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from the node: %w", err)
		}
		i, err := c.srv.handle(f)
		if err != nil {
			return fmt.Errorf("handling %v frame: %w", f.Type, err)
		}
		if i == nil {
			continue
		}
		if w.do(i); !w.leading {
			return nil
		}
	}
}

// do runs one invocation.
func (w *worker) do(i *invocation) {
	c := w.crew
	i.worker = w
	others := c.running.Add(1) - 1
	defer c.running.Add(-1)
	usual := i.v.usual()
	if usual > slowGuest || usual > longGuest && c.reader.Buffered() && int(others)+1 < runtime.NumCPU() {
		w.pass()
	}
	i.run()
	c.srv.forget(i)
}

// pass gives the lead to somebody else, if this worker has it. What it put down leaves
// first.
func (w *worker) pass() {
	if w == nil || !w.leading {
		return
	}
	w.leading = false
	w.flush()
	c := w.crew
	c.mu.Lock()
	someone := c.parked > 0
	if someone {
		c.parked--
	}
	c.mu.Unlock()
	if someone {
		c.baton <- struct{}{}
	} else {
		c.srv.work.Go(c.work)
	}
}

// flush sends what was put down.
func (w *worker) flush() {
	w.held = 0
	// A failed send means that the node has gone, and reading will say so.
	_ = w.crew.srv.out.Flush()
}

// send lets a frame leave: at once, or a little later together with others when this
// worker reads on anyway.
func (w *worker) send(t wire.Type, stream uint32, payload ...[]byte) error {
	out := w.crew.srv.out
	if !w.leading {
		return out.Send(t, stream, payload...)
	}
	err := out.Hold(t, stream, payload...)
	if w.held++; w.held >= mostHeld || !w.crew.reader.Buffered() {
		w.flush()
	}
	return err
}

// park waits for the lead. It reports false when the worker is not needed any more.
func (c *crew) park() bool {
	c.mu.Lock()
	if c.parked >= c.most {
		c.mu.Unlock()
		return false
	}
	c.parked++
	c.mu.Unlock()
	select {
	case <-c.baton:
		return true
	case <-c.ended:
		return false
	}
}

package native

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// fakeCell is a sandbox without a process.
type fakeCell struct {
	done   chan struct{}
	once   sync.Once
	how    Ending
	killed atomic.Bool
	asked  atomic.Bool
	frozen atomic.Int32
	yields atomic.Bool
	cpu    atomic.Int64 // nanoseconds used so far
}

func newFakeCell() *fakeCell { return &fakeCell{done: make(chan struct{})} }

func (c *fakeCell) Usage() (time.Duration, int64, error) { return time.Duration(c.cpu.Load()), 0, nil }
func (c *fakeCell) ResetPeak() error                     { return nil }
func (c *fakeCell) Freeze() error                        { c.frozen.Add(1); return nil }
func (c *fakeCell) Thaw() error                          { c.frozen.Add(-1); return nil }
func (c *fakeCell) Yield() error                         { c.yields.Store(true); return nil }
func (c *fakeCell) Compete() error                       { c.yields.Store(false); return nil }
func (c *fakeCell) Kill()                                { c.killed.Store(true); c.end(Ending{Code: -1, Signal: "killed"}) }
func (c *fakeCell) Done() <-chan struct{}                { return c.done }
func (c *fakeCell) Ended() Ending                        { return c.how }
func (c *fakeCell) Terminate()                           { c.asked.Store(true) }
func (c *fakeCell) end(how Ending) {
	c.once.Do(func() {
		c.how = how
		close(c.done)
	})
}

// fakeGuest answers whatever it is told to.
type fakeGuest struct {
	answer func(ctx context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error)
}

func (g *fakeGuest) ready(context.Context) error { return nil }
func (g *fakeGuest) close()                      {}
func (g *fakeGuest) invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
	return g.answer(ctx, inv)
}

// newInstance makes an instance around a fake cell.
func newInstance(t *testing.T, now time.Time) (*instance, *fakeCell) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	c := newFakeCell()
	// Nothing reads the pipe: a goroutine that waits for one would stop a bubble's clock.
	out := &output{clock: time.Now, pipe: r, done: make(chan struct{}), limit: maxEarly, buffer: make([]byte, readAtOnce)}
	close(out.done)
	i := &instance{cell: c, guest: &fakeGuest{}, out: out, born: now, ending: func() {}, onEnd: func() {}}
	return i, c
}

var errFake = errors.New("no luck")

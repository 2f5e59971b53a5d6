package wasi

import (
	"context"
	"time"
)

// Sight is what a guest is about to learn or show that differs from one run to the
// next.
type Sight int

// The sights.
const (
	Input Sight = iota
	Output
	Entropy
	Realtime
	Monotonic
	Waiting
)

// Guest is one run of a guest. Methods may panic to end the run; they are called
// from the goroutine that runs it.
type Guest interface {
	// Called is told of each call before anything else happens.
	Called()
	// Observe is called before the guest sees something, with the call's
	// parameters and a way to perform the call once more, later.
	Observe(ctx context.Context, s Sight, params []uint64, again Function)
	// Read fills p from standard input and gives how much there was, 0 at the end.
	Read(p []byte) int
	// Write takes p for standard output.
	Write(p []byte)
	// Log takes p for standard error.
	Log(p []byte)
	// Random fills p.
	Random(p []byte)
	// Realtime and Monotonic are the clocks, in nanoseconds.
	Realtime() int64
	Monotonic() int64
	// Sleep returns after d, or ends the run.
	Sleep(d time.Duration)
	// Exit ends the run.
	Exit(code uint32)
	// Strings gives the arguments and the environment.
	Strings() (args, environ []string)
	// Files gives the state of the run's descriptors.
	Files() *Files
}

// Files is which of the standard descriptors a run has closed.
type Files struct{ closed [3]bool }

// open reports whether fd is a standard descriptor that is open.
func (f *Files) open(fd uint32) bool { return fd < 3 && !f.closed[fd] }

type guestKey struct{}

// Context is a context that carries a guest. It is made once for many calls.
type Context struct {
	context.Context
	guest Guest
}

// NewContext gives a context that carries g.
func NewContext(parent context.Context, g Guest) *Context { return &Context{parent, g} }

// Value implements context.Context.
func (c *Context) Value(key any) any {
	if _, ok := key.(guestKey); ok {
		return c.guest
	}
	return c.Context.Value(key)
}

// From gives the guest that ctx carries, or nil.
func From(ctx context.Context) Guest {
	g, _ := ctx.Value(guestKey{}).(Guest)
	return g
}

package runtimeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Defaults of Options.
const (
	// DefaultMaxResponse is AWS's limit on an answer: 6 MiB and a little for what wraps it, in bytes.
	DefaultMaxResponse = 6<<20 + 100
	// DefaultMaxFault bounds what is kept of a fault's JSON, in bytes.
	DefaultMaxFault = 256 << 10
	// DefaultMaxConnections is how many connections a box may hold at once. Runtimes use one or two.
	DefaultMaxConnections = 16
)

// headerTime is how long a guest may take for a request's header. It is not bound to an
// invocation's time: it frees a connection of which nobody knows what it will ask.
const headerTime = 10 * time.Second

// maxHeader bounds a request's header, in bytes.
const maxHeader = 16 << 10

// The ways in which Invoke fails. What the function itself says of its failure is a Fault instead.
var (
	// ErrBusy says that an invocation is under way already.
	ErrBusy = errors.New("runtime api: an invocation is under way")
	// ErrClosed says that the Server was closed.
	ErrClosed = errors.New("runtime api: closed")
	// ErrInit says that the runtime reported that it cannot start; InitError has the reason.
	ErrInit = errors.New("runtime api: the runtime reported that it cannot start")
	// ErrNotTaken says that the runtime never saw the event; the error matches why too.
	ErrNotTaken = errors.New("runtime api: the runtime did not ask for the event")
	// ErrDisconnected says that the connection broke while the event was handed over.
	ErrDisconnected = errors.New("runtime api: the runtime's connection broke as its event was handed over")
)

// Options bounds a Server. Zero values take the defaults.
type Options struct {
	MaxResponse    int64 // bytes of an answer's body
	MaxFault       int64 // bytes kept of a fault's JSON
	MaxConnections int
}

// Event is one invocation, as the runtime is told of it.
type Event struct {
	RequestID string
	ARN       string
	TraceID   string    // X-Ray's header; empty: none
	Deadline  time.Time // when the function's time is over
	Payload   []byte    // JSON
	// ClientContext is JSON that a caller of the AWS API gave; empty: none.
	ClientContext string
}

// Response is a function's answer: a body, or the Fault that says why there is none.
type Response struct {
	Body        []byte
	ContentType string
	Fault       *Fault
	Streamed    bool // the runtime used response streaming; a payload that is not JSON is then the body itself
}

// Fault is how a function, or its runtime, says that it failed.
type Fault struct {
	Type    string
	Message string
	// Payload is the JSON as the guest sent it. When that was no JSON or too long it
	// is an object with errorType and errorMessage alone. It is always valid JSON.
	Payload []byte
}

// Server serves the Runtime API to one box. Make it with New.
type Server struct {
	opts    Options
	http    *http.Server
	turn    chan struct{}    // held by the Invoke under way
	handing chan *invocation // from Invoke to the waiting request for the next event
	ready   chan struct{}
	failed  chan struct{} // closed when initErr is set
	closed  chan struct{}
	running sync.WaitGroup // Serve and the requests being answered

	mu       sync.Mutex
	isClosed bool
	asked    bool // the runtime has asked for an event at least once
	asking   bool // a request for the next event is waiting
	current  *invocation
	initErr  *Fault
	conns    int
}

// invocation is an event that was handed over, or is about to be.
type invocation struct {
	event Event
	ctx   context.Context // ends when nobody waits for the answer any more
	done  chan outcome    // one outcome, from whom Server.end said true to

	// Guarded by Server.mu.
	claimed bool // an answer to it is being read
	over    bool // it has its outcome, or nobody waits for one
}

type outcome struct {
	response Response
	err      error
}

// New serves the Runtime API on l until Close, which closes l.
func New(l net.Listener, o Options) *Server {
	if o.MaxResponse <= 0 {
		o.MaxResponse = DefaultMaxResponse
	}
	if o.MaxFault <= 0 {
		o.MaxFault = DefaultMaxFault
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	s := &Server{
		opts: o, turn: make(chan struct{}, 1), handing: make(chan *invocation),
		ready: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime,
		// A guest could fill the node's log with its broken requests.
		ErrorLog: log.New(io.Discard, "", 0), ConnState: s.count,
		DisableGeneralOptionsHandler: true,
	}
	s.running.Go(func() { _ = s.http.Serve(l) })
	return s
}

// Ready is closed when the runtime asked for its first event: it is initialised.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// InitFailed is closed when the runtime reported that it cannot start.
func (s *Server) InitFailed() <-chan struct{} { return s.failed }

// InitError is what the runtime said of why it cannot start, or nil.
func (s *Server) InitError() *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.initErr
}

// Invoke waits until the runtime asks for an event, hands e over and waits for the
// answer. It fails with one of this package's errors or with the cause of ctx; after
// that an answer to e is refused, whenever it comes. A runtime whose Invoke failed may
// still be working on it: nobody should be served by it again.
func (s *Server) Invoke(ctx context.Context, e Event) (Response, error) {
	select {
	case s.turn <- struct{}{}:
	default:
		return Response{}, ErrBusy
	}
	defer func() { <-s.turn }()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	inv := &invocation{event: e, done: make(chan outcome, 1), ctx: waiting}

	// First, and in this order: select would choose at random.
	if err := context.Cause(ctx); err != nil {
		return Response{}, err
	}
	select {
	case <-s.failed:
		return Response{}, ErrInit
	default:
	}
	select {
	case s.handing <- inv:
	case <-s.failed:
		return Response{}, ErrInit
	case <-s.closed:
		return Response{}, fmt.Errorf("%w: %w", ErrNotTaken, ErrClosed)
	case <-ctx.Done():
		return Response{}, fmt.Errorf("%w: %w", ErrNotTaken, context.Cause(ctx))
	}
	var err error
	select {
	case out := <-inv.done:
		return out.response, out.err
	case <-s.closed:
		err = ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if s.end(inv) {
		return Response{}, err
	}
	out := <-inv.done // the answer was quicker
	return out.response, out.err
}

// Close closes the listener and every connection and waits for the requests under way.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
	s.mu.Unlock()
	err := s.http.Close()
	s.running.Wait()
	return err
}

// enter counts a request in; it says false when the Server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return false
	}
	s.running.Add(1)
	return true
}

// count keeps the number of connections below its limit: what is too many is closed
// where it was accepted, so that it cannot hold up others.
func (s *Server) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.mu.Lock()
		s.conns++
		over := s.conns > s.opts.MaxConnections
		s.mu.Unlock()
		if over {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.mu.Lock()
		s.conns--
		s.mu.Unlock()
	case http.StateActive, http.StateIdle:
	}
}

// take makes inv the one whose answer is accepted. It says false when nobody waits for
// that any more, and the runtime must not see the event.
func (s *Server) take(inv *invocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inv.over {
		return false
	}
	s.asking = false
	s.current = inv
	return true
}

// claim reserves the invocation under way for one answer, when it has the given id.
func (s *Server) claim(id string) *invocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	inv := s.current
	if inv == nil || inv.claimed || inv.event.RequestID != id {
		return nil
	}
	inv.claimed = true
	return inv
}

// unclaim lets another request answer inv.
func (s *Server) unclaim(inv *invocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	inv.claimed = false
}

// end takes inv out of use. Whom it says true to decides the outcome, alone.
func (s *Server) end(inv *invocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inv.over {
		return false
	}
	inv.over = true
	if s.current == inv {
		s.current = nil
	}
	return true
}

// finish gives inv its outcome; it says false when inv has one, or nobody waits.
func (s *Server) finish(inv *invocation, out outcome) bool {
	if !s.end(inv) {
		return false
	}
	inv.done <- out
	return true
}

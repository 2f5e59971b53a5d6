package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

// Invoker runs one call. It fails with a *problem.Error; the Outcome may be
// there all the same, and then carries the receipt of what was tried.
type Invoker interface {
	Invoke(ctx context.Context, c *invoke.Call) (*invoke.Outcome, error)
}

// Keys knows who presents a key. Whatever the error, callers are told the same.
type Keys interface {
	Verify(presented string) (identity.Principal, error)
}

// Config is what a Gateway needs. Those without which it serves
// less, and Limits, may be left out; all others must be given.
type Config struct {
	Invoker Invoker
	Keys    Keys
	Logger  *slog.Logger
	Clock   func() time.Time // real time: network deadlines are computed from it
	NewID   func() string    // a request id that nobody had before
	Lambda  *Lambda          // nil: the Lambda API is not served
	Hooks   Hooks            // nil: routes of webhooks answer that they are not served
	Topics  Topics           // nil: nothing can be published
	Values  Values           // nil: there are no key-value buckets
	Async   *Async           // nil: every call runs while its caller waits
	Limits  Limits
}

// Gateway is the door. Make one with New.
type Gateway struct {
	invoker Invoker
	keys    Keys
	logger  *slog.Logger
	clock   func() time.Time
	newID   func() string
	lambda  *Lambda
	hooks   Hooks
	topics  Topics
	values  Values
	async   *Async
	limits  Limits
	stages  []stage
	lower   map[string]string // canonical to lower-case names; read only

	routes     atomic.Pointer[table]
	bodyMemory atomic.Int64 // bytes of request bodies held now
	hookMemory atomic.Int64 // those of them that are for webhooks
	flight     flight
}

// New returns a Gateway that serves no route yet.
func New(c Config) (*Gateway, error) {
	switch {
	case c.Invoker == nil:
		return nil, errors.New("making gateway: Config.Invoker is missing: give what runs a call")
	case c.Keys == nil:
		return nil, errors.New("making gateway: Config.Keys is missing: give what verifies a key")
	case c.Logger == nil:
		return nil, errors.New("making gateway: Config.Logger is missing: give one, slog.DiscardHandler at least")
	case c.Clock == nil:
		return nil, errors.New("making gateway: Config.Clock is missing: give the real clock")
	case c.NewID == nil:
		return nil, errors.New("making gateway: Config.NewID is missing: give a source of unique ids")
	case c.Lambda != nil && (c.Lambda.Keys == nil || c.Lambda.Functions == nil):
		return nil, errors.New("making gateway: Config.Lambda is half given: give Keys and Functions, or leave it out")
	case c.Async != nil && (c.Async.Versions == nil || c.Async.Queue == nil || c.Async.Outcomes == nil):
		return nil, errors.New("making gateway: Config.Async is half given: give Versions, Queue and Outcomes, or leave it out")
	}
	limits, err := c.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		invoker: c.Invoker, keys: c.Keys, logger: c.Logger, clock: c.Clock, newID: c.NewID,
		lambda: c.Lambda, hooks: c.Hooks, topics: c.Topics, values: c.Values, async: c.Async, limits: limits, stages: stages(), lower: lowerNames(),
	}
	g.flight.landed = make(chan struct{}, 1)
	g.routes.Store(&table{})
	return g, nil
}

// A stage lets a request go on by returning nil, unless it answered the request
// (exchange.answered). It refuses one by returning a *problem.Error.
type stage struct {
	name string
	run  func(*Gateway, *exchange) error
}

// stages is the order of everything, after ServeHTTP has made sure that a panic
// is caught, that the request has an id and that it will be logged.
func stages() []stage {
	return []stage{
		// Before anything else is set, since whatever follows may wait on the body,
		// be it only net/http reading the rest of one that we refused.
		{"deadline", (*Gateway).startClock},
		// A node that shuts down takes on nothing, however cheap.
		{"drain", (*Gateway).admit},
		// Nothing may look at the method or the path before they are known to mean
		// one thing only: a path that two readers understand differently is how
		// rules that are checked on one reading are evaded on the other.
		{"request line", (*Gateway).checkRequestLine},
		// The same for Host and the number and form of header fields. Still no
		// lookup has been made, so refusing costs an attacker's request least.
		{"headers", (*Gateway).checkHeaders},
		// From here on the rules of one route hold. Unknown paths end here, without
		// the cost of a credential check.
		{"route", (*Gateway).route},
		// Before authentication, because a browser sends a preflight without a
		// credential, and because a page may read the error of a failed one.
		{"cors", (*Gateway).applyCORS},
		// Before the body: nobody unknown makes us read, hold or wait for one, and
		// "Expect: 100-continue" is answered by the first read. Senders to webhooks are
		// the exception, as their signature covers the body: see hookShare.
		{"authenticate", (*Gateway).authenticate},
		// Whole and bounded, before a function is started: a slow sender holds a
		// connection, never a sandbox.
		{"body", (*Gateway).readBody},
		// After the body, because a signature covers it. On the Lambda API alone:
		// there, "authenticate" has looked at all but the body.
		{"signature", (*Gateway).checkSignature},
		// Whatever is no call ends here: what comes for a webhook, whose signature
		// covers the body, what is published to a topic, what is asked about an
		// invocation, what is read and stored in key-value buckets.
		{"event", (*Gateway).takeEvent},
		// A call whose caller does not wait is as complete and as allowed as any other
		// before it is kept, and is answered only after that.
		{"postpone", (*Gateway).postpone},
		{"invoke", (*Gateway).invoke},
		// Last, and the only one that sends what a function said.
		{"answer", (*Gateway).answer},
	}
}

// ServeHTTP passes one request through the stages.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, start: g.clock()}
	// Deferred calls run in reverse: a panic is turned into an answer, then what
	// happened is logged and what it held is given back.
	defer g.account(x)
	defer g.rescue(x)
	g.identify(x)
	for i := range g.stages {
		if err := g.stages[i].run(g, x); err != nil {
			g.refuse(x, err)
			return
		}
		if x.answered {
			return
		}
	}
}

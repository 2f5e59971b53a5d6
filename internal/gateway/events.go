package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// This file has what events ask of their neighbours, and how they refuse. What becomes an
// event passes the same stages as a call; it ends in takeEvent or in postpone.

// Hooks takes in what comes on the routes of webhook triggers. It fails with a
// *HookRefusal, an *EventError or a *BusyError. When it does not fail, the events are on
// disk, or there were none to take.
type Hooks interface {
	// Admit says how long a sender is to wait before it comes again, zero when its request
	// may be read. It is asked before the body is, of which size bytes are announced, or -1.
	Admit(namespace, path string, from netip.Addr, size int64) time.Duration
	Receive(ctx context.Context, r HookRequest) (HookAnswer, error)
}

// HookRequest is a request for a trigger. Nothing of it has been verified.
type HookRequest struct {
	Namespace string
	Path      string // as in the trigger's settings
	Method    string // POST or OPTIONS
	Header    map[string][]string
	Body      []byte
	From      netip.Addr // invalid when it is not known
}

// HookAnswer is what a sender is told.
type HookAnswer struct {
	Status int               // from 200 to 299
	Header map[string]string // names in any case
	Body   []byte
}

// HookRefusal is why a request to a webhook was not taken in.
type HookRefusal struct {
	Status     int    // of HTTP; one that is not known shows as 500
	Reason     string // for the log alone
	RetryAfter time.Duration
}

func (e *HookRefusal) Error() string { return "web hook refused: " + e.Reason }

// Topics takes events that clients publish. It fails with an *EventError or a *BusyError,
// and then none of the events was taken. Otherwise all are on disk, and what it returns is
// in their order.
type Topics interface {
	Publish(ctx context.Context, namespace, topic, principal string, events []event.Message) ([]StoredEvent, error)
}

// StoredEvent says where an event is.
type StoredEvent struct {
	Sequence  uint64
	Duplicate bool // it was there before
}

// EventError says which event breaks which rule. Its sender may read all of it.
type EventError struct {
	Index  int    // of the event in the request; -1 when there is only one
	Field  string // type, data/items/0/price, …
	Reason string
}

func (e *EventError) Error() string { return "event refused: " + e.Field + " " + e.Reason }

// BusyError says that too much waits already.
type BusyError struct{ RetryAfter time.Duration }

func (e *BusyError) Error() string { return "too many events wait" }

// Async is what invocations need that are answered before they run. All fields must be
// given.
type Async struct {
	Versions Versions
	Queue    Queue
	Outcomes Outcomes
}

// Versions finds a version by alias or by hex digits; it fails with a *problem.Error.
type Versions interface {
	Resolve(ref function.Ref, qualifier string, roll func(n int) int) (v *function.Version, alias string, err error)
}

// Queue keeps invocations until they have run. Async returns when the message is on disk.
// It fails with an *EventError or a *BusyError.
type Queue interface {
	Async(ctx context.Context, ref function.Ref, principal string, m event.Message) error
}

// Outcomes remembers what became of them.
type Outcomes interface {
	// Pending returns when the record is on disk. It fails with state.ErrFull.
	Pending(ctx context.Context, id string, ref function.Ref, principal string) error
	// Forget drops what Pending recorded.
	Forget(id string)
	// Get fails with state.ErrNotFound.
	Get(ctx context.Context, id string) (*Invocation, error)
}

// States of an Invocation.
const (
	statePending = "pending"
	stateFailed  = "failed"
)

// Invocation is what is known of one; see outcome.Invocation, which it can be made from
// by a conversion.
type Invocation struct {
	ID        string
	Ref       function.Ref
	Principal string
	State     string
	Accepted  time.Time

	Ended    time.Time
	Attempts int
	Reason   string
	Code     string
	Detail   string
	Receipt  string
	Version  string
	Status   int
	Headers  map[string][]string
	Body     []byte
	Omitted  int
}

// Events are told to come again later than calls: what holds them up is rarely over in a
// second.
const eventsRetry = 5 * time.Second

// eventProblem gives what a neighbour fails with a public face.
func eventProblem(err error) error {
	var wrong *EventError
	var busy *BusyError
	var refused *HookRefusal
	switch {
	case errors.As(err, &wrong):
		return problem.New(problem.InvalidEvent, "%s", clipped(wrong.Reason)).At(wrong.at()).Because(err)
	case errors.As(err, &busy):
		return problem.New(problem.BacklogFull, "no more events are taken in for now").After(max(busy.RetryAfter, time.Second)).Because(err)
	case errors.As(err, &refused):
		return refused.problem().Because(err)
	case errors.Is(err, state.ErrFull):
		return problem.New(problem.BacklogFull, "no more events are taken in for now").After(eventsRetry).Because(err)
	default:
		return problem.From(err)
	}
}

func (e *EventError) at() string {
	if e.Index < 0 {
		return clipped(e.Field)
	}
	return "events[" + strconv.Itoa(e.Index) + "]." + clipped(e.Field)
}

// clipped bounds a text that may quote what was sent.
func clipped(s string) string { return loggable(s[:min(len(s), 300)]) }

// takeEvent ends what is no call: the requests to webhooks, to topics, to key-value
// buckets, and those about invocations.
func (g *Gateway) takeEvent(x *exchange) error {
	switch x.target.kind {
	case toHook:
		return g.receiveHook(x)
	case toTopic:
		return g.publish(x)
	case toInvocation:
		return g.tellInvocation(x)
	case toValue:
		return g.serveValue(x)
	case toFunction:
	}
	return nil
}

// sendOwn sends an answer of ours.
func (g *Gateway) sendOwn(x *exchange, status int, contentType string, body []byte) {
	x.setHeader("Cache-Control", "no-store")
	x.setHeader("X-Content-Type-Options", "nosniff")
	if !bodiless(status) {
		if contentType != "" {
			x.setHeader("Content-Type", contentType)
		}
		x.setHeader("Content-Length", strconv.Itoa(len(body)))
	}
	g.limitAnswerTime(x, len(body))
	x.WriteHeader(status)
	if len(body) > 0 && !bodiless(status) && x.r.Method != http.MethodHead {
		_, _ = x.Write(body) // the client is gone; what it sent is safe
	}
}

func (g *Gateway) sendOwnJSON(x *exchange, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return problem.New(problem.Internal, "something went wrong on our side").Because(err)
	}
	g.sendOwn(x, status, "application/json", append(b, '\n'))
	return nil
}

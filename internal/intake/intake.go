package intake

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// ReasonInvalid is the reason of the dead letters that are made here.
const ReasonInvalid = "invalid"

// TypeInvoke is the type of an event that stands for an asynchronous invocation, when its
// caller gave none.
const TypeInvoke = "casemate.function.invoke"

// Entry is an event as it is stored. ID is unique in its channel for as long as the
// stream remembers; it is the event's own id, followed by a digest of who sent it where
// senders could otherwise take each other's ids.
type Entry struct {
	Namespace string
	Channel   string // trigger.FUNCTION.NAME, topic.NAME or async.FUNCTION
	ID        string
	Data      []byte // event.Message.Encode
}

// Stored says where an entry is.
type Stored struct {
	Sequence  uint64
	Duplicate bool // it was there before, at that sequence
}

// Stream keeps events.
type Stream interface {
	// Publish stores all entries or none. They are on disk when it returns nil. It fails
	// with state.ErrFull when there is no room.
	Publish(ctx context.Context, entries []Entry) ([]Stored, error)
}

// DeadLetter is an event that broke the rules of its trigger.
type DeadLetter struct {
	ID        string // the same for the same event, so that it is kept once
	Namespace string
	Function  string
	Trigger   string
	Channel   string // where the event would have gone
	Reason    string // ReasonInvalid
	Field     string // which part of the event is wrong
	Detail    string // what is wrong with it; it may quote the event
	Time      time.Time
	// Message can be stored: what of the event broke the bounds of an event was cut or left
	// out, and Field says so.
	Message event.Message
}

// DeadLetters keeps dead letters. They are on disk when Bury returns nil. It is handed
// the same one again when a source does so.
type DeadLetters interface {
	Bury(ctx context.Context, letters []DeadLetter) error
}

// Config is what an Intake needs. All fields must be given.
type Config struct {
	Stream      Stream
	DeadLetters DeadLetters
	// Backlog says how many events of a channel are not settled yet. It is asked for every
	// call, so it should be cheap; 100 ms of age do no harm.
	Backlog func(namespace, channel string) (int64, error)
	Clock   func() time.Time
	Logger  *slog.Logger
}

// Intake is the door. Make one with New.
type Intake struct {
	stream  Stream
	dead    DeadLetters
	backlog func(namespace, channel string) (int64, error)
	clock   func() time.Time
	logger  *slog.Logger
	stages  []stage
	counts  counters
}

// New returns an Intake.
func New(c Config) (*Intake, error) {
	switch {
	case c.Stream == nil:
		return nil, errors.New("making intake: Config.Stream is missing: give what keeps events")
	case c.DeadLetters == nil:
		return nil, errors.New("making intake: Config.DeadLetters is missing: give what keeps dead letters")
	case c.Backlog == nil:
		return nil, errors.New("making intake: Config.Backlog is missing: give what counts waiting events")
	case c.Clock == nil:
		return nil, errors.New("making intake: Config.Clock is missing: give the real clock")
	case c.Logger == nil:
		return nil, errors.New("making intake: Config.Logger is missing: give one, slog.DiscardHandler at least")
	}
	return &Intake{stream: c.Stream, dead: c.DeadLetters, backlog: c.Backlog, clock: c.Clock, logger: c.Logger, stages: stages()}, nil
}

// Counts is what was counted since the start.
type Counts struct {
	Stored    int64 // events on the bus
	Duplicate int64 // events that had been there before
	Filtered  int64 // events that their trigger does not want
	Invalid   int64 // events that broke a rule: dead letters, or refused
	Busy      int64 // calls refused because too many events wait
	Waiting   int64 // calls that wait right now for room
	Failed    int64 // calls that failed for another reason
}

type counters struct {
	stored, duplicate, filtered, invalid, busy, waiting, failed atomic.Int64
}

func (c *counters) read() Counts {
	return Counts{
		Stored: c.stored.Load(), Duplicate: c.duplicate.Load(), Filtered: c.filtered.Load(),
		Invalid: c.invalid.Load(), Busy: c.busy.Load(), Waiting: c.waiting.Load(), Failed: c.failed.Load(),
	}
}

// Counts gives the counts of all that went through this door.
func (in *Intake) Counts() Counts { return in.counts.read() }

// Publish takes events for a topic, from a caller that waits for the answer. Each event's
// Source is replaced and becomes its extension claimedsource; principal is who was verified.
// Chain must have been set by the platform. It fails with an *InvalidError or a *BusyError.
func (in *Intake) Publish(ctx context.Context, namespace, topic, principal string, events []event.Message) ([]Stored, error) {
	if !function.ValidName(namespace) || !function.ValidName(topic) {
		return nil, &InvalidError{Field: "topic", Reason: "must be named by lower-case letters, digits and hyphens, a letter first"}
	}
	p := &port{
		namespace: namespace, channel: "topic." + topic, source: "/namespaces/" + namespace + "/topics/" + topic,
		limit: function.DefaultBacklog, rules: &Rules{}, shared: true, keepChain: true,
	}
	return in.pass(ctx, &arrival{port: p, principal: principal}, events)
}

// Async takes an invocation that is to run later, from a caller that waits for the answer.
// The event's data is the function's own affair and only its size is checked. It fails
// with an *InvalidError or a *BusyError.
func (in *Intake) Async(ctx context.Context, ref function.Ref, principal string, m event.Message) (Stored, error) {
	if !function.ValidName(ref.Namespace) || !function.ValidName(ref.Name) {
		return Stored{}, &InvalidError{Field: "function", Reason: "must be named by lower-case letters, digits and hyphens, a letter first"}
	}
	if m.Type == "" {
		m.Type = TypeInvoke
	}
	p := &port{
		namespace: ref.Namespace, channel: "async." + ref.Name, source: "/namespaces/" + ref.Namespace + "/functions/" + ref.Name,
		limit: function.DefaultBacklog, rules: &Rules{}, anyContent: true, keepChain: true,
	}
	stored, err := in.pass(ctx, &arrival{port: p, principal: principal}, []event.Message{m})
	if err != nil {
		return Stored{}, err
	}
	return stored[0], nil
}

// pass sends events through the stages. What it returns is in the order of the events;
// those that a filter dropped, or that became dead letters, have a zero Stored.
func (in *Intake) pass(ctx context.Context, a *arrival, events []event.Message) ([]Stored, error) {
	if a.port.counts == nil {
		a.port.counts = &counters{}
	}
	a.ctx, a.in, a.now = ctx, in, in.clock()
	a.items = make([]item, len(events))
	a.stored = make([]Stored, len(events))
	for i := range events {
		a.items[i].message = events[i] // a copy; what it points to is copied before it is changed
	}
	for i := range in.stages {
		if err := in.stages[i].run(a); err != nil {
			a.refused(err)
			return nil, err
		}
	}
	return a.stored, nil
}

// refused counts a failed call.
func (a *arrival) refused(err error) {
	var invalid *InvalidError
	var busy *BusyError
	switch {
	case errors.As(err, &invalid):
		a.count(func(c *counters) { c.invalid.Add(1) })
	case errors.As(err, &busy):
		a.count(func(c *counters) { c.busy.Add(1) })
	default:
		a.count(func(c *counters) { c.failed.Add(1) })
	}
}

// The refusals are those that sources know.
type (
	// InvalidError is for the one who sent the event.
	InvalidError = source.InvalidError
	// BusyError is for the one who can come again.
	BusyError = source.BusyError
)

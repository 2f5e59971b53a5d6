// Package source is what every source of events has in common: how it is told to
// listen, where it hands in what it got, and what it keeps between two starts.
//
// Each kind of source is a package below this one. They may import it and leaves; only
// node imports them and hands them the sink. A source acknowledges to its far side
// only after Sink.Accept has returned nil, because only then the event is on disk. It may
// hand in the same event twice (after a crash it must); the id of an event is therefore
// made from what the far side calls it, never drawn.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

// Sink takes events in. It may be used from many goroutines.
type Sink interface {
	// Accept returns nil when all events are on disk, or were there before, or when
	// those that break the trigger's rules are dead letters on disk. While the function
	// cannot keep up it waits. Any error means that none was taken: try again later, with
	// the same ids. Source and Time of the events need not be set: they are stamped.
	Accept(ctx context.Context, events []event.Message) error
}

// Store keeps what a source must know after a restart: a position, a cursor. It is
// on disk when Put returns. Values have at most 64 KiB, keys are labels of RFC 1035.
type Store interface {
	Get(ctx context.Context, key string) ([]byte, error) // nil, nil when there is none
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// State is how a source is doing.
type State string

// States of a source.
const (
	Starting State = "starting"
	Running  State = "running"
	Failing  State = "failing" // it tries again by itself
	Alert    State = "alert"   // it works, but somebody should look
)

// Health is what a source reports about itself. Reason holds no credential.
type Health struct {
	State  State
	Reason string
	Lag    int64 // how far it is behind, in the unit that the kind documents; -1 when not known
}

// Binding is one trigger whose source is to be run.
type Binding struct {
	Ref        function.Ref
	Trigger    function.Trigger
	Connection *Connection // nil when the kind needs none
	Sink       Sink
	Store      Store // of this trigger alone
	Log        *slog.Logger
	Clock      func() time.Time
	Report     func(Health) // may be called from any goroutine, at any time
}

// Kind is a kind of source. All methods may be called from many goroutines.
type Kind interface {
	// Check validates a trigger's settings, and that it names a connection if and only if
	// it needs one. It fails with a *FieldError. It makes no connection.
	Check(t *function.Trigger) error
	// Run listens until ctx ends, and then returns nil. What it fails with is logged
	// and reported, and it is run again after a while.
	Run(ctx context.Context, b Binding) error
}

// Connection is a far side with its credentials, by a name in a namespace.
type Connection struct {
	Namespace string
	Name      string
	Kind      string          // amqp, kafka, postgres, …
	Settings  json.RawMessage // a JSON object; its fields are the kind's; no credential
	Secrets   []string        // the names of its credentials
	// Secret reads one of the connection's credentials by its name (password, token, key,
	// cert, ca…), as it is now. It fails when there is none, and the error does not hold it.
	Secret func(name string) ([]byte, error)
}

// ConnectionKind checks connections of one kind.
type ConnectionKind interface {
	// CheckConnection validates settings, and refuses credentials among them. It fails
	// with a *FieldError. secrets are the names of the credentials that there are.
	CheckConnection(settings json.RawMessage, secrets []string) error
}

// FieldError names a field of settings and what to do about it.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Field + " " + e.Reason }

// InvalidError says which event breaks which rule, to a far side that waits for an answer.
// It may read all of it.
type InvalidError struct {
	Index  int    // of the event in the call
	ID     string // as the event has it
	Field  string // of the event: type, data/items/0/price, …
	Reason string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("event %d: %s %s", e.Index, e.Field, e.Reason)
}

// BusyError says that too many events wait already, to a far side that can come again.
type BusyError struct{ RetryAfter time.Duration }

func (e *BusyError) Error() string {
	return fmt.Sprintf("too many events wait: try again in %s", e.RetryAfter)
}

// ErrRefused is what Sink.Accept fails with, wrapped, when trying again is of no use: the
// trigger has gone, or may not do this any more.
var ErrRefused = errors.New("refused")

// Settings reads a kind's settings into a struct and refuses unknown fields. It fails
// with a *FieldError.
func Settings(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	return decode(raw, into)
}

// Retry calls run until ctx ends, with a pause that doubles from first to most after
// each failure, and begins anew when run went well for longer than most.
func Retry(ctx context.Context, first, most time.Duration, clock func() time.Time, run func(context.Context) error, failed func(error, time.Duration)) {
	pause := first
	for ctx.Err() == nil {
		began := clock()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if clock().Sub(began) > most {
			pause = first
		}
		if err == nil {
			err = fmt.Errorf("it ended by itself")
		}
		failed(err, pause)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		pause = min(2*pause, most)
	}
}

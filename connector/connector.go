package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Protocol is the version of the protocol that this package speaks.
const Protocol = 1

// Connector is what a program can do.
type Connector struct {
	Name    string // of the program, for the node's log
	Version string // the same
	Kinds   []Kind
	// Check looks at settings without reaching for the far side, and fails with a
	// *FieldError. It is called when something is deployed. Nil finds everything good.
	Check func(Check) error
	// Run brings events until ctx ends, which it does when the node says stop, and then
	// returns nil. When it fails the node says so to its operator and starts the program
	// again after a while; the error must not hold a secret.
	Run func(ctx context.Context, start Start, s *Session) error
}

// Kind is one kind of trigger that a connector serves. Its program is to be named
// casemate-connector-NAME.
type Kind struct {
	Name       string   `json:"name"`                 // a label of RFC 1035
	Connection bool     `json:"connection,omitempty"` // whether a trigger must name a connection
	Secrets    []string `json:"secrets,omitempty"`    // names of those credentials that Run may want; it gets no others
}

// Check is what there is to look at: the settings of a trigger or those of a connection.
type Check struct {
	Kind       string
	Settings   json.RawMessage // of a trigger; nil when a connection is looked at
	Connection json.RawMessage // of a connection; nil when a trigger is looked at
	Secrets    []string        // names of the connection's credentials
}

// Start is what a run is about.
type Start struct {
	Kind       string
	Trigger    string            // which it is, for names at the far side: NAMESPACE/FUNCTION/TRIGGER
	Settings   json.RawMessage   // of the trigger, a JSON object
	Connection json.RawMessage   // of the connection, a JSON object; nil without one
	Secrets    map[string][]byte // those of Kind.Secrets that the connection has
	Position   string            // what Session.Position was last given; empty the first time
}

// Event is one event. Its source and, when it is missing, its time are set by the node.
type Event struct {
	// ID is what the far side calls the event, so that it is the same when it is brought
	// again. The node drops what it has already.
	ID              string
	Type            string // such as casemate.queue.message
	Subject         string
	Time            time.Time
	DataContentType string
	Data            []byte
	// Key orders: events of one key are done one after another. Empty: the order does not
	// matter.
	Key        string
	Extensions map[string]string // of CloudEvents: names of 1 to 20 lower-case letters and digits
	Detail     map[string]string // what else the far side says: headers, offsets
}

// State is how a connector is doing.
type State string

// States of a connector.
const (
	Running State = "running"
	Failing State = "failing" // it tries again by itself
	Alert   State = "alert"   // it works, but somebody should look
)

// LagUnknown is the Lag of who does not know it.
const LagUnknown = -1

// Health is what a connector reports about itself. Reason must hold no secret.
type Health struct {
	State  State
	Reason string
	Lag    int64 // events that wait at the far side
}

// Refusal is an event that the node does not take and never will: one too large, for
// example. It is not to be acknowledged to the far side; where that has a place for such
// messages it belongs there.
type Refusal struct {
	Index  int // in what Emit was given
	Reason string
}

// FieldError names a field of settings and what to do about it.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Field + " " + e.Reason }

// Errors that callers may match.
var (
	// ErrClosed is for a session whose node has gone.
	ErrClosed = errors.New("the node has closed the session")
	// ErrProtocol is for a node that does not keep to the protocol.
	ErrProtocol = errors.New("the node does not keep to the protocol")
)

// Run serves the node that started this program, on stdin and stdout. Nothing else may
// write to stdout; what is written to stderr is the node's log, line by line.
func Run(ctx context.Context, c Connector) error {
	return Serve(ctx, c, os.Stdin, os.Stdout)
}

// Serve is Run on other streams. in is not closed: a reader that blocks is left behind.
func Serve(ctx context.Context, c Connector, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSession(out)
	if err := s.send(&message{
		Message: "ready", Protocols: []int{Protocol}, Kinds: c.Kinds,
		Program: &program{c.Name, c.Version},
	}); err != nil {
		return err
	}
	begin := make(chan *message, 1)
	go func() { cancel(s.listen(in, begin, cancel)) }()
	select {
	case <-ctx.Done():
		return ended(ctx)
	case m := <-begin:
		if m.Message == "check" {
			return c.check(s, m)
		}
		return c.run(ctx, s, m)
	}
}

// errStop is why a run's context ends when the node says stop.
var errStop = errors.New("the node said stop")

// ended says with what Serve ends when its context has.
func ended(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, ErrProtocol) {
		return err
	}
	return nil // told to stop, or nobody is left who listens
}

func (c *Connector) check(s *Session, m *message) error {
	reply := message{Message: "checked"}
	if c.Check != nil {
		err := c.Check(Check{Kind: m.Kind, Settings: m.Settings, Connection: m.Connection, Secrets: m.SecretNames})
		var field *FieldError
		switch {
		case err == nil:
		case errors.As(err, &field):
			reply.Field, reply.Reason = field.Field, field.Reason
		default:
			reply.Field, reply.Reason = "settings", err.Error()
		}
	}
	return s.send(&reply)
}

func (c *Connector) run(ctx context.Context, s *Session, m *message) error {
	if m.Protocol != Protocol || m.Credits == nil || m.Credits.Events < 1 || m.Credits.Bytes < 1 || m.Credits.Line < 1 {
		return fmt.Errorf("starting: %w", ErrProtocol)
	}
	s.grant(*m.Credits)
	err := c.Run(ctx, Start{
		Kind: m.Kind, Trigger: m.Trigger, Settings: m.Settings, Connection: m.Connection,
		Secrets: m.Secrets, Position: m.Position,
	}, s)
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	// The node has this reason even when the log is lost.
	if told := s.Health(Health{State: Failing, Reason: err.Error(), Lag: LagUnknown}); told != nil {
		return told
	}
	return err
}

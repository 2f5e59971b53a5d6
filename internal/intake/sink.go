package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Sink is the door of one trigger. It is a source.Sink.
type Sink struct {
	in    *Intake
	port  *port
	close sync.Once
}

var _ source.Sink = (*Sink)(nil)

// For gives the door of a trigger. It fails with a *source.FieldError when the trigger's
// filter or schema cannot be used.
func (in *Intake) For(ref function.Ref, t *function.Trigger) (*Sink, error) {
	rules, err := NewRules(t)
	if err != nil {
		return nil, err
	}
	for _, n := range []string{ref.Namespace, ref.Name, t.Name} {
		if !function.ValidName(n) {
			return nil, &source.FieldError{Field: "name", Reason: fmt.Sprintf("%.80q must be lower-case letters, digits and hyphens, a letter first", n)}
		}
	}
	limit := t.Delivery.Backlog
	if limit <= 0 {
		limit = function.DefaultBacklog
	}
	return &Sink{in: in, port: &port{
		namespace: ref.Namespace, function: ref.Name, trigger: t.Name,
		channel: "trigger." + ref.Name + "." + t.Name,
		source:  "/namespaces/" + ref.Namespace + "/functions/" + ref.Name + "/triggers/" + t.Name,
		limit:   int64(limit), rules: rules, gone: make(chan struct{}), counts: &counters{},
	}}, nil
}

// Accept takes events from a source that can wait; see source.Sink. It fails with
// source.ErrRefused, wrapped, after Close.
func (s *Sink) Accept(ctx context.Context, events []event.Message) error {
	_, err := s.in.pass(ctx, &arrival{port: s.port, wait: true}, events)
	return err
}

// Offer takes events from a caller that waits for the answer, all or none. What it
// returns is in the order of the events; those that the filter dropped have a zero
// Stored. It fails with an *InvalidError, a *BusyError, or source.ErrRefused, wrapped.
func (s *Sink) Offer(ctx context.Context, events []event.Message) ([]Stored, error) {
	return s.in.pass(ctx, &arrival{port: s.port}, events)
}

// Close has the sink refuse everything from now on, also those that wait in Accept.
func (s *Sink) Close() { s.close.Do(func() { close(s.port.gone) }) }

// Counts gives the counts of this trigger.
func (s *Sink) Counts() Counts { return s.port.counts.read() }

// port is where events of one kind go in.
type port struct {
	namespace, function, trigger string
	channel                      string
	source                       string // of the events, as the platform says it
	limit                        int64  // of waiting events
	rules                        *Rules
	gone                         chan struct{} // nil: it never goes
	counts                       *counters
	shared                       bool // several senders, who must not take each other's ids
	anyContent                   bool // the data's form is the function's own affair
	keepChain                    bool // Chain was set by the platform
}

// Rules are what a trigger asks of its events. Their methods may be called from many
// goroutines. The zero value asks nothing.
type Rules struct {
	wants  func(*event.Message) bool
	schema *schema
}

// NewRules compiles the filter and the schema of a trigger. It fails with a
// *source.FieldError. Who checks a deployment calls it too.
func NewRules(t *function.Trigger) (*Rules, error) {
	raw, _, err := SplitSettings(t.Settings)
	if err != nil {
		return nil, err
	}
	r := &Rules{}
	if r.wants, err = compileFilter(raw); err != nil {
		return nil, err
	}
	switch {
	case len(t.Schema) == 0 && t.NoSchema == "":
		return nil, &source.FieldError{Field: "schema", Reason: "is missing: give a JSON Schema for the data, or say why there is none"}
	case len(t.Schema) > 0 && t.NoSchema != "":
		return nil, &source.FieldError{Field: "schema", Reason: "is given, and a reason for giving none too: keep one"}
	case len(t.Schema) > 0:
		if r.schema, err = compileSchema(t.Schema); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Wants reports whether the trigger's filter matches.
func (r *Rules) Wants(m *event.Message) bool { return r.wants == nil || r.wants(m) }

// Check applies the trigger's schema. It fails with an *InvalidError. Who delivers
// the events of a topic calls it, because they went in by the topic's door.
func (r *Rules) Check(m *event.Message) error {
	if r.schema == nil {
		return nil
	}
	if f := r.schema.check(m.Data); f != nil {
		return &InvalidError{ID: m.ID, Field: f.field, Reason: f.reason}
	}
	return nil
}

// SplitSettings takes the setting "filter", which all kinds have, out of a trigger's
// settings; the rest is what its kind reads. It fails with a *source.FieldError.
func SplitSettings(settings json.RawMessage) (filter, rest json.RawMessage, err error) {
	if len(settings) == 0 {
		return nil, settings, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(settings, &fields); err != nil {
		return nil, nil, &source.FieldError{Field: "settings", Reason: "must be a JSON object"}
	}
	filter, ok := fields["filter"]
	if !ok {
		return nil, settings, nil
	}
	delete(fields, "filter")
	if rest, err = json.Marshal(fields); err != nil {
		return nil, nil, &source.FieldError{Field: "settings", Reason: "must be a JSON object"}
	}
	return filter, rest, nil
}

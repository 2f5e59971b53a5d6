package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Type of the events.
const Type = "casemate.schedule.fired"

// data of an event.
type data struct {
	Scheduled string `json:"scheduled"` // the tick, in the schedule's zone
	Zone      string `json:"zone"`
	Name      string `json:"name"`           // of the trigger
	Cron      string `json:"cron,omitempty"` // as it stands in the settings, when there is one
}

// hand hands in one tick. The id is the tick alone, so that whoever fires it makes the
// same event.
func (e *entry) hand(tick time.Time) error {
	body, err := json.Marshal(data{tick.In(e.spec.zone).Format(time.RFC3339), e.spec.zone.String(), e.binding.Trigger.Name, e.spec.source})
	if err != nil {
		return fmt.Errorf("writing event of a schedule: %v", err)
	}
	m := event.Message{
		Event: event.Event{
			ID: tick.UTC().Format(time.RFC3339), Type: Type, Subject: e.binding.Trigger.Name,
			Time: tick.UTC(), DataContentType: "application/json",
		},
		Data: body,
	}
	return e.binding.Sink.Accept(e.ctx, []event.Message{m})
}

// storeKey is where the position is kept.
const storeKey = "position"

// position is what is kept of a schedule.
type position struct {
	Settings string    `json:"settings"` // of other settings the position says nothing
	Done     time.Time `json:"done"`     // ticks up to it
}

func (e *entry) settle(done time.Time) error {
	return keep(e.ctx, e.binding.Store, e.spec, done)
}

func keep(ctx context.Context, s source.Store, spec *Spec, done time.Time) error {
	b, err := json.Marshal(position{spec.text, done.UTC()})
	if err != nil {
		return fmt.Errorf("keeping position of a schedule: %v", err)
	}
	if err := s.Put(ctx, storeKey, b); err != nil {
		return fmt.Errorf("keeping position of a schedule: %w", err)
	}
	return nil
}

// restore reads where a schedule was left, and begins a new one at now.
func restore(ctx context.Context, s source.Store, spec *Spec, now time.Time) (time.Time, error) {
	b, err := s.Get(ctx, storeKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading position of a schedule: %w", err)
	}
	var p position
	if b != nil && json.Unmarshal(b, &p) == nil && p.Settings == spec.text && p.Done.Sub(now) <= MaxBack {
		return p.Done, nil
	}
	return now, keep(ctx, s, spec, now)
}

// Kind is the kind of source. Its zero value runs each schedule by itself; with a
// Clockwork, which somebody else runs, it adds schedules to that one.
type Kind struct{ Clockwork *Clockwork }

var _ source.Kind = Kind{}

// Check validates a trigger; see source.Kind.
func (Kind) Check(t *function.Trigger) error {
	if t.Connection != "" {
		return &source.FieldError{Field: "connection", Reason: "has no meaning for a schedule: leave it out"}
	}
	_, err := Parse(t.Settings)
	return err
}

// Run fires until ctx ends; see source.Kind.
func (k Kind) Run(ctx context.Context, b source.Binding) error {
	c := k.Clockwork
	if c == nil {
		c = NewClockwork(b.Clock)
	}
	remove, err := c.Add(ctx, b)
	if err != nil {
		return err
	}
	defer remove()
	if k.Clockwork == nil {
		return c.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

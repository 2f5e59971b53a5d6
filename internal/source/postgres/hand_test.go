package postgres

import (
	"context"
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// sinkFunc is a sink.
type sinkFunc func([]event.Message) error

func (f sinkFunc) Accept(_ context.Context, events []event.Message) error { return f(events) }

// TestManyEventsAreHandedOverInLots is for a TRUNCATE of many tables: what the sink takes
// at once is bounded, and the place in the log moves on when it has taken all.
func TestManyEventsAreHandedOverInLots(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &follower{waiting: newWaiting()}
	var lots []int
	sink := sinkFunc(func(events []event.Message) error {
		lots = append(lots, len(events))
		if at := f.confirmed.Load(); at != 0 {
			t.Errorf("%d was confirmed before all was taken", at)
		}
		if len(lots) == 3 {
			cancel()
		}
		return nil
	})
	f.run = &run{b: source.Binding{Sink: sink}, health: &health{report: func(source.Health) {}}}
	if err := f.waiting.put(ctx, make([]event.Message, 2*maxWaiting+1), 7); err != nil {
		t.Fatal(err)
	}
	if err := f.hand(ctx); err == nil {
		t.Error("it ended without a reason")
	}
	if want := []int{maxWaiting, maxWaiting, 1}; !slices.Equal(lots, want) {
		t.Errorf("it handed over %v, want %v", lots, want)
	}
	if at := f.confirmed.Load(); at != 7 {
		t.Errorf("%d is confirmed in the end, want 7", at)
	}
}

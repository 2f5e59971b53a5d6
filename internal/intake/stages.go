package intake

import (
	"context"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

// arrival is one call on its way through the stages.
type arrival struct {
	ctx       context.Context
	in        *Intake
	port      *port
	principal string // who was verified; empty for triggers
	wait      bool   // Accept
	now       time.Time
	items     []item
	stored    []Stored
}

// item is one event of a call.
type item struct {
	message  event.Message
	unwanted bool     // the filter dropped it
	wrong    *finding // what rule it breaks
	data     []byte   // as it is stored
}

// finding says what is wrong with an event.
type finding struct{ field, reason string }

// live reports whether the event is still on its way to the bus.
func (i *item) live() bool { return !i.unwanted && i.wrong == nil }

// A stage lets a call go on by returning nil. It marks the events that are to go no
// further, or refuses the whole call with an error.
type stage struct {
	name string
	run  func(*arrival) error
}

// stages is the order of everything.
func stages() []stage {
	return []stage{
		// A trigger that has gone takes nothing, however well formed, and costs nothing.
		{"open", (*arrival).open},
		// Before anything looks at an event: from here on its source is ours, and what only
		// the platform may say is gone. A check on what the sender claimed would be a check
		// on something that nobody sees later.
		{"stamp", (*arrival).stamp},
		// The form and size of attributes. Whatever follows may rely on them: filters
		// and names of dead letters work on bounded text.
		{"envelope", each((*arrival).envelope)},
		// The data's form, in one bounded pass that keeps nothing, before anything parses
		// it into memory: depth, doubled keys and numbers are how small data becomes dear.
		{"content", each((*arrival).content)},
		// After the envelope, of which it is made; before the schema, because what the
		// trigger does not want need not fit it.
		{"filter", each((*arrival).filter)},
		// What the deployer promised the function about its data. Last of the checks,
		// because it is the dearest.
		{"schema", each((*arrival).schema)},
		// What cannot be written down is the event's fault and must not be met as a failure
		// to store it, which a source tries again for ever.
		{"encode", each((*arrival).encode)},
		// A caller that waits is told what is wrong, before it is told to come back later,
		// and before anything of its call is stored.
		{"refuse", (*arrival).refuse},
		// After the checks, which tell more than "later"; before anything is stored, dead
		// letters too, so that a flood of bad events is slowed as one of good ones is.
		{"back-pressure", (*arrival).room},
		// Before the good ones: when storing those fails, the source hands in all of them
		// again, and dead letters of the same id are kept once.
		{"dead letters", (*arrival).bury},
		// Last, and the only one that makes anything run.
		{"publish", (*arrival).publish},
	}
}

// each makes a stage of a check of one event.
func each(check func(*arrival, *item) *finding) func(*arrival) error {
	return func(a *arrival) error {
		for i := range a.items {
			if it := &a.items[i]; it.live() {
				it.wrong = check(a, it)
			}
		}
		return nil
	}
}

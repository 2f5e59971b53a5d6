package control

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

// Deliveries says how triggers are doing, and holds them up; see delivery.Engine.
type Deliveries interface {
	Keys() []delivery.Key
	Status(ctx context.Context, k delivery.Key) (delivery.Status, error)
	Pause(ctx context.Context, k delivery.Key) error
	Resume(ctx context.Context, k delivery.Key) error
}

// Replays has events run anew; see delivery.Engine.
type Replays interface {
	Replay(ctx context.Context, s delivery.Selector, qualifier string) (delivery.Job, error)
	Jobs(namespace string) []delivery.Job
	CancelReplay(ctx context.Context, id string) error
}

// DeadLetters keeps what was given up; see delivery.Engine.
type DeadLetters interface {
	DeadLetters(ctx context.Context, k delivery.Key, f delivery.DeadFilter, fn func(*delivery.Dead) bool) error
	RetryDead(ctx context.Context, k delivery.Key, f delivery.DeadFilter) (retried, left int, err error)
	PurgeDead(ctx context.Context, k delivery.Key, f delivery.DeadFilter) (purged int, err error)
}

// StreamFilter selects records of a Stream.
type StreamFilter struct {
	Namespace string    // "" for all
	Channel   string    // "" for all
	After     uint64    // only later sequences
	Since     time.Time // stored then or later; zero for no bound
	Until     time.Time // stored before; zero for no bound
	Follow    bool      // wait for more at the end
}

// Verified is what reading a whole Stream has found.
type Verified struct {
	Records  uint64 // that are whole
	Channels int
	Missing  uint64 // that are neither there nor purged
	Damaged  bool   // some are missing or not what was stored
}

// Stream keeps events, or dead letters. Read leaves out what is damaged, and fails with
// state.ErrCorrupt at the end; Get fails with that or with state.ErrNotFound.
type Stream interface {
	Read(ctx context.Context, f StreamFilter, fn func(delivery.Record) bool) error
	Get(ctx context.Context, sequence uint64) (delivery.Record, error)
	Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error)
	Verify(ctx context.Context, progress func(done, of uint64)) (Verified, error)
}

// Connections keeps far sides; see connection.Connections.
type Connections interface {
	Put(ctx context.Context, n connection.Connection) error
	Get(ctx context.Context, namespace, name string) (connection.Connection, error)
	List(ctx context.Context, namespace string) ([]connection.Connection, error)
	Delete(ctx context.Context, namespace, name string) error
}

// SourceHealth is the last report of a trigger's source.
type SourceHealth struct {
	State  string // starting, running, failing or alert
	Reason string // holds no credential
	Lag    int64  // -1 when not known
	Since  time.Time
}

// EventsConfig is what the operators' side of events needs. Every field is needed.
type EventsConfig struct {
	Deliveries  Deliveries
	Replays     Replays
	DeadLetters DeadLetters
	Events      Stream
	Deads       Stream
	Connections Connections
	// Source gives what a trigger's source has reported; false when it has none.
	Source func(delivery.Key) (SourceHealth, bool)
	// Publish stores events in a topic, all or none. Its error is a *problem.Error when
	// the caller is to know of it.
	Publish func(ctx context.Context, namespace, topic, principal string, events []event.Message) ([]delivery.Stored, error)
	// Check says whether what is stored has been found damaged, or cannot be reached.
	Check func(context.Context) error
	// Disk is the space of the data directory's file system, in bytes.
	Disk func() (free, size int64, err error)
}

func (c *EventsConfig) check() error {
	for name, missing := range map[string]bool{
		"Deliveries": c.Deliveries == nil, "Replays": c.Replays == nil, "DeadLetters": c.DeadLetters == nil, "Events": c.Events == nil,
		"Deads": c.Deads == nil, "Connections": c.Connections == nil, "Source": c.Source == nil, "Publish": c.Publish == nil,
		"Check": c.Check == nil, "Disk": c.Disk == nil,
	} {
		if missing {
			return fmt.Errorf("making the control door: Config.Events.%s is not set", name)
		}
	}
	return nil
}

// CheckTriggers says what is wrong with a function's triggers, who puts them in force
// being who: a trigger may do nothing that its deployer may not. A field begins
// with triggers.
type CheckTriggers func(ctx context.Context, who identity.Principal, ref function.Ref, ts []function.Trigger) *problem.Error

// Limits of the operations on events.
const (
	defaultEvents   = 50
	maxEvents       = 1000
	defaultDead     = 100
	maxPublished    = 500
	maxPublishBody  = 16 << 20
	maxSearch       = 200_000 // events that one search looks at, about
	storyReceipts   = 5000
	storyDead       = 20
	storyOthers     = 20
	maxTailed       = 1000
	maxDeadSelected = 500
	countsFresh     = 2 * time.Second
)

// onEvents is how operations get at events, or refuse on a node without them.
func (h *Handler) onEvents() (*EventsConfig, error) {
	if h.cfg.Events == nil {
		return nil, problem.New(problem.NotImplemented, "this node keeps no events")
	}
	return h.cfg.Events, nil
}

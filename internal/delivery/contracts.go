package delivery

import (
	"context"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Entry is something to be stored. Its ID is unique in its channel for as long as the
// stream remembers ids.
type Entry struct {
	Namespace string
	Channel   string
	ID        string
	Data      []byte
}

// Stored says where an entry is.
type Stored struct {
	Sequence  uint64
	Duplicate bool // it was there before, at that sequence
}

// Record is a stored entry. Sequences grow through the whole stream, all channels alike.
type Record struct {
	Namespace string
	Channel   string
	ID        string
	Sequence  uint64
	Time      time.Time // of storing
	Data      []byte
}

// Filter selects records of one channel.
type Filter struct {
	Namespace string
	Channel   string
	After     uint64    // sequence above this one
	Since     time.Time // stored then or later; zero for no bound
	Until     time.Time // stored before; zero for no bound
}

// Stream is an append-only store.
type Stream interface {
	// Publish stores all entries or none. They are on disk when it returns nil.
	Publish(ctx context.Context, entries []Entry) ([]Stored, error)
	// Read calls fn for each record there is, in order, until it returns false. Damaged
	// ones are left out, and it then fails with state.ErrCorrupt at the end.
	Read(ctx context.Context, f Filter, fn func(Record) bool) error
	// Get fails with state.ErrNotFound and state.ErrCorrupt.
	Get(ctx context.Context, sequence uint64) (Record, error)
	// Purge removes the channel's records up to and with that sequence.
	Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error)
}

// ConsumerConfig is a consumer of one channel.
type ConsumerConfig struct {
	Name      string // what it has settled is kept under this name
	Namespace string
	Channel   string
	Window    int           // most unsettled at once
	AckWait   time.Duration // without a word for that long, a record is delivered again
	Since     time.Time     // where a new consumer begins; zero for the channel's beginning
}

// Consumers deliver the records of the stream of events.
type Consumers interface {
	// Consume calls fn for each record, one call after the other, in the stream's order
	// but for redeliveries, until ctx ends. fn may block.
	Consume(ctx context.Context, c ConsumerConfig, fn func(Delivered)) error
	// Prepare makes a consumer that is absent, and delivers nothing.
	Prepare(ctx context.Context, c ConsumerConfig) error
	// Backlog says how many records the consumer was not given yet, and how many it was
	// given and has not settled. It fails with state.ErrNotFound before the first Consume or Prepare.
	// It fails with state.ErrCorrupt, beside the numbers, when what it has settled is lost: then
	// the next Consume begins anew, behind what was settled for certain, in the stream's order.
	Backlog(ctx context.Context, name string) (waiting, underWay int64, err error)
	// DropConsumer forgets a consumer; nil when there is none.
	DropConsumer(ctx context.Context, name string) error
}

// Delivered is a record that was handed out. Without Data, what is stored is damaged, and
// only its place is told.
type Delivered struct {
	Record
	Attempt int // from 1
	Settler
}

// Settler says what became of a delivered record. Its methods do not wait for the disk
// and work after Consume has returned, too.
type Settler interface {
	Ack() error                  // it is done with
	Later(d time.Duration) error // deliver it again after that time
	Working() error              // AckWait begins anew
}

// State keeps what operators have asked for. The bus's keys and values fit.
type State interface {
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, revision uint64) error
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Call asks for one invocation.
type Call struct {
	Ref       function.Ref
	Qualifier string           // empty: what triggers follow
	Trigger   string           // its name; empty for an asynchronous invocation
	Messages  []*event.Message // one, or a batch; to be read only
	Attempt   int              // from 1; of a batch the highest
	Replay    bool             // these ran before, and somebody wants to see it again
}

// Outcome is how an invocation ended. With Code empty the function has answered.
type Outcome struct {
	Status     int
	Headers    map[string][]string
	Body       []byte
	Version    string
	Receipt    string
	Code       problem.Code
	Detail     string        // public
	RetryAfter time.Duration // what was asked for, by the node or in the function's answer
	// Failed names events of a batch, by their ids, when the function did the others.
	Failed []string
}

// Invoke runs a function. An error is turned into an Outcome's Code and Detail as
// problem.From sees it; what the Outcome holds beside that is kept.
type Invoke func(ctx context.Context, c Call) (Outcome, error)

// Send hands an event to a webhook: a connection of the namespace.
type Send func(ctx context.Context, namespace, connection string, m *event.Message) (Outcome, error)

// Results learns what became of asynchronous invocations. It may be told twice.
type Results interface {
	Done(ctx context.Context, ref function.Ref, id string, r Result) error
}

// Result is the end of an asynchronous invocation.
type Result struct {
	Succeeded bool
	Reason    Reason // why not
	Outcome   Outcome
	Attempts  int
	Stored    time.Time
	Ended     time.Time
}

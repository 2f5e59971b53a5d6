package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/function"
)

// Bounds of Events.
const (
	// MaxPublish is the most entries of one Events.Publish.
	MaxPublish = 1000 // the server takes no more in one atomic batch
	// MaxPublishBytes is the most bytes of data of one Events.Publish.
	MaxPublishBytes = 32 << 20
	// MaxEventID is the length of the longest Entry.ID in bytes.
	MaxEventID = 1024
	// MaxRemembered is how many ids the dedup window holds at most. Under more
	// events than these in EventsConfig.Dedup, the window is shorter.
	MaxRemembered = 2 << 20
)

// EventsConfig describes Events. All fields but Keep are required.
type EventsConfig struct {
	Name          string        // RFC 1035 label
	SubjectPrefix string        // RFC 1035 label, of these Events alone
	MaxAge        time.Duration // older events go, settled or not
	MaxBytes      int64         // beyond it, Publish fails with state.ErrFull
	Dedup         time.Duration // how long ids are remembered
	// Keep, when above zero, lets the oldest events make room for new ones once
	// MaxBytes is reached: those older than Keep, up to the first that a consumer has
	// not settled yet.
	Keep time.Duration
}

func (c *EventsConfig) check() error {
	switch {
	case !function.ValidName(c.SubjectPrefix) || c.SubjectPrefix == "blob":
		return fmt.Errorf("opening events %s: EventsConfig.SubjectPrefix %.80q: want a lower-case word other than blob", c.Name, c.SubjectPrefix)
	case c.MaxAge < time.Second:
		return fmt.Errorf("opening events %s: EventsConfig.MaxAge is %v: want at least a second", c.Name, c.MaxAge)
	case c.MaxBytes <= 0:
		return fmt.Errorf("opening events %s: EventsConfig.MaxBytes is %d: want a bound above zero", c.Name, c.MaxBytes)
	case c.Dedup <= 0 || c.Dedup > c.MaxAge:
		return fmt.Errorf("opening events %s: EventsConfig.Dedup is %v: want more than zero and at most MaxAge", c.Name, c.Dedup)
	case c.Keep < 0:
		return fmt.Errorf("opening events %s: EventsConfig.Keep is %v: want zero or more", c.Name, c.Keep)
	}
	return nil
}

// Entry is an event to be stored.
type Entry struct {
	Namespace string // RFC 1035 label
	Channel   string // 2 or 3 such labels joined by dots: topic.orders
	ID        string // unique in namespace and channel within EventsConfig.Dedup
	Data      []byte
}

// Stored says where an entry is.
type Stored struct {
	Sequence  uint64
	Duplicate bool // it was there before; Sequence is that of the first one
}

// EventRecord is a stored event.
type EventRecord struct {
	Namespace string
	Channel   string
	ID        string
	Sequence  uint64 // grows in the order of storing, over all channels
	Time      time.Time
	Data      []byte

	prev uint64
}

// Events is a durable stream of events in channels.
//
// Each message carries, under our digest, its own sequence and that of the one
// before it in its channel. So a message that was changed, moved or put back is
// found when it is read, and one that the server leaves out is found by its
// successor. One goroutine writes; it knows all sequences beforehand, because the
// server accepts a batch only when it follows the one that is known to be last.
type Events struct {
	bus    *Bus
	cfg    EventsConfig
	name   string // of the stream
	stream jetstream.Stream
	ages   ages

	queue   chan *publish
	closing chan struct{}
	closed  chan struct{} // the committer has ended
	once    sync.Once

	// These belong to the committer, and to open before there is one.
	last    uint64            // sequence of the last message
	counted uint64            // by the server, when it is more than last: see errNotLast
	unsure  bool              // last is not known: a write had no answer
	heads   map[string]uint64 // last sequence of a channel, by subject; not of all
	seen    *remembered
	trimmed time.Time // when it was last tried
	batches uint64
	answers answers

	burials  atomic.Bool // there is something in buried
	purging  sync.Mutex  // before mu; held by Purge
	dropping sync.Mutex  // before Bus.marking; held while a consumer is dropped, or all are asked where they are

	mu        sync.Mutex
	changed   chan struct{}     // closed, and replaced, after each write
	floors    map[string]uint64 // up to where a channel was purged, by subject
	routes    map[string]*route // of consumers, by their name at the server
	damaged   map[uint64]string // events that are not what was stored, with their subjects
	buried    map[uint64]bool   // purged, and the server still has them: whether it can read them
	positions map[string]position
	lost      map[string]lostPosition // consumers that are to be made anew
	began     uint64                  // the last sequence when it was opened
	looking   bool                    // at the consumers
	looked    time.Time
	lookTook  time.Duration
}

// Events opens events, and makes them or changes their limits as needed. What was
// lost since the last time is listed in Bus.Warnings.
func (b *Bus) Events(ctx context.Context, cfg EventsConfig) (*Events, error) {
	if err := checkName("opening events", cfg.Name); err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	if e := b.events[cfg.Name]; e != nil {
		if e.cfg != cfg {
			return nil, fmt.Errorf("opening events %s: they are open already with another configuration", cfg.Name)
		}
		return e, nil
	}
	e := &Events{
		bus: b, cfg: cfg, name: "EVENTS_" + cfg.Name,
		queue: make(chan *publish, maxWaiting), closing: make(chan struct{}), closed: make(chan struct{}),
		heads: map[string]uint64{}, seen: newRemembered(maphash.MakeSeed(), cfg.Dedup, MaxRemembered),
		changed: make(chan struct{}), floors: map[string]uint64{}, routes: map[string]*route{},
		damaged: map[uint64]string{}, buried: map[uint64]bool{}, positions: map[string]position{}, lost: map[string]lostPosition{},
	}
	if err := e.open(ctx); err != nil {
		return nil, err
	}
	b.events[cfg.Name] = e
	b.mu.Lock()
	b.streams[e.name] = marked{stream: e.stream, events: e}
	b.mu.Unlock()
	go e.run()
	return e, nil
}

func (e *Events) open(ctx context.Context) error {
	prefix := e.cfg.SubjectPrefix
	var err error
	// Reads may be direct: there is one replica, and they are isolated from batches.
	e.stream, err = e.bus.ensureStream(ctx, jetstream.StreamConfig{
		Name: e.name, Subjects: []string{e.noteSubject(), prefix + ".*.*.*", prefix + ".*.*.*.*"},
		Storage: jetstream.FileStorage, Replicas: 1, Discard: jetstream.DiscardNew,
		MaxAge: e.cfg.MaxAge, MaxBytes: e.cfg.MaxBytes, MaxMsgSize: maxPayload,
		AllowDirect: true, AllowAtomicPublish: true,
		Duplicates: time.Second, // of the server's own window, which is not used
	})
	if err != nil {
		return e.bus.failure("opening "+e.name, err)
	}
	lost := e.stream.CachedInfo().State.Lost
	if lost != nil {
		e.bus.warn(fmt.Sprintf("%s: the server cut away %d damaged messages (%d bytes) while starting", e.name, len(lost.Msgs), lost.Bytes))
	}
	if err := e.bus.compare(e.name, e.stream.CachedInfo().State, 0, false); err != nil {
		return err
	}
	m := e.bus.marks[e.name]
	e.ages.restore(m.Ages, m.Trimmed, e.cfg.MaxAge)
	if err := e.complete(ctx, e.bus.cfg.Clock()); err != nil {
		return err
	}
	info, err := e.stream.Info(ctx)
	if err != nil {
		return e.bus.failure("opening "+e.name, err)
	}
	e.last = info.State.LastSeq
	if err := e.lookAgain(ctx, m.Damaged); err != nil {
		return e.bus.failure("opening "+e.name, err)
	}
	if err := e.remember(ctx); err != nil {
		return err
	}
	given := m.Last // sequences that were in use once
	listed := map[string]bool{}
	list := e.stream.ListConsumers(ctx)
	for c := range list.Info() {
		given = max(given, c.Delivered.Stream)
		listed[c.Name] = true
	}
	if err := list.Err(); err != nil {
		return e.bus.failure("opening "+e.name, err)
	}
	e.recall(ctx, listed, m.Consumers)
	e.began = max(e.last, given)
	if given > max(m.Last, e.last) { // less than that, compare has told
		e.bus.warn(fmt.Sprintf("%s: a consumer was at %d and it ends at %d", e.name, given, e.last))
	}
	if err := e.fill(ctx, given); err != nil {
		return fmt.Errorf("opening %s: %w", e.name, err)
	}
	return nil
}

// remember fills the dedup window from what is stored.
func (e *Events) remember(ctx context.Context) error {
	since := e.bus.cfg.Clock().Add(-e.cfg.Dedup)
	err := e.scan(ctx, scan{filter: e.cfg.SubjectPrefix + ".>", from: 1, since: since, end: e.last}, func(r EventRecord) bool {
		if r.Channel != "" {
			e.seen.add(e.seen.hash(r.Namespace, r.Channel, r.ID), r.Sequence, r.Time)
		}
		return true
	})
	if err != nil && !errors.Is(err, ErrCorrupt) { // damage is on record, and the rest is of use
		return e.bus.failure("opening "+e.name, err)
	}
	return nil
}

// stop ends the committer. Publish fails from now on.
func (e *Events) stop() {
	e.once.Do(func() { close(e.closing) })
	<-e.closed
}

// subject of a channel, which is validated.
func (e *Events) subject(namespace, channel string) (string, error) {
	labels := strings.Split(channel, ".")
	if !function.ValidName(namespace) || len(labels) < 2 || len(labels) > 3 {
		return "", fmt.Errorf("%.80q is not a namespace with a channel such as topic.orders", namespace+" "+channel)
	}
	for _, l := range labels {
		if !function.ValidName(l) {
			return "", fmt.Errorf("the channel %.80q is not made of labels", channel)
		}
	}
	return e.cfg.SubjectPrefix + "." + namespace + "." + channel, nil
}

// channel is the reverse of subject. It is empty for notes.
func (e *Events) channel(subject string) (namespace, channel string) {
	rest := strings.TrimPrefix(subject, e.cfg.SubjectPrefix+".")
	namespace, channel, ok := strings.Cut(rest, ".")
	if !ok {
		return "", ""
	}
	return namespace, channel
}

// notify wakes those that follow.
func (e *Events) notify() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Events) floor(subject string) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.floors[subject]
}

// Get returns one event, state.ErrNotFound, or state.ErrCorrupt.
func (e *Events) Get(ctx context.Context, sequence uint64) (EventRecord, error) {
	doing := fmt.Sprintf("reading event %d of %s", sequence, e.cfg.Name)
	r, err := e.get(ctx, sequence)
	if err != nil {
		return EventRecord{}, fmt.Errorf("%s: %w", doing, err)
	}
	return r, nil
}

// Backlog says how many events a consumer has yet to begin, and how many it has
// begun and not settled. It fails with state.ErrNotFound when there is no such
// consumer, and with state.ErrCorrupt when what it has settled is lost: then Consume
// begins behind what was settled for certain, and all from there on are waiting.
func (e *Events) Backlog(ctx context.Context, consumer string) (waiting, underWay int64, err error) {
	if p, lost := e.isLost(consumerName(consumer)); lost {
		waiting, err = e.lostBacklog(ctx, consumer, p)
		return waiting, 0, err
	}
	info, err := e.consumer(ctx, consumer)
	if err != nil {
		return 0, 0, err
	}
	return int64(min(info.NumPending, math.MaxInt64)), int64(info.NumAckPending), nil
}

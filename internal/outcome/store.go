package outcome

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// What holds where Config is silent.
const (
	DefaultKeep          = 24 * time.Hour
	DefaultRecords       = 50_000   // of one namespace
	DefaultBytes   int64 = 64 << 20 // of one namespace
	// MaxWait is how long an invocation may be pending: longer than any event is kept.
	MaxWait = function.MaxEventAge + 24*time.Hour
	// shares is how many namespaces can be as large as one may be.
	shares = 4
	// overhead is what a record costs beside its data, on disk and in memory, in bytes.
	overhead = 512
	// pendingBytes is the most that a record of something pending takes, with overhead.
	pendingBytes = 1 << 10
	// maxPrincipal is how much of a principal's name is kept, in bytes.
	maxPrincipal = 160
	// sweepEvery is how often Run looks for what has grown too old.
	sweepEvery = time.Minute
)

// Entry is a record to be stored. Its ID is unique in its namespace and channel.
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

// Record is a stored entry. Sequences grow through the whole stream.
type Record struct {
	Namespace string
	Channel   string
	ID        string
	Sequence  uint64
	Time      time.Time // of storing
	Data      []byte
}

// Stream is an append-only store. Nobody else may write to the channels of a Store.
type Stream interface {
	// Publish stores all entries or none. They are on disk when it returns nil. It fails
	// with state.ErrFull when there is no room.
	Publish(ctx context.Context, entries []Entry) ([]Stored, error)
	// Read calls fn for each record of a channel, of all namespaces, in order. Damaged ones
	// are left out, and it then fails with state.ErrCorrupt at the end.
	Read(ctx context.Context, channel string, fn func(Record) bool) error
	// Get fails with state.ErrNotFound and state.ErrCorrupt.
	Get(ctx context.Context, sequence uint64) (Record, error)
	// Purge removes the channel's records up to and with that sequence.
	Purge(ctx context.Context, namespace, channel string, upTo uint64) (int, error)
}

// Config is what a Store is made of. Stream, Clock and Logger must be given.
type Config struct {
	Stream  Stream
	Clock   func() time.Time
	Logger  *slog.Logger
	Keep    time.Duration // after the end
	Records int           // most records of one namespace; an invocation has two
	Bytes   int64         // most bytes of one namespace
}

func (c *Config) check() error {
	switch {
	case c.Stream == nil:
		return errors.New("opening outcomes: Config.Stream is missing: give what keeps records")
	case c.Clock == nil:
		return errors.New("opening outcomes: Config.Clock is missing: give the real clock")
	case c.Logger == nil:
		return errors.New("opening outcomes: Config.Logger is missing: give one, slog.DiscardHandler at least")
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Records == 0 {
		c.Records = DefaultRecords
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	switch {
	case c.Keep < time.Second:
		return fmt.Errorf("opening outcomes: Config.Keep is %v: give at least a second", c.Keep)
	case c.Records < 16:
		return fmt.Errorf("opening outcomes: Config.Records is %d: give at least 16", c.Records)
	case c.Bytes < int64(c.Records)*pendingBytes:
		// Else what is pending, which stays, could fill the share by itself.
		return fmt.Errorf("opening outcomes: Config.Bytes is %d: give at least %d for each of the %d records", c.Bytes, pendingBytes, c.Records)
	}
	return nil
}

// Store keeps outcomes. Make one with Open.
type Store struct {
	cfg Config

	sweeping sync.Mutex
	writes   sync.RWMutex

	mu      sync.Mutex // of all that follows
	index   map[string]*entry
	spaces  map[string]*space
	total   amount
	pending int // of all namespaces
}

// entry is an invocation.
type entry struct {
	id        string
	ref       function.Ref
	principal string
	accepted  time.Time
	ended     time.Time // zero while pending
	sequence  uint64    // of the record that counts
}

// space is what there is of one namespace.
type space struct {
	log     []slot // by sequence
	amount  amount // of log
	pending int
}

// slot is a record on the stream, which may no longer count.
type slot struct {
	sequence uint64
	id       string
	bytes    int64
}

type amount struct {
	records int
	bytes   int64
}

// Open reads what is there. Damaged records are left out and logged.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Store{cfg: c, index: make(map[string]*entry), spaces: make(map[string]*space)}
	unread := 0
	err := c.Stream.Read(ctx, Channel, func(r Record) bool {
		inv, err := decode(r.Data)
		if err != nil || inv.Ref.Namespace != r.Namespace {
			unread++
			return true
		}
		s.add(inv, r.Sequence, len(r.Data))
		return true
	})
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return nil, fmt.Errorf("opening outcomes: %w", err)
	}
	if err != nil || unread > 0 {
		c.Logger.Error("outcomes of asynchronous invocations are damaged and were left out", slog.Int("malformed", unread), slog.Any("error", err))
	}
	return s, nil
}

// add takes a record into the index. An end is final: a record that says pending cannot
// follow one. s.mu is held, but by Open.
func (s *Store) add(inv *Invocation, sequence uint64, size int) {
	ns := inv.Ref.Namespace
	sp := s.spaces[ns]
	if sp == nil {
		sp = &space{}
		s.spaces[ns] = sp
	}
	if !sp.insert(slot{sequence, inv.ID, int64(size) + overhead}) {
		return // somebody wrote the same at the same time
	}
	sp.amount.add(1, int64(size)+overhead)
	s.total.add(1, int64(size)+overhead)
	e := s.index[inv.ID]
	switch {
	case e == nil:
		e = &entry{id: inv.ID, ref: inv.Ref, principal: inv.Principal, accepted: inv.Accepted}
		s.index[inv.ID] = e
		sp.pending++
		s.pending++
	case e.ref != inv.Ref, !e.ended.IsZero(), sequence < e.sequence:
		return
	}
	e.sequence = sequence
	if inv.State != Pending {
		e.ended = inv.Ended
		sp.pending--
		s.pending--
	}
}

func (a *amount) add(records int, bytes int64) {
	a.records += records
	a.bytes += bytes
}

// insert keeps the order; writers finish nearly in it. It is false when the record is
// known.
func (sp *space) insert(at slot) bool {
	i := len(sp.log)
	for i > 0 && sp.log[i-1].sequence >= at.sequence {
		i--
		if sp.log[i].sequence == at.sequence {
			return false
		}
	}
	sp.log = slices.Insert(sp.log, i, at)
	return true
}

// Pending records that an invocation was accepted. It fails with state.ErrFull, wrapped,
// when too many of the namespace are pending already or the disk is full, and with
// state.ErrConflict when there is one with that id.
func (s *Store) Pending(ctx context.Context, id string, ref function.Ref, principal string) error {
	if !validID(id) || !function.ValidName(ref.Namespace) || !function.ValidName(ref.Name) {
		return fmt.Errorf("recording invocation %.80q of %.80q: malformed name", id, ref)
	}
	if err := s.makeRoom(ctx, ref.Namespace); err != nil {
		return err
	}
	s.mu.Lock()
	known := s.index[id] != nil
	sp := s.spaces[ref.Namespace]
	// Half, since each of them will need a second record, which is never refused.
	full := sp != nil && sp.pending >= s.cfg.Records/2 || s.pending >= shares*s.cfg.Records/2
	s.mu.Unlock()
	switch {
	case known:
		return fmt.Errorf("recording invocation %s: %w", id, state.ErrConflict)
	case full:
		return fmt.Errorf("recording invocation %s: too many are pending: %w", id, state.ErrFull)
	}
	return s.write(ctx, ".accepted", &Invocation{ID: id, Ref: ref, Principal: principal[:min(len(principal), maxPrincipal)], State: Pending, Accepted: s.cfg.Clock().UTC()})
}

// Forget drops what Pending recorded, because nothing was accepted after all. After a
// restart it is there again and is given up in time; nobody was told its id.
func (s *Store) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(id)
}

// drop takes an invocation out of the index; its records no longer count. s.mu is held.
func (s *Store) drop(id string) {
	e := s.index[id]
	if e == nil {
		return
	}
	if e.ended.IsZero() {
		s.spaces[e.ref.Namespace].pending--
		s.pending--
	}
	delete(s.index, id)
}

// Done records the end of an invocation. It is nil when there is nothing to record: the
// end is known, or nobody asked for an invocation of that function with that id.
func (s *Store) Done(ctx context.Context, ref function.Ref, id string, r Result) error {
	s.mu.Lock()
	e := s.index[id]
	if e == nil || e.ref != ref || !e.ended.IsZero() {
		s.mu.Unlock()
		return nil
	}
	inv := &Invocation{ID: id, Ref: ref, Principal: e.principal, Accepted: e.accepted}
	s.mu.Unlock()
	if r.Ended.IsZero() {
		r.Ended = s.cfg.Clock()
	}
	r.put(inv)
	if err := s.makeRoom(ctx, ref.Namespace); err != nil {
		// The end matters more than the bound.
		s.cfg.Logger.Error("no room could be made for outcomes", slog.String("namespace", ref.Namespace), slog.Any("error", err))
	}
	err := s.write(ctx, ".ended", inv)
	if errors.Is(err, state.ErrFull) && len(inv.Body) > 0 {
		inv.Omitted, inv.Body = len(inv.Body), nil
		err = s.write(ctx, ".ended", inv)
	}
	return err
}

// write stores a record and takes it into the index.
func (s *Store) write(ctx context.Context, suffix string, inv *Invocation) error {
	b, err := encode(inv)
	if err != nil {
		return err
	}
	s.writes.RLock()
	defer s.writes.RUnlock()
	at, err := s.cfg.Stream.Publish(ctx, []Entry{{Namespace: inv.Ref.Namespace, Channel: Channel, ID: inv.ID + suffix, Data: b}})
	if err != nil {
		return fmt.Errorf("recording invocation %s: %w", inv.ID, err)
	}
	if len(at) != 1 {
		return fmt.Errorf("recording invocation %s: the stream answers for %d of 1", inv.ID, len(at))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(inv, at[0].Sequence, len(b))
	return nil
}

// Get returns an invocation, or state.ErrNotFound, wrapped, when there is none or when it
// ended too long ago. Who may see it is for the caller to decide.
func (s *Store) Get(ctx context.Context, id string) (*Invocation, error) {
	for again := false; ; again = true {
		s.mu.Lock()
		e := s.index[id]
		var sequence uint64
		if e != nil && !s.over(e, s.cfg.Clock()) {
			sequence = e.sequence
		}
		s.mu.Unlock()
		if sequence == 0 {
			return nil, fmt.Errorf("looking for invocation %.80q: %w", id, state.ErrNotFound)
		}
		r, err := s.cfg.Stream.Get(ctx, sequence)
		if errors.Is(err, state.ErrNotFound) && !again {
			continue // it was written anew, or swept, in between
		}
		if err != nil {
			return nil, fmt.Errorf("looking for invocation %s: %w", id, err)
		}
		inv, err := decode(r.Data)
		if err != nil || inv.ID != id {
			return nil, fmt.Errorf("looking for invocation %s: %w", id, state.ErrCorrupt)
		}
		return inv, nil
	}
}

// over says whether an invocation has been kept for as long as it may be.
func (s *Store) over(e *entry, now time.Time) bool {
	if e.ended.IsZero() {
		return now.Sub(e.accepted) > MaxWait
	}
	return now.Sub(e.ended) > s.cfg.Keep
}

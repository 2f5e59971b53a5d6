package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

// Bounds on events that wait to be taken, and on descriptions of tables. One event more
// than maxWaitingBytes may wait.
const (
	maxWaiting      = 512
	maxWaitingBytes = 4 << 20
	maxRelations    = 10_000
	confirmEvery    = time.Second // when there is something new to say
)

// waiting holds what was read and not yet taken. While one lot is being taken the next
// one gathers, so the lots grow with the time that taking takes.
type waiting struct {
	ready, room chan struct{}

	mu     sync.Mutex
	events []event.Message
	bytes  int
	upTo   lsn // once these are taken, everything before this is
}

func newWaiting() *waiting {
	return &waiting{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put adds events and waits for room. upTo is 0 inside a transaction.
func (w *waiting) put(ctx context.Context, events []event.Message, upTo lsn) error {
	size := 0
	for i := range events {
		size += len(events[i].Data)
	}
	for {
		w.mu.Lock()
		if len(w.events) == 0 || (len(w.events)+len(events) <= maxWaiting && w.bytes+size <= maxWaitingBytes) {
			w.events = append(w.events, events...)
			w.bytes += size
			w.upTo = max(w.upTo, upTo)
			w.mu.Unlock()
			poke(w.ready)
			return nil
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.room:
		}
	}
}

func (w *waiting) take(ctx context.Context) ([]event.Message, lsn, error) {
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-w.ready:
	}
	w.mu.Lock()
	events, upTo := w.events, w.upTo
	w.events, w.bytes, w.upTo = nil, 0, 0
	w.mu.Unlock()
	poke(w.room)
	return events, upTo, nil
}

// follower reads the log on one connection.
type follower struct {
	run     *run
	link    *link
	waiting *waiting

	confirmed atomic.Uint64 // everything before it has been taken
	asked     chan struct{} // the server wants to hear from us

	// Used by the reading goroutine alone.
	decoder   decoder
	relations map[uint32]*table
	place     place
	open      bool // inside a transaction
	batch     []event.Message
	batchSize int
}

// follow streams from the slot until something breaks or ctx ends.
func (r *run) follow(ctx context.Context, repl *session) error {
	if n := repl.Frontend().ReadBufferLen(); n != 0 {
		return errors.New("following the log: the server sent something that was not asked for")
	}
	hijacked, err := repl.Hijack()
	if err != nil {
		return fmt.Errorf("following the log: %w", err)
	}
	conn := hijacked.Conn
	defer conn.Close()
	f := &follower{
		run: r, link: newLink(conn), waiting: newWaiting(), asked: make(chan struct{}, 1),
		relations: map[uint32]*table{}, place: place{system: r.system},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Ending ctx ends whatever waits for the server.
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	err = f.link.begin("START_REPLICATION SLOT " + quote(r.slot) + " LOGICAL 0/0 (proto_version '1', publication_names " +
		literal(quote(r.publication)) + ")")
	if err != nil {
		return explain("following slot "+r.slot, err)
	}
	r.health.running()
	var group sync.WaitGroup
	for _, part := range []func(context.Context) error{f.read, f.hand, f.confirm, f.watch} {
		group.Go(func() { cancel(part(ctx)) })
	}
	group.Wait()
	// So that as little as possible comes again.
	_ = f.link.confirm(lsn(f.confirmed.Load()), r.b.Clock())
	return explain("following slot "+r.slot, context.Cause(ctx))
}

// read reads, decodes and puts what it got where hand takes it.
func (f *follower) read(ctx context.Context) error {
	for {
		m, err := f.link.next()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case walData:
			err = f.data(ctx, m)
		case keepalive:
			if m.reply {
				poke(f.asked)
			}
			// Between transactions everything before the server's place has been sent,
			// also what was none of our business.
			if !f.open {
				err = f.flush(ctx, m.end)
			}
		}
		if err == nil && len(f.batch) > 0 && (f.link.idle() || len(f.batch) >= maxWaiting/8 || f.batchSize >= maxWaitingBytes/8) {
			err = f.flush(ctx, 0)
		}
		if err != nil {
			return err
		}
	}
}

func (f *follower) flush(ctx context.Context, upTo lsn) error {
	events := f.batch
	f.batch, f.batchSize = nil, 0
	return f.waiting.put(ctx, events, upTo)
}

// data handles one message of the output plugin.
func (f *follower) data(ctx context.Context, w walData) error {
	if w.start != f.place.change {
		f.place.change, f.place.n = w.start, 0
	}
	if w.size > len(w.data) {
		return f.tooLarge(w)
	}
	m, err := f.decoder.decode(w.data)
	if err != nil {
		return err
	}
	before := len(f.batch)
	switch m := m.(type) {
	case beginMessage:
		f.open = true
		f.place.commit, f.place.committed, f.place.xid = m.final, m.committed, m.xid
	case commitMessage:
		f.open = false
		return f.flush(ctx, m.end)
	case relationMessage:
		return f.relation(ctx, m)
	case *changeMessage:
		t := f.relations[m.relation]
		if t == nil || !f.open {
			return fmt.Errorf("%w: a change without its table or transaction", errMalformed)
		}
		if !t.wanted {
			return nil
		}
		f.batch = t.messages(f.batch, m, &f.place, f.run.wants)
	case truncateMessage:
		for _, id := range m.relations {
			t := f.relations[id]
			if t == nil || !f.open {
				return fmt.Errorf("%w: a truncate without its table or transaction", errMalformed)
			}
			if t.wanted && f.run.wants(opTruncate) {
				f.batch = append(f.batch, t.message(row{op: opTruncate}, &f.place))
			}
			f.place.n++
		}
	}
	for i := range f.batch[before:] {
		f.batchSize += len(f.batch[before+i].Data)
	}
	return nil
}

// tooLarge tells that there was a change, but not which.
func (f *follower) tooLarge(w walData) error {
	ops := map[byte]operation{'I': opInsert, 'U': opUpdate, 'D': opDelete}
	op, ok := ops[w.data[0]]
	if !ok || !f.open {
		return fmt.Errorf("%w: it has %d bytes", errMalformed, w.size)
	}
	t := f.relations[binary.BigEndian.Uint32(w.data[1:])]
	if t == nil {
		return fmt.Errorf("%w: a change without its table", errMalformed)
	}
	if t.wanted && f.run.wants(op) {
		f.batch = append(f.batch, t.message(row{op: op, large: w.size}, &f.place))
	}
	f.place.n++
	return nil
}

// relation notes a table's description, new or changed.
func (f *follower) relation(ctx context.Context, m relationMessage) error {
	if len(f.relations) >= maxRelations {
		return errors.New("the publication has too many tables")
	}
	if !f.run.wantsTable(m.schema, m.table) {
		f.relations[m.id] = &table{}
		return nil
	}
	var keys []string
	if m.identity == 'f' || m.identity == 'n' {
		// Then all columns are marked as key, or none: the primary key must be asked for.
		keys = []string{}
		q, err := openSession(ctx, f.run.b.Connection, false)
		if err != nil {
			return err
		}
		defer q.close()
		_, _, columns, err := q.describe(ctx, m.schema, m.table)
		if err != nil {
			return err
		}
		for _, c := range columns {
			if c.key {
				keys = append(keys, c.name)
			}
		}
	}
	f.relations[m.id] = newTable(m.schema, m.table, m.identity, m.columns, keys, f.run.only(m.schema, m.table))
	return nil
}

// hand gives events to the sink, lot by lot.
func (f *follower) hand(ctx context.Context) error {
	for {
		events, upTo, err := f.waiting.take(ctx)
		if err != nil {
			return err
		}
		// A TRUNCATE of very many tables alone is more than the sink takes at once.
		for lot := range slices.Chunk(events, maxWaiting) {
			if err := f.run.accept(ctx, lot); err != nil {
				return err
			}
		}
		if upTo > lsn(f.confirmed.Load()) {
			f.confirmed.Store(uint64(upTo))
		}
	}
}

// confirm tells the server where we are: when it asks, soon after something was taken,
// and now and then.
func (f *follower) confirm(ctx context.Context) error {
	every := min(f.run.kind.config.StatusEvery, confirmEvery)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var said lsn
	var since time.Duration
	for {
		asked := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.asked:
			asked = true
		case <-tick.C:
			since += every
		}
		now := lsn(f.confirmed.Load())
		if !asked && now == said && since < f.run.kind.config.StatusEvery {
			continue
		}
		if err := f.link.confirm(now, f.run.b.Clock()); err != nil {
			return err
		}
		said, since = now, 0
	}
}

// watch looks at the slot now and then: how far behind it is, and whether the server
// will keep the log for it.
func (f *follower) watch(ctx context.Context) error {
	tick := time.NewTicker(f.run.kind.config.WatchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if info, err := f.run.look(ctx); err == nil && info != nil { // otherwise the stream will say what is wrong
			f.run.health.watched(info.Behind, f.run.concern(info))
		}
	}
}

func (r *run) look(ctx context.Context) (*slotInfo, error) {
	q, err := openSession(ctx, r.b.Connection, false)
	if err != nil {
		return nil, err
	}
	defer q.close()
	return q.slot(ctx, r.slot)
}

// concern says what somebody should know about the slot, empty when all is well.
func (r *run) concern(info *slotInfo) string {
	var says []string
	if gone := info.gone(); gone != "" {
		says = append(says, "slot "+r.slot+": "+gone)
	} else if info.Status == "unreserved" {
		says = append(says, "slot "+r.slot+" is about to be lost: the server may throw away log that it needs (max_slot_wal_keep_size)")
	}
	if info.Behind > r.s.LagAlertBytes {
		says = append(says, fmt.Sprintf("slot %s is %d bytes behind, more than %d: the server's disk fills until the function has caught up", r.slot, info.Behind, r.s.LagAlertBytes))
	}
	return strings.Join(says, "; ")
}

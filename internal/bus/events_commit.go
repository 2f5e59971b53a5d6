package bus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of the committer.
const (
	maxWaiting    = 1024    // publishes that wait for their turn; more wait to be let in
	maxGroupBytes = 8 << 20 // of data in one group, but for a single publish that has more
	maxHeads      = 100_000 // channels of which the last sequence is at hand
	maxApart      = 24
	resyncTime    = 20 * time.Second
	trimPause     = time.Second // between two attempts to make room
)

var errEventsClosed = errors.New("the bus is stopping")

// publish is one call of Publish.
type publish struct {
	entries  []Entry
	subjects []string // one for each entry
	note     []byte   // or a note, and no entries
	bytes    int
	stored   []Stored
	upTo     int         // it is done when so many messages of its group are stored
	taken    atomic.Bool // by the committer, or by a caller that gives up
	done     chan error  // buffered
}

func (p *publish) messages() int {
	if p.note != nil {
		return 1
	}
	return len(p.entries)
}

// Publish stores all entries or none. They are on disk when it returns without an
// error, in the order given. Calls at the same time share one write. It fails with
// state.ErrFull when there is no room. An error other than that, or than that of
// ctx, leaves open whether they were stored: try again with the same ids.
//
// ctx ends the wait for a turn; a write that has begun is waited for.
func (e *Events) Publish(ctx context.Context, entries []Entry) ([]Stored, error) {
	doing := "publishing to events " + e.cfg.Name
	if len(entries) == 0 {
		return nil, nil
	}
	if len(entries) > MaxPublish {
		return nil, fmt.Errorf("%s: %d entries are more than %d", doing, len(entries), MaxPublish)
	}
	p := &publish{entries: entries, subjects: make([]string, len(entries)), stored: make([]Stored, len(entries))}
	for i := range entries {
		n := &entries[i]
		if i > 0 && n.Namespace == entries[i-1].Namespace && n.Channel == entries[i-1].Channel {
			p.subjects[i] = p.subjects[i-1]
		} else {
			var err error
			if p.subjects[i], err = e.subject(n.Namespace, n.Channel); err != nil {
				return nil, fmt.Errorf("%s: %v", doing, err)
			}
		}
		if n.ID == "" || len(n.ID) > MaxEventID {
			return nil, fmt.Errorf("%s: an id has 1 to %d bytes, this one %d", doing, MaxEventID, len(n.ID))
		}
		if len(n.Data) > MaxValue {
			return nil, fmt.Errorf("%s: event %.80q has %d bytes, more than %d", doing, n.ID, len(n.Data), MaxValue)
		}
		p.bytes += len(n.Data)
	}
	if p.bytes > MaxPublishBytes {
		return nil, fmt.Errorf("%s: %d bytes at once are more than %d", doing, p.bytes, MaxPublishBytes)
	}
	if err := e.submit(ctx, doing, p); err != nil {
		return nil, err
	}
	return p.stored, nil
}

func (e *Events) submit(ctx context.Context, doing string, p *publish) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	p.done = make(chan error, 1)
	select {
	case e.queue <- p:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case <-e.closing:
		return fmt.Errorf("%s: %w", doing, errEventsClosed)
	}
	select {
	case err := <-p.done:
		return doingErr(doing, err)
	case <-e.closed:
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return fmt.Errorf("%s: %w", doing, ctx.Err())
		}
		select {
		case err := <-p.done:
			return doingErr(doing, err)
		case <-e.closed:
		}
	}
	select { // the committer may have answered before it ended
	case err := <-p.done:
		return doingErr(doing, err)
	default:
		return fmt.Errorf("%s: %w", doing, errEventsClosed)
	}
}

func doingErr(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// run is the committer: it writes what waits, in one batch, and while the server
// writes that, the next batch gathers. One caller alone waits for nobody.
func (e *Events) run() {
	defer close(e.closed)
	var held *publish // did not fit into the last group
	group := make([]*publish, 0, 256)
	for {
		group = group[:0]
		if held == nil {
			select {
			case held = <-e.queue:
			case <-e.closing:
				return
			}
		}
		messages, bytes := 0, 0
		for held != nil {
			fits := len(group) == 0 || messages+held.messages() <= MaxPublish && bytes+held.bytes <= maxGroupBytes
			if !fits {
				break
			}
			if held.taken.CompareAndSwap(false, true) {
				group = append(group, held)
				messages, bytes = messages+held.messages(), bytes+held.bytes
			}
			select {
			case held = <-e.queue:
			default:
				held = nil
			}
		}
		if len(group) == 0 {
			continue
		}
		full := e.bus.room("looking for space") // once for all of them
		for rest := group; len(rest) > 0; {
			done, err := 0, full
			if err == nil {
				done, err = e.commit(rest)
			}
			if err != nil {
				done = len(rest)
			}
			for _, p := range rest[:done] {
				p.done <- err
			}
			rest = rest[done:]
		}
		clear(group)
	}
}

// pending is a message that is about to be written.
type pending struct {
	subject string
	hash    uint64 // 0 for a note
	framed  []byte
}

// commit stores the group, or only some publishes from its beginning: it returns
// how many. With an error, none of them is known to be stored.
func (e *Events) commit(group []*publish) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for again := false; ; again = true {
		if e.unsure {
			if err := e.resync(ctx); err != nil {
				return 0, err
			}
		}
		e.seen.expire(e.bus.cfg.Clock())
		if len(e.heads) > maxHeads {
			clear(e.heads)
		}
		base := e.last
		messages, err := e.prepare(ctx, group)
		if err != nil {
			clear(e.heads) // prepare has moved them on
			return 0, err
		}
		if len(messages) == 0 {
			return len(group), nil
		}
		stored := len(messages)
		if apart(group, stored) {
			stored, err = e.writeApart(ctx, base, messages)
		} else {
			err = e.writeBatch(ctx, base, messages)
		}
		if err == nil || stored > 0 && stored < len(messages) {
			e.written(ctx, base, messages[:stored])
			if err != nil {
				clear(e.heads)
				e.unsure = true
			}
			done := 0
			for done < len(group) && group[done].upTo <= stored {
				done++
			}
			return done, nil
		}
		clear(e.heads)
		switch {
		case errors.Is(err, errNoAnswer):
			// It may be stored all the same; the stream tells.
			e.unsure = true
			if e.resync(ctx) == nil && e.last == base+uint64(len(messages)) {
				return len(group), nil
			}
			return 0, err
		case errors.Is(err, errNotLast) && !again:
			// Either somebody else wrote, or the server has cut away damaged messages at
			// the end and still counts them, until it has stored one more.
			if err := e.resync(ctx); err != nil {
				return 0, err
			}
			e.counted = countedLast(err)
			if err := e.fill(ctx, e.counted); err != nil {
				return 0, err
			}
		case errors.Is(err, ErrFull) && !again && e.trim(ctx):
		default:
			return 0, err
		}
	}
}

// apart reports whether the messages of a group are better written one by one: a
// batch costs the server some files of its own, which must reach the disk, and
// that is as long as a few dozen messages take.
func apart(group []*publish, messages int) bool {
	if messages > maxApart {
		return false
	}
	before := 0
	for _, p := range group {
		if p.upTo-before > 1 {
			return false // it is all or none
		}
		before = p.upTo
	}
	return true
}

// prepare frames what is no duplicate, and fills in where each entry will be.
func (e *Events) prepare(ctx context.Context, group []*publish) ([]pending, error) {
	type entry struct {
		*Entry
		at uint64
	}
	next, most := e.last, 0
	for _, p := range group {
		most += p.messages()
	}
	out := make([]pending, 0, most)
	fresh := make(map[uint64]entry, most) // of this group, by hash
	for _, p := range group {
		if p.note != nil {
			next++
			out = append(out, pending{subject: e.noteSubject(), framed: e.frame(e.noteSubject(), next, 0, "", p.note)})
			p.upTo = len(out)
			continue
		}
		for i := range p.entries {
			n, subject := &p.entries[i], p.subjects[i]
			hash := e.seen.hash(n.Namespace, n.Channel, n.ID)
			if f := fresh[hash]; f.Entry != nil && f.ID == n.ID && f.Namespace == n.Namespace && f.Channel == n.Channel {
				p.stored[i] = Stored{f.at, true}
				continue
			}
			if first, ok := e.seen.find(hash); ok && e.same(ctx, first, n) {
				p.stored[i] = Stored{first, true}
				continue
			}
			prev, ok := e.heads[subject]
			if !ok {
				var err error
				if prev, err = e.head(ctx, subject); err != nil {
					return nil, err
				}
			}
			next++
			out = append(out, pending{subject, hash, e.frame(subject, next, prev, n.ID, n.Data)})
			p.stored[i] = Stored{Sequence: next}
			e.heads[subject], fresh[hash] = next, entry{n, next}
		}
		p.upTo = len(out)
	}
	return out, nil
}

// same reports whether what is stored is the entry. What cannot be told any more,
// because it was purged, counts as the same: hashes of 64 bits meet too seldom.
// What is damaged does not: here comes a good copy.
func (e *Events) same(ctx context.Context, sequence uint64, n *Entry) bool {
	r, err := e.get(ctx, sequence)
	if err != nil {
		return !errors.Is(err, ErrCorrupt)
	}
	return r.ID == n.ID && r.Namespace == n.Namespace && r.Channel == n.Channel
}

// head finds the last message of a channel.
func (e *Events) head(ctx context.Context, subject string) (uint64, error) {
	msg, err := e.stream.GetLastMsgForSubject(ctx, subject)
	if err == nil {
		return msg.Sequence, nil
	}
	if !errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, e.bus.failure("looking up the channel "+subject, err)
	}
	// To the server a damaged message is none; its index knows better.
	known, err := exists(ctx, e.stream, subject)
	if err != nil {
		return 0, e.bus.failure("looking up the channel "+subject, err)
	}
	if known && !e.buriedIn(subject) {
		_ = e.bus.corruption("the last event of " + subject) // it is on record; the channel goes on
	}
	return 0, nil
}

// fill writes empty notes up to a sequence that was given away before its message
// was lost: a consumer that is past it would not see what comes to stand there.
func (e *Events) fill(ctx context.Context, upTo uint64) error {
	for e.last < upTo {
		var messages []pending
		for next := e.last + 1; next <= upTo && len(messages) < MaxPublish; next++ {
			messages = append(messages, pending{subject: e.noteSubject(), framed: e.frame(e.noteSubject(), next, 0, "", []byte("{}"))})
		}
		base, err := e.last, error(nil)
		if len(messages) == 1 {
			_, err = e.writeApart(ctx, base, messages)
		} else {
			err = e.writeBatch(ctx, base, messages)
		}
		if err != nil {
			return err
		}
		e.written(ctx, base, messages)
	}
	return nil
}

func (e *Events) written(ctx context.Context, base uint64, messages []pending) {
	now := e.bus.cfg.Clock()
	for i := range messages {
		if messages[i].hash != 0 {
			e.seen.add(messages[i].hash, base+uint64(i)+1, now)
		}
	}
	if e.seen.forgot {
		e.seen.forgot = false
		e.bus.log.Warn("events come faster than their ids can be remembered for the whole dedup window", "events", e.cfg.Name, "ids", e.seen.most)
	}
	e.last, e.counted = base+uint64(len(messages)), 0
	e.ages.note(base+1, now)
	e.notify()
	e.bus.written(ctx)
}

// resync learns where the stream ends, after a write without an answer.
func (e *Events) resync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resyncTime)
	defer cancel()
	info, err := e.stream.Info(ctx)
	if err != nil {
		return e.bus.failure("looking for the end of the stream", err)
	}
	was := e.last
	if info.State.LastSeq > was {
		now := e.bus.cfg.Clock()
		err = e.scan(ctx, scan{filter: e.cfg.SubjectPrefix + ".>", from: was + 1, end: info.State.LastSeq}, func(r EventRecord) bool {
			if r.Channel != "" {
				e.seen.add(e.seen.hash(r.Namespace, r.Channel, r.ID), r.Sequence, now)
			}
			return true
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		e.ages.note(was+1, now)
		e.notify()
	}
	e.last, e.unsure = info.State.LastSeq, false
	return nil
}

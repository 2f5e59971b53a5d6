package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds of one page that a reader asks for.
const (
	pageEvents = 256
	pageBytes  = 4 << 20
)

// EventFilter selects events. Its zero value selects all that there are.
type EventFilter struct {
	Namespace string    // "" for all
	Channel   string    // "" for all
	After     uint64    // only later sequences
	Since     time.Time // not earlier; zero for no bound
	Until     time.Time // earlier; zero for no bound
	Last      int       // only so many, of the newest of those; 0 for no bound
	Limit     int       // end after so many; 0 for no bound
	Follow    bool      // wait for more at the end
}

// Read calls fn with each event that the filter selects, in the order of storing,
// until fn returns false. With EventFilter.Follow it ends when ctx does, and then
// returns nil. What is damaged or missing is left out, and Read then ends with
// state.ErrCorrupt instead of nil, after all others.
func (e *Events) Read(ctx context.Context, f EventFilter, fn func(EventRecord) bool) error {
	doing := "reading events " + e.cfg.Name
	filter, err := e.pattern(f.Namespace, f.Channel)
	if err != nil {
		return fmt.Errorf("%s: %v", doing, err)
	}
	s := scan{filter: filter, from: f.After + 1, since: f.Since, until: f.Until, follow: f.Follow}
	if !f.Follow {
		info, err := e.stream.Info(ctx)
		if err != nil {
			return e.bus.failure(doing, err)
		}
		if s.end = info.State.LastSeq; s.end == 0 {
			return nil
		}
	}
	if f.Last > 0 {
		if s.from, err = e.newest(ctx, s, f.Last); err != nil {
			return e.bus.failure(doing, err)
		}
	}
	count := 0
	err = e.scan(ctx, s, func(r EventRecord) bool {
		if r.Channel == "" {
			return true
		}
		count++
		return fn(r) && (f.Limit <= 0 || count < f.Limit)
	})
	switch {
	case err == nil, f.Follow && ctx.Err() != nil && !errors.Is(err, ErrCorrupt):
		return nil
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%s: %w", doing, err)
	default:
		return e.bus.failure(doing, err)
	}
}

func (e *Events) pattern(namespace, channel string) (string, error) {
	switch {
	case namespace == "" && channel == "":
		return e.cfg.SubjectPrefix + ".>", nil
	case channel == "":
		if !function.ValidName(namespace) {
			return "", fmt.Errorf("%.80q is not a namespace", namespace)
		}
		return e.cfg.SubjectPrefix + "." + namespace + ".>", nil
	case namespace == "":
		if _, err := e.subject("any", channel); err != nil {
			return "", err
		}
		return e.cfg.SubjectPrefix + ".*." + channel, nil
	}
	return e.subject(namespace, channel)
}

// newest gives the sequence from which on the filter selects n, by bisection.
func (e *Events) newest(ctx context.Context, s scan, n int) (uint64, error) {
	low, high := s.from, max(s.end, s.from)+1
	if s.end == 0 {
		info, err := e.stream.Info(ctx)
		if err != nil {
			return 0, err
		}
		high = max(info.State.LastSeq, s.from) + 1
	}
	for low < high {
		mid := low + (high-low)/2
		count, err := e.count(ctx, s.filter, mid, nil)
		if err != nil {
			return 0, err
		}
		if count <= uint64(n) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low, nil
}

// count is how many messages the server's index has for the filter from there on.
// With a time, it counts from that on instead.
func (e *Events) count(ctx context.Context, filter string, from uint64, since *time.Time) (uint64, error) {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: filter, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, InactiveThreshold: readerExpiry,
	}
	if since != nil {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, since
	}
	c, err := e.stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return 0, err
	}
	n := c.CachedInfo().NumPending
	// Should this fail, the server drops it after readerExpiry.
	_ = e.stream.DeleteConsumer(ctx, c.CachedInfo().Name)
	return n, nil
}

// scan is what to read. Times select by when an event was stored.
type scan struct {
	filter string // subjects
	from   uint64
	end    uint64 // sequence of the last one; 0 for what is there, or with follow for no end
	since  time.Time
	until  time.Time
	follow bool
}

// scanner is a scan under way.
type scanner struct {
	e       *Events
	scan    scan
	in      chan *nats.Msg
	sub     *nats.Subscription
	byTime  bool              // the first page begins at a time
	last    map[string]uint64 // by subject
	corrupt error             // the first damage
}

// scan calls fn with every record, notes included (which have no channel), until
// it returns false. What is damaged is left out, and is the error at the end.
func (e *Events) scan(ctx context.Context, s scan, fn func(EventRecord) bool) error {
	r := &scanner{e: e, scan: s, in: make(chan *nats.Msg, pageEvents+8), last: map[string]uint64{}}
	r.byTime = !s.since.IsZero() && s.from <= 1
	var err error
	if r.sub, err = e.bus.conn.ChanSubscribe(nats.NewInbox(), r.in); err != nil {
		return err
	}
	defer func() { _ = r.sub.Unsubscribe() }() // fails when the connection is closed, and then it is gone
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		more, err := r.pages(ctx, fn)
		if err != nil || !more || !s.follow {
			return errors.Join(err, r.corrupt)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), r.corrupt)
		case <-e.closing:
			return errors.Join(errEventsClosed, r.corrupt)
		}
	}
}

// pages reads to the end of what is there; more means that fn wants more.
func (r *scanner) pages(ctx context.Context, fn func(EventRecord) bool) (more bool, err error) {
	for r.scan.end == 0 || r.scan.from <= r.scan.end {
		page, left, err := r.page(ctx)
		if err != nil {
			return false, err
		}
		for _, m := range page {
			if r.scan.end > 0 && m.sequence > r.scan.end || !r.scan.until.IsZero() && !m.time.Before(r.scan.until) {
				return false, nil
			}
			rec, ok := r.take(ctx, m)
			r.scan.from, r.byTime = m.sequence+1, false
			if ok && !rec.Time.Before(r.scan.since) && !fn(rec) {
				return false, nil
			}
		}
		if len(page) == 0 {
			found, err := r.skip(ctx)
			if err != nil || !found {
				return true, err
			}
		} else if left == 0 {
			return true, nil
		}
	}
	return true, nil
}

func (r *scanner) take(ctx context.Context, m rawEvent) (EventRecord, bool) {
	if r.e.isBuried(m.sequence) {
		r.last[m.subject] = m.sequence
		return EventRecord{}, false
	}
	rec, ok := r.e.unframe(m.subject, m.sequence, m.data)
	if !ok {
		r.damaged(r.e.damage(m.sequence, m.subject, r.e.called(m.sequence)))
		r.last[m.subject] = m.sequence
		return rec, false
	}
	rec.Time = m.time
	last, known := r.last[m.subject]
	if !known {
		last = r.scan.from - 1
	}
	if rec.prev > last && (known || !r.byTime && rec.prev >= r.scan.from) && !r.e.explained(ctx, m.subject, rec.prev) {
		r.damaged(r.e.damage(rec.prev, m.subject, r.e.called(rec.prev)+", which the server leaves out"))
	}
	r.last[m.subject] = m.sequence
	return rec, true
}

// explained reports whether a message may be missing: it was purged or is too old.
func (e *Events) explained(ctx context.Context, subject string, sequence uint64) bool {
	if sequence <= e.floor(subject) {
		return true
	}
	info, err := e.stream.Info(ctx)
	return err == nil && sequence < info.State.FirstSeq
}

func (r *scanner) damaged(err error) {
	if r.corrupt == nil {
		r.corrupt = err
	}
}

// unread looks at what lies from first to where the reader is now and is not read.
func (r *scanner) unread(ctx context.Context, first, end uint64) error {
	damage, err := r.e.examine(ctx, r.scan.filter, !strings.Contains(r.scan.filter, "*") && !strings.HasSuffix(r.scan.filter, ">"), first, end)
	r.damaged(damage)
	return err
}

// skip steps over messages that the index has and the server cannot read. It
// reports false when there are none, and the end is reached.
func (r *scanner) skip(ctx context.Context) (bool, error) {
	n, err := r.left(ctx)
	if n == 0 || err != nil {
		return false, err
	}
	// They may have come in the meantime.
	if page, _, err := r.page(ctx); len(page) > 0 || err != nil {
		return true, err
	}
	if r.byTime { // from here on by sequence
		info, err := r.e.stream.Info(ctx)
		if err != nil {
			return false, err
		}
		r.scan.from, r.byTime = max(info.State.FirstSeq, 1), false
	}
	first := r.scan.from
	for steps := uint64(1); ; steps++ {
		r.scan.from++
		page, _, err := r.page(ctx)
		if err != nil {
			return false, err
		}
		if len(page) > 0 {
			return true, r.unread(ctx, first, page[0].sequence)
		}
		if steps&(steps-1) == 0 { // now and then, look whether any is left
			n, err := r.left(ctx)
			if err == nil && n == 0 {
				err = r.unread(ctx, first, r.scan.from)
			}
			if n == 0 || err != nil {
				return false, err
			}
		}
	}
}

func (r *scanner) left(ctx context.Context) (uint64, error) {
	info, err := r.e.stream.Info(ctx)
	if err != nil || info.State.LastSeq < r.scan.from {
		return 0, err
	}
	if r.byTime {
		return r.e.count(ctx, r.scan.filter, 0, &r.scan.since)
	}
	return r.e.count(ctx, r.scan.filter, r.scan.from, nil)
}

// rawEvent is a message as it is stored.
type rawEvent struct {
	subject  string
	sequence uint64
	time     time.Time
	data     []byte
}

// page asks for the messages from scan.from on. None means that there are none, or
// that the first one cannot be read; left is how many follow.
func (r *scanner) page(ctx context.Context) (page []rawEvent, left uint64, err error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	ask := map[string]any{"next_by_subj": r.scan.filter, "batch": pageEvents, "max_bytes": pageBytes}
	if r.byTime {
		ask["start_time"] = r.scan.since
	} else {
		ask["seq"] = r.scan.from
	}
	b, err := json.Marshal(ask)
	if err != nil {
		return nil, 0, err
	}
	if err := r.e.bus.conn.PublishRequest("$JS.API.DIRECT.GET."+r.e.name, r.sub.Subject, b); err != nil {
		return nil, 0, err
	}
	for {
		select {
		case m := <-r.in:
			switch status := m.Header.Get("Status"); status {
			case "":
				raw, err := parseDirect(m)
				if err != nil {
					return nil, 0, err
				}
				page = append(page, raw)
			case "204":
				left, err = strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
				return page, left, err
			case "404":
				return nil, 0, nil
			default:
				return nil, 0, fmt.Errorf("the server answered %s %s", status, m.Header.Get("Description"))
			}
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-r.e.closed:
			return nil, 0, errEventsClosed
		}
	}
}

func parseDirect(m *nats.Msg) (raw rawEvent, err error) {
	raw.subject, raw.data = m.Header.Get("Nats-Subject"), m.Data
	if raw.sequence, err = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err == nil {
		raw.time, err = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	}
	if err != nil {
		return raw, fmt.Errorf("reading a message's position: %v", err)
	}
	return raw, nil
}

// get reads one event.
func (e *Events) get(ctx context.Context, sequence uint64) (EventRecord, error) {
	if e.isBuried(sequence) {
		return EventRecord{}, state.ErrNotFound
	}
	msg, err := e.stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		info, err := e.stream.Info(ctx)
		if err != nil {
			return EventRecord{}, e.bus.failure("looking it up", err)
		}
		if sequence < info.State.FirstSeq || sequence > info.State.LastSeq {
			return EventRecord{}, state.ErrNotFound
		}
		purged, err := e.noted(ctx, sequence)
		if err != nil {
			return EventRecord{}, err
		}
		if purged {
			return EventRecord{}, state.ErrNotFound
		}
		return EventRecord{}, e.damage(sequence, "", e.called(sequence)+", which the server leaves out")
	}
	if err != nil {
		return EventRecord{}, e.bus.failure("looking it up", err)
	}
	r, ok := e.unframe(msg.Subject, sequence, msg.Data)
	switch {
	case !ok:
		return EventRecord{}, cmp.Or(e.damage(sequence, msg.Subject, e.called(sequence)), state.ErrNotFound)
	case r.Channel == "":
		return EventRecord{}, state.ErrNotFound
	}
	r.Time = msg.Time
	return r, nil
}

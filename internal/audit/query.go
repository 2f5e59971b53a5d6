package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/casemate-dev/casemate/internal/state"
)

// Defaults of a Query.
const (
	DefaultLimit = 100 // receipts that Receipts returns
	DefaultTail  = 100 // past records that Stream begins with
)

const (
	firstWindow = time.Minute           // how far back a search for the newest looks at first
	windowGrows = 8                     // by how much it looks farther each time
	idSlack     = time.Minute           // by which clocks may have been set back since an id was drawn
	settle      = 50 * time.Millisecond // how long Stream waits for the rest of a flush before it reads
)

// Query selects records.
type Query struct {
	Namespace string // "": every one
	Function  string // "": every one
	RequestID string // "": every one; for Stream
	// Event selects the receipts of one event, by its id, also as a member of a batch, and
	// EventSuffix besides those of events whose id ends so; for Receipts.
	Event       string
	EventSuffix string
	Since       time.Time
	Limit       int  // most receipts; DefaultLimit when zero; for Receipts
	Tail        int  // most past records; DefaultTail when zero, none when negative; for Stream
	Follow      bool // go on with new records; for Stream
}

// Record is a log line or the receipt that ends an invocation: one of the two is
// not nil.
type Record struct {
	Line    *LogLine
	Receipt *Receipt
}

// time is when the record came about: when the line was logged, or the
// invocation ended.
func (r *Record) time() time.Time {
	if r.Receipt != nil {
		return ended(r.Receipt)
	}
	return r.Line.Time
}

func ended(rc *Receipt) time.Time { return rc.Start.Add(rc.Wall) }

// Receipt returns the receipt with the id, also when it was recorded just now, or
// state.ErrNotFound. The time in the id (RFC 9562, section 5.7) bounds the search,
// so one of long ago takes longer to find.
func (r *Recorder) Receipt(ctx context.Context, id string) (Receipt, error) {
	u, err := uuid.Parse(id)
	if err != nil || u.Version() != 7 || u.String() != id {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", state.ErrNotFound)
	}
	if err := r.Flush(ctx); err != nil {
		return Receipt{}, err
	}
	sec, nsec := u.Time().UnixTime()
	var found *Receipt
	quoted := []byte(`"` + id + `"`)
	err = r.cfg.Receipts.Read(ctx, state.LogFilter{Since: time.Unix(sec, nsec).Add(-idSlack)}, func(rec state.LogRecord) bool {
		if !bytes.Contains(rec.Data, quoted) { // much faster than decoding
			return true
		}
		for line := range lines(rec.Data) {
			var rc Receipt
			if bytes.Contains(line, quoted) && json.Unmarshal(line, &rc) == nil && rc.ID == id {
				found = &rc
				return false
			}
		}
		return true
	})
	if found != nil {
		return *found, nil
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", err)
	}
	return Receipt{}, fmt.Errorf("reading a receipt: %w", state.ErrNotFound)
}

// Receipts returns the newest receipts of a query, newest first, by the time at
// which the invocation ended. With corrupt records among them it returns the
// others and state.ErrCorrupt. Of an event they are the oldest, and ErrUnsearched says
// that there may be more.
func (r *Recorder) Receipts(ctx context.Context, q Query) ([]Receipt, error) {
	if err := r.Flush(ctx); err != nil {
		return nil, err
	}
	limit := q.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	if q.Event != "" {
		return r.ofEvent(ctx, q, limit)
	}
	past := pastSearch{stream: r.cfg.Receipts, query: q, decode: decodeReceipts, want: limit}
	records, _, err := past.run(ctx, r.cfg.Clock())
	slices.Reverse(records)
	out := make([]Receipt, 0, min(limit, len(records)))
	for _, rec := range records {
		if len(out) == limit {
			break
		}
		out = append(out, *rec.Receipt)
	}
	return out, err
}

// Stream calls fn with past records, at most Query.Tail of them, in order of
// time, and with Query.Follow goes on with new ones as they come, none left out
// and none twice. It ends when fn returns false, when there are no more, or when
// ctx ends, which is no error while it follows. Corrupt records are left out, and
// it then ends with state.ErrCorrupt.
func (r *Recorder) Stream(ctx context.Context, q Query, fn func(Record) bool) error {
	if err := r.Flush(ctx); err != nil {
		return err
	}
	tail := q.Tail
	if tail == 0 {
		tail = DefaultTail
	}
	now := r.cfg.Clock()
	receipts := pastSearch{stream: r.cfg.Receipts, query: q, decode: decodeReceipts, want: max(tail, 0)}
	logs := pastSearch{stream: r.cfg.Logs, query: q, decode: decodeLines, want: max(tail, 0)}
	past, afterReceipts, err1 := receipts.run(ctx, now)
	lines, afterLines, err2 := logs.run(ctx, now) // after the receipts, so that none of theirs is missing
	err := errors.Join(err1, err2)
	if err != nil && (!onlyCorrupt(err1) || !onlyCorrupt(err2)) {
		return fmt.Errorf("reading records: %w", err)
	}
	past = append(lines, past...)
	byTime(past)
	if tail < 0 {
		past = nil
	} else if len(past) > tail {
		past = past[len(past)-tail:]
	}
	for _, rec := range past {
		if !fn(rec) {
			return err
		}
	}
	if !q.Follow {
		return err
	}
	return errors.Join(err, r.follow(ctx, q, afterLines, afterReceipts, fn))
}

func onlyCorrupt(err error) bool { return err == nil || errors.Is(err, state.ErrCorrupt) }

// byTime sorts by time and leaves the order of equals: lines come before the
// receipt that follows them. A receipt comes after all lines of its invocation, also
// when their clock is ahead of what was measured as its end.
func byTime(records []Record) {
	last := map[string]time.Time{} // of an invocation's lines, by its receipt
	for i := range records {
		if l := records[i].Line; l != nil && l.Receipt != "" && l.Time.After(last[l.Receipt]) {
			last[l.Receipt] = l.Time
		}
	}
	at := func(r *Record) time.Time {
		t := r.time()
		if r.Receipt != nil && last[r.Receipt.ID].After(t) {
			return last[r.Receipt.ID]
		}
		return t
	}
	slices.SortStableFunc(records, func(a, b Record) int { return at(&a).Compare(at(&b)) })
}

// pastSearch looks for the newest records of one stream. Streams are read
// forward only, so it reads the last minute, then the minutes before, and so on
// farther back until it has enough.
type pastSearch struct {
	stream Stream
	query  Query
	decode func(Query, []byte) ([]Record, error)
	want   int
}

// run returns the records, sorted by time, and the sequence up to which it read.
// There may be more than wanted.
func (p *pastSearch) run(ctx context.Context, now time.Time) (out []Record, last uint64, err error) {
	var corrupt error
	from := now.Add(-firstWindow)
	var before uint64 // the first record of the window read before
	for width := firstWindow; ; width *= windowGrows {
		final := from.Before(p.query.Since) || width > 100*365*24*time.Hour
		if final {
			from = p.query.Since
		}
		var window []Record
		first := uint64(0)
		err := p.stream.Read(ctx, p.filter(from), func(rec state.LogRecord) bool {
			if before > 0 && rec.Sequence >= before {
				return false
			}
			if first == 0 {
				first = rec.Sequence
			}
			last = max(last, rec.Sequence)
			decoded, err := p.decode(p.query, rec.Data)
			if err != nil && corrupt == nil {
				corrupt = err
			}
			window = append(window, decoded...)
			return true
		})
		if err != nil && !errors.Is(err, state.ErrCorrupt) {
			return nil, 0, err
		}
		if err != nil {
			corrupt = err
		}
		if first > 0 {
			before = first
		}
		out = append(window, out...)
		if final || len(out) >= p.want && last > 0 { // follow needs a place to begin
			byTime(out)
			return out, last, corrupt
		}
		from = from.Add(-width * windowGrows)
	}
}

func (p *pastSearch) filter(since time.Time) state.LogFilter {
	return state.LogFilter{Namespace: p.query.Namespace, Function: p.query.Function, Since: since}
}

func decodeReceipts(q Query, data []byte) (out []Record, err error) {
	for line := range lines(data) {
		rc := &Receipt{}
		if json.Unmarshal(line, rc) != nil {
			err = fmt.Errorf("decoding a receipt: %w", state.ErrCorrupt)
			continue
		}
		if (q.RequestID == "" || rc.RequestID == q.RequestID) && !ended(rc).Before(q.Since) {
			out = append(out, Record{Receipt: rc})
		}
	}
	return out, err
}

func decodeLines(q Query, data []byte) (out []Record, err error) {
	for line := range lines(data) {
		l := &LogLine{}
		if json.Unmarshal(line, l) != nil {
			err = fmt.Errorf("decoding a log line: %w", state.ErrCorrupt)
			continue
		}
		if (q.RequestID == "" || l.RequestID == q.RequestID) && !l.Time.Before(q.Since) {
			out = append(out, Record{Line: l})
		}
	}
	return out, err
}

// follower hands on new records of both streams.
type follower struct {
	recorder        *Recorder
	query           Query
	lines, receipts uint64 // sequences handed on so far
	corrupt         error
}

// follow is told by a reader of each stream that something has come, and then
// reads both as far as they are: receipts first and lines after them. Lines are
// appended before the receipt of their invocation, so none is missing then, and
// sorting by time puts it in its place.
func (r *Recorder) follow(ctx context.Context, q Query, afterLines, afterReceipts uint64, fn func(Record) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{recorder: r, query: q, lines: afterLines, receipts: afterReceipts}
	came, errs := make(chan struct{}, 1), make(chan error, 2)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	watch := func(s Stream, after uint64) {
		err := s.Read(ctx, f.filter(after, true), func(state.LogRecord) bool {
			select {
			case came <- struct{}{}:
			default: // it is known already
			}
			return ctx.Err() == nil
		})
		if err != nil {
			errs <- err
			return
		}
		<-ctx.Done() // Read returns nil for no other reason
		errs <- nil
	}
	readers.Go(func() { watch(r.cfg.Logs, afterLines) })
	readers.Go(func() { watch(r.cfg.Receipts, afterReceipts) })
	timer := time.NewTimer(settle)
	defer timer.Stop()
	var due <-chan time.Time
	for {
		select {
		case <-came:
			if due == nil { // give the rest of the flush a moment
				timer.Reset(settle)
				due = timer.C
			}
		case <-due:
			due = nil
			records, err := f.pull(ctx)
			if ctx.Err() != nil {
				return f.corrupt
			}
			if err != nil {
				return err
			}
			for _, rec := range records {
				if !fn(rec) {
					return f.corrupt
				}
			}
		case err := <-errs: // a reader ended by itself, or with ctx
			return errors.Join(err, f.corrupt)
		}
	}
}

func (f *follower) filter(after uint64, follow bool) state.LogFilter {
	return state.LogFilter{Namespace: f.query.Namespace, Function: f.query.Function, Since: f.query.Since, After: after, Follow: follow}
}

// pull reads what came since the last time, in order of time.
func (f *follower) pull(ctx context.Context) (out []Record, err error) {
	for _, s := range []struct {
		stream Stream
		after  *uint64
		decode func(Query, []byte) ([]Record, error)
	}{
		{f.recorder.cfg.Receipts, &f.receipts, decodeReceipts},
		{f.recorder.cfg.Logs, &f.lines, decodeLines},
	} {
		var records []Record
		err := s.stream.Read(ctx, f.filter(*s.after, false), func(rec state.LogRecord) bool {
			*s.after = rec.Sequence
			decoded, err := s.decode(f.query, rec.Data)
			f.damaged(err)
			records = append(records, decoded...)
			return true
		})
		if !onlyCorrupt(err) {
			return nil, fmt.Errorf("following records: %w", err)
		}
		f.damaged(err)
		out = append(records, out...) // lines before receipts of the same time
	}
	byTime(out)
	return out, nil
}

func (f *follower) damaged(err error) {
	if f.corrupt == nil {
		f.corrupt = err
	}
}

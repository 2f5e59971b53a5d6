package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Filter selects records of a Log.
type Filter = state.LogFilter

// Record is one record of a Log.
type Record = state.LogRecord

const (
	// DedupWindow is how long a Log remembers the ids of its records, at most.
	DedupWindow = 2 * time.Minute

	readBatch    = 16               // records asked for at once; bounds memory
	followWait   = 20 * time.Second // of one request while nothing comes
	maxEmpty     = 3                // empty batches before records count as missing
	maxRestarts  = 10               // of a reader without a record in between
	readerExpiry = time.Minute      // of a reader that went away without saying so
)

// LogConfig describes a Log. All fields are required.
type LogConfig struct {
	Name          string        // RFC 1035 label
	SubjectPrefix string        // RFC 1035 label, of this Log alone
	MaxAge        time.Duration // older records go
	MaxBytes      int64         // beyond it, the oldest records go
}

// Log is an append-only stream of records, each of one function.
type Log struct {
	bus    *Bus
	cfg    LogConfig
	stream jetstream.Stream

	// appending is held for reading by appends, and for writing while a reader
	// learns how many records there are for it.
	appending sync.RWMutex
}

// Log opens a log, and makes it or changes its limits as needed.
func (b *Bus) Log(ctx context.Context, cfg LogConfig) (*Log, error) {
	if err := checkName("opening log", cfg.Name); err != nil {
		return nil, err
	}
	switch {
	case !function.ValidName(cfg.SubjectPrefix) || cfg.SubjectPrefix == "blob":
		return nil, fmt.Errorf("opening log %s: LogConfig.SubjectPrefix %.80q: want a lower-case word other than blob", cfg.Name, cfg.SubjectPrefix)
	case cfg.MaxAge < time.Second:
		return nil, fmt.Errorf("opening log %s: LogConfig.MaxAge is %v: want at least a second", cfg.Name, cfg.MaxAge)
	case cfg.MaxBytes <= 0:
		return nil, fmt.Errorf("opening log %s: LogConfig.MaxBytes is %d: want a bound above zero", cfg.Name, cfg.MaxBytes)
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	if l := b.logs[cfg.Name]; l != nil {
		if l.cfg != cfg {
			return nil, fmt.Errorf("opening log %s: it is open already with another configuration", cfg.Name)
		}
		return l, nil
	}
	st, err := b.stream(ctx, jetstream.StreamConfig{
		Name: "LOG_" + cfg.Name, Subjects: []string{cfg.SubjectPrefix + ".*.*"},
		Discard: jetstream.DiscardOld, MaxAge: cfg.MaxAge, MaxBytes: cfg.MaxBytes, MaxMsgSize: maxPayload,
		Duplicates: min(DedupWindow, cfg.MaxAge), DenyPurge: true, Compression: jetstream.S2Compression,
	}, "")
	if err != nil {
		return nil, err
	}
	l := &Log{bus: b, cfg: cfg, stream: st}
	b.logs[cfg.Name] = l
	return l, nil
}

func (l *Log) place(subject string) string { return "log/" + l.cfg.Name + "/" + subject }

// Append adds a record, which is on disk when it returns. A second one with the
// same id within DedupWindow succeeds and adds nothing. An error other than
// state.ErrFull leaves open whether the record was added: try again with the same
// id.
func (l *Log) Append(ctx context.Context, namespace, fn, id string, data []byte) error {
	doing := "appending to log " + l.cfg.Name
	switch {
	case !function.ValidName(namespace) || !function.ValidName(fn):
		return fmt.Errorf("%s: %.80q is not the name of a function", doing, namespace+"/"+fn)
	case id == "" || len(id) > 200 || strings.ContainsAny(id, "\r\n"):
		return fmt.Errorf("%s: the id must have 1 to 200 characters", doing)
	case len(data) > MaxValue:
		return fmt.Errorf("%s: the record has %d bytes, more than %d", doing, len(data), MaxValue)
	}
	if err := l.bus.room(doing); err != nil {
		return err
	}
	msg := nats.NewMsg(l.cfg.SubjectPrefix + "." + namespace + "." + fn)
	msg.Data = l.bus.seal.frame(l.place(msg.Subject), data)
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	l.appending.RLock()
	_, err := l.bus.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id))
	l.appending.RUnlock()
	if err != nil {
		return l.bus.failure(doing, err)
	}
	l.bus.written(ctx)
	return nil
}

// Read calls fn with each record that the filter selects, in the order of
// appending, until fn returns false. Without Filter.Follow it ends at the last
// record that was there when it began. With it, Read goes on until ctx ends, and
// then returns nil. Corrupt records are left out, and Read then ends with
// state.ErrCorrupt instead of nil, after all others.
func (l *Log) Read(ctx context.Context, f Filter, fn func(Record) bool) error {
	doing := "reading log " + l.cfg.Name
	subject := l.cfg.SubjectPrefix
	for _, name := range []string{f.Namespace, f.Function} {
		switch {
		case name == "":
			subject += ".*"
		case function.ValidName(name):
			subject += "." + name
		default:
			return fmt.Errorf("%s: %.80q is not a name", doing, name)
		}
	}
	r := &reader{log: l, filter: f, subject: subject, last: f.After}
	defer r.close(ctx)
	for {
		if r.consumer == nil {
			if err := r.open(ctx); err != nil {
				return errors.Join(l.ended(ctx, f, doing, err), r.corrupt)
			}
		}
		if r.past() && !f.Follow {
			return r.corrupt
		}
		stop, err := r.batch(ctx, fn)
		if stop || err != nil {
			return errors.Join(l.ended(ctx, f, doing, err), r.corrupt)
		}
	}
}

// ended gives the error that Read returns.
func (l *Log) ended(ctx context.Context, f Filter, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if f.Follow {
			return nil
		}
		err = ctx.Err()
	}
	return l.bus.failure(doing, err)
}

// reader is one Read under way. The server keeps its position in memory only; the
// client counts deliveries and starts again from the last record it has when one
// is missing.
type reader struct {
	log      *Log
	filter   Filter
	subject  string
	consumer jetstream.Consumer
	last     uint64 // sequence of the last record that came
	end      uint64 // sequence of the last record that was there when the consumer was made
	first    uint64 // and of the first one
	want     uint64 // records for this reader up to end
	got      uint64 // of these
	number   uint64 // of the last delivery of this consumer
	empty    int    // batches without a record, one after the other, while some are due
	restarts int    // of the consumer, since the last record
	corrupt  error  // the first corrupt record
}

// past reports whether everything that was there at the beginning has come.
func (r *reader) past() bool { return r.got >= r.want || r.last >= r.end }

func (r *reader) open(ctx context.Context) error {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: r.subject, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: readerExpiry, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	switch {
	case r.last > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.last+1
	case !r.filter.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.filter.Since
	}
	if r.restarts++; r.restarts > maxRestarts {
		return errors.New("the server's reader was lost again and again")
	}
	r.log.appending.Lock()
	defer r.log.appending.Unlock()
	c, err := r.log.stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return err
	}
	r.consumer = c
	info, err := r.log.stream.Info(ctx)
	if err != nil {
		return err
	}
	r.number, r.got, r.empty, r.want = 0, 0, 0, c.CachedInfo().NumPending
	r.first, r.end = info.State.FirstSeq, info.State.LastSeq
	return nil
}

func (r *reader) close(ctx context.Context) {
	if r.consumer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	// Should this fail, the server drops the reader after readerExpiry.
	_ = r.log.stream.DeleteConsumer(ctx, r.consumer.CachedInfo().Name)
	r.consumer = nil
}

// batch reads some records; stop means that Read is over.
func (r *reader) batch(ctx context.Context, fn func(Record) bool) (stop bool, err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the request below when fn does
	defer cancel()
	var b jetstream.MessageBatch
	waiting := r.past()
	if waiting {
		wait, stopWaiting := context.WithTimeout(ctx, followWait)
		defer stopWaiting()
		b, err = r.consumer.Fetch(readBatch, jetstream.FetchContext(wait))
	} else {
		b, err = r.consumer.FetchNoWait(readBatch)
	}
	if err != nil {
		return false, err
	}
	came := 0
	for msg := range b.Messages() {
		came++
		if stop, err = r.take(ctx, msg, fn); stop || err != nil || r.consumer == nil {
			return stop, err
		}
	}
	// Messages may end early, and only Error says why.
	switch err := b.Error(); {
	case err == nil:
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded): // followWait: nothing came
	default:
		r.close(ctx) // the reader or its stream went away; open says which
		return false, nil
	}
	if came > 0 {
		r.empty = 0
		return false, nil
	}
	return false, r.lookAgain(ctx, waiting)
}

// take handles one delivery. It closes the consumer when one before it was lost
// on the way.
func (r *reader) take(ctx context.Context, msg jetstream.Msg, fn func(Record) bool) (stop bool, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return false, fmt.Errorf("reading a record's position: %v", err)
	}
	if meta.Sequence.Consumer != r.number+1 {
		r.close(ctx)
		return false, nil
	}
	r.number = meta.Sequence.Consumer
	if meta.Sequence.Stream > r.end {
		if r.got < r.want {
			if err := r.short(ctx); err != nil {
				return false, err
			}
		}
		if !r.filter.Follow {
			return true, nil
		}
	} else {
		r.got++
	}
	r.last, r.restarts = meta.Sequence.Stream, 0
	if r.last == r.end && r.got < r.want {
		if err := r.short(ctx); err != nil {
			return false, err
		}
	}
	if meta.Timestamp.Before(r.filter.Since) {
		return false, nil
	}
	rec, err := r.record(msg, meta)
	if err != nil {
		r.damaged(err)
		return false, nil
	}
	return !fn(rec), nil
}

func (r *reader) damaged(err error) {
	if r.corrupt == nil {
		r.corrupt = err
	}
}

// lookAgain is for an empty batch although records are due: a delivery was lost
// on the way, or the server leaves out records that it finds damaged.
func (r *reader) lookAgain(ctx context.Context, waiting bool) error {
	info, err := r.consumer.Info(ctx)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		r.consumer = nil
		return nil
	}
	if err != nil {
		return err
	}
	if info.Delivered.Consumer != r.number {
		r.close(ctx)
		return nil
	}
	if r.empty++; waiting || r.empty < maxEmpty {
		return nil
	}
	return r.short(ctx)
}

// short settles that fewer records came than were there: either the log has
// dropped its oldest ones meanwhile, or they are damaged.
func (r *reader) short(ctx context.Context) error {
	info, err := r.log.stream.Info(ctx)
	if err != nil {
		return err
	}
	dropped := info.State.FirstSeq - min(r.first, info.State.FirstSeq)
	if missing := r.want - r.got; missing > dropped {
		r.damaged(r.log.bus.corruption(fmt.Sprintf("%d records of log %s, which the server leaves out", missing-dropped, r.log.cfg.Name)))
	}
	r.want = r.got
	return nil
}

func (r *reader) record(msg jetstream.Msg, meta *jetstream.MsgMetadata) (Record, error) {
	subject := msg.Subject()
	parts := strings.Split(subject, ".")
	data, ok := r.log.bus.seal.open(r.log.place(subject), msg.Data())
	if !ok || len(parts) != 3 {
		return Record{}, r.log.bus.corruption(fmt.Sprintf("record %d of log %s", meta.Sequence.Stream, r.log.cfg.Name))
	}
	return Record{Namespace: parts[1], Function: parts[2], Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Data: data}, nil
}

package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// KeySize is the length of Config.Key in bytes.
const KeySize = 32

// Defaults of Config.
const (
	DefaultInterval         = 100 * time.Millisecond // between flushes
	DefaultBatch            = 512                    // receipts that begin a flush early; the most in one append
	DefaultMaxJournal int64 = 64 << 20               // bytes of receipts that are not in the stream yet
	DefaultMaxLog     int64 = 16 << 20               // bytes of log lines that are not in the stream yet
)

// How much one function may log: LogRate bytes a second for as long as it likes, and
// LogBurst bytes at once. What comes faster is dropped, and the log says how much.
const (
	LogRate  = 256 << 10
	LogBurst = 2 << 20
)

const (
	maxBackoff    = 5 * time.Second // between attempts while the stream fails
	appendTimeout = 30 * time.Second
	openTimeout   = 2 * time.Minute // to find out which receipts of an earlier run are in the stream
	replaySlack   = time.Minute     // by which the clock may have been set back in between
)

// Errors that callers match.
var (
	// ErrJournalFull means that so many receipts wait for the stream that no more
	// are taken. It also is a state.ErrFull.
	ErrJournalFull = fmt.Errorf("too many receipts wait for the stream: %w", state.ErrFull)
	// ErrClosed means that the Recorder has been closed.
	ErrClosed = errors.New("the recorder is closed")
)

// Stream is an append-only stream of records, each of one function.
type Stream interface {
	// Append adds a record durably; a second one with the same id soon after adds
	// nothing.
	Append(ctx context.Context, namespace, function, id string, data []byte) error
	// Read calls fn with the records that the filter selects, in order, until it
	// returns false. It may leave out corrupt records and then ends with
	// state.ErrCorrupt.
	Read(ctx context.Context, f state.LogFilter, fn func(state.LogRecord) bool) error
}

// Config of a Recorder. Dir, Key, Receipts, Logs and Clock are required.
type Config struct {
	Dir      string // of the journal; made with mode 0700 when absent, used by nothing else
	Key      []byte // 32 bytes that nothing else uses
	Receipts Stream
	Logs     Stream
	Clock    func() time.Time
	Logger   *slog.Logger

	Interval   time.Duration // DefaultInterval when zero
	Batch      int           // DefaultBatch when zero
	MaxJournal int64         // DefaultMaxJournal when zero
	MaxLog     int64         // DefaultMaxLog when zero
}

func (c *Config) check() error {
	bad := ""
	switch {
	case c.Dir == "":
		bad = "Dir is empty: give the journal's folder"
	case len(c.Key) != KeySize:
		bad = fmt.Sprintf("Key has %d bytes: derive one of %d from the root key", len(c.Key), KeySize)
	case c.Receipts == nil:
		bad = "Receipts is nil: give the stream for receipts"
	case c.Logs == nil:
		bad = "Logs is nil: give the stream for log lines"
	case c.Clock == nil:
		bad = "Clock is nil: pass the node's clock"
	case c.Interval < 0 || c.Batch < 0 || c.MaxJournal < 0 || c.MaxLog < 0:
		bad = "Interval, Batch, MaxJournal or MaxLog is negative: give 0 for the default"
	}
	if bad != "" {
		return fmt.Errorf("opening the recorder: Config.%s", bad)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Batch == 0 {
		c.Batch = DefaultBatch
	}
	if c.MaxJournal == 0 {
		c.MaxJournal = DefaultMaxJournal
	}
	if c.MaxLog == 0 {
		c.MaxLog = DefaultMaxLog
	}
	return nil
}

// Recorder keeps receipts and log lines.
type Recorder struct {
	cfg      Config
	log      *slog.Logger
	warnings []string // fixed after Open
	id       string   // of this run, for the ids of batches; fixed too

	flushing chan struct{} // holds one token; whoever has it may touch the batches below
	number   uint64        // of the last batch of receipts
	batches  []batch       // of receipts, not in the stream yet
	upTo     position      // behind the last receipt in batches

	mu        sync.Mutex
	journal   *journal
	gathering *commit // receipts that the next write takes along; nil when nobody waits
	pending   []entry // in the journal, in no batch yet
	waiting   int64   // bytes of receipts in pending and batches
	closed    bool

	logs logQueue

	wake  chan struct{} // a flush is due early
	stop  context.CancelFunc
	ended chan struct{} // closed when the background flush is over
}

// entry is a receipt in the journal.
type entry struct {
	namespace, function string
	body                []byte // JSON
	at                  position
}

// Open reads the journal that an earlier run left, sees which of its receipts
// are not in the stream, and starts flushing. Close stops it.
func Open(cfg Config) (*Recorder, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal's folder: %v", err)
	}
	id, err := runID()
	if err != nil {
		return nil, err
	}
	cfg.Receipts, cfg.Logs = &packed{Stream: cfg.Receipts}, &packed{Stream: cfg.Logs}
	r := &Recorder{
		cfg: cfg, log: cfg.Logger, id: id,
		flushing: make(chan struct{}, 1), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		journal: &journal{dir: cfg.Dir, key: cfg.Key, create: createSegment},
		logs:    newLogQueue(cfg.MaxLog),
	}
	if err := r.recover(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.run(ctx)
	return r, nil
}

// recover moves what earlier segments hold into a segment of this run, and only
// then removes them: a crash in between leaves receipts twice, never not at all.
func (r *Recorder) recover() error {
	old, err := replay(r.cfg.Dir, r.cfg.Key)
	if err != nil {
		return err
	}
	for _, d := range old.damage {
		r.log.Error("the journal is damaged", "error", d)
		r.warnings = append(r.warnings, r.cfg.Clock().UTC().Format(time.RFC3339)+" "+d.Error())
	}
	if err := old.cutTail(); err != nil {
		return err
	}
	r.journal.next, r.journal.before = old.next, old.before
	missing, err := r.missing(old.bodies)
	if err != nil {
		return err
	}
	for _, e := range missing {
		if e.at, err = r.journal.append(kindReceipt, e.body); err != nil {
			return err
		}
		r.pending = append(r.pending, e)
		r.waiting += int64(len(e.body))
	}
	if len(missing) > 0 {
		r.log.Info("receipts of an earlier run are in the journal", "count", len(missing))
		if err := errors.Join(r.journal.file.Sync(), syncDir(r.cfg.Dir)); err != nil {
			return fmt.Errorf("writing the journal: %v", err)
		}
	}
	return old.discard()
}

// missing returns the receipts that the stream does not hold.
func (r *Recorder) missing(bodies [][]byte) ([]entry, error) {
	if len(bodies) == 0 {
		return nil, nil
	}
	wanted := map[string]entry{}
	var order []string
	var oldest time.Time
	for _, body := range bodies {
		var rc Receipt
		if err := json.Unmarshal(body, &rc); err != nil {
			return nil, fmt.Errorf("decoding a receipt of the journal: %v", err) // sealed, so this is our own fault
		}
		if oldest.IsZero() || rc.Start.Before(oldest) {
			oldest = rc.Start
		}
		if _, twice := wanted[rc.ID]; !twice {
			order = append(order, rc.ID)
		}
		wanted[rc.ID] = entry{namespace: rc.Namespace, function: rc.Function, body: body}
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	err := r.cfg.Receipts.Read(ctx, state.LogFilter{Since: oldest.Add(-replaySlack)}, func(rec state.LogRecord) bool {
		for line := range lines(rec.Data) {
			var id struct {
				ID string `json:"id"`
			}
			if json.Unmarshal(line, &id) == nil {
				delete(wanted, id.ID)
			}
		}
		return true
	})
	// A receipt in a corrupt record counts as missing and is appended again.
	if err != nil && !errors.Is(err, state.ErrCorrupt) {
		return nil, fmt.Errorf("looking for the journal's receipts in the stream: %v", err)
	}
	var out []entry
	for _, id := range order {
		if e, ok := wanted[id]; ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// Warnings lists damage that Open met in the journal, as lines for people.
func (r *Recorder) Warnings() []string { return append([]string(nil), r.warnings...) }

// Record puts a receipt on record. When it returns nil, the receipt outlives the
// process. It fails with ErrJournalFull, ErrClosed, or a state.ErrFull when the
// disk has no room; the receipt is then not on record.
func (r *Recorder) Record(ctx context.Context, rc *Receipt) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("recording a receipt: %w", err)
	}
	if rc.ID == "" || !function.ValidName(rc.Namespace) || !function.ValidName(rc.Function) {
		return fmt.Errorf("recording a receipt: it has no id, or %.80q is not the name of a function", rc.Namespace+"/"+rc.Function)
	}
	var room [1 << 10]byte
	b, err := appendReceipt(room[:0], rc)
	if err == nil {
		err = checkBody(b)
	}
	if err != nil {
		return fmt.Errorf("recording a receipt: %w", err)
	}
	c, place, err := r.join(entry{namespace: rc.Namespace, function: rc.Function, body: bytes.Clone(b)})
	if err != nil {
		return fmt.Errorf("recording a receipt: %w", err)
	}
	if place > 0 {
		<-c.written
	} else {
		// The goroutines that are ready may have receipts too: one write is enough.
		runtime.Gosched()
		r.commit(c)
	}
	if place >= c.whole {
		return fmt.Errorf("recording a receipt: %w", c.err)
	}
	return nil
}

// commit is a group of receipts that one write puts into the journal. Whoever comes
// first writes it, the others wait for that. Until it is written, Recorder.mu
// guards it.
type commit struct {
	entries []entry
	bytes   int64
	written chan struct{} // closed when it was; nil while there is one receipt
	whole   int           // so many of the entries are in the journal
	err     error         // and the others are not, because of this
}

// join adds a receipt to the next write, as the first or a later one.
func (r *Recorder) join(e entry) (c *commit, place int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c = r.gathering
	gathered := int64(0)
	if c != nil {
		gathered = c.bytes
	}
	switch {
	case r.closed:
		return nil, 0, ErrClosed
	case r.waiting+gathered+int64(len(e.body)) > r.cfg.MaxJournal:
		return nil, 0, ErrJournalFull
	case c == nil:
		c = &commit{}
		r.gathering = c
	case c.written == nil:
		c.written = make(chan struct{})
	}
	c.entries = append(c.entries, e)
	c.bytes += int64(len(e.body))
	return c, len(c.entries) - 1, nil
}

// commit writes what has gathered, and wakes those who wait for it.
func (r *Recorder) commit(c *commit) {
	r.mu.Lock()
	defer func() {
		written := c.written
		r.mu.Unlock()
		if written != nil {
			close(written)
		}
	}()
	r.gathering = nil
	if r.closed { // meanwhile; the journal may be gone
		c.err = ErrClosed
		return
	}
	c.whole, c.err = r.journal.appendAll(kindReceipt, c.entries)
	before := len(r.pending)
	r.pending = append(r.pending, c.entries[:c.whole]...)
	for i := range c.whole {
		r.waiting += int64(len(c.entries[i].body))
	}
	if before < r.cfg.Batch && len(r.pending) >= r.cfg.Batch {
		r.hurry()
	}
}

func (r *Recorder) hurry() {
	select {
	case r.wake <- struct{}{}:
	default: // one is due already
	}
}

// Close flushes, within ctx, and stops. Receipts that could not be flushed stay
// in the journal for the next Open, and Close says so.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.stop()
	select {
	case <-r.ended:
	case <-ctx.Done():
		return fmt.Errorf("closing the recorder: %w", ctx.Err())
	}
	flushed := r.Flush(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting > 0 {
		var synced error
		if r.journal.file != nil {
			synced = r.journal.file.Sync()
		}
		r.journal.end()
		return errors.Join(fmt.Errorf("closing the recorder: receipts stay in the journal until the next start: %v", flushed), synced)
	}
	return errors.Join(flushed, r.journal.remove())
}

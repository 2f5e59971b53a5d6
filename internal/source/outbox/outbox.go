// Package outbox is the source of kind outbox: rows of a transactional outbox, a table
// into which an application writes, in its own transactions, what it wants to be told. It
// reads MySQL, MariaDB and PostgreSQL, by asking again and again.
//
// # Settings of a trigger
//
//	table        "table" or "schema.table"
//	columns      {id, type, subject, key, payload, created}: the names of the table's
//	             columns. id ("id") and payload ("payload") must be there; the others are
//	             not read unless they are named
//	after        what becomes of a row that was taken: "delete" (the default) or "mark"
//	markColumn   with "mark": a column that is NULL until we write the time into it
//	contentType  of the payload; application/json
//	batch        most rows at once; 100
//	pollMillis   pause after finding nothing, at first; 100. It doubles while there is
//	maxPollMillis   nothing, up to this; 2000
//
// The connection is of kind mysql or postgres (see package database); its user needs
// SELECT and DELETE, or UPDATE of the mark column. Ids must grow, and an index must be
// on them: AUTO_INCREMENT, a sequence, UUID version 7. With "mark" a partial index on
// rows that are not marked (or one on the mark and the id) keeps asking cheap.
//
// # Why no row is missed
//
// Ids are given out before transactions commit, so a lower one may appear after a higher
// one. Whoever remembers the highest id he saw misses it. We remember nothing: what is in
// the table is not yet taken, and a row is deleted (or marked), by its id, only after the
// sink has it. No row is locked and no transaction is open meanwhile, so however long the
// function takes, nobody who writes waits for us.
//
// One reader works on a table at a time: it holds an advisory lock of the server
// (pg_advisory_lock, GET_LOCK) on the connection that it reads with. Behind a pooler that
// shares connections between transactions that lock holds nothing.
//
// # Events
//
// Type casemate.outbox.message, or the type column's; one that begins with casemate. is
// the platform's, so then it stands in the detail outbox.type instead. Data is the
// payload, subject and key come from their columns, time is created. The id is made of
// the row's id and a digest of the row: ids that a server gives out anew after a restart
// (as MySQL before 8 does) are not taken for repetitions. A row that is told twice, after
// a crash between taking and deleting, has the same id.
//
// A payload larger than an event may be is left out, and its size stands in the detail
// outbox.oversized.
//
// # Order
//
// Rows come in the order of their ids among those that are committed. Of one key they are
// in the order in which they were written as long as the application's transactions on one
// key follow each other, for example because they lock the row that the key names.
//
// Health.Lag is the number of rows of the last reading; batch means that there may be more.
//
// node may import it. A Kind may be used from many goroutines.
package outbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
)

// Name of the kind.
const Name = "outbox"

// Defaults and bounds of settings.
const (
	DefaultBatch   = 100
	MaxBatch       = 1000
	DefaultPoll    = 100 * time.Millisecond
	DefaultMaxPoll = 2 * time.Second
	longestPoll    = time.Hour
	firstPause     = 200 * time.Millisecond
	longestPause   = 30 * time.Second
	maxBatchBytes  = 8 << 20 // of payloads; a batch ends with the row that goes beyond
)

// eventType of rows that name none.
const eventType = "casemate.outbox.message"

// Kind is the source of kind outbox.
type Kind struct{}

var _ source.Kind = (*Kind)(nil)

// New returns the kind.
func New() *Kind { return &Kind{} }

type columns struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
	Key     string `json:"key"`
	Payload string `json:"payload"`
	Created string `json:"created"`
}

type settings struct {
	Table         string          `json:"table"`
	Columns       columns         `json:"columns"`
	After         string          `json:"after"`
	MarkColumn    string          `json:"markColumn"`
	ContentType   string          `json:"contentType"`
	Batch         int             `json:"batch"`
	PollMillis    int64           `json:"pollMillis"`
	MaxPollMillis int64           `json:"maxPollMillis"`
	Filter        json.RawMessage `json:"filter"` // the door's, who checks it
}

// Check is documented in source.Kind.
func (k *Kind) Check(t *function.Trigger) error {
	if t.Connection == "" {
		return &source.FieldError{Field: "connection", Reason: "must name a connection of kind mysql or postgres"}
	}
	_, err := readSettings(t.Settings)
	return err
}

func readSettings(raw json.RawMessage) (*settings, error) {
	s := settings{
		Columns: columns{ID: "id", Payload: "payload"}, After: "delete", ContentType: "application/json",
		Batch: DefaultBatch, PollMillis: DefaultPoll.Milliseconds(), MaxPollMillis: DefaultMaxPoll.Milliseconds(),
	}
	if err := source.Settings(raw, &s); err != nil {
		return nil, err
	}
	refuse := func(field, reason string) (*settings, error) {
		return nil, &source.FieldError{Field: field, Reason: reason}
	}
	parts := strings.Split(s.Table, ".")
	if len(parts) > 2 || !identifier(parts[0]) || !identifier(parts[len(parts)-1]) {
		return refuse("table", "must be a table's name, or schema.table")
	}
	for _, c := range []struct{ field, name string }{
		{"columns.id", s.Columns.ID},
		{"columns.payload", s.Columns.Payload},
		{"columns.type", s.Columns.Type},
		{"columns.subject", s.Columns.Subject},
		{"columns.key", s.Columns.Key},
		{"columns.created", s.Columns.Created},
		{"markColumn", s.MarkColumn},
	} {
		needed := c.field == "columns.id" || c.field == "columns.payload"
		if (needed || c.name != "") && !identifier(c.name) {
			return refuse(c.field, "must be a column's name of at most 63 bytes")
		}
	}
	switch {
	case s.After != "delete" && s.After != "mark":
		return refuse("after", `must be "delete" or "mark"`)
	case (s.After == "mark") != (s.MarkColumn != ""):
		return refuse("markColumn", `belongs to after: "mark", and is needed there`)
	case s.ContentType == "":
		return refuse("contentType", "must not be empty")
	case s.Batch < 1 || s.Batch > MaxBatch:
		return refuse("batch", fmt.Sprintf("must be between 1 and %d", MaxBatch))
	case s.PollMillis < 10 || s.PollMillis > longestPoll.Milliseconds():
		return refuse("pollMillis", "must be between 10 and 3600000")
	case s.MaxPollMillis < s.PollMillis || s.MaxPollMillis > longestPoll.Milliseconds():
		return refuse("maxPollMillis", "must be between pollMillis and 3600000")
	}
	return &s, nil
}

func identifier(s string) bool {
	return s != "" && len(s) <= 63 && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// Run is documented in source.Kind. It connects again by itself; only a trigger that is
// refused ends it with an error.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := readSettings(b.Trigger.Settings)
	if err != nil {
		return err
	}
	if b.Connection == nil {
		return errors.New("no connection is named")
	}
	var open func(context.Context, *source.Connection, *settings) (table, error)
	switch b.Connection.Kind {
	case database.KindMySQL:
		open = openMySQL
	case database.KindPostgres:
		open = openPostgres
	default:
		return fmt.Errorf("connection %s is of kind %s: an outbox needs mysql or postgres", b.Connection.Name, b.Connection.Kind)
	}
	b.Report(source.Health{State: source.Starting, Lag: -1})
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	source.Retry(inner, firstPause, longestPause, b.Clock, func(ctx context.Context) error {
		t, err := open(ctx, b.Connection, s)
		if err == nil {
			err = poll(ctx, b, s, t)
			t.close()
		}
		if errors.Is(err, source.ErrRefused) {
			stop(err)
		}
		return err
	}, func(err error, pause time.Duration) {
		b.Report(source.Health{State: source.Failing, Reason: err.Error(), Lag: -1})
		b.Log.WarnContext(inner, "reading the outbox ended", "trigger", b.Trigger.Name, "again_in", pause, "error", err)
	})
	if ctx.Err() == nil {
		return context.Cause(inner)
	}
	return nil
}

// table is an outbox on a connection that holds its lock: if the lock were lost, so
// would be the connection, and each of these would fail. One goroutine uses it.
type table interface {
	// rows gives at most limit rows that are not taken, in the order of their ids, and
	// fewer when their payloads are large.
	rows(ctx context.Context, limit int) ([]row, error)
	// taken deletes or marks rows by their ids.
	taken(ctx context.Context, ids []string) error
	close()
}

// row is one row; columns that were not named are empty.
type row struct {
	id, kind, subject, key string
	payload                []byte
	created                string
	oversized              int64 // bytes of a payload that was not read
}

// poll reads until something breaks or ctx ends.
func poll(ctx context.Context, b source.Binding, s *settings, t table) error {
	least, most := time.Duration(s.PollMillis)*time.Millisecond, time.Duration(s.MaxPollMillis)*time.Millisecond
	pause := least
	last, limit := int64(-1), s.Batch
	for {
		rows, err := t.rows(ctx, limit)
		if err != nil {
			return err
		}
		// What does not fit is sent for nothing, so not so many are asked for again.
		limit = min(2*limit, s.Batch)
		if n := len(rows); n > 0 && n < limit {
			limit = max(1, min(limit, 2*n))
		}
		if n := int64(len(rows)); n != last {
			last = n
			b.Report(source.Health{State: source.Running, Lag: n})
		}
		if len(rows) == 0 {
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
			pause = min(2*pause, most)
			continue
		}
		pause = least
		events, ids := make([]event.Message, len(rows)), make([]string, len(rows))
		for i := range rows {
			events[i], ids[i] = message(&rows[i], s), rows[i].id
		}
		if err := b.Sink.Accept(ctx, events); err != nil {
			return fmt.Errorf("the events are not taken: %w", err)
		}
		if err := t.taken(ctx, ids); err != nil {
			return err
		}
	}
}

// message makes the event of a row.
func message(r *row, s *settings) event.Message {
	h := sha256.New()
	for _, v := range []string{r.id, r.kind, r.subject, r.key, r.created, fmt.Sprint(r.oversized), string(r.payload)} {
		fmt.Fprintf(h, "%d:%s", len(v), v)
	}
	digest := hex.EncodeToString(h.Sum(nil)[:16])
	m := event.Message{
		Event: event.Event{Type: eventType, Subject: r.subject, DataContentType: s.ContentType},
		Data:  r.payload, Key: r.key,
		Detail: map[string]string{"outbox.id": clean(r.id)},
	}
	m.ID = digest
	if id := clean(r.id); len(id) <= 128 && id == r.id {
		m.ID = id + "-" + digest
	}
	switch {
	case strings.HasPrefix(r.kind, "casemate."):
		m.Detail["outbox.type"] = clean(r.kind)
	case r.kind != "":
		m.Type = r.kind
	}
	if len(m.Key) > 256 || !utf8.ValidString(m.Key) {
		sum := sha256.Sum256([]byte(m.Key))
		m.Key = hex.EncodeToString(sum[:])
	}
	if r.oversized > 0 {
		m.Detail["outbox.oversized"] = fmt.Sprint(r.oversized)
		m.Data, m.DataContentType = nil, ""
	}
	if r.created != "" {
		if t, ok := moment(r.created); ok {
			m.Time = t
		} else {
			m.Detail["outbox.created"] = clean(r.created)
		}
	}
	return m
}

// clean makes text fit for a detail: short and valid.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > event.MaxAttribute {
		s = strings.ToValidUTF8(s[:event.MaxAttribute], "")
	}
	return s
}

// moment reads a time as the servers write it; without a zone it is UTC, which the
// sessions are set to.
func moment(s string) (time.Time, bool) {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999", time.RFC3339Nano} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

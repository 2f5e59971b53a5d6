// Package postgres is the source of kind postgres: the changes of a PostgreSQL database's
// tables, from its log, by logical replication with the output plugin pgoutput. It was
// made for PostgreSQL 13 and later and is tested with 15.
//
// # Settings of a trigger
//
//	tables         ["schema.table", …]; with publication they may be left out and are then all of it
//	operations     of insert, update, delete and truncate; all when left out
//	publication    an existing publication; without it one named as the slot is made, of
//	               these tables and operations, and kept so (the tables' owner must connect)
//	slot           an existing replication slot, or the name of the one to make;
//	               casemate_NAMESPACE_FUNCTION_TRIGGER when left out
//	snapshot       "none" (the default) or "initial": first every row there is, then the changes
//	lostSlot       what to do when the server has dropped or invalidated the slot, so that
//	               changes are missing: "stop" (the default; an alert until somebody
//	               decides), "snapshot" (a new slot, and every row there is) or "continue"
//	               (a new slot, and only what comes)
//	lagAlertBytes  alert when the server keeps more log than this for us; 1 GiB
//	columns        {"schema.table": ["column", …]}: the others are not told. A key always is.
//
// A connection is of kind postgres (see package database). Its user needs REPLICATION, and
// for a snapshot SELECT on the tables; the server needs wal_level = logical.
//
// # Events
//
// Type casemate.postgres.insert, .update, .delete, .truncate or .snapshot; subject
// schema.table; time is that of the commit; data is JSON:
//
//	{"schema", "table", "operation",
//	 "key": {…} or null,       columns of the primary key, or of the replica identity's index
//	 "new": {…} or null, "old": {…} or null,
//	 "lsn", "xid", "committed" where in the log the transaction's commit is, its number, its time
//	 "unchanged": ["column"]   large values that an update did not touch and the server did not send
//	 "omitted": ["column"]     values left out because the event would be larger than events may be
//	 "omittedBytes": n         the change was too large to be read at all; look at the table
//	 "moved": true}            a delete for the old key of an update that changed the key
//
// An update has "old" when the table's REPLICA IDENTITY is FULL, or when its key has
// changed: then only the key's columns. An update that changes the key comes as two
// events: a delete of the old key that says "moved", and the update under the new key.
// That keeps the order of each key. The extension sequence sorts in the order of commits.
//
//	bool                            true, false
//	smallint, integer, bigint, oid  number; a string beyond ±(2^53-1)
//	real, double precision          number; NaN and Infinity as strings
//	numeric                         number with at most 15 digits, otherwise a string
//	json, jsonb                     as it is; as a string when it is nested deeper than 50, has
//	                                a name twice in an object, or a number of more than 1000 characters
//	bytea                           base64
//	timestamptz                     RFC 3339 in UTC; infinity and years beyond 9999 as PostgreSQL writes them
//	timestamp                       the same without zone, since it has none
//	date, time, interval            2006-01-02, 15:04:05.9, ISO 8601
//	arrays of these, of text,       JSON arrays
//	  uuid, inet and cidr
//	everything else                 PostgreSQL's text form, as a string
//	text that is not UTF-8          {"base64": "…"}
//
// # Order and repetition
//
// Events come in the order of commits, and within a transaction in its own. Their key is
// the table and the row's key, so a trigger that asks for order has it for each row; a
// table without a key is ordered as a whole. A truncate's key is the table alone: it is
// not ordered with the rows of a table that has a key. A transaction's events are handed
// over as they come, so memory is bounded whatever its size.
//
// The server is told that a change is done with only after the sink has taken all of its
// transaction. After a crash it sends the unfinished ones again; ids are made of the
// server's system identifier, the place in the log and a number, so that they are the
// same each time. An interrupted snapshot begins again with the table it was at: rows may
// then be told newer than the changes that follow, which lead to the same state.
//
// A slot that nobody reads makes the server keep its log until its disk is full. Forget
// must be called when a trigger goes. Health.Lag is the bytes of log kept for us.
//
// node may import it. A Kind may be used from many goroutines.
package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
)

// Name of the kind.
const Name = "postgres"

// Defaults of Config and of settings.
const (
	DefaultStatusEvery   = 10 * time.Second
	DefaultWatchEvery    = 30 * time.Second
	DefaultLagAlertBytes = 1 << 30
	firstPause           = 200 * time.Millisecond
	longestPause         = 30 * time.Second
	maxName              = 63 // NAMEDATALEN-1 of PostgreSQL
	maxTables            = 200
	slotPrefix           = "casemate_"
)

// Config is how often a Kind does what; zero values are the defaults.
type Config struct {
	StatusEvery time.Duration // the server learns at least this often where we are
	WatchEvery  time.Duration // the slot is looked at this often
}

// Kind is the source of kind postgres.
type Kind struct {
	database.Connections
	config Config
}

var (
	_ source.Kind           = (*Kind)(nil)
	_ source.ConnectionKind = (*Kind)(nil)
)

// New returns the kind.
func New(c Config) *Kind {
	if c.StatusEvery <= 0 {
		c.StatusEvery = DefaultStatusEvery
	}
	if c.WatchEvery <= 0 {
		c.WatchEvery = DefaultWatchEvery
	}
	return &Kind{Connections: database.Connections{Kind: database.KindPostgres}, config: c}
}

// settings are a trigger's, as the package's documentation has them.
type settings struct {
	Tables        []string            `json:"tables"`
	Operations    []operation         `json:"operations"`
	Publication   string              `json:"publication"`
	Slot          string              `json:"slot"`
	Snapshot      string              `json:"snapshot"`
	LostSlot      string              `json:"lostSlot"`
	LagAlertBytes int64               `json:"lagAlertBytes"`
	Columns       map[string][]string `json:"columns"`
	Filter        json.RawMessage     `json:"filter"` // the door's, who checks it
}

// Check is documented in source.Kind.
func (k *Kind) Check(t *function.Trigger) error {
	if t.Connection == "" {
		return &source.FieldError{Field: "connection", Reason: "must name a connection of kind postgres"}
	}
	_, err := readSettings(t.Settings)
	return err
}

// readSettings reads, checks and completes a trigger's settings, but for the slot.
func readSettings(raw json.RawMessage) (*settings, error) {
	var s settings
	if err := source.Settings(raw, &s); err != nil {
		return nil, err
	}
	refuse := func(field, reason string, args ...any) (*settings, error) {
		return nil, &source.FieldError{Field: field, Reason: fmt.Sprintf(reason, args...)}
	}
	if len(s.Tables) == 0 && s.Publication == "" {
		return refuse("tables", "must name at least one table, as schema.table")
	}
	if len(s.Tables) > maxTables {
		return refuse("tables", "may name at most %d tables; use a publication for more", maxTables)
	}
	for i, t := range s.Tables {
		if err := tableName(t); err != nil {
			return refuse("tables", "has %.140q, which %v", t, err)
		}
		if slices.Contains(s.Tables[:i], t) {
			return refuse("tables", "names %.140q twice", t)
		}
	}
	for i, o := range s.Operations {
		switch o {
		case opInsert, opUpdate, opDelete, opTruncate:
		default:
			return refuse("operations", "has %.40q; insert, update, delete and truncate are possible", string(o))
		}
		if slices.Contains(s.Operations[:i], o) {
			return refuse("operations", "has %s twice", o)
		}
	}
	if len(s.Operations) == 0 {
		s.Operations = []operation{opInsert, opUpdate, opDelete, opTruncate}
	}
	if len(s.Publication) > maxName || strings.ContainsRune(s.Publication, 0) {
		return refuse("publication", "must be a name of at most %d bytes", maxName)
	}
	if err := slotName(s.Slot); err != nil {
		return refuse("slot", "%v", err)
	}
	switch s.Snapshot {
	case "":
		s.Snapshot = "none"
	case "none", "initial":
	default:
		return refuse("snapshot", `must be "none" or "initial"`)
	}
	switch s.LostSlot {
	case "":
		s.LostSlot = "stop"
	case "stop", "snapshot", "continue":
	default:
		return refuse("lostSlot", `must be "stop", "snapshot" or "continue"`)
	}
	if s.LagAlertBytes < 0 {
		return refuse("lagAlertBytes", "must be positive")
	}
	if s.LagAlertBytes == 0 {
		s.LagAlertBytes = DefaultLagAlertBytes
	}
	for t, columns := range s.Columns {
		if err := tableName(t); err != nil {
			return refuse("columns", "has %.140q, which %v", t, err)
		}
		if len(s.Tables) > 0 && !slices.Contains(s.Tables, t) {
			return refuse("columns", "has %.140q, which is not one of tables", t)
		}
		if len(columns) == 0 {
			return refuse("columns", "names no column for %.140q", t)
		}
	}
	return &s, nil
}

func tableName(t string) error {
	schema, name, _ := strings.Cut(t, ".")
	switch {
	case schema == "" || name == "" || strings.Contains(name, "."):
		return errors.New("is not of the form schema.table (names that hold a dot cannot be given here: use a publication)")
	case len(schema) > maxName || len(name) > maxName || strings.ContainsRune(t, 0):
		return fmt.Errorf("has a name of more than %d bytes", maxName)
	}
	return nil
}

func slotName(s string) error {
	if s == "" {
		return nil
	}
	if strings.HasPrefix(s, slotPrefix) {
		return errors.New("must not begin with " + slotPrefix + ": those belong to triggers that name no slot")
	}
	if len(s) > maxName || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return fmt.Errorf("must have at most %d lower-case letters, digits and underscores", maxName)
	}
	return nil
}

// ownName is the name of a trigger's slot and publication when none is set. Labels of
// RFC 1035 have hyphens, which slots cannot have: as soon as one must be replaced, or the
// name is too long, a digest keeps two triggers from having the same.
func ownName(ref function.Ref, trigger string) string {
	plain := slotPrefix + ref.Namespace + "_" + ref.Name + "_" + trigger
	if len(plain) <= maxName && !strings.Contains(plain, "-") {
		return plain
	}
	sum := sha256.Sum256([]byte(ref.Namespace + "/" + ref.Name + "/" + trigger))
	const digest = 12
	short := strings.ReplaceAll(plain, "-", "_")
	return short[:min(len(short), maxName-1-digest)] + "_" + hex.EncodeToString(sum[:])[:digest]
}

// Run is documented in source.Kind. It connects again by itself; only a trigger that is
// refused ends it with an error.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	r, err := k.prepare(b)
	if err != nil {
		return err
	}
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	source.Retry(inner, firstPause, longestPause, b.Clock, func(ctx context.Context) error {
		err := r.once(ctx)
		if errors.Is(err, source.ErrRefused) {
			stop(err)
		}
		return err
	}, func(err error, pause time.Duration) {
		r.health.failing(err.Error())
		b.Log.WarnContext(inner, "the stream of changes ended", "trigger", b.Trigger.Name, "again_in", pause, "error", err)
	})
	if ctx.Err() == nil {
		return context.Cause(inner)
	}
	return nil
}

// Forget drops the slot and the publication that were made for a trigger. It must be
// called when the trigger is removed or gets another connection, after Run has ended:
// the server keeps its log for a slot until the disk is full. What the operator had made
// stays. It fails when the server cannot be reached: call it again later.
func (k *Kind) Forget(ctx context.Context, b source.Binding) error {
	r, err := k.prepare(b)
	if err != nil {
		return err
	}
	return r.forget(ctx)
}

package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
)

// dialect is what the two servers write differently.
type dialect struct {
	quote       func(string) string
	text        func(string) string // a column as text
	length      func(string) string // of a column in bytes
	placeholder func(n int) string
	now         string
}

// name quotes a table's name, schema and all.
func (d dialect) name(t string) string {
	var parts []string
	for p := range strings.SplitSeq(t, ".") {
		parts = append(parts, d.quote(p))
	}
	return strings.Join(parts, ".")
}

// query is the statement that reads a batch: id, type, subject, key, created, the
// payload's length, and the payload if it is not too long.
func (d dialect) query(s *settings, limit int) string {
	c := s.Columns
	optional := func(name string) string {
		if name == "" {
			return "''"
		}
		return "COALESCE(" + d.text(d.quote(name)) + ", '')"
	}
	payload, length := d.quote(c.Payload), d.length(d.quote(c.Payload))
	q := fmt.Sprintf("SELECT %s, %s, %s, %s, %s, COALESCE(%s, 0), CASE WHEN %[6]s <= %[7]d THEN %[8]s END FROM %[9]s AS o",
		d.text(d.quote(c.ID)), optional(c.Type), optional(c.Subject), optional(c.Key), optional(c.Created), length, event.MaxData, payload, d.name(s.Table))
	if s.After == "mark" {
		q += " WHERE " + d.quote(s.MarkColumn) + " IS NULL"
	}
	// By the column itself: its name alone would mean the text above, which sorts otherwise.
	return q + " ORDER BY o." + d.quote(c.ID) + " LIMIT " + strconv.Itoa(limit)
}

// taken is the statement that deletes or marks n rows.
func (d dialect) taken(s *settings, n int) string {
	var in []string
	for i := range n {
		in = append(in, d.placeholder(i+1))
	}
	where := " WHERE " + d.quote(s.Columns.ID) + " IN (" + strings.Join(in, ", ") + ")"
	if s.After == "mark" {
		return "UPDATE " + d.name(s.Table) + " SET " + d.quote(s.MarkColumn) + " = " + d.now + where
	}
	return "DELETE FROM " + d.name(s.Table) + where
}

// collect makes a row of what query gives, and says whether the batch is full.
func collect(rows []row, size *int, id, kind, subject, key, created, length string, payload []byte) ([]row, bool, error) {
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return rows, false, fmt.Errorf("reading the outbox: %q is not a length", length)
	}
	r := row{id: id, kind: kind, subject: subject, key: key, created: created, payload: payload}
	if n > event.MaxData {
		r.oversized = n
	}
	*size += len(payload)
	return append(rows, r), *size >= maxBatchBytes, nil
}

// locked says that another reader works on the table.
var errLocked = errors.New("another reader works on this outbox: only one may, so that the order holds")

// lockName is the same for all who read a table of a database.
func lockName(t string) string { return "casemate outbox " + t }

// mysqlTable is an outbox in MySQL or MariaDB.
type mysqlTable struct {
	db *sql.DB
	c  *sql.Conn
	s  *settings
	d  dialect
	// numeric says that ids are integers. Compared with text, they would be compared as
	// floating-point numbers; and text that was compared with integers would use no index.
	numeric bool
}

func mysqlDialect() dialect {
	return dialect{
		quote:       func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" },
		text:        func(s string) string { return "CAST(" + s + " AS CHAR)" },
		length:      func(s string) string { return "LENGTH(" + s + ")" },
		placeholder: func(int) string { return "?" },
		now:         "CURRENT_TIMESTAMP",
	}
}

func openMySQL(ctx context.Context, c *source.Connection, s *settings) (table, error) {
	conf, err := database.MySQL(c)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	t := &mysqlTable{db: sql.OpenDB(connector), s: s, d: mysqlDialect()}
	if t.c, err = t.db.Conn(ctx); err != nil {
		_ = t.db.Close()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	// Names of locks belong to the server and have at most 64 characters.
	var held sql.NullInt64
	err = t.c.QueryRowContext(ctx, "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), ' ', ?)), 0)", lockName(s.Table)).Scan(&held)
	if err == nil && held.Int64 != 1 {
		err = errLocked
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("locking the outbox: %w", err)
	}
	if t.numeric, err = t.numericIDs(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *mysqlTable) numericIDs(ctx context.Context) (bool, error) {
	r, err := t.c.QueryContext(ctx, "SELECT "+t.d.quote(t.s.Columns.ID)+" FROM "+t.d.name(t.s.Table)+" LIMIT 0")
	if err != nil {
		return false, fmt.Errorf("looking at the outbox: %w", err)
	}
	defer r.Close()
	kinds, err := r.ColumnTypes()
	if err != nil {
		return false, fmt.Errorf("looking at the outbox: %w", err)
	}
	name := kinds[0].DatabaseTypeName()
	if strings.Contains(name, "BINARY") || strings.Contains(name, "BLOB") {
		return false, fmt.Errorf("looking at the outbox: its id is of type %s, and must be an integer or text", name)
	}
	return strings.Contains(name, "INT"), r.Err()
}

func (t *mysqlTable) rows(ctx context.Context, limit int) ([]row, error) {
	found, err := t.c.QueryContext(ctx, t.d.query(t.s, limit))
	if err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	defer found.Close()
	var rows []row
	size := 0
	for full := false; !full && found.Next(); {
		var id, kind, subject, key, created, length string
		var payload []byte
		if err := found.Scan(&id, &kind, &subject, &key, &created, &length, &payload); err != nil {
			return nil, fmt.Errorf("reading the outbox: %w", err)
		}
		if rows, full, err = collect(rows, &size, id, kind, subject, key, created, length, payload); err != nil {
			return nil, err
		}
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	return rows, nil
}

func (t *mysqlTable) taken(ctx context.Context, ids []string) error {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
		if t.numeric {
			n, err := strconv.ParseUint(id, 10, 64)
			args[i] = n
			if err != nil {
				args[i], err = strconv.ParseInt(id, 10, 64)
			}
			if err != nil {
				return fmt.Errorf("ending rows of the outbox: %q is not a number", id)
			}
		}
	}
	if _, err := t.c.ExecContext(ctx, t.d.taken(t.s, len(ids)), args...); err != nil {
		return fmt.Errorf("ending rows of the outbox: %w", err)
	}
	return nil
}

func (t *mysqlTable) close() {
	if t.c != nil {
		_ = t.c.Close()
	}
	_ = t.db.Close() // and with the connection the lock
}

// postgresTable is an outbox in PostgreSQL.
type postgresTable struct {
	c      *pgconn.PgConn
	s      *settings
	d      dialect
	binary bool // the payload is bytea
}

func postgresDialect() dialect {
	return dialect{
		quote:       func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` },
		text:        func(s string) string { return s + "::text" },
		length:      func(s string) string { return "octet_length(" + s + "::text)" }, // but see openPostgres
		placeholder: func(n int) string { return "$" + strconv.Itoa(n) },
		now:         "now()",
	}
}

func openPostgres(ctx context.Context, c *source.Connection, s *settings) (table, error) {
	conf, err := database.Postgres(c, map[string]string{"datestyle": "ISO, YMD", "timezone": "UTC", "bytea_output": "hex"})
	if err != nil {
		return nil, err
	}
	pc, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	t := &postgresTable{c: pc, s: s, d: postgresDialect()}
	r := pc.ExecParams(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", [][]byte{[]byte(lockName(s.Table))}, nil, nil, nil).Read()
	if r.Err == nil && string(r.Rows[0][0]) != "t" {
		r.Err = errLocked
	}
	if r.Err != nil {
		t.close()
		return nil, fmt.Errorf("locking the outbox: %w", r.Err)
	}
	kind, err := pc.Prepare(ctx, "", "SELECT "+t.d.quote(s.Columns.Payload)+" FROM "+t.d.name(s.Table)+" LIMIT 0", nil)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("looking at the outbox: %w", err)
	}
	if t.binary = kind.Fields[0].DataTypeOID == oidBytea; t.binary {
		t.d.length = func(s string) string { return "octet_length(" + s + ")" }
	}
	return t, nil
}

// oidBytea is the type bytea, binaryFormat the form of a value that is not text.
const (
	oidBytea     = 17
	binaryFormat = 1
)

func (t *postgresTable) rows(ctx context.Context, limit int) ([]row, error) {
	formats := make([]int16, 7)
	if t.binary {
		formats[6] = binaryFormat // as it is; everything else as text
	}
	reader := t.c.ExecParams(ctx, t.d.query(t.s, limit), nil, nil, nil, formats)
	var rows []row
	size := 0
	full := false
	var err error
	for reader.NextRow() {
		if full { // the rest is read and dropped
			continue
		}
		v := reader.Values()
		if rows, full, err = collect(rows, &size, string(v[0]), string(v[1]), string(v[2]), string(v[3]), string(v[4]), string(v[5]), append([]byte(nil), v[6]...)); err != nil {
			break
		}
	}
	if _, closed := reader.Close(); err == nil && closed != nil {
		return nil, fmt.Errorf("reading the outbox: %w", closed)
	}
	return rows, err
}

func (t *postgresTable) taken(ctx context.Context, ids []string) error {
	args := make([][]byte, len(ids))
	for i, id := range ids {
		args[i] = []byte(id)
	}
	if r := t.c.ExecParams(ctx, t.d.taken(t.s, len(ids)), args, nil, nil, nil).Read(); r.Err != nil {
		return fmt.Errorf("ending rows of the outbox: %w", r.Err)
	}
	return nil
}

func (t *postgresTable) close() {
	ctx, cancel := context.WithTimeout(context.Background(), database.ConnectTimeout)
	defer cancel()
	_ = t.c.Close(ctx)
}

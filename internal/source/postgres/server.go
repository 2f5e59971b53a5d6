package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
)

// sessionParams make the server write values in the forms that values.go reads.
func sessionParams() map[string]string {
	return map[string]string{
		"datestyle": "ISO, YMD", "intervalstyle": "iso_8601", "timezone": "UTC",
		"bytea_output": "hex", "extra_float_digits": "1",
	}
}

// session is a connection for queries. One goroutine uses it.
type session struct{ *pgconn.PgConn }

// openSession connects; for replication the walsender answers instead of a backend.
func openSession(ctx context.Context, c *source.Connection, replication bool) (*session, error) {
	params := sessionParams()
	if replication {
		params["replication"] = "database"
	} else {
		// What the operator set for people must not end a snapshot that has to wait.
		params["statement_timeout"], params["idle_in_transaction_session_timeout"] = "0", "0"
	}
	conf, err := database.Postgres(c, params)
	if err != nil {
		return nil, err
	}
	pc, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, explain("connecting", err)
	}
	return &session{pc}, nil
}

// close ends the connection without waiting for long.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), database.ConnectTimeout)
	defer cancel()
	_ = s.Close(ctx)
}

// query gives all rows of a small result; nil stands for NULL.
func (s *session) query(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	r := s.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	return r.Rows, r.Err
}

// command runs a command of the simple protocol, which is all that replication knows.
func (s *session) command(ctx context.Context, sql string) ([][][]byte, error) {
	results, err := s.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, nil
	}
	return results[len(results)-1].Rows, nil
}

// quote quotes an identifier, literal a string.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(s string) string {
	if strings.ContainsRune(s, '\\') {
		return ` E'` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`) + `'`
	}
	return `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
}

// serverError reads an ErrorResponse.
func serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return errors.New("the server sent an error that cannot be read")
	}
	return pgconn.ErrorResponseToPgError(&m)
}

// SQLSTATEs (PostgreSQL's documentation, appendix A).
const (
	stateInUse          = "55006"
	stateNotReady       = "55000" // object_not_in_prerequisite_state
	stateUndefined      = "42704"
	stateNoPrivilege    = "42501"
	stateConfigLimit    = "53400"
	stateDuplicate      = "42710"
	stateWrongPassword  = "28P01"
	stateUnauthorised   = "28000"
	stateNoSuchDatabase = "3D000"
)

func hasState(err error, state string) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == state
}

// explain adds what to do about a refusal of the server.
func explain(doing string, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	remedy := ""
	switch {
	case pe.Code == stateNotReady && strings.Contains(pe.Message, "wal_level"):
		remedy = walRemedy
	case pe.Code == stateConfigLimit && strings.Contains(pe.Message, "slot"):
		remedy = "ALTER SYSTEM SET max_replication_slots to more, and restart the server; or drop a slot that nobody uses (pg_replication_slots)"
	case pe.Code == stateConfigLimit:
		remedy = "ALTER SYSTEM SET max_wal_senders to more, and restart the server"
	case pe.Code == stateNoPrivilege && strings.Contains(pe.Message, "replication"):
		remedy = "ALTER ROLE … REPLICATION for the connection's user"
	case pe.Code == stateNoPrivilege && strings.Contains(pe.Message, "for database"):
		remedy = "GRANT CREATE ON DATABASE … to the connection's user, or make the publication yourself and name it in the setting publication"
	case pe.Code == stateNoPrivilege && strings.Contains(pe.Message, "must be owner"):
		remedy = "only a table's owner can publish it: make the publication yourself (CREATE PUBLICATION … FOR TABLE …) and name it in the setting publication"
	case pe.Code == stateNoPrivilege:
		remedy = "GRANT USAGE ON SCHEMA and SELECT ON the table to the connection's user"
	case pe.Code == stateWrongPassword:
		remedy = "check the connection's user and its secret password"
	case pe.Code == stateUnauthorised && strings.Contains(pe.Message, "replication"):
		remedy = "ALTER ROLE … REPLICATION for the connection's user, and allow it in pg_hba.conf"
	case pe.Code == stateUnauthorised:
		remedy = "allow the connection's user in pg_hba.conf"
	case pe.Code == stateNoSuchDatabase:
		remedy = "check the connection's setting database"
	case pe.Code == stateInUse:
		remedy = "the slot is read by somebody else, or by a connection that the server has not yet given up"
	}
	if remedy == "" {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w (%s)", doing, err, remedy)
}

const walRemedy = "ALTER SYSTEM SET wal_level = logical, and restart the server"

// slotInfo is a row of pg_replication_slots. Which columns there are depends on the
// server's version.
type slotInfo struct {
	Plugin       string `json:"plugin"`
	Database     string `json:"database"`
	Active       bool   `json:"active"`
	PID          int32  `json:"active_pid"`
	Confirmed    string `json:"confirmed_flush_lsn"`
	Status       string `json:"wal_status"`          // from 13: reserved, extended, unreserved, lost
	Conflicting  bool   `json:"conflicting"`         // from 16
	Invalidation string `json:"invalidation_reason"` // from 17
	Behind       int64  `json:"behind"`              // bytes of the log after Confirmed
}

// gone says why a slot can never be read again, empty when it can.
func (s *slotInfo) gone() string {
	switch {
	case s.Invalidation != "":
		return "the server invalidated it: " + s.Invalidation
	case s.Status == "lost":
		return "the server threw away log that it still needed (max_slot_wal_keep_size)"
	case s.Conflicting:
		return "the server invalidated it"
	}
	return ""
}

// slot gives nil when there is none.
func (s *session) slot(ctx context.Context, name string) (*slotInfo, error) {
	rows, err := s.query(ctx, `SELECT to_jsonb(s) || jsonb_build_object('behind', coalesce(pg_wal_lsn_diff(
		CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.confirmed_flush_lsn), 0)::int8)
		FROM pg_replication_slots s WHERE slot_name = $1`, name)
	if err != nil {
		return nil, explain("looking for the slot", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	var info slotInfo
	if err := json.Unmarshal(rows[0][0], &info); err != nil {
		return nil, fmt.Errorf("reading pg_replication_slots: %v", err)
	}
	return &info, nil
}

// identify gives what tells this server's log from every other: its system identifier
// and its timeline.
func (s *session) identify(ctx context.Context) (string, error) {
	rows, err := s.command(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return "", explain("asking who the server is", err)
	}
	if len(rows) != 1 || len(rows[0]) < 2 {
		return "", errors.New("asking who the server is: it does not say")
	}
	return string(rows[0][0]) + "-" + string(rows[0][1]), nil
}

// describe reads a table from the catalogue: its replica identity and, in their order,
// the columns that are published, with the key's marked. nil when there is no such table.
func (s *session) describe(ctx context.Context, schema, name string) (identity, kind byte, columns []column, err error) {
	rows, err := s.query(ctx, `SELECT c.relreplident, c.relkind, a.attname, a.atttypid::int8,
			coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false)
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
		WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum`, schema, name)
	if err != nil {
		return 0, 0, nil, explain("describing table "+schema+"."+name, err)
	}
	for _, r := range rows {
		var oid uint32
		if _, err := fmt.Sscan(string(r[3]), &oid); err != nil {
			return 0, 0, nil, fmt.Errorf("describing table %s.%s: %v", schema, name, err)
		}
		identity, kind = r[0][0], r[1][0]
		columns = append(columns, column{name: string(r[2]), oid: oid, key: string(r[4]) == "t"})
	}
	return identity, kind, columns, nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/internal/event"
)

// snapshot tells every row of the tables that are not done. exported is the snapshot of
// the slot's making; after an interruption there is none any more. Then rows are read as
// they are now. As the slot still stands where it did, all changes since then follow, so
// that whoever applies them arrives at the same state.
func (r *run) snapshot(ctx context.Context, q *session, at *position, exported string) error {
	from, err := parseLSN(at.From)
	if err != nil {
		return fmt.Errorf("reading the position: %w", err)
	}
	r.health.running()
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	if exported != "" {
		begin += "; SET TRANSACTION SNAPSHOT " + literal(exported)
	}
	// Row security would hide rows silently; so it is an error.
	if _, err := q.command(ctx, begin+"; SET LOCAL row_security = off"); err != nil {
		return explain("beginning the snapshot", err)
	}
	rows, err := q.query(ctx, "SELECT to_jsonb(t) ->> 'schemaname', to_jsonb(t) ->> 'tablename', to_jsonb(t) ->> 'rowfilter' FROM pg_publication_tables t WHERE pubname = $1 ORDER BY 1, 2", r.publication)
	if err != nil {
		return explain("reading the publication", err)
	}
	for _, row := range rows {
		schema, name := string(row[0]), string(row[1])
		full := schema + "." + name
		if !r.wantsTable(schema, name) || slices.Contains(at.Done, full) {
			continue
		}
		// The publication shows the rows that its filter lets through, and no others.
		if err := r.snapshotTable(ctx, q, schema, name, string(row[2]), from); err != nil {
			return err
		}
		at.Done = append(at.Done, full)
		if err := r.save(ctx, at); err != nil {
			return err
		}
	}
	if _, err := q.command(ctx, "COMMIT"); err != nil {
		return explain("ending the snapshot", err)
	}
	at.Phase, at.Done = phaseStream, nil
	return r.save(ctx, at)
}

// snapshotTable tells the rows of one table. An event's id is made of the version of the
// row (table, place, transaction), so it is the same when the row is read again unchanged,
// and another one when it was changed, even if it was changed back.
func (r *run) snapshotTable(ctx context.Context, q *session, schema, name, filter string, from lsn) error {
	identity, kind, columns, err := q.describe(ctx, schema, name)
	if err != nil {
		return err
	}
	if len(columns) == 0 {
		return fmt.Errorf("table %s.%s has gone", schema, name)
	}
	if columns, err = r.publishedColumns(ctx, q, schema, name, columns); err != nil {
		return err
	}
	t := newTable(schema, name, identity, columns, nil, r.only(schema, name))
	sql := "SELECT tableoid, ctid, xmin"
	for _, c := range columns {
		sql += ", " + quote(c.name)
	}
	sql += " FROM " + fromTable(kind, schema, name)
	if filter != "" {
		sql += " WHERE (" + filter + ")"
	}
	p := place{system: r.system, commit: from, committed: r.b.Clock()}
	reader := q.ExecParams(ctx, sql, nil, nil, nil, nil)
	var batch []event.Message
	size := 0
	values := make([]datum, len(columns))
	for reader.NextRow() {
		v := reader.Values()
		for i := range values {
			values[i] = datum{kind: datumText, text: v[i+3]}
			if v[i+3] == nil {
				values[i] = datum{kind: datumNull}
			}
		}
		m := t.message(row{op: opSnapshot, new: values}, &p)
		m.ID = fmt.Sprintf("%s-row-%s-%s-%s", r.systemID(), v[0], strings.Trim(string(v[1]), "()"), v[2])
		m.Extensions = nil
		batch = append(batch, m)
		if size += len(m.Data); len(batch) >= maxWaiting || size >= maxWaitingBytes {
			if err := r.accept(ctx, batch); err != nil {
				return errors.Join(err, ctx.Err())
			}
			batch, size = nil, 0
		}
	}
	if _, err := reader.Close(); err != nil {
		return explain("reading table "+schema+"."+name, err)
	}
	return r.accept(ctx, batch)
}

// publishedColumns leaves out what the publication does (from PostgreSQL 15 it may).
func (r *run) publishedColumns(ctx context.Context, q *session, schema, name string, columns []column) ([]column, error) {
	rows, err := q.query(ctx, `SELECT a FROM pg_publication_tables t, jsonb_array_elements_text(
		CASE jsonb_typeof(to_jsonb(t) -> 'attnames') WHEN 'array' THEN to_jsonb(t) -> 'attnames' ELSE '[]' END) a
		WHERE pubname = $1 AND schemaname = $2 AND tablename = $3`, r.publication, schema, name)
	if err != nil {
		return nil, explain("reading the publication", err)
	}
	if len(rows) == 0 {
		return columns, nil
	}
	return slices.DeleteFunc(columns, func(c column) bool {
		return !slices.ContainsFunc(rows, func(r [][]byte) bool { return string(r[0]) == c.name })
	}), nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// lostError says that changes are missing, and why.
type lostError struct{ reason string }

func (e *lostError) Error() string { return "changes are missing: " + e.reason }

// ensureSlot finds or makes the slot and gives where the trigger stands, and the name of
// the exported snapshot if repl has just made the slot with one; it lasts until repl's
// next command.
func (r *run) ensureSlot(ctx context.Context, q, repl *session) (*position, string, error) {
	for {
		at, err := r.load(ctx)
		if err != nil {
			return nil, "", err
		}
		info, err := q.slot(ctx, r.slot)
		if err != nil {
			return nil, "", err
		}
		at, snapshot, err := r.settle(ctx, q, repl, at, info)
		var lost *lostError
		if !errors.As(err, &lost) {
			return at, snapshot, err
		}
		r.b.Log.ErrorContext(ctx, "changes of the database are missing", "trigger", r.b.Trigger.Name, "slot", r.slot, "reason", lost.reason, "then", r.s.LostSlot)
		if r.s.LostSlot != "stop" {
			if info != nil && info.gone() == "" && r.slot != r.own { // the operator's, on another server
				at = &position{Slot: r.slot, System: r.systemID(), Phase: phaseStream}
				return at, "", r.save(ctx, at)
			}
			if info != nil {
				if err := r.drop(ctx, q, r.slot); err != nil {
					return nil, "", err
				}
			}
			return r.create(ctx, repl, r.s.LostSlot == "snapshot")
		}
		r.health.alerting(lost.Error() + `. Decide by the setting lostSlot: "snapshot" tells every row anew, "continue" goes on without what is missing`)
		t := time.NewTimer(r.kind.config.WatchEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, "", ctx.Err()
		case <-t.C:
		}
	}
}

// settle decides what the stored position and the server's slot mean together.
func (r *run) settle(ctx context.Context, q, repl *session, at *position, info *slotInfo) (*position, string, error) {
	if at != nil && at.Slot != r.slot {
		// The settings name another slot now. The one that was made for us is of no use
		// to anybody any more.
		if at.Made && at.System == r.systemID() {
			if err := r.drop(ctx, q, at.Slot); err != nil {
				return nil, "", err
			}
		}
		at = nil
	}
	if info != nil {
		if info.Plugin != "pgoutput" {
			return nil, "", fmt.Errorf("slot %s is of the plugin %q, not pgoutput: name another one in the setting slot", r.slot, info.Plugin)
		}
		if rows, err := q.query(ctx, "SELECT current_database()"); err != nil || string(rows[0][0]) != info.Database {
			return nil, "", errors.Join(err, fmt.Errorf("slot %s is of the database %q: name another one in the setting slot", r.slot, info.Database))
		}
	}
	wanted := r.s.Snapshot == "initial"
	switch {
	case at != nil && at.System != r.systemID():
		return nil, "", &lostError{"the connection leads to another database system than before"}
	case at == nil && info == nil, at != nil && info == nil && at.Phase == phaseCreating:
		return r.create(ctx, repl, wanted)
	case at == nil && r.slot != r.own:
		if wanted {
			return nil, "", fmt.Errorf(`slot %s was not made by this trigger, so no snapshot can belong to it: set snapshot to "none", or leave slot out`, r.slot)
		}
		if gone := info.gone(); gone != "" {
			return nil, "", &lostError{"slot " + r.slot + ": " + gone}
		}
		at = &position{Slot: r.slot, System: r.systemID(), Phase: phaseStream}
		return at, "", r.save(ctx, at)
	case at == nil && (wanted || info.gone() != ""):
		// One of ours of which we know nothing, left by a trigger of the same name.
		if err := r.drop(ctx, q, r.slot); err != nil {
			return nil, "", err
		}
		return r.create(ctx, repl, wanted)
	case at == nil:
		at = &position{Slot: r.slot, System: r.systemID(), Phase: phaseStream, Made: true}
		return at, "", r.save(ctx, at)
	case info == nil:
		return nil, "", &lostError{"slot " + r.slot + " is gone: somebody dropped it, or the server was restored from a copy"}
	case info.gone() != "":
		return nil, "", &lostError{"slot " + r.slot + ": " + info.gone()}
	case at.Phase == phaseCreating:
		// Made, and then we ended before we could note it. Nothing was told yet.
		at.Phase, at.From = phaseStream, info.Confirmed
		if at.Snapshot {
			at.Phase = phaseSnapshot
		}
		return at, "", r.save(ctx, at)
	}
	return at, "", nil
}

// create makes the slot. The position is stored before and after, so that it is known
// whose the slot is whenever we end.
func (r *run) create(ctx context.Context, repl *session, snapshot bool) (*position, string, error) {
	at := &position{Slot: r.slot, System: r.systemID(), Phase: phaseCreating, Made: true, Snapshot: snapshot}
	if err := r.save(ctx, at); err != nil {
		return nil, "", err
	}
	export := "NOEXPORT_SNAPSHOT"
	if snapshot {
		export = "EXPORT_SNAPSHOT"
	}
	// This waits until the transactions that are under way have ended.
	rows, err := repl.command(ctx, "CREATE_REPLICATION_SLOT "+quote(r.slot)+" LOGICAL pgoutput "+export)
	if err != nil {
		return nil, "", explain("making slot "+r.slot, err)
	}
	if len(rows) != 1 || len(rows[0]) < 3 {
		return nil, "", errors.New("making slot " + r.slot + ": the server does not say where it begins")
	}
	at.From, at.Phase = string(rows[0][1]), phaseStream
	if snapshot {
		at.Phase = phaseSnapshot
	}
	return at, string(rows[0][2]), r.save(ctx, at)
}

// ensurePublication checks the operator's publication, or makes our own what the
// settings say.
func (r *run) ensurePublication(ctx context.Context, q *session) error {
	rows, err := q.query(ctx, "SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = $1", r.publication)
	if err != nil {
		return explain("looking for the publication", err)
	}
	if r.s.Publication != "" {
		if len(rows) == 0 {
			return fmt.Errorf("there is no publication %s (CREATE PUBLICATION %s FOR TABLE …)", r.publication, quote(r.publication))
		}
		published, err := r.published(ctx, q)
		if err != nil {
			return err
		}
		for _, t := range r.s.Tables {
			if !slices.Contains(published, t) {
				return fmt.Errorf("publication %s has no table %s (ALTER PUBLICATION %s ADD TABLE …)", r.publication, t, quote(r.publication))
			}
		}
		return nil
	}
	var tables []string
	for _, t := range r.s.Tables {
		q, err := r.publishable(ctx, q, t)
		if err != nil {
			return err
		}
		tables = append(tables, q)
	}
	var operations []string
	for _, o := range r.s.Operations {
		operations = append(operations, string(o))
	}
	// The changes of partitions are told as the table's.
	publish := "publish = " + literal(strings.Join(operations, ", ")) + ", publish_via_partition_root = true"
	if len(rows) == 0 {
		_, err := q.query(ctx, "CREATE PUBLICATION "+quote(r.publication)+" FOR TABLE "+strings.Join(tables, ", ")+" WITH ("+publish+")")
		if err != nil && !hasState(err, stateDuplicate) {
			return explain("making publication "+r.publication, err)
		}
		return nil
	}
	same := true
	for i, o := range []operation{opInsert, opUpdate, opDelete, opTruncate} {
		same = same && (string(rows[0][i]) == "t") == r.wants(o)
	}
	published, err := r.published(ctx, q)
	if err != nil {
		return err
	}
	wanted := slices.Sorted(slices.Values(r.s.Tables))
	if slices.Sort(published); !slices.Equal(published, wanted) {
		if _, err := q.query(ctx, "ALTER PUBLICATION "+quote(r.publication)+" SET TABLE "+strings.Join(tables, ", ")); err != nil {
			return explain("changing publication "+r.publication, err)
		}
	}
	if !same {
		if _, err := q.query(ctx, "ALTER PUBLICATION "+quote(r.publication)+" SET ("+publish+")"); err != nil {
			return explain("changing publication "+r.publication, err)
		}
	}
	return nil
}

func (r *run) published(ctx context.Context, q *session) ([]string, error) {
	rows, err := q.query(ctx, "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = $1", r.publication)
	if err != nil {
		return nil, explain("reading the publication", err)
	}
	var tables []string
	for _, row := range rows {
		tables = append(tables, string(row[0])+"."+string(row[1]))
	}
	return tables, nil
}

// publishable checks that publishing a table harms nobody: PostgreSQL refuses updates and
// deletes of a published table that has no replica identity, and so we would break the
// application that owns it.
func (r *run) publishable(ctx context.Context, q *session, name string) (string, error) {
	schema, table, _ := strings.Cut(name, ".")
	identity, kind, columns, err := q.describe(ctx, schema, table)
	switch {
	case err != nil:
		return "", err
	case len(columns) == 0:
		return "", fmt.Errorf("there is no table %s with columns, or the connection's user may not see it", name)
	case kind != 'r' && kind != 'p':
		return "", fmt.Errorf("%s is not a table: only tables have changes", name)
	}
	keyed := slices.ContainsFunc(columns, func(c column) bool { return c.key })
	if (r.wants(opUpdate) || r.wants(opDelete)) && identity != 'f' && (identity == 'n' || !keyed) {
		return "", fmt.Errorf("table %s has no replica identity, so PostgreSQL would refuse all updates and deletes of it once they are published: give it a primary key, ALTER TABLE %s.%s REPLICA IDENTITY FULL, or leave update and delete out of operations",
			name, quote(schema), quote(table))
	}
	return fromTable(kind, schema, table), nil
}

// fromTable names a table in a statement: a partitioned one with its partitions, another one
// without the tables that inherit from it, as they are tables of their own.
func fromTable(kind byte, schema, table string) string {
	name := quote(schema) + "." + quote(table)
	if kind == 'p' {
		return name
	}
	return "ONLY " + name
}

// drop drops a slot, if there is one. Somebody who still reads it is waited for; if
// that is a connection of our own that the server has not given up yet, it is ended.
func (r *run) drop(ctx context.Context, q *session, name string) error {
	for {
		info, err := q.slot(ctx, name)
		if err != nil || info == nil {
			return err
		}
		_, err = q.query(ctx, "SELECT pg_drop_replication_slot($1)", name)
		if err == nil || hasState(err, stateUndefined) {
			return nil
		}
		if !hasState(err, stateInUse) {
			return explain("dropping slot "+name, err)
		}
		// Not allowed is as good as not there: then we wait.
		_, _ = q.query(ctx, "SELECT pg_terminate_backend($1::int)", fmt.Sprint(info.PID))
		t := time.NewTimer(firstPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return explain("dropping slot "+name, err)
		case <-t.C:
		}
	}
}

// forget is Kind.Forget.
func (r *run) forget(ctx context.Context) error {
	at, err := r.load(ctx)
	if err != nil {
		return err
	}
	q, err := openSession(ctx, r.b.Connection, false)
	if err != nil {
		return err
	}
	defer q.close()
	// Without a position a slot of our own name is still nobody else's.
	slot := r.own
	if at != nil {
		slot = at.Slot
	}
	if at == nil || at.Made {
		if err := r.drop(ctx, q, slot); err != nil {
			return err
		}
	}
	if _, err := q.query(ctx, "DROP PUBLICATION IF EXISTS "+quote(r.own)); err != nil {
		return explain("dropping publication "+r.own, err)
	}
	if err := r.b.Store.Delete(ctx, positionKey); err != nil {
		return fmt.Errorf("forgetting the position: %w", err)
	}
	return nil
}

package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// data is an event's data.
type data struct {
	Schema, Table, Operation string
	Key, New, Old            map[string]any
	LSN                      string
	XID                      *int64
	Committed                *time.Time
	Unchanged                []string
	Moved                    bool
}

func decode(t testing.TB, m event.Message) data {
	t.Helper()
	var d data
	if err := json.Unmarshal(m.Data, &d); err != nil {
		t.Fatalf("%v: %s", err, m.Data)
	}
	return d
}

type settings map[string]any

// database makes a database of its own for a test.
func database(t testing.TB, p *servertest.Postgres, schema string) string {
	t.Helper()
	name := "d" + strings.ToLower(strings.NewReplacer("/", "_", "#", "_", "-", "_").Replace(t.Name()))
	name = name[:min(len(name), 60)]
	p.Do(t, "postgres", "CREATE DATABASE "+name)
	p.Do(t, name, schema)
	return name
}

func bind(t testing.TB, port int, database string, s settings) *servertest.Far {
	t.Helper()
	f := servertest.Bind(t, "postgres", s, map[string]any{"host": "127.0.0.1", "port": port, "database": database, "user": "postgres", "tls": "off"}, nil)
	f.Binding.Ref.Name = strings.ReplaceAll(database, "_", "-")
	return f
}

func kind() *postgres.Kind {
	return postgres.New(postgres.Config{StatusEvery: 200 * time.Millisecond, WatchEvery: 200 * time.Millisecond})
}

// unique gives events once each, by id, in the order of their first coming.
func unique(s *servertest.Sink) []event.Message {
	var all []event.Message
	seen := map[string]bool{}
	for _, m := range s.Events() {
		if !seen[m.ID] {
			seen[m.ID] = true
			all = append(all, m)
		}
	}
	return all
}

func operations(s *servertest.Sink) (all []string) {
	for _, m := range unique(s) {
		all = append(all, strings.TrimPrefix(m.Type, "casemate.postgres."))
	}
	return all
}

// await waits for n different events.
func await(t testing.TB, f *servertest.Far, n int) []event.Message {
	t.Helper()
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(unique(s)) >= n })
	return unique(f.Sink)
}

func TestWithAServer(t *testing.T) {
	t.Parallel()
	p := servertest.StartPostgres(t, "fsync = off")
	for name, f := range map[string]func(*testing.T, *servertest.Postgres){
		"every operation":                     everyOperation,
		"rows that share a record of the log": copied,
		"rows whole and large values":         wholeRows,
		"types":                               types,
		"schema changes mid-stream":           schemaChanges,
		"snapshot then stream":                snapshotThenStream,
		"interrupted snapshot":                interruptedSnapshot,
		"confirmed only after accept":         confirmedAfterAccept,
		"large transaction":                   largeTransaction,
		"forget":                              forget,
		"lost slot":                           lostSlot,
		"lag is an alert":                     lagAlert,
		"refusals say what to do":             refusals,
		"published by the operator":           existingPublication,
		"partitioned":                         partitioned,
		"scram and tls":                       scram,
		"table rebuilt from events":           rebuilt,
		"change too large to be read":         tooLarge,
		"refused trigger ends":                refusedEnds,
		"idle database does not hold the log": idleAdvances,
	} {
		t.Run(name, func(t *testing.T) { f(t, p) })
	}
}

func everyOperation(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text, hidden text); CREATE TABLE other (id int PRIMARY KEY)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "columns": map[string]any{"public.t": []string{"id", "v"}}})
	f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO other VALUES (1)")
	p.Do(t, db, "BEGIN; INSERT INTO t VALUES (1, 'a', 's'), (2, 'b', 's'); UPDATE t SET v = 'c' WHERE id = 1; COMMIT")
	p.Do(t, db, "UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 1; TRUNCATE t")
	events := await(t, f, 7)
	want := "insert insert update delete update delete truncate"
	if got := strings.Join(operations(f.Sink), " "); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	var last string
	for i, m := range events {
		if m.Subject != "public.t" || m.Time.IsZero() || m.Extensions["sequence"] <= last {
			t.Errorf("event %d: %+v after %s", i, m.Event, last)
		}
		last = m.Extensions["sequence"]
		if strings.Contains(string(m.Data), "hidden") {
			t.Errorf("a column that is not to be told was: %s", m.Data)
		}
	}
	if d := decode(t, events[2]); d.New["v"] != "c" || d.Old != nil || d.Key["id"] != 1.0 || *d.XID != *decode(t, events[0]).XID {
		t.Errorf("update: %s", events[2].Data)
	}
	if d := decode(t, events[3]); !d.Moved || d.Key["id"] != 2.0 || d.New != nil {
		t.Errorf("the old key of a changed key: %s", events[3].Data)
	}
	if d := decode(t, events[4]); d.Key["id"] != 3.0 || d.Old["id"] != 2.0 {
		t.Errorf("the changed key: %s", events[4].Data)
	}
	if events[0].Key == events[1].Key || events[0].Key != events[2].Key || events[3].Key != events[1].Key || events[4].Key == events[3].Key {
		t.Error("keys do not order rows")
	}
}

// copied: COPY writes many rows as one record. Ids that did not tell them apart would make
// all but the first be taken for repetitions.
func copied(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	var rows strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rows, "%d\tv%d\n", i, i)
	}
	if _, err := p.Connect(t, db).CopyFrom(t.Context(), strings.NewReader(rows.String()), "COPY t FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) >= 300 })
	records := map[string]bool{}
	for _, m := range unique(f.Sink) {
		records[m.ID[:strings.LastIndex(m.ID, "-")]] = true
	}
	if n := len(unique(f.Sink)); n != 300 || len(records) == 300 {
		t.Errorf("%d ids for 300 rows of %d records", n, len(records))
	}
}

func wholeRows(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, `CREATE TABLE f (id int PRIMARY KEY, big text, n int); ALTER TABLE f REPLICA IDENTITY FULL; ALTER TABLE f ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE k (id int PRIMARY KEY, big text, n int); ALTER TABLE k ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE nokey (a int); ALTER TABLE nokey REPLICA IDENTITY FULL`)
	f := bind(t, p.Port, db, settings{"tables": []string{"public.f", "public.k", "public.nokey"}, "operations": []string{"update", "delete"}})
	f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, `INSERT INTO f VALUES (1, repeat('x', 100000), 1); UPDATE f SET n = 2; INSERT INTO k VALUES (1, repeat('x', 100000), 1); UPDATE k SET n = 2;
		INSERT INTO nokey VALUES (1); DELETE FROM nokey`)
	events := await(t, f, 3)
	if d := decode(t, events[0]); d.Old["n"] != 1.0 || d.New["n"] != 2.0 || len(d.New["big"].(string)) != 100000 || len(d.Unchanged) != 0 || d.Key["id"] != 1.0 || len(d.Key) != 1 {
		t.Errorf("full: %.300s", events[0].Data)
	}
	if d := decode(t, events[1]); d.Old != nil || len(d.Unchanged) != 1 || d.Unchanged[0] != "big" || d.New["n"] != 2.0 {
		t.Errorf("by key: %.300s", events[1].Data)
	} else if _, ok := d.New["big"]; ok {
		t.Error("a value that was not sent is in the new row")
	}
	if d := decode(t, events[2]); d.Key != nil || d.Old["a"] != 1.0 || events[2].Key != "public.nokey" {
		t.Errorf("without key: %s, key %s", events[2].Data, events[2].Key)
	}
}

func types(t *testing.T, p *servertest.Postgres) {
	const columns = `b bool, i8 int8, num numeric, big numeric, f8 float8, j jsonb, by bytea, ts timestamp, tz timestamptz, d date, iv interval, u uuid, ai int[], at text[], e mood, mo money, nul text`
	db := database(t, p, `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE y (id int PRIMARY KEY, `+columns+`);
		ALTER DATABASE dtestwithaserver_types SET timezone = 'Asia/Tokyo'; ALTER DATABASE dtestwithaserver_types SET datestyle = 'German'; ALTER DATABASE dtestwithaserver_types SET bytea_output = 'escape'`)
	const values = `true, 9007199254740993, 1.50, 12345678901234567890.1, 1.5, '{"a":[1]}', '\x0001ff', '2024-01-02 03:04:05.5', '2024-01-02 03:04:05+02', '2024-01-02', '1 day 2 hours', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL}', '{a,"b c"}', 'ok', 5, NULL`
	p.Do(t, db, "INSERT INTO y VALUES (1, "+values+")")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.y"}, "snapshot": "initial"})
	f.Run(t, kind(), nil)
	await(t, f, 1)
	p.Do(t, db, "INSERT INTO y VALUES (2, "+values+")")
	events := await(t, f, 2)
	want := `{"b":true,"i8":"9007199254740993","num":1.50,"big":"12345678901234567890.1","f8":1.5,"j":{"a": [1]},"by":"AAH/","ts":"2024-01-02T03:04:05.5","tz":"2024-01-02T01:04:05Z","d":"2024-01-02","iv":"P1DT2H","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","ai":[1,null],"at":["a","b c"],"e":"ok","mo":"$5.00","nul":null}`
	for i, m := range events {
		var d struct{ New json.RawMessage }
		if err := json.Unmarshal(m.Data, &d); err != nil {
			t.Fatal(err)
		}
		if got := strings.Replace(string(d.New), fmt.Sprintf(`"id":%d,`, i+1), "", 1); got != want {
			t.Errorf("%s:\n got %s\nwant %s", m.Type, got, want)
		}
	}
}

func schemaChanges(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v int)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	stop := f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO t VALUES (1, 1)")
	await(t, f, 1)
	stop()
	// What was written before the change is read after it.
	p.Do(t, db, "INSERT INTO t VALUES (2, 2); ALTER TABLE t ADD w text; ALTER TABLE t ALTER v TYPE text USING v || '!'; INSERT INTO t VALUES (3, '3', 'w'); ALTER TABLE t DROP v; ALTER TABLE t RENAME w TO x; INSERT INTO t VALUES (4, 'x')")
	f.Run(t, kind(), nil)
	events := await(t, f, 4)
	for i, want := range []string{`{"id":1,"v":1}`, `{"id":2,"v":2}`, `{"id":3,"v":"3","w":"w"}`, `{"id":4,"x":"x"}`} {
		if got := string(events[i].Data); !strings.Contains(got, `"new":`+want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func snapshotThenStream(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 2000) i")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "snapshot": "initial"})
	blocked, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
		if first.CompareAndSwap(false, true) {
			close(blocked)
			<-release
		}
		return nil
	})
	f.Run(t, kind(), nil)
	<-blocked
	p.Do(t, db, "UPDATE t SET v = 'w' WHERE id = 2000; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (2001, 'n')")
	close(release)
	events := await(t, f, 2003)
	for i, m := range events[:2000] {
		d := decode(t, m)
		if m.Type != "casemate.postgres.snapshot" || d.New["v"] != "v" || d.Key["id"] == nil || d.XID != nil || len(d.New) != 2 {
			t.Fatalf("event %d: %s", i, m.Data)
		}
	}
	if got := strings.Join(operations(f.Sink)[2000:], " "); got != "update delete insert" {
		t.Error(got)
	}
	// Keys of the snapshot and of the stream must be the same for order to hold.
	if events[1999].Key != events[2000].Key {
		t.Errorf("%s and %s", events[1999].Key, events[2000].Key)
	}
}

func interruptedSnapshot(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'a' FROM generate_series(1, 700) i; INSERT INTO b SELECT i, 'b' FROM generate_series(1, 1500) i")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.a", "public.b"}, "snapshot": "initial"})
	lot := 0
	failing := make(chan struct{})
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if lot++; lot == 4 { // a is done, b is not
			close(failing)
		}
		if lot >= 4 {
			return errors.New("full")
		}
		return nil
	})
	stop := f.Run(t, kind(), nil)
	<-failing
	stop()
	p.Do(t, db, "DELETE FROM b WHERE id = 1; DELETE FROM a WHERE id = 1; UPDATE b SET v = 'c' WHERE id = 1500")
	f.Sink.SetBefore(nil)
	f.Run(t, kind(), nil)
	// 700 + 1500, of which one was not told before it was changed, and three changes.
	events := await(t, f, 2203)
	if got := rebuild(t, events, "b"); got["1"] != "" || got["1500"] != "c" || len(got) != 1499 {
		t.Errorf("%d rows, %q, %q", len(got), got["1"], got["1500"])
	}
	if got := rebuild(t, events, "a"); len(got) != 699 {
		t.Errorf("%d rows", len(got))
	}
	told := 0
	for _, m := range f.Sink.Events() {
		if m.Type == "casemate.postgres.snapshot" && strings.HasSuffix(m.Subject, ".a") {
			told++
		}
	}
	if told != 700 {
		t.Errorf("a table that was done was told again: %d rows", told)
	}
}

// rebuild applies events to an empty table of id and v.
func rebuild(t testing.TB, events []event.Message, table string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, m := range events {
		d := decode(t, m)
		if d.Table != table {
			continue
		}
		key := fmt.Sprint(d.Key["id"])
		switch d.Operation {
		case "delete":
			delete(rows, key)
		case "truncate":
			clear(rows)
		default:
			rows[key] = fmt.Sprint(d.New["v"])
		}
	}
	return rows
}

// fence waits until everything that is committed by now has come.
func fence(t testing.TB, p *servertest.Postgres, f *servertest.Far, db, mark string) {
	t.Helper()
	p.Do(t, db, "INSERT INTO fence VALUES ('"+mark+"')")
	seen := 0
	f.Sink.Wait(t, func(s *servertest.Sink) bool {
		all := s.Events()
		for ; seen < len(all); seen++ {
			if m := all[seen]; m.Subject == "public.fence" && strings.Contains(string(m.Data), `"`+mark+`"`) {
				return true
			}
		}
		return false
	})
}

// contents reads a table of id and v.
func contents(t testing.TB, p *servertest.Postgres, db, table string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, r := range p.Do(t, db, "SELECT id, v FROM "+table) {
		rows[r[0]] = r[1]
	}
	return rows
}

func rebuilt(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE fence (m text PRIMARY KEY); INSERT INTO t SELECT i, 'start' FROM generate_series(1, 20) i")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t", "public.fence"}, "snapshot": "initial"})
	var fail atomic.Bool
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if fail.CompareAndSwap(true, false) {
			return errors.New("not now")
		}
		return nil
	})
	stop := f.Run(t, kind(), nil)
	await(t, f, 20) // from here on the fence comes behind what it fences
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			var sql []string
			for range rapid.IntRange(1, 5).Draw(rt, "statements") {
				id, to := rapid.IntRange(1, 12).Draw(rt, "id"), rapid.IntRange(1, 12).Draw(rt, "to")
				n++
				switch rapid.IntRange(0, 9).Draw(rt, "what") {
				case 0, 1, 2:
					sql = append(sql, fmt.Sprintf("INSERT INTO t VALUES (%d, 'v%d') ON CONFLICT (id) DO UPDATE SET v = excluded.v", id, n))
				case 3, 4:
					sql = append(sql, fmt.Sprintf("UPDATE t SET v = 'v%d' WHERE id = %d", n, id))
				case 5, 6:
					sql = append(sql, fmt.Sprintf("DELETE FROM t WHERE id = %d", id))
				case 7, 8:
					sql = append(sql, fmt.Sprintf("UPDATE t SET id = %d WHERE id = %d AND NOT EXISTS (SELECT 1 FROM t WHERE id = %[1]d)", to, id))
				case 9:
					sql = append(sql, "TRUNCATE t")
				}
			}
			end := rapid.SampledFrom([]string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}).Draw(rt, "end")
			p.Do(t, db, "BEGIN;"+strings.Join(sql, ";")+";"+end)
			switch rapid.IntRange(0, 30).Draw(rt, "fault") {
			case 0:
				stop()
				stop = f.Run(t, kind(), nil)
			case 1:
				p.Do(t, "postgres", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL AND database = '"+db+"'")
			case 2:
				fail.Store(true)
			}
		}
		n++
		fence(t, p, f, db, fmt.Sprint("f", n))
		got, want := rebuild(t, unique(f.Sink), "t"), contents(t, p, db, "t")
		if !maps.Equal(got, want) {
			rt.Fatalf("rebuilt %v, the table has %v", got, want)
		}
	})
}

package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
	"github.com/casemate-dev/casemate/internal/source/outbox"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// client is one connection to a server: it runs a statement and gives the first value
// of what it returns.
type client func(statement string) (string, error)

// server is what the suite needs of a server; it runs on both.
type server struct {
	name, serial, payload, text string
	open                        func(testing.TB) client
	kill, restart               func()
	connection                  map[string]any
	secrets                     map[string]string
}

func servers(t *testing.T, name string) *server {
	if name == "mysql" {
		m := servertest.StartMariaDB(t)
		return &server{
			name: "mysql", serial: "BIGINT AUTO_INCREMENT PRIMARY KEY", payload: "LONGBLOB", text: "VARCHAR(200)", kill: m.Kill, restart: m.Restart,
			open: func(t testing.TB) client {
				c, err := m.Open(t).Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return func(q string) (first string, err error) {
					if !strings.HasPrefix(q, "SELECT") {
						_, err = c.ExecContext(t.Context(), q)
						return "", err
					}
					return first, c.QueryRowContext(t.Context(), q).Scan(&first)
				}
			},
			connection: map[string]any{"host": "127.0.0.1", "port": m.Port, "database": "casemate", "user": "casemate", "tls": "off"},
			secrets:    map[string]string{"password": "secret"},
		}
	}
	p := servertest.StartPostgres(t)
	return &server{
		name: "postgres", serial: "bigserial PRIMARY KEY", payload: "bytea", text: "text", kill: p.Kill, restart: p.Restart,
		open: func(t testing.TB) client {
			c := p.Connect(t, "postgres")
			return func(q string) (string, error) {
				results, err := c.Exec(t.Context(), q).ReadAll()
				if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
					return "", err
				}
				return string(results[0].Rows[0][0]), nil
			}
		},
		connection: map[string]any{"host": "127.0.0.1", "port": p.Port, "database": "postgres", "user": "postgres", "tls": "off"},
	}
}

func (s *server) bind(t testing.TB, settings map[string]any) *servertest.Far {
	f := servertest.Bind(t, s.name, settings, s.connection, s.secrets)
	return f
}

// run runs the kind with the connections of the server.
func run(t testing.TB, s *server, f *servertest.Far) func() {
	return f.Run(t, struct {
		*outbox.Kind
		database.Connections
	}{outbox.New(), database.Connections{Kind: s.name}}, s.secrets)
}

func exec(t testing.TB, c client, q string) {
	t.Helper()
	if _, err := c(q); err != nil {
		t.Fatalf("%.200s: %v", q, err)
	}
}

func count(t testing.TB, c client, q string) int {
	t.Helper()
	first, err := c(q)
	n, bad := strconv.Atoi(first)
	if err != nil || bad != nil {
		t.Fatalf("%s: %v, %v", q, err, bad)
	}
	return n
}

func empty(t testing.TB, db client, q string) {
	t.Helper()
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if n := count(t, db, q); n != 0 {
			return fmt.Errorf("%d rows are left", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func full(table string) map[string]any {
	return map[string]any{
		"table": table, "pollMillis": 10, "maxPollMillis": 50, "batch": 10,
		"columns": map[string]string{"id": "id", "type": "kind", "subject": "subject", "key": "k", "payload": "payload", "created": "created"},
	}
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mysql", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers(t, name)
			db := s.open(t)
			create := func(table string) {
				exec(t, db, fmt.Sprintf("CREATE TABLE %s (id %s, kind %s, subject %[3]s, k %[3]s, payload %s, created timestamp NULL DEFAULT CURRENT_TIMESTAMP, done timestamp NULL)", table, s.serial, s.text, s.payload))
			}
			t.Run("rows", func(t *testing.T) { create("o1"); rows(t, s, db) })
			t.Run("a lower id that commits later", func(t *testing.T) { create("o2"); gap(t, s, db) })
			t.Run("deleted only after accept", func(t *testing.T) { create("o3"); deletedAfterAccept(t, s, db) })
			t.Run("marked", func(t *testing.T) { create("o4"); marked(t, s, db) })
			t.Run("one reader", func(t *testing.T) { create("o5"); oneReader(t, s, db) })
			t.Run("ids given out again", func(t *testing.T) { create("o6"); idsAgain(t, s, db) })
			t.Run("oversized", func(t *testing.T) { create("o7"); oversized(t, s, db) })
			t.Run("killed server", func(t *testing.T) { create("o8"); killed(t, s) }) // the last one
		})
	}
}

func rows(t *testing.T, s *server, db client) {
	f := s.bind(t, full("o1"))
	run(t, s, f)
	exec(t, db, `INSERT INTO o1 (kind, subject, k, payload, created) VALUES ('order.created', 's/1', 'k1', '{"n":1}', '2024-01-02 03:04:05'), ('casemate.webhook.github.push', NULL, NULL, 'é', NULL)`)
	f.Sink.Different(t, 2)
	e := f.Sink.Events()
	if m := e[0]; m.Type != "order.created" || m.Subject != "s/1" || m.Key != "k1" || string(m.Data) != `{"n":1}` || m.Time.Format("2006-01-02T15:04:05Z07:00") != "2024-01-02T03:04:05Z" || m.DataContentType != "application/json" {
		t.Errorf("%+v", m)
	}
	if m := e[1]; m.Type != "casemate.outbox.message" || m.Detail["outbox.type"] == "" || string(m.Data) != "é" || m.Key != "" {
		t.Errorf("a type of the platform was forged, or worse: %+v", m)
	}
	empty(t, db, "SELECT COUNT(*) FROM o1")
}

func gap(t *testing.T, s *server, db client) {
	f := s.bind(t, full("o2"))
	run(t, s, f)
	slow := s.open(t)
	exec(t, slow, "BEGIN")
	exec(t, slow, "INSERT INTO o2 (payload) VALUES ('low')")
	exec(t, db, "INSERT INTO o2 (payload) VALUES ('high')")
	f.Sink.Different(t, 1) // nobody waits for the slow one
	exec(t, slow, "COMMIT")
	if got := f.Sink.Different(t, 2); !slices.Equal(got, []string{"high", "low"}) {
		t.Error(got)
	}
	rolledBack := s.open(t)
	exec(t, rolledBack, "BEGIN")
	exec(t, rolledBack, "INSERT INTO o2 (payload) VALUES ('never')")
	exec(t, rolledBack, "ROLLBACK")
	exec(t, db, "INSERT INTO o2 (payload) VALUES ('last')")
	if got := f.Sink.Different(t, 3); got[2] != "last" {
		t.Error(got)
	}
}

func deletedAfterAccept(t *testing.T, s *server, db client) {
	f := s.bind(t, full("o3"))
	var tries atomic.Int64
	held := make(chan struct{})
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if tries.Add(1) == 1 {
			return errors.New("full")
		}
		<-held
		return nil
	})
	run(t, s, f)
	exec(t, db, "INSERT INTO o3 (payload) VALUES ('a'), ('b')")
	f.Health.Wait(t, 0, source.Failing)
	if n := count(t, db, "SELECT COUNT(*) FROM o3"); n != 2 {
		t.Errorf("%d rows are left of 2 that were not taken", n)
	}
	// While the function is slow nobody else waits.
	exec(t, db, "INSERT INTO o3 (payload) VALUES ('c')")
	exec(t, db, "UPDATE o3 SET kind = 'x' WHERE kind IS NULL")
	close(held)
	f.Sink.Different(t, 3)
	empty(t, db, "SELECT COUNT(*) FROM o3")
}

func marked(t *testing.T, s *server, db client) {
	settings := full("o4")
	settings["after"], settings["markColumn"] = "mark", "done"
	f := s.bind(t, settings)
	stop := run(t, s, f)
	for i := range 25 {
		exec(t, db, fmt.Sprintf("INSERT INTO o4 (payload) VALUES ('%d')", i))
	}
	f.Sink.Different(t, 25)
	empty(t, db, "SELECT COUNT(*) FROM o4 WHERE done IS NULL")
	stop()
	if n := count(t, db, "SELECT COUNT(*) FROM o4"); n != 25 {
		t.Errorf("%d rows are left", n)
	}
	run(t, s, f)
	exec(t, db, "INSERT INTO o4 (payload) VALUES ('new')")
	f.Sink.Different(t, 26)
	if n := len(f.Sink.Events()); n != 26 {
		t.Errorf("%d events: marked rows were told again", n)
	}
}

func oneReader(t *testing.T, s *server, db client) {
	first, second := s.bind(t, full("o5")), s.bind(t, full("o5"))
	stop := run(t, s, first)
	_, _ = first.Health.Wait(t, 0, source.Running)
	run(t, s, second)
	if h, _ := second.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "another reader") {
		t.Error(h.Reason)
	}
	stop()
	exec(t, db, "INSERT INTO o5 (payload) VALUES ('a')")
	second.Sink.Different(t, 1)
	if len(first.Sink.Events()) != 0 {
		t.Error("both read")
	}
}

func idsAgain(t *testing.T, s *server, db client) {
	f := s.bind(t, full("o6"))
	run(t, s, f)
	for _, p := range []string{"a", "b"} {
		exec(t, db, "INSERT INTO o6 (id, payload) VALUES (7, '"+p+"')")
		f.Sink.Wait(t, func(s *servertest.Sink) bool { return slices.Contains(s.Data(), p) })
		empty(t, db, "SELECT COUNT(*) FROM o6")
	}
	if e := f.Sink.Events(); e[0].ID == e[1].ID {
		t.Errorf("two rows share the id %s: the second one would be taken for a repetition", e[0].ID)
	}
}

func oversized(t *testing.T, s *server, db client) {
	f := s.bind(t, full("o7"))
	run(t, s, f)
	repeat := "repeat('x', %d)"
	if s.name == "postgres" {
		repeat = "repeat('x', %d)::bytea"
	}
	exec(t, db, fmt.Sprintf("INSERT INTO o7 (payload) VALUES ("+repeat+"), ("+repeat+")", event.MaxData+1, event.MaxData))
	exec(t, db, "INSERT INTO o7 (payload) VALUES ('next')")
	f.Sink.Different(t, 3)
	e := f.Sink.Events()
	if len(e[0].Data) != 0 || e[0].Detail["outbox.oversized"] != fmt.Sprint(event.MaxData+1) || len(e[1].Data) != event.MaxData {
		t.Errorf("%d bytes, %v, then %d bytes", len(e[0].Data), e[0].Detail, len(e[1].Data))
	}
}

func killed(t *testing.T, s *server) {
	f := s.bind(t, full("o8"))
	run(t, s, f)
	f.Health.Wait(t, 0, source.Running)
	var want []string
	for round := range 3 {
		db := s.open(t)
		for i := range 40 {
			want = append(want, fmt.Sprintf("%d-%d", round, i))
			exec(t, db, fmt.Sprintf("INSERT INTO o8 (k, payload) VALUES ('k', '%s')", want[len(want)-1]))
		}
		s.kill()
		s.restart()
	}
	if got := f.Sink.Different(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSettingsNameTheField(t *testing.T) {
	t.Parallel()
	for raw, field := range map[string]string{
		`{}`:                                        "table",
		`{"table":"a.b.c"}`:                         "table",
		`{"table":"t","columns":{"id":""}}`:         "columns.id",
		`{"table":"t","after":"keep"}`:              "after",
		`{"table":"t","after":"mark"}`:              "markColumn",
		`{"table":"t","batch":100000}`:              "batch",
		`{"table":"t","pollMillis":1}`:              "pollMillis",
		`{"table":"t","dsn":"root:secret@tcp(db)"}`: "dsn",
	} {
		var fe *source.FieldError
		if err := outbox.New().Check(&function.Trigger{Connection: "db", Settings: json.RawMessage(raw)}); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v, want field %s", raw, err, field)
		}
	}
}

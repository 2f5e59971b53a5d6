package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

func confirmedAfterAccept(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "slot": "confirmed"})
	tried := make(chan struct{}, 100)
	var open atomic.Bool
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if open.Load() {
			return nil
		}
		select {
		case tried <- struct{}{}:
		default:
		}
		return errors.New("full")
	})
	stop := f.Run(t, kind(), nil)
	_, n := f.Health.Wait(t, 0, source.Running)
	confirmed := func() string {
		return p.Do(t, db, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'confirmed'")[0][0]
	}
	p.Do(t, db, "INSERT INTO t VALUES (1, 'a')")
	behind := p.Do(t, db, "SELECT pg_current_wal_lsn()")[0][0]
	f.Health.Wait(t, n, source.Failing)
	for range 3 { // over which it talks to the server, too
		<-tried
	}
	if p.Do(t, db, fmt.Sprintf("SELECT '%s'::pg_lsn < '%s'::pg_lsn", confirmed(), behind))[0][0] != "t" {
		t.Error("the server was told that a change is done with before it was taken")
	}
	stop()
	open.Store(true)
	stop = f.Run(t, kind(), nil)
	first := await(t, f, 1)[0]
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if p.Do(t, db, fmt.Sprintf("SELECT '%s'::pg_lsn >= '%s'::pg_lsn", confirmed(), behind))[0][0] != "t" {
			return errors.New("the server does not know that the change was taken")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	stop()
	// What was confirmed does not come again; and what comes again has the same id.
	f.Run(t, kind(), nil)
	p.Do(t, db, "INSERT INTO t VALUES (2, 'b')")
	if all := await(t, f, 2); all[0].ID != first.ID || len(f.Sink.Events()) != 2 {
		t.Errorf("%d events", len(f.Sink.Events()))
	}
}

func largeTransaction(t *testing.T, p *servertest.Postgres) {
	const rows = 20000
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	var lots, largest, half atomic.Int64
	f.Sink.SetBefore(func(_ context.Context, m []event.Message) error {
		lots.Add(1)
		largest.Store(max(largest.Load(), int64(len(m))))
		if lots.Load() == 10 {
			half.Store(1)
			return errors.New("not now")
		}
		return nil
	})
	stop := f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, fmt.Sprintf("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, %d) i", rows))
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) > rows/4 })
	stop() // in the middle of the transaction
	f.Run(t, kind(), nil)
	all := await(t, f, rows)
	if got := rebuild(t, all, "t"); len(got) != rows || len(all) != rows {
		t.Errorf("%d rows of %d events", len(got), len(all))
	}
	if largest.Load() > 512 || half.Load() != 1 {
		t.Errorf("up to %d events at once", largest.Load())
	}
}

func forget(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	stop := f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	stop()
	count := func() string {
		return p.Do(t, db, "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication)")[0][0]
	}
	if count() != "2" {
		t.Fatalf("%s slots and publications before", count())
	}
	if err := kind().Forget(t.Context(), f.Binding); err != nil {
		t.Fatal(err)
	}
	if count() != "0" {
		t.Errorf("%s slots and publications are left", count())
	}
	if err := kind().Forget(t.Context(), f.Binding); err != nil {
		t.Errorf("the second time: %v", err)
	}
	// What the operator made stays.
	p.Do(t, db, "CREATE PUBLICATION pub FOR TABLE t")
	p.Do(t, db, "SELECT pg_create_logical_replication_slot('theirs_forget', 'pgoutput')")
	f = bind(t, p.Port, db, settings{"publication": "pub", "slot": "theirs_forget"})
	stop = f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	stop()
	if err := kind().Forget(t.Context(), f.Binding); err != nil {
		t.Fatal(err)
	}
	if count() != "2" {
		t.Error("the operator's slot or publication was dropped")
	}
}

func lostSlot(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "slot": "lost", "snapshot": "none"})
	stop := f.Run(t, kind(), nil)
	_, n := f.Health.Wait(t, 0, source.Running)
	stop()
	if err := servertest.Eventually(t.Context(), func(ctx context.Context) error {
		_, err := p.Connect(t, db).Exec(ctx, "SELECT pg_drop_replication_slot('lost')").ReadAll()
		return err // while the server has not noticed that nobody reads it
	}); err != nil {
		t.Fatal(err)
	}
	p.Do(t, db, "INSERT INTO t VALUES (1, 'missed')")
	stop = f.Run(t, kind(), nil)
	h, n := f.Health.Wait(t, n, source.Alert)
	if !strings.Contains(h.Reason, "missing") || !strings.Contains(h.Reason, "lostSlot") {
		t.Error(h.Reason)
	}
	if got := p.Do(t, db, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'lost'")[0][0]; got != "0" {
		t.Error("the slot was made again before anybody decided")
	}
	stop()
	if len(f.Sink.Events()) != 0 {
		t.Error("events came")
	}
	f.Binding.Trigger.Settings = []byte(`{"tables":["public.t"],"slot":"lost","lostSlot":"snapshot"}`)
	f.Run(t, kind(), nil)
	f.Health.Wait(t, n, source.Running)
	p.Do(t, db, "INSERT INTO t VALUES (2, 'after')")
	await(t, f, 2)
	if got := strings.Join(operations(f.Sink), " "); got != "snapshot insert" {
		t.Error(got)
	}
}

func lagAlert(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "lagAlertBytes": 1 << 20})
	release := make(chan struct{})
	f.Sink.SetBefore(func(context.Context, []event.Message) error { <-release; return nil })
	f.Run(t, kind(), nil)
	_, n := f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i")
	h, n := f.Health.Wait(t, n, source.Alert)
	if h.Lag < 1<<20 || !strings.Contains(h.Reason, "bytes behind") {
		t.Errorf("%+v", h)
	}
	close(release)
	f.Health.Wait(t, n, source.Running)
}

func refusals(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, `CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE nokey (a int); CREATE VIEW v AS SELECT 1 AS a;
		CREATE ROLE weak LOGIN; CREATE ROLE reader LOGIN REPLICATION; CREATE PUBLICATION pub FOR TABLE t`)
	for name, tc := range map[string]struct {
		user string
		s    settings
		want string
	}{
		"no key":             {"postgres", settings{"tables": []string{"public.nokey"}}, "REPLICA IDENTITY FULL"},
		"no table":           {"postgres", settings{"tables": []string{"public.nothing"}}, "there is no table public.nothing"},
		"a view":             {"postgres", settings{"tables": []string{"public.v"}}, "not a table"},
		"no publication":     {"postgres", settings{"publication": "nothing"}, "CREATE PUBLICATION"},
		"not published":      {"postgres", settings{"publication": "pub", "tables": []string{"public.nokey"}}, "ALTER PUBLICATION"},
		"not replicating":    {"weak", settings{"publication": "pub"}, "ALTER ROLE"},
		"not owner":          {"reader", settings{"tables": []string{"public.t"}}, "publication"},
		"no right to select": {"reader", settings{"publication": "pub", "snapshot": "initial"}, "GRANT"},
	} {
		t.Run(name, func(t *testing.T) {
			f := servertest.Bind(t, "postgres", tc.s, map[string]any{"host": "127.0.0.1", "port": p.Port, "database": db, "user": tc.user, "tls": "off"}, nil)
			f.Binding.Ref.Name = "refusal-" + strings.ReplaceAll(name, " ", "-")
			p.Do(t, db, "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING")
			f.Run(t, kind(), nil)
			if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, tc.want) {
				t.Errorf("%q does not say %q", h.Reason, tc.want)
			}
		})
	}
	// The application whose table was refused goes on.
	p.Do(t, db, "INSERT INTO nokey VALUES (1); UPDATE nokey SET a = 2")
}

func existingPublication(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, `CREATE TABLE t (id int PRIMARY KEY, v text, secret text); CREATE PUBLICATION pub FOR TABLE t (id, v) WHERE (id > 10);
		INSERT INTO t VALUES (1, 'low', 's'), (11, 'high', 's')`)
	f := bind(t, p.Port, db, settings{"publication": "pub", "snapshot": "initial"})
	f.Run(t, kind(), nil)
	await(t, f, 1)
	p.Do(t, db, "INSERT INTO t VALUES (2, 'low', 's'), (12, 'high', 's')")
	for _, m := range await(t, f, 2) {
		if d := decode(t, m); d.New["v"] != "high" || len(d.New) != 2 {
			t.Errorf("the publication does not publish this: %s", m.Data)
		}
	}
}

func partitioned(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
		CREATE TABLE t2 (v text, id int NOT NULL); ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1, 'a'), (11, 'b')`)
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "snapshot": "initial"})
	f.Run(t, kind(), nil)
	await(t, f, 2)
	p.Do(t, db, "UPDATE t SET v = 'c'")
	events := await(t, f, 4)
	if got := rebuild(t, events, "t"); !maps.Equal(got, map[string]string{"1": "c", "11": "c"}) {
		t.Error(got)
	}
}

func scram(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'geheim'")
	for password, want := range map[string]source.State{"geheim\n": source.Running, "wrong": source.Failing} {
		secrets := map[string]string{"password": password}
		f := servertest.Bind(t, "postgres", settings{"tables": []string{"public.t"}}, map[string]any{"host": "localhost", "port": p.Port, "database": db, "user": "scram", "tls": "off"}, secrets)
		f.Binding.Ref.Name = "scram-" + string(want)
		stop := f.Run(t, kind(), secrets)
		h, _ := f.Health.Wait(t, 0, want)
		if strings.Contains(h.Reason, password) || (want == source.Failing && !strings.Contains(h.Reason, "secret password")) {
			t.Errorf("%+v", h)
		}
		stop()
	}
	// A server that trusts whoever comes is not one that knows the password.
	secrets := map[string]string{"password": "geheim"}
	f := servertest.Bind(t, "postgres", settings{"tables": []string{"public.t"}}, map[string]any{"host": "127.0.0.1", "port": p.Port, "database": db, "user": "postgres", "tls": "off"}, secrets)
	f.Run(t, kind(), secrets)
	f.Health.Wait(t, 0, source.Failing)
	// Without being told to, nothing goes in plain text: this server has no TLS.
	f = servertest.Bind(t, "postgres", settings{"tables": []string{"public.t"}}, map[string]any{"host": "127.0.0.1", "port": p.Port, "database": db, "user": "postgres"}, nil)
	f.Run(t, kind(), nil)
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(strings.ToLower(h.Reason), "tls") {
		t.Error(h.Reason)
	}
}

func tooLarge(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text, w text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO t VALUES (1, repeat('x', 40000000), 'w'); INSERT INTO t VALUES (2, repeat('x', 8000000), 'w'); INSERT INTO t VALUES (3, 'v', 'w')")
	events := await(t, f, 3)
	if s := string(events[0].Data); !strings.Contains(s, `"omittedBytes":400`) || len(s) > 1000 {
		t.Errorf("%.300s", s)
	}
	if s := string(events[1].Data); !strings.Contains(s, `"omitted":["v"]`) || !strings.Contains(s, `"w":"w"`) {
		t.Errorf("%.300s", s)
	}
	if d := decode(t, events[2]); d.New["v"] != "v" {
		t.Errorf("%s", events[2].Data)
	}
}

func refusedEnds(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}})
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		return fmt.Errorf("the trigger has gone: %w", source.ErrRefused)
	})
	ended := make(chan error, 1)
	go func() { ended <- kind().Run(t.Context(), f.Binding) }()
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO t VALUES (1)")
	if err := <-ended; !errors.Is(err, source.ErrRefused) {
		t.Error(err)
	}
}

func idleAdvances(t *testing.T, p *servertest.Postgres) {
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE busy (v text)")
	f := bind(t, p.Port, db, settings{"tables": []string{"public.t"}, "slot": "idle"})
	f.Run(t, kind(), nil)
	f.Health.Wait(t, 0, source.Running)
	p.Do(t, db, "INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
	target := p.Do(t, db, "SELECT pg_current_wal_lsn()")[0][0]
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if p.Do(t, db, "SELECT confirmed_flush_lsn >= '"+target+"'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'idle'")[0][0] != "t" {
			return errors.New("the slot holds log that holds nothing for us")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestKilledServerAndCutConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	p := servertest.StartPostgres(t)
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE fence (m text PRIMARY KEY); INSERT INTO t VALUES (0, 'first')")
	proxy := servertest.NewProxy(t, p.Port)
	f := bind(t, proxy.Port, db, settings{"tables": []string{"public.t", "public.fence"}, "snapshot": "initial"})
	var count atomic.Int64
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		switch n := count.Add(1); {
		case n%13 == 0:
			return errors.New("not now")
		case n%17 == 0:
			proxy.Cut()
		}
		return nil
	})
	f.Run(t, postgres.New(postgres.Config{StatusEvery: 50 * time.Millisecond}), nil)
	f.Health.Wait(t, 0, source.Running)
	await(t, f, 1)
	kills := 4
	if testing.Short() {
		kills = 1
	}
	id := 0
	for kill := range kills {
		for range 60 {
			id++
			p.Do(t, db, fmt.Sprintf("BEGIN; INSERT INTO t SELECT i, 'a%d' FROM generate_series(%d, %d) i; UPDATE t SET v = 'b%[1]d' WHERE id = %[2]d; DELETE FROM t WHERE id = %[2]d - 7; COMMIT", id, id*10, id*10+5))
		}
		p.Kill()
		p.Restart()
		p.Do(t, db, fmt.Sprintf("UPDATE t SET v = 'after %d' WHERE id = 0", kill))
	}
	fence(t, p, f, db, "end")
	all := unique(f.Sink)
	if got, want := rebuild(t, all, "t"), contents(t, p, db, "t"); !maps.Equal(got, want) {
		t.Errorf("rebuilt %d rows, the table has %d", len(got), len(want))
	}
	last := map[string]string{}
	for _, m := range all {
		if s := m.Extensions["sequence"]; s != "" && s <= last[m.Key] {
			t.Fatalf("key %s: %s after %s", m.Key, s, last[m.Key])
		} else if s != "" {
			last[m.Key] = s
		}
	}
	if proxy.Made() < 4 {
		t.Errorf("only %d connections: nothing was cut", proxy.Made())
	}
	t.Logf("%d events, %d with repetitions, %d connections", len(all), len(f.Sink.Events()), proxy.Made())
}

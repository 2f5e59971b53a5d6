package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	envelope "github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

const (
	rowsAlone  = 300     // transactions of one row, one after another
	rowsAtOnce = 100_000 // in transactions of 100
	insertRow  = "INSERT INTO t (v) VALUES (repeat('x', 400))"
)

// BenchmarkEventsPostgres measures from the moment that a transaction begins until its row
// was done by the function (ours), or was decoded by a client of pgoutput that does nothing
// with it (alone); and rows per second, of those that wait.
func BenchmarkEventsPostgres(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		p := servertest.StartPostgres(b, "max_wal_size = 4GB")
		p.Do(b, "postgres", "CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
		done := make(chan struct{}, 1)
		way := openPath(b, func(*envelope.Message) {
			select {
			case done <- struct{}{}:
			default: // of the many at once only the number counts
			}
		})
		way.bind(b, 64)
		stop := listenTo(b, way, p.Port)
		c := p.Connect(b, "postgres")
		rowLatency(b, c, func() { <-done })
		stop()
		fillRows(b, c)
		first, began := way.ended.Load(), time.Now()
		stop = listenTo(b, way, p.Port)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for way.ended.Load()-first < rowsAtOnce {
			<-tick.C
		}
		b.ReportMetric(rowsAtOnce/time.Since(began).Seconds(), "rows/s")
		stop()
	})
	b.Run("alone", func(b *testing.B) {
		p := servertest.StartPostgres(b, "max_wal_size = 4GB")
		p.Do(b, "postgres", "CREATE TABLE t (id bigserial PRIMARY KEY, v text); CREATE PUBLICATION bench FOR TABLE t")
		p.Do(b, "postgres", "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
		d := decode(b, p)
		c := p.Connect(b, "postgres")
		rowLatency(b, c, func() { d.rows(b, 1) })
		d.close(b)
		fillRows(b, c)
		began := time.Now()
		d = decode(b, p)
		d.rows(b, rowsAtOnce)
		b.ReportMetric(rowsAtOnce/time.Since(began).Seconds(), "rows/s")
		d.close(b)
	})
}

func rowLatency(b *testing.B, c *pgconn.PgConn, wait func()) {
	b.Helper()
	latency(b, rowsAlone, func(int64) error {
		if _, err := c.Exec(context.Background(), insertRow).ReadAll(); err != nil {
			return err
		}
		wait()
		return nil
	})
}

func fillRows(b *testing.B, c *pgconn.PgConn) {
	b.Helper()
	for range rowsAtOnce / 100 {
		if _, err := c.Exec(context.Background(), insertRow+", "+manyRows).ReadAll(); err != nil {
			b.Fatal(err)
		}
	}
}

// manyRows are 99 more.
var manyRows = func() string {
	s := ""
	for i := range 99 {
		if i > 0 {
			s += ","
		}
		s += "(repeat('x', 400))"
	}
	return s
}()

// listenTo runs the source until stop is called.
func listenTo(b *testing.B, way *path, port int) (stop func()) {
	b.Helper()
	kv, err := way.bus.KV(context.Background(), "sources")
	if err != nil {
		b.Fatal(err)
	}
	t := function.Trigger{Name: inbox.Trigger, Kind: postgres.Name, Connection: "far", NoSchema: "rows", Settings: json.RawMessage(`{"tables":["public.t"]}`)}
	kind := postgres.New(postgres.Config{})
	if err := kind.Check(&t); err != nil {
		b.Fatal(err)
	}
	running, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- kind.Run(ctx, source.Binding{
			Ref: benched, Trigger: t, Sink: way.door(b), Store: rowStore{kv}, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
			Connection: &source.Connection{
				Namespace: benched.Namespace, Name: "far", Kind: postgres.Name,
				Settings: json.RawMessage(fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"database":"postgres","user":"postgres","tls":"off"}`, port)),
				Secret:   func(string) ([]byte, error) { return nil, fmt.Errorf("there is none") },
			},
			Report: func(h source.Health) {
				if h.State == source.Running {
					once.Do(func() { close(running) })
				}
			},
		})
	}()
	select {
	case <-running:
	case err := <-ended:
		b.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// decoder reads a replication stream and takes nothing of it apart but what kind of
// message it holds.
type decoder struct{ conn *pgconn.PgConn }

func decode(b *testing.B, p *servertest.Postgres) *decoder {
	b.Helper()
	c, err := pgconn.Connect(context.Background(), p.URL("postgres")+"&replication=database")
	if err != nil {
		b.Fatal(err)
	}
	c.Frontend().Send(&pgproto3.Query{String: `START_REPLICATION SLOT bench LOGICAL 0/0 (proto_version '1', publication_names 'bench')`})
	if err := c.Frontend().Flush(); err != nil {
		b.Fatal(err)
	}
	for {
		m, err := c.ReceiveMessage(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := m.(*pgproto3.CopyBothResponse); ok {
			return &decoder{c}
		}
	}
}

// rows waits for so many inserted rows.
func (d *decoder) rows(b *testing.B, n int) {
	b.Helper()
	for n > 0 {
		m, err := d.conn.ReceiveMessage(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		data, ok := m.(*pgproto3.CopyData)
		const head = 1 + 8 + 8 + 8 // XLogData, see the manual's chapter on the replication protocol
		if ok && len(data.Data) > head && data.Data[0] == 'w' && data.Data[head] == 'I' {
			n--
		}
	}
}

func (d *decoder) close(b *testing.B) {
	b.Helper()
	if err := d.conn.Close(context.Background()); err != nil {
		b.Error(err)
	}
}

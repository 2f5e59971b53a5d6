package postgres_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// benchServer syncs as a server of consequence does.
func benchServer(b *testing.B) (*servertest.Postgres, string) {
	b.Helper()
	p := servertest.StartPostgres(b, "max_wal_size = 4GB")
	return p, database(b, p, "CREATE TABLE t (id bigserial PRIMARY KEY, customer int, v text)")
}

// BenchmarkCommitToAccept measures from the moment a commit returned to the client until
// its event was handed in, one transaction at a time. Below zero means that the event came
// before the client heard of its commit.
func BenchmarkCommitToAccept(b *testing.B) {
	p, db := benchServer(b)
	f := bind(b, p.Port, db, settings{"tables": []string{"public.t"}})
	came := make(chan time.Time, 1)
	f.Sink.SetBefore(func(_ context.Context, m []event.Message) error {
		if len(m) > 0 {
			came <- time.Now()
		}
		return nil
	})
	f.Run(b, kind(), nil)
	f.Health.Wait(b, 0, source.Running)
	c := p.Connect(b, db)
	var commits, totals []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := c.Exec(b.Context(), "INSERT INTO t (customer, v) VALUES (7, repeat('x', 400))").ReadAll(); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		at := <-came
		commits = append(commits, at.Sub(committed))
		totals = append(totals, at.Sub(began))
	}
	for name, d := range map[string][]time.Duration{"commit-to-accept": commits, "statement-to-accept": totals} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), name+"-p99-µs")
	}
}

// BenchmarkRows measures how fast rows that wait in the log are told, beside
// pg_recvlogical with the output plugin test_decoding, and with pgoutput as we ask for it,
// for the same rows on the same server, one after another. It goes over the rows once.
func BenchmarkRows(b *testing.B) {
	const rows, each = 200_000, 100 // rows in all, and in one transaction
	p, db := benchServer(b)
	program := servertest.Program(b, "pg_recvlogical")
	f := bind(b, p.Port, db, settings{"tables": []string{"public.t"}})
	stop := f.Run(b, kind(), nil) // makes the publication and the slot
	f.Health.Wait(b, 0, source.Running)
	stop()
	for _, plugin := range []string{"test_decoding", "pgoutput"} {
		p.Do(b, db, "SELECT pg_create_logical_replication_slot('bench_"+plugin+"', '"+plugin+"')")
	}
	c := p.Connect(b, db)
	for i := 0; i < rows; i += each {
		if _, err := c.Exec(b.Context(), fmt.Sprintf("INSERT INTO t (customer, v) SELECT i, repeat('x', 400) FROM generate_series(1, %d) i", each)).ReadAll(); err != nil {
			b.Fatal(err)
		}
	}
	end := p.Do(b, db, "SELECT pg_current_wal_lsn()")[0][0]
	publication := p.Do(b, db, "SELECT pubname FROM pg_publication")[0][0]
	b.ResetTimer()
	for _, x := range [][]string{{"test_decoding"}, {"pgoutput", "-o", "proto_version=1", "-o", "publication_names=" + publication}} {
		cmd := exec.Command(program, append([]string{
			"-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-U", "postgres", "-d", db,
			"--slot", "bench_" + x[0], "--start", "--endpos", end, "--no-loop", "-f", "/dev/null",
		}, x[1:]...)...)
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		b.ReportMetric(rows/time.Since(began).Seconds(), "pg_recvlogical-"+x[0]+"-rows/s")
	}
	took := make(chan time.Time, 1)
	n := 0
	f.Sink.SetBefore(func(_ context.Context, m []event.Message) error {
		if n += len(m); n == rows {
			took <- time.Now()
		}
		return nil
	})
	began := time.Now()
	stop = f.Run(b, kind(), nil)
	b.ReportMetric(rows/(<-took).Sub(began).Seconds(), "casemate-rows/s")
	stop()
}

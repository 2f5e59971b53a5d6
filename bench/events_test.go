package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	envelope "github.com/casemate-dev/casemate/internal/event"
)

// These take the measures of events.go, which runs each in a process of its own, with
// -benchtime 1x.

const (
	eventSize   = 512
	eventsTime  = 6 * time.Second // of publishing
	eventsAhead = 20_000          // most events published and not done
)

func numbered(n int64, data []byte) envelope.Message {
	return envelope.Message{Event: envelope.Event{ID: "e" + strconv.FormatInt(n, 10), Type: "bench.event", DataContentType: "application/octet-stream"}, Data: data}
}

// usage is the processor time of this process so far.
func usage() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the resident memory of this process in bytes.
func rss() int64 { return pss(os.Getpid()) }

// ahead bounds how many events are published and not done. Who has to wait for that
// sleeps: thousands that look again and again would be what is measured.
type ahead struct {
	mu   sync.Mutex
	cond *sync.Cond
	room int
	done int64
}

func newAhead() *ahead {
	a := &ahead{room: eventsAhead}
	a.cond = sync.NewCond(&a.mu)
	return a
}

func (a *ahead) begin(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.room < n {
		a.cond.Wait()
	}
	a.room -= n
	if a.room >= n { // for the next one, too
		a.cond.Signal()
	}
}

// end counts an event that is done.
func (a *ahead) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done++
	a.room++
	a.cond.Signal()
}

func (a *ahead) ended() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// rate publishes from so many callers, each so many events at a time, for a time, and
// reports events that were done per second until the last one was.
func rate(b *testing.B, callers, atOnce int, publish func(context.Context, int64, int) error, on *ahead) {
	b.Helper()
	var next, sent atomic.Int64
	var wg sync.WaitGroup
	before, began := usage(), time.Now()
	for range callers {
		wg.Go(func() {
			for time.Since(began) < eventsTime && b.Context().Err() == nil {
				on.begin(atOnce)
				first := next.Add(int64(atOnce)) - int64(atOnce)
				if err := publish(context.Background(), first, atOnce); err != nil {
					b.Error(err)
					return
				}
				sent.Add(int64(atOnce))
			}
		})
	}
	wg.Wait()
	for on.ended() < sent.Load() && !b.Failed() {
		if err := pause(b.Context(), time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(sent.Load())
	b.ReportMetric(n/time.Since(began).Seconds(), "events/s")
	b.ReportMetric((usage()-before).Seconds()*1e6/n, "cpu-µs/event")
}

func BenchmarkEventsDurable(b *testing.B) {
	data := make([]byte, eventSize)
	for _, way := range []struct {
		name            string
		callers, atOnce int
	}{{"single", 2000, 1}, {"batched", 4, 500}} { // 2,000 events on their way, as with the peer
		b.Run(way.name, func(b *testing.B) {
			on := newAhead()
			p := openPath(b, func(*envelope.Message) { on.end() })
			p.bind(b, 64)
			door := p.door(b)
			b.ResetTimer()
			rate(b, way.callers, way.atOnce, func(ctx context.Context, first int64, n int) error {
				ms := make([]envelope.Message, n)
				for i := range ms {
					ms[i] = numbered(first+int64(i), data)
				}
				return door.Accept(ctx, ms)
			}, on)
		})
	}
	b.Run("jetstream", func(b *testing.B) {
		j := openJetStream(b)
		on := newAhead()
		j.consume(b, on.end)
		b.ResetTimer()
		rate(b, 4, 500, func(_ context.Context, _ int64, n int) error { return j.publish(data, n) }, on)
	})
}

func BenchmarkEventsLatency(b *testing.B) {
	const events = 1500
	data := make([]byte, eventSize)
	b.Run("ours", func(b *testing.B) {
		done := make(chan struct{}, 1)
		p := openPath(b, func(*envelope.Message) { done <- struct{}{} })
		p.bind(b, 8)
		door := p.door(b)
		latency(b, events, func(n int64) error {
			if err := door.Accept(context.Background(), []envelope.Message{numbered(n, data)}); err != nil {
				return err
			}
			<-done
			return nil
		})
	})
	b.Run("jetstream", func(b *testing.B) {
		j := openJetStream(b)
		done := make(chan struct{}, 1)
		j.consume(b, func() { done <- struct{}{} })
		latency(b, events, func(int64) error {
			if _, err := j.js.Publish(context.Background(), "raw.a", data); err != nil {
				return err
			}
			<-done
			return nil
		})
	})
}

// latency does something again and again, and reports how long it took.
func latency(b *testing.B, n int, do func(int64) error) {
	b.Helper()
	const warm = 200
	var took []time.Duration
	for i := range n + warm {
		began := time.Now()
		if err := do(int64(i)); err != nil {
			b.Fatal(err)
		}
		if i >= warm {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkEventsDrain has a million events wait, and then puts their trigger in force.
func BenchmarkEventsDrain(b *testing.B) {
	total := int64(1_000_000)
	if s := os.Getenv("BENCH_EVENTS"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total = n
	}
	p := openPath(b, nil)
	door := p.door(b)
	data := make([]byte, eventSize)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 4 {
		wg.Go(func() {
			const atOnce = 500
			for {
				first := next.Add(atOnce) - atOnce
				if first >= total {
					return
				}
				var ms []envelope.Message
				for i := range min(atOnce, total-first) {
					ms = append(ms, numbered(first+i, data))
				}
				if err := door.Accept(context.Background(), ms); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		return
	}
	b.ReportMetric(float64(total)/time.Since(began).Seconds(), "stored/s")
	runtime.GC()
	before, most := rss(), int64(0)
	began = time.Now()
	p.bind(b, 64)
	for p.ended.Load() < total {
		most = max(most, rss())
		if err := pause(b.Context(), 50*time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(total)/time.Since(began).Seconds(), "events/s")
	b.ReportMetric(float64(before)/1e6, "before-MB")
	b.ReportMetric(float64(most)/1e6, "most-MB")
}

// raw is JetStream by itself, in this process, as nothing else is: no digest, no order
// between messages, no cipher. Each write is on disk before it is answered.
type raw struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	batch  atomic.Int64
}

// collect has the heap collected as seldom as a node has it, for both sides: see
// gcPercent in internal/node.
func collect(b *testing.B) {
	was := debug.SetGCPercent(400)
	b.Cleanup(func() { debug.SetGCPercent(was) })
}

func openJetStream(b *testing.B) *raw {
	b.Helper()
	collect(b)
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: b.TempDir(), SyncAlways: true, DisableJetStreamBanner: true})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	j := &raw{}
	if j.conn, err = nats.Connect("", nats.InProcessServer(srv)); err == nil {
		j.js, err = jetstream.New(j.conn)
	}
	if err == nil {
		j.stream, err = j.js.CreateStream(b.Context(), jetstream.StreamConfig{
			Name: "RAW", Subjects: []string{"raw.>"}, Storage: jetstream.FileStorage, AllowAtomicPublish: true,
		})
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		j.conn.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return j
}

func (j *raw) consume(b *testing.B, came func()) {
	b.Helper()
	c, err := j.stream.CreateConsumer(b.Context(), jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2000})
	if err != nil {
		b.Fatal(err)
	}
	cc, err := c.Consume(func(m jetstream.Msg) {
		_ = m.Ack() // it comes again when that is lost, and is counted again
		came()
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cc.Stop()
		<-cc.Closed()
	})
}

// publish writes an atomic batch.
func (j *raw) publish(data []byte, n int) error {
	name := strconv.FormatInt(j.batch.Add(1), 10)
	for i := 1; i <= n; i++ {
		m := &nats.Msg{Subject: "raw.a", Data: data, Header: nats.Header{"Nats-Batch-Id": {name}, "Nats-Batch-Sequence": {strconv.Itoa(i)}}}
		if i < n {
			if err := j.conn.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		m.Header["Nats-Batch-Commit"] = []string{"1"}
		reply, err := j.conn.RequestMsg(m, time.Minute)
		if err != nil {
			return err
		}
		if strings.Contains(string(reply.Data), `"error"`) {
			return fmt.Errorf("jetstream: %s", reply.Data)
		}
	}
	return nil
}

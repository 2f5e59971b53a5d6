package bus

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const benchSize = 512

func BenchmarkEventsPublish(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("c=%d", callers), func(b *testing.B) {
			e := openEvents(b, start(b, b.TempDir()))
			publishN(b, e, callers, b.N)
		})
	}
	b.Run("at-once=500", func(b *testing.B) {
		e := openEvents(b, start(b, b.TempDir()))
		data := make([]byte, benchSize)
		b.ResetTimer()
		for done := 0; done < b.N; {
			var in []Entry
			for ; len(in) < 500 && done < b.N; done++ {
				in = append(in, Entry{"a", "topic.x", fmt.Sprint(done), data})
			}
			_, err := e.Publish(b.Context(), in)
			ok(b, err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	// What the server does by itself, with batches of 500.
	b.Run("jetstream=500", func(b *testing.B) {
		bus := start(b, b.TempDir())
		rawStream(b, bus)
		b.ResetTimer()
		rawPublish(b, bus, b.N)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("jetstream=1", func(b *testing.B) {
		bus := start(b, b.TempDir())
		rawStream(b, bus)
		data := make([]byte, benchSize)
		b.ResetTimer()
		for range b.N {
			_, err := bus.js.Publish(b.Context(), "raw.a.topic.x", data)
			ok(b, err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

func publishN(b *testing.B, e *Events, callers, n int) {
	b.Helper()
	data := make([]byte, benchSize)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := e.Publish(context.Background(), []Entry{{"a", "topic.x", fmt.Sprint(i), data}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

func rawStream(b *testing.B, bus *Bus) jetstream.Stream {
	b.Helper()
	s, err := bus.js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "RAW", Subjects: []string{"raw.>"}, Storage: jetstream.FileStorage, AllowAtomicPublish: true,
	})
	ok(b, err)
	return s
}

// rawPublish writes batches of 500, one after another.
func rawPublish(b *testing.B, bus *Bus, n int) {
	b.Helper()
	data := make([]byte, benchSize)
	for done, batch := 0, 0; done < n; batch++ {
		size := min(500, n-done)
		for i := 1; i <= size; i++ {
			m := &nats.Msg{Subject: "raw.a.topic.x", Data: data, Header: nats.Header{
				headerBatch: {fmt.Sprint(batch)}, headerBatchSeq: {fmt.Sprint(i)},
			}}
			if i < size {
				ok(b, bus.conn.PublishMsg(m))
				continue
			}
			m.Header[headerCommit] = []string{"1"}
			reply, err := bus.conn.RequestMsg(m, time.Minute)
			ok(b, err)
			if len(reply.Data) < 20 {
				b.Fatal(string(reply.Data))
			}
		}
		done += size
	}
}

// Publish and consume at the same time, ours and the server's own.
func BenchmarkEventsPublishAndConsume(b *testing.B) {
	b.Run("events", func(b *testing.B) {
		e := openEvents(b, start(b, b.TempDir()))
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		consumed := make(chan error, 1)
		go func() {
			n := 0
			consumed <- e.Consume(ctx, ConsumerConfig{Name: "c", Namespace: "a", Channel: "topic.x", Window: 2000, AckWait: time.Minute}, func(d *Delivered) {
				_ = d.Ack()
				if n++; n == b.N {
					cancel()
				}
			})
		}()
		publishN(b, e, 512, b.N)
		ok(b, <-consumed)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("jetstream", func(b *testing.B) {
		bus := start(b, b.TempDir())
		s := rawStream(b, bus)
		c, err := s.CreateConsumer(b.Context(), jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2000})
		ok(b, err)
		b.ResetTimer()
		done := make(chan struct{})
		n := 0
		cc, err := c.Consume(func(m jetstream.Msg) {
			_ = m.Ack()
			if n++; n == b.N {
				close(done)
			}
		})
		ok(b, err)
		rawPublish(b, bus, b.N)
		<-done
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		cc.Stop()
		<-cc.Closed()
	})
}

// What 1,000 consumers cost that have nothing to do.
func BenchmarkEventsIdleConsumers(b *testing.B) {
	const consumers = 1000
	for range b.N {
		e := openEvents(b, start(b, b.TempDir()))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		came := make(chan struct{}, consumers)
		goroutines := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		for i := range consumers {
			wg.Go(func() {
				err := e.Consume(ctx, ConsumerConfig{Name: fmt.Sprintf("trigger.a.fn.t%d", i), Namespace: "a", Channel: fmt.Sprintf("trigger.fn.t%d", i), Window: 100, AckWait: time.Minute}, func(d *Delivered) {
					_ = d.Ack()
					came <- struct{}{}
				})
				if err != nil {
					b.Error(err)
				}
			})
		}
		for i := range consumers { // each is at rest once it has had one
			_, err := e.Publish(ctx, []Entry{{"a", fmt.Sprintf("trigger.fn.t%d", i), "1", nil}})
			ok(b, err)
		}
		for range consumers {
			<-came
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/1024/consumers, "KB/consumer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/consumers, "goroutines/consumer")
		cancel()
		wg.Wait()
	}
}

package delivery_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
)

// quiet consumes nothing and costs nothing, so that what is measured is ours.
type quiet struct{ *node }

func (quiet) Consume(ctx context.Context, _ delivery.ConsumerConfig, _ func(delivery.Delivered)) error {
	<-ctx.Done()
	return nil
}

func idle(t *testing.T, n int) *world {
	w := newWorld(t, nil, func(c *delivery.Config) { c.Consumers = quiet{c.Consumers.(*node)} })
	var bs []delivery.Binding
	for i := range n {
		bs = append(bs, delivery.Binding{Key: delivery.Key{Namespace: "shop", Function: fmt.Sprint("f", i), Trigger: "t"}})
	}
	w.set(bs...)
	return w
}

// TestIdleTriggersCostLittle counts goroutines: one for each trigger, in Consume.
func TestIdleTriggersCostLittle(t *testing.T) {
	const n = 1000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	w := idle(t, n)
	defer w.stop()
	if got := runtime.NumGoroutine() - goroutines; got > n+5 {
		t.Errorf("%d goroutines for %d idle triggers", got, n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap, stacks := int64(after.HeapAlloc-before.HeapAlloc)/n, int64(after.StackInuse-before.StackInuse)/n
	t.Logf("%d bytes of heap and %d of stack for each idle trigger", heap, stacks)
	if heap > 8<<10 {
		t.Errorf("%d bytes of heap for each idle trigger", heap)
	}
}

// flood hands out the same event for ever, to see what delivery itself costs.
type flood struct {
	*node
	data []byte
	most uint64
}

type deaf struct{ left chan struct{} }

func (d deaf) Ack() error              { <-d.left; return nil }
func (deaf) Later(time.Duration) error { return nil }
func (deaf) Working() error            { return nil }

func (f flood) Consume(ctx context.Context, cfg delivery.ConsumerConfig, fn func(delivery.Delivered)) error {
	left := make(chan struct{}, cfg.Window)
	for seq := uint64(1); seq <= f.most; seq++ {
		left <- struct{}{}
		fn(delivery.Delivered{Record: delivery.Record{Sequence: seq, Time: time.Now(), Data: f.data}, Attempt: 1, Settler: deaf{left}})
	}
	<-ctx.Done()
	return nil
}

func BenchmarkDelivery(b *testing.B) {
	for name, ordered := range map[string]bool{"unordered": false, "ordered": true} {
		b.Run(name, func(b *testing.B) {
			m := event.Message{Event: event.Event{ID: "1", Source: "/namespaces/shop", Type: "test"}, Data: make([]byte, 512), Key: "k"}
			data, err := m.Encode()
			if err != nil {
				b.Fatal(err)
			}
			d := newDisk()
			n := &node{d: d}
			var ran atomic.Int64
			end := make(chan struct{})
			e, err := delivery.Open(b.Context(), delivery.Config{
				Events: stream{n, d.events, ""}, Deads: stream{n, d.deads, ""}, Consumers: flood{n, data, uint64(b.N)}, State: n,
				Clock: time.Now, Random: func() float64 { return 0.5 }, NewID: func() string { return "x" },
				Invoke: func(context.Context, delivery.Call) (delivery.Outcome, error) {
					if ran.Add(1) == int64(b.N) {
						close(end)
					}
					return delivery.Outcome{Status: 200}, nil
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			bind := delivery.Binding{Key: orders}
			bind.Delivery.Ordered = ordered
			b.ReportAllocs()
			b.ResetTimer()
			if err := e.Set(b.Context(), []delivery.Binding{bind}); err != nil {
				b.Fatal(err)
			}
			<-end
			b.StopTimer()
			if err := e.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

package keyvalue_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/keyvalue"
)

// onBus adapts the bus as the node does.
type onBus struct{ events *bus.Events }

func (l onBus) Publish(ctx context.Context, e keyvalue.Entry) (uint64, error) {
	stored, err := l.events.Publish(ctx, []bus.Entry{bus.Entry(e)})
	if err != nil {
		return 0, err
	}
	return stored[0].Sequence, nil
}

func (l onBus) Read(ctx context.Context, namespace, channel string, after uint64, fn func(keyvalue.Record) bool) error {
	return l.events.Read(ctx, bus.EventFilter{Namespace: namespace, Channel: channel, After: after}, func(r bus.EventRecord) bool {
		return fn(keyvalue.Record{Namespace: r.Namespace, Channel: r.Channel, Sequence: r.Sequence, Time: r.Time, Data: r.Data})
	})
}

func startBus(t testing.TB, dir string) (*keyvalue.Store, func()) {
	t.Helper()
	b, err := bus.Start(t.Context(), bus.Config{Dir: dir, Key: make([]byte, 32), Name: "n", Logger: slog.New(slog.DiscardHandler), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := b.KV(t.Context(), "keyvalue")
	if err != nil {
		t.Fatal(err)
	}
	events, err := b.Events(t.Context(), bus.EventsConfig{
		Name: "keyvalue", SubjectPrefix: "keyvalue", MaxAge: 7 * 24 * time.Hour, MaxBytes: 8 << 30, Dedup: 10 * time.Minute, Keep: 10 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyvalue.Open(t.Context(), keyvalue.Config{KV: kv, Log: onBus{events}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestOnTheBus stores where the node does, and opens it again: values, order, revisions
// and changes are the same, and neither keys nor values are on the disk in the clear.
func TestOnTheBus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := startBus(t, dir)
	w := &world{TB: t, store: s}
	w.put("b/odd ü > * $KV.x/"+"漢", "one")
	w.put("b/plaintextkey", "plaintextvalue")
	w.put("b/gone", "x")
	if _, err := w.tryDelete("b/gone", keyvalue.Condition{}); err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("L"), keyvalue.MaxValue)
	w.put("b/large", string(large))
	w.put("b/large", string(large))
	told := w.changes("b", 0)
	stop()
	s, stop = startBus(t, dir)
	defer stop()
	w.store = s
	w.is("after a restart", w.get("b/odd ü > * $KV.x/漢"), "one@1")
	w.is("after a restart", w.list("b", "", "", 9), "large odd ü > * $KV.x/漢 plaintextkey")
	w.is("changes", w.changes("b", 0), told)
	if d := w.put("b/gone", "y"); !d.Created || d.Revision != 7 {
		t.Errorf("%+v", d)
	}
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if b, readErr := os.ReadFile(path); err == nil && readErr == nil && (bytes.Contains(b, []byte("plaintextvalue")) || bytes.Contains(b, []byte("LLLLLLLL"))) {
			t.Errorf("%s holds a value in the clear", path)
		}
		return nil
	})
}

func BenchmarkPutOnTheBus(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("c%d", writers), func(b *testing.B) {
			s, stop := startBus(b, b.TempDir())
			defer stop()
			value := bytes.Repeat([]byte("v"), 512)
			b.SetParallelism(writers / 2)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := s.Put(context.Background(), &keyvalue.Put{Namespace: "ns", Bucket: "b", Key: fmt.Sprint(&i, i%50), Data: value}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkGetOnTheBus(b *testing.B) {
	s, stop := startBus(b, b.TempDir())
	defer stop()
	w := &world{TB: b, store: s}
	w.put("b/k", string(bytes.Repeat([]byte("v"), 512)))
	b.ResetTimer()
	for b.Loop() {
		if _, err := s.Get(context.Background(), "ns", "b", "k"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen tells how long a start takes with 20,000 keys.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, stop := startBus(b, dir)
	const n = 20_000
	done := make(chan error, 32)
	for g := range cap(done) {
		go func() {
			for i := g; i < n; i += cap(done) {
				if _, err := s.Put(context.Background(), &keyvalue.Put{Namespace: "ns", Bucket: "b", Key: fmt.Sprint("key-", i), Data: make([]byte, 100)}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sweep(context.Background()); err != nil {
		b.Fatal(err)
	}
	stop()
	for b.Loop() {
		_, stop := startBus(b, dir)
		stop()
	}
}

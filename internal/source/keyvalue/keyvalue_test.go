package keyvalue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	store "github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/keyvalue/keyvaluetest"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/keyvalue"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// own adapts the store as the node does.
type own struct{ *store.Store }

func (o own) Changes(ctx context.Context, ns, bucket string, after uint64, fn func(keyvalue.Change) error) (uint64, error) {
	return o.Store.Changes(ctx, ns, bucket, after, func(c store.Change) error {
		return fn(keyvalue.Change{
			Key: c.Key, Operation: c.Operation, Revision: c.Revision, Previous: c.Previous, Time: c.Time, By: c.By,
			Expired: c.Expired, Expires: c.Expires, New: (*keyvalue.Value)(c.New), Old: (*keyvalue.Value)(c.Old),
		})
	})
}

type world struct {
	*testing.T
	disk   *keyvaluetest.Disk
	store  *store.Store
	sink   *servertest.Sink
	keep   *servertest.Store
	health *servertest.Health
	ended  chan error
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, disk: keyvaluetest.NewDisk(), sink: &servertest.Sink{}, keep: &servertest.Store{}}
	w.open()
	return w
}

func (w *world) open() {
	w.Helper()
	s, err := store.Open(context.Background(), store.Config{
		KV: keyvaluetest.KV{Disk: w.disk}, Log: keyvaluetest.Log{Disk: w.disk}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.Fatal(err)
	}
	w.store = s
}

// run listens, and returns when it does. stop gives what Run ended with.
func (w *world) run(settings string, state source.State) (stop func() error) {
	w.Helper()
	kind := keyvalue.New(own{w.store})
	t := function.Trigger{Name: "t", Kind: "kv", Settings: json.RawMessage(settings)}
	if err := kind.Check(&t); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.health = &servertest.Health{}
	w.ended = make(chan error, 1)
	go func() {
		w.ended <- kind.Run(ctx, source.Binding{
			Ref: function.Ref{Namespace: "default", Name: "f"}, Trigger: t, Sink: w.sink, Store: w.keep,
			Log: slog.New(slog.DiscardHandler), Clock: time.Now, Report: w.health.Report,
		})
	}()
	w.health.Wait(w, 0, state)
	return sync.OnceValue(func() error {
		cancel()
		return <-w.ended
	})
}

func (w *world) put(ns, bucket, key, value string) {
	w.Helper()
	if _, err := w.store.Put(context.Background(), &store.Put{
		Namespace: ns, Bucket: bucket, Key: key, Data: []byte(value), ContentType: "text/plain", By: "key:me",
	}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) remove(key string) {
	w.Helper()
	if _, err := w.store.Delete(context.Background(), "default", "b", key, store.Condition{}, "key:me"); err != nil {
		w.Fatal(err)
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// got lists events as they came.
func got(list []event.Message) string {
	var out []string
	for _, m := range list {
		out = append(out, strings.TrimPrefix(m.Type, "casemate.kv.")+" "+m.ID)
	}
	return strings.Join(out, ", ")
}

func (w *world) await(want string) {
	w.Helper()
	n := len(strings.Split(want, ", "))
	w.sink.Wait(w, func(s *servertest.Sink) bool { return len(s.Events()) >= n })
	if s := got(w.sink.Events()); s != want {
		w.Fatalf("got  %s\nwant %s", s, want)
	}
}

func TestEachChangeIsAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("default", "b", "in/before", "x")
	stop := w.run(`{"bucket":"b","prefix":"in/"}`, source.Running)
	w.put("default", "b", "in/k", "one")
	w.put("other", "b", "in/k", "not mine")
	w.put("default", "another", "in/k", "not it")
	w.put("default", "b", "out/k", "not in")
	w.put("default", "b", "in/k", "two")
	w.remove("in/k")
	w.await("put b/in/k/2, put b/in/k/6, delete b/in/k/7")
	w.ok(stop())
	list := w.sink.Events()
	for i, want := range []string{
		`{"bucket":"b","key":"in/k","operation":"put","revision":2,"value":"b25l","contentType":"text/plain","size":3}`,
		`{"bucket":"b","key":"in/k","operation":"put","revision":6,"value":"dHdv","contentType":"text/plain","size":3,"old":{"revision":2,"value":"b25l","contentType":"text/plain","size":3}}`,
		`{"bucket":"b","key":"in/k","operation":"delete","revision":7,"old":{"revision":6,"value":"dHdv","contentType":"text/plain","size":3}}`,
	} {
		if m := list[i]; string(m.Data) != want || m.Key != "b/in/k" || m.Subject != "b/in/k" || m.Time.IsZero() || m.Extensions["principal"] != "key:me" {
			t.Errorf("got %+v\nwith %s\nwant %s", m.Event, m.Data, want)
		}
	}
}

func TestOperationsAreChosen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.run(`{"bucket":"b","operations":["delete"]}`, source.Running)
	w.put("default", "b", "k", "x")
	w.remove("k")
	w.await("delete b/k/2")
	w.ok(stop())
}

// TestNothingIsMissed stops listening, refuses, and has the process die, and looks whether
// all comes afterwards, in order and under the ids that it had.
func TestNothingIsMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const settings = `{"bucket":"b"}`
	w.ok(w.run(settings, source.Running)())
	w.put("default", "b", "a", "1")
	w.put("default", "b", "a", "2") // each is told, not only the last
	w.remove("a")
	stop := w.run(settings, source.Running)
	w.await("put b/a/1, put b/a/2, delete b/a/3")
	w.ok(stop())

	w.sink.SetBefore(func(context.Context, []event.Message) error { return errors.New("the disk is full") })
	w.run(settings, source.Running)
	w.put("default", "b", "c", "1") // which does not wait for those who listen
	if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("an event that was not taken: %v", err)
	}
	w.sink.SetBefore(nil)
	// A change that is in the log alone when the process dies.
	w.disk.SetFail(func(operation string, _ bool) error {
		if operation == "publish" {
			return nil
		}
		return errors.New("no more records")
	})
	if _, err := w.store.Put(t.Context(), &store.Put{Namespace: "default", Bucket: "b", Key: "d"}); !errors.Is(err, store.ErrUndecided) {
		t.Fatal(err)
	}
	w.disk = w.disk.Clone()
	w.open()
	stop = w.run(settings, source.Running)
	w.await("put b/a/1, put b/a/2, delete b/a/3, put b/c/4, put b/d/5")
	w.ok(stop())
}

// TestTheSecondTellingHasTheSameIDs: the position is lost, as when the process dies.
func TestTheSecondTellingHasTheSameIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.run(`{"bucket":"b"}`, source.Running)
	for i := range 100 {
		w.put("default", "b", fmt.Sprint(i%7), "x")
	}
	w.sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) >= 100 })
	w.ok(stop())
	w.ok(w.keep.Put(t.Context(), "cursor", []byte("0")))
	stop = w.run(`{"bucket":"b"}`, source.Running)
	w.sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) >= 200 })
	w.ok(stop())
	all := w.sink.Events()
	if first, second := got(all[:100]), got(all[100:]); first != second {
		t.Errorf("first  %s\nsecond %s", first, second)
	}
}

func TestWhatIsLostIsAnAlert(t *testing.T) {
	t.Parallel()
	const settings = `{"bucket":"b"}`
	t.Run("given up while nobody listened", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.ok(w.run(settings, source.Running)())
		w.put("default", "b", "k", "1")
		w.put("default", "b", "k", "2")
		w.put("default", "b", "k", "3")
		w.disk.Trim(2)
		stop := w.run(settings, source.Alert)
		w.await("put b/k/3")
		w.ok(stop())
	})
	t.Run("all of it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.ok(w.run(settings, source.Running)())
		w.put("default", "b", "k", "1")
		w.disk.Trim(1)
		w.ok(w.run(settings, source.Alert)())
		// From then on it is known that nothing more was lost.
		w.ok(w.run(settings, source.Running)())
	})
	t.Run("given up behind a slow function", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		stop := w.run(settings, source.Running)
		calls := 0
		w.sink.SetBefore(func(context.Context, []event.Message) error {
			if calls++; calls == 1 { // while the first is taken
				w.put("default", "b", "k", "2")
				w.put("default", "b", "k", "3")
				w.disk.Trim(2)
			}
			return nil
		})
		w.put("default", "b", "k", "1")
		w.health.Wait(t, 0, source.Alert)
		w.await("put b/k/1, put b/k/3")
		w.ok(stop())
	})
	t.Run("damaged", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.ok(w.run(settings, source.Running)())
		for range 3 {
			w.put("default", "b", "k", "x")
		}
		w.disk.Damage(2)
		stop := w.run(settings, source.Alert)
		w.await("put b/k/1, put b/k/3")
		w.ok(stop())
	})
}

func TestLongAndOddKeysAndLargeValuesMakeValidEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.run(`{"bucket":"b"}`, source.Running)
	keys := []string{strings.Repeat("é", store.MaxKey/2), "漢字 <>&\"' > * $x", "k"}
	for _, k := range keys {
		w.put("default", "b", k, strings.Repeat("x", store.MaxTold))
		w.put("default", "b", k, strings.Repeat("y", store.MaxTold))
	}
	w.put("default", "b", "k", strings.Repeat("x", store.MaxValue))
	w.put("default", "b", "k", "")
	w.sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) >= 8 }) // which panics when one is not valid
	w.ok(stop())
	type value struct {
		Value *[]byte
		Size  int
	}
	var last [8]struct {
		Key string
		value
		Old *value
	}
	for i, m := range w.sink.Events() {
		w.ok(json.Unmarshal(m.Data, &last[i]))
		if len(m.Data) > 1<<20 {
			t.Errorf("event %d has %d bytes, more than a function takes by default", i, len(m.Data))
		}
	}
	if last[0].Key != keys[0] || last[2].Key != keys[1] || len(*last[1].Old.Value) != store.MaxTold {
		t.Error("a key or an old value came otherwise")
	}
	if v := last[6]; v.Value != nil || v.Size != store.MaxValue {
		t.Error("a large value came whole")
	}
	if v := last[7]; v.Value == nil || len(*v.Value) != 0 || v.Old.Value != nil || v.Old.Size != store.MaxValue {
		t.Error("an empty value does not show, or the large one before it does")
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	kind := keyvalue.New(nil)
	for _, tc := range []struct{ connection, settings, field string }{
		{"", `{}`, "bucket"},
		{"", `{"bucket":"other/b"}`, "bucket"},
		{"", `{"bucket":"other.b"}`, "bucket"}, // of another namespace
		{"", `{"bucket":"../b"}`, "bucket"},
		{"", `{"bucket":">"}`, "bucket"},
		{"", `{"bucket":"b","namespace":"other"}`, "namespace"},
		{"", `{"bucket":"b","operations":["get"]}`, "operations"},
		{"", `{"bucket":"b","operations":["put","put"]}`, "operations"},
		{"", `{"bucket":"b","prefix":"` + strings.Repeat("x", 513) + `"}`, "prefix"},
		{"c", `{"bucket":"b"}`, "connection"},
	} {
		var fe *source.FieldError
		err := kind.Check(&function.Trigger{Connection: tc.connection, Settings: json.RawMessage(tc.settings)})
		if !errors.As(err, &fe) || fe.Field != tc.field {
			t.Errorf("%.60s: got %v, want an error of %s", tc.settings, err, tc.field)
		}
	}
	if err := kind.Check(&function.Trigger{Settings: json.RawMessage(`{"bucket":"b","prefix":"a/","operations":["put","delete"]}`)}); err != nil {
		t.Error(err)
	}
}

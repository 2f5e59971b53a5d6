package intake

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is what is around the door: a stream that knows ids again, a place for dead
// letters, a backlog that tests set, and failures that they plant.
type world struct {
	mu       sync.Mutex
	log      []string // the order of what was written
	entries  []Entry
	letters  []DeadLetter
	ids      map[string]uint64
	waiting  int64
	publish  error
	bury     error
	backlogs chan struct{} // told each time the backlog is looked at, when not nil
	in       *Intake
}

func newWorld(t testing.TB, list []stage) *world {
	t.Helper()
	w := &world{ids: map[string]uint64{}}
	in, err := New(Config{
		Stream: w, DeadLetters: w, Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
		Backlog: func(string, string) (int64, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.backlogs != nil {
				w.backlogs <- struct{}{}
			}
			return w.waiting, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	in.stages = list
	w.in = in
	return w
}

func (w *world) Publish(_ context.Context, entries []Entry) ([]Stored, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.publish != nil {
		return nil, w.publish
	}
	w.log = append(w.log, "publish")
	stored := make([]Stored, len(entries))
	for i, e := range entries {
		key := e.Namespace + " " + e.Channel + " " + e.ID
		if seq, ok := w.ids[key]; ok {
			stored[i] = Stored{seq, true}
			continue
		}
		w.entries = append(w.entries, e)
		w.ids[key] = uint64(len(w.entries))
		stored[i] = Stored{w.ids[key], false}
	}
	return stored, nil
}

func (w *world) Bury(_ context.Context, letters []DeadLetter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bury != nil {
		return w.bury
	}
	w.log = append(w.log, "bury")
	for _, l := range letters {
		if _, ok := w.ids["dead "+l.Channel+l.ID]; !ok {
			w.letters = append(w.letters, l)
			w.ids["dead "+l.Channel+l.ID] = uint64(len(w.letters))
		}
	}
	return nil
}

var orders = function.Ref{Namespace: "shop", Name: "orders"}

func trigger(settings, schema string) *function.Trigger {
	t := &function.Trigger{Name: "in", Kind: "queue", Settings: json.RawMessage(settings), Delivery: function.Delivery{Backlog: 10}}
	if schema == "" {
		t.NoSchema = "a test"
	} else {
		t.Schema = json.RawMessage(schema)
	}
	return t
}

func (w *world) sink(t testing.TB, settings, schema string) *Sink {
	t.Helper()
	s, err := w.in.For(orders, trigger(settings, schema))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ev(id, data string) event.Message {
	return event.Message{Event: event.Event{ID: id, Type: "order.created", DataContentType: "application/json"}, Data: []byte(data)}
}

// stored gives the events on the bus.
func (w *world) stored(t testing.TB) []event.Message {
	t.Helper()
	var all []event.Message
	for _, e := range w.entries {
		m, err := event.Decode(e.Data)
		if err != nil {
			t.Fatalf("what was stored cannot be read: %v", err)
		}
		all = append(all, *m)
	}
	return all
}

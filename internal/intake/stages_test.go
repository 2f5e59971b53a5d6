package intake

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// Each stage has a case that holds with all stages and does not without that one.
var stageCases = map[string]func(t *testing.T, w *world) error{
	"open": func(t *testing.T, w *world) error {
		s := w.sink(t, "", "")
		s.Close()
		if err := s.Accept(t.Context(), []event.Message{ev("1", "{}")}); !errors.Is(err, source.ErrRefused) || len(w.entries) > 0 {
			return fmt.Errorf("a trigger that has gone: got %v, %d stored", err, len(w.entries))
		}
		return nil
	},
	"stamp": func(t *testing.T, w *world) error {
		forged := ev("1", "{}")
		forged.Source = "/namespaces/bank/functions/pay"
		forged.Extensions = map[string]string{"principal": "key:admin", "chaindepth": "0", "attempt": "1", "region": "eu", "partitionkey": "k"}
		forged.Chain = event.Chain{ID: "x", Depth: 1}
		if err := w.sink(t, "", "").Accept(t.Context(), []event.Message{forged}); err != nil {
			return err
		}
		if len(w.entries) != 1 {
			return fmt.Errorf("%d stored", len(w.entries))
		}
		m := w.stored(t)[0]
		want := event.Message{Event: event.Event{
			ID: "1", Type: "order.created", DataContentType: "application/json", Time: now,
			Source: "/namespaces/shop/functions/orders/triggers/in", Extensions: map[string]string{"claimedsource": "/namespaces/bank/functions/pay", "region": "eu"},
		}, Key: "k", Data: []byte("{}")}
		if fmt.Sprint(m) != fmt.Sprint(want) {
			return fmt.Errorf("got %v, want %v", m, want)
		}
		if len(forged.Extensions) != 5 {
			return errors.New("the caller's event was changed")
		}
		return nil
	},
	"envelope": func(t *testing.T, w *world) error {
		wrong := ev("1", "{}")
		wrong.Type = "a\r\nx-evil: 1"
		return offered(t, w.sink(t, "", ""), wrong, "type")
	},
	"content": func(t *testing.T, w *world) error {
		return offered(t, w.sink(t, "", ""), ev("1", `{"a":1,"a":2}`), "data")
	},
	"filter": func(t *testing.T, w *world) error {
		s := w.sink(t, `{"queue":"q","filter":{"exact":{"type":"order.paid"}}}`, `false`) // no data fits
		if _, err := s.Offer(t.Context(), []event.Message{ev("1", "{}")}); err != nil {
			return err
		}
		if len(w.entries) > 0 || s.Counts().Filtered != 1 {
			return fmt.Errorf("%d stored, counts %+v", len(w.entries), s.Counts())
		}
		return nil
	},
	"schema": func(t *testing.T, w *world) error {
		s := w.sink(t, "", `{"properties":{"items":{"items":{"type":"integer"}}}}`)
		return offered(t, s, ev("1", `{"items":[1,"two"]}`), "data/items/1")
	},
	"encode": func(t *testing.T, w *world) error {
		if err := w.sink(t, "", "").Accept(t.Context(), []event.Message{ev("1", "{}")}); err != nil {
			return err
		}
		if len(w.entries) != 1 {
			return fmt.Errorf("%d are stored", len(w.entries))
		}
		_, err := event.Decode(w.entries[0].Data)
		return err
	},
	"refuse": func(t *testing.T, w *world) error {
		wrong := ev("2", "{}")
		wrong.ID = ""
		_, err := w.sink(t, "", "").Offer(t.Context(), []event.Message{ev("1", "{}"), wrong})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Index != 1 || invalid.Field != "id" || len(w.log) > 0 {
			return fmt.Errorf("got %v, written %v", err, w.log)
		}
		return nil
	},
	"back-pressure": func(t *testing.T, w *world) error {
		w.waiting = 10
		_, err := w.sink(t, "", "").Offer(t.Context(), []event.Message{ev("1", "{}")})
		var busy *BusyError
		if !errors.As(err, &busy) || busy.RetryAfter <= 0 || len(w.log) > 0 {
			return fmt.Errorf("got %v, written %v", err, w.log)
		}
		return nil
	},
	"dead letters": func(t *testing.T, w *world) error {
		wrong := ev("2", "{")
		err := w.sink(t, "", "").Accept(t.Context(), []event.Message{ev("1", "{}"), wrong, ev("3", "{}")})
		if err != nil || len(w.entries) != 2 || len(w.letters) != 1 {
			return fmt.Errorf("got %v, %d stored, %d dead", err, len(w.entries), len(w.letters))
		}
		l := w.letters[0]
		if l.Reason != ReasonInvalid || l.Field != "data" || l.Detail == "" || l.Message.ID != "2" || l.Trigger != "in" || string(l.Message.Data) != "{" || !l.Time.Equal(now) {
			return fmt.Errorf("got %+v", l)
		}
		return nil
	},
	"publish": func(t *testing.T, w *world) error {
		stored, err := w.sink(t, "", "").Offer(t.Context(), []event.Message{ev("1", "{}"), ev("2", "{}")})
		if err != nil || len(w.entries) != 2 || len(stored) != 2 || stored[1].Sequence != 2 {
			return fmt.Errorf("got %v %v, %d stored", stored, err, len(w.entries))
		}
		if e := w.entries[0]; e.Namespace != "shop" || e.Channel != "trigger.orders.in" || e.ID != "1" {
			return fmt.Errorf("got %+v", e)
		}
		return nil
	},
}

// offered hands in an event that must be refused, naming the field.
func offered(t *testing.T, s *Sink, m event.Message, field string) error {
	_, err := s.Offer(t.Context(), []event.Message{m})
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Field != field || invalid.Reason == "" {
		return fmt.Errorf("got %v, want field %s", err, field)
	}
	return nil
}

func TestStages(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for i, s := range stages() {
		names[s.name] = true
		run, ok := stageCases[s.name]
		if !ok {
			t.Errorf("stage %q has no test", s.name)
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if err := run(t, newWorld(t, stages())); err != nil {
				t.Error(err)
			}
			if err := run(t, newWorld(t, slices.Delete(stages(), i, i+1))); err == nil {
				t.Error("nothing was noticed without this stage")
			}
		})
	}
	for name := range stageCases {
		if !names[name] {
			t.Errorf("there is no stage %q", name)
		}
	}
}

// The order of stages, by what happens to events that two of them would stop.
func TestOrderOfStages(t *testing.T) {
	t.Parallel()
	t.Run("what is not wanted need not fit", func(t *testing.T) {
		w := newWorld(t, stages())
		s := w.sink(t, `{"filter":{"exact":{"type":"other"}}}`, `{"type":"string"}`)
		if err := s.Accept(t.Context(), []event.Message{ev("1", `{}`)}); err != nil || len(w.log) > 0 {
			t.Errorf("got %v, written %v", err, w.log)
		}
	})
	t.Run("a filter sees our source", func(t *testing.T) {
		w := newWorld(t, stages())
		m := ev("1", "{}")
		m.Source = "/claimed"
		s := w.sink(t, `{"filter":[{"prefix":{"source":"/namespaces/shop/"}},{"exact":{"claimedsource":"/claimed"}}]}`, "")
		if err := s.Accept(t.Context(), []event.Message{m}); err != nil || len(w.entries) != 1 {
			t.Errorf("got %v, %d stored", err, len(w.entries))
		}
	})
	t.Run("invalid is said before busy", func(t *testing.T) {
		w := newWorld(t, stages())
		w.waiting = math.MaxInt64
		if err := offered(t, w.sink(t, "", ""), ev("", "{}"), "id"); err != nil {
			t.Error(err)
		}
	})
	t.Run("dead letters come first", func(t *testing.T) {
		w := newWorld(t, stages())
		w.bury = errors.New("disk")
		s := w.sink(t, "", "")
		batch := []event.Message{ev("1", "{}"), ev("2", "{")}
		if err := s.Accept(t.Context(), batch); err == nil || len(w.entries) > 0 {
			t.Errorf("got %v, %d stored", err, len(w.entries))
		}
		w.bury, w.publish = nil, errors.New("disk")
		if err := s.Accept(t.Context(), batch); err == nil {
			t.Error("a failure to store was swallowed")
		}
		w.publish = nil
		if err := s.Accept(t.Context(), batch); err != nil || len(w.entries) != 1 || len(w.letters) != 1 {
			t.Errorf("got %v, %d stored, %d dead", err, len(w.entries), len(w.letters))
		}
	})
	t.Run("a flood of bad events waits too", func(t *testing.T) {
		w := newWorld(t, stages())
		w.waiting = 10
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if err := w.sink(t, "", "").Accept(ctx, []event.Message{ev("1", "{")}); !errors.Is(err, context.DeadlineExceeded) || len(w.log) > 0 {
			t.Errorf("got %v, written %v", err, w.log)
		}
	})
}

package gateway

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

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/state"
)

// topicWorld is a gateway in front of the real intake, over a stream in memory.
type topicWorld struct {
	*world
	in *intake.Intake

	mu      sync.Mutex
	entries []intake.Entry
	full    error
	waiting int64
}

func (w *topicWorld) Publish(_ context.Context, entries []intake.Entry) ([]intake.Stored, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full != nil {
		return nil, w.full
	}
	stored := make([]intake.Stored, len(entries))
	for i, e := range entries {
		for j, had := range w.entries {
			if had.Namespace == e.Namespace && had.Channel == e.Channel && had.ID == e.ID {
				stored[i] = intake.Stored{Sequence: uint64(j + 1), Duplicate: true}
			}
		}
		if !stored[i].Duplicate {
			w.entries = append(w.entries, e)
			stored[i].Sequence = uint64(len(w.entries))
		}
	}
	return stored, nil
}

func (w *topicWorld) Bury(context.Context, []intake.DeadLetter) error { return nil }

// doorOf adapts intake as node does.
type doorOf struct{ in *intake.Intake }

func (d doorOf) Publish(ctx context.Context, ns, topic, principal string, events []event.Message) ([]StoredEvent, error) {
	stored, err := d.in.Publish(ctx, ns, topic, principal, events)
	if err != nil {
		return nil, adapted(err)
	}
	out := make([]StoredEvent, len(stored))
	for i, s := range stored {
		out[i] = StoredEvent(s)
	}
	return out, nil
}

func adapted(err error) error {
	var wrong *intake.InvalidError
	var busy *intake.BusyError
	switch {
	case errors.As(err, &wrong):
		return &EventError{wrong.Index, wrong.Field, wrong.Reason}
	case errors.As(err, &busy):
		return &BusyError{busy.RetryAfter}
	}
	return err
}

func newTopicWorld(t testing.TB) *topicWorld {
	t.Helper()
	w := &topicWorld{world: newWorld(t, Limits{})}
	var err error
	w.in, err = intake.New(intake.Config{
		Stream: w, DeadLetters: w, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
		Backlog: func(string, string) (int64, error) { return w.waiting, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.topics = doorOf{w.in}
	w.serve(t)
	return w
}

func (w *topicWorld) stored(t testing.TB) []*event.Message {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*event.Message
	for _, e := range w.entries {
		m, err := event.Decode(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

const ordersTopic = "/~shop/.casemate/topics/orders"

const structured = `{"specversion":"1.0","id":"%s","source":"/namespaces/shop/topics/orders","type":"t","principal":"node","chaindepth":"0","data":{"a":1}}`

func TestPublishInEachForm(t *testing.T) {
	t.Parallel()
	w := newTopicWorld(t)
	type published struct {
		Events []struct {
			ID        string
			Sequence  uint64
			Duplicate bool
		}
	}
	for i, c := range []struct {
		body   string
		fields []string
		want   string
	}{
		{`{"a":1}`, []string{"Ce-Specversion: 1.0", "Ce-Id: a", "Ce-Source: /s", "Ce-Type: t", "Ce-Partitionkey: k", "Content-Type: application/json"}, "[{a 1 false}]"},
		{fmt.Sprintf(structured, "b"), []string{"Content-Type: application/cloudevents+json"}, "[{b 2 false}]"},
		{"[" + fmt.Sprintf(structured, "c") + "," + fmt.Sprintf(structured, "b") + "]", []string{"Content-Type: application/cloudevents-batch+json; charset=utf-8"}, "[{c 3 false} {b 2 true}]"},
		{"[]", []string{"Content-Type: application/cloudevents-batch+json"}, "[]"},
	} {
		a := w.do(t, "POST", ordersTopic, strings.NewReader(c.body), append(c.fields, bearer(ordersKey))...)
		var got published
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 202 || fmt.Sprint(got.Events) != c.want || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d: %v %s", i, err, a.text)
		}
	}
	if m := w.stored(t)[0]; m.Key != "k" || string(m.Data) != `{"a":1}` || m.Type != "t" {
		t.Errorf("stored: %+v", m)
	}
	if w.invoker.count.Load() != 0 {
		t.Error("a function was called")
	}
}

// TestAttackForgedSource claims to be the platform, in each form.
func TestAttackForgedSource(t *testing.T) {
	t.Parallel()
	w := newTopicWorld(t)
	forged := "/namespaces/default/functions/hello"
	w.do(t, "POST", ordersTopic, strings.NewReader("x"), bearer(ordersKey), "Ce-Specversion: 1.0", "Ce-Id: a", "Ce-Source: "+forged, "Ce-Type: "+typeInvoke,
		"Ce-Principal: key:good", "Ce-Claimedsource: /x", "Ce-Replayof: 1", "Ce-Attempt: 1", "Ce-Chainid: 1", "Ce-Chaindepth: 0")
	w.do(t, "POST", ordersTopic, strings.NewReader(strings.Replace(fmt.Sprintf(structured, "b"), "/namespaces/shop/topics/orders", forged, 1)), bearer(ordersKey), "Content-Type: application/cloudevents+json")
	all := w.stored(t)
	if len(all) != 2 {
		t.Fatalf("%d are stored", len(all))
	}
	for _, m := range all {
		if m.Source != "/namespaces/shop/topics/orders" || m.Extensions["claimedsource"] != forged || m.Extensions["principal"] != "key:orders" ||
			m.Chain != (event.Chain{}) || m.Extensions["chaindepth"] != "" || m.Extensions["attempt"] != "" {
			t.Errorf("stored: %+v", m)
		}
		if _, ok := Recall(routesForTests()[0].Ref, m); ok {
			t.Error("a published event passes for a call that was accepted")
		}
	}
}

// TestAttackTopicWithoutScope tries every key that may not publish there.
func TestAttackTopicWithoutScope(t *testing.T) {
	t.Parallel()
	w := newTopicWorld(t)
	send := func(path string, fields ...string) answer {
		return w.do(t, "POST", path, strings.NewReader(fmt.Sprintf(structured, "x")), append(fields, "Content-Type: application/cloudevents+json")...)
	}
	send(ordersTopic).want(t, problem.Unauthenticated)
	send(ordersTopic, bearer(unknownKey)).want(t, problem.Unauthenticated)
	send(ordersTopic, bearer(ordersKey), "X-API-Key: "+ordersKey).want(t, problem.Unauthenticated)
	send(ordersTopic, bearer(goodKey)).want(t, problem.Forbidden) // may invoke everything
	send(ordersTopic, bearer(readKey)).want(t, problem.Forbidden)
	send("/~shop/.casemate/topics/others", bearer(ordersKey)).want(t, problem.Forbidden)
	// The topic of that name in another namespace.
	send("/.casemate/topics/orders", bearer(ordersKey)).want(t, problem.Forbidden)
	send("/~elsewhere/.casemate/topics/orders", bearer(ordersKey)).want(t, problem.Forbidden)
	for _, path := range []string{
		"/~default/.casemate/topics/orders", "/~shop/.casemate/topics/", "/~shop/.casemate/topics/Orders", "/~shop/.casemate/topics/orders/x",
		"/~shop/.casemate/topics", "/~Shop/.casemate/topics/orders", "/~shop/.casemate/healthz", "/~/.casemate/topics/orders", "/~shop/x/.casemate/topics/orders",
	} {
		send(path, bearer(ordersKey)).want(t, problem.NotFound)
	}
	if a := w.do(t, "GET", ordersTopic, nil, bearer(ordersKey)); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("reading a topic: %s", a.text)
	}
	if n := len(w.stored(t)); n != 0 {
		t.Errorf("%d events were stored", n)
	}
	// And the key opens nothing else.
	w.do(t, "GET", "/hello", nil, bearer(ordersKey)).want(t, problem.Forbidden)
	w.topics = nil
	send(ordersTopic, bearer(ordersKey)).want(t, problem.NotFound)
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	w := newTopicWorld(t)
	send := func(body string, fields ...string) answer {
		return w.do(t, "POST", ordersTopic, strings.NewReader(body), append(fields, bearer(ordersKey))...)
	}
	one, batch := "Content-Type: application/cloudevents+json", "Content-Type: application/cloudevents-batch+json"
	for name, c := range map[string]struct {
		a     answer
		code  problem.Code
		field string
	}{
		"no event":        {send(`{"a":1}`, "Content-Type: application/json"), problem.UnsupportedMedia, ""},
		"another version": {send(strings.Replace(fmt.Sprintf(structured, "a"), `"1.0"`, `"0.3"`, 1), one), problem.UnsupportedMedia, ""},
		"no id":           {send(fmt.Sprintf(structured, ""), one), problem.BadRequest, "event"},
		"not JSON":        {send("{", one), problem.BadRequest, "event"},
		"twice":           {send(`{"specversion":"1.0","id":"a","id":"b","source":"/s","type":"t"}`, one), problem.BadRequest, "event"},
		"second of two":   {send("["+fmt.Sprintf(structured, "a")+","+fmt.Sprintf(structured, "")+"]", batch), problem.BadRequest, "events[1]"},
		"deep":            {send(`{"specversion":"1.0","id":"a","source":"/s","type":"t","data":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`, one), problem.BadRequest, "event"},
		"broken rule": {
			send("\xff", "Ce-Specversion: 1.0", "Ce-Id: a", "Ce-Source: /s", "Ce-Type: t", "Content-Type: text/plain"), problem.InvalidEvent, "events[0].data",
		},
		"too many": {send("["+strings.Repeat(`{},`, 1000)+"{}]", batch), problem.BodyTooLarge, "body"},
		"too long": {send(strings.Repeat(" ", 9<<20+1), one), problem.BodyTooLarge, "body"},
	} {
		c.a.want(t, c.code)
		if f := c.a.problem(t).Field; f != c.field {
			t.Errorf("%s: field %q in %s", name, f, c.a.text)
		}
	}
	w.full = fmt.Errorf("%s: %w", planted, state.ErrFull)
	if a := send(fmt.Sprintf(structured, "a"), one); a.status != 429 || a.header.Get("Retry-After") != "30" || strings.Contains(a.text, "planted") {
		t.Errorf("disk full: %s", a.text)
	}
	w.full = errors.New(planted)
	if a := send(fmt.Sprintf(structured, "a"), one); a.status != 500 || strings.Contains(a.text, "planted") {
		t.Errorf("stream down: %s", a.text)
	}
	w.full, w.waiting = nil, 1<<40
	if a := send(fmt.Sprintf(structured, "a"), one); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("too many wait: %s", a.text)
	}
	if n := len(w.stored(t)); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

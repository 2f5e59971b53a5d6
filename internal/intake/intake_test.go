package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/state"
)

func TestAcceptWaitsForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stages())
		w.waiting = 10
		s := w.sink(t, "", "")
		done := make(chan error, 1)
		go func() { done <- s.Accept(t.Context(), []event.Message{ev("1", "{}")}) }()
		<-time.After(time.Minute) // of the bubble's clock
		synctest.Wait()
		if len(w.entries) > 0 || s.Counts().Waiting != 1 {
			t.Fatalf("it did not wait: %+v", s.Counts())
		}
		w.mu.Lock()
		w.waiting = 9
		w.mu.Unlock()
		if err := <-done; err != nil || len(w.entries) != 1 || s.Counts().Waiting != 0 {
			t.Errorf("got %v, %d stored, %+v", err, len(w.entries), s.Counts())
		}
	})
}

func TestCloseEndsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stages())
		w.waiting = 10
		s := w.sink(t, "", "")
		done := make(chan error, 1)
		go func() { done <- s.Accept(t.Context(), []event.Message{ev("1", "{}")}) }()
		synctest.Wait()
		s.Close()
		if err := <-done; !errors.Is(err, source.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFullDiskIsBusyForThoseWhoWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stages())
	w.publish = fmt.Errorf("storing: %w", state.ErrFull)
	s := w.sink(t, "", "")
	var busy *BusyError
	if _, err := s.Offer(t.Context(), []event.Message{ev("1", "{}")}); !errors.As(err, &busy) {
		t.Errorf("got %v", err)
	}
	if err := s.Accept(t.Context(), []event.Message{ev("1", "{}")}); !errors.Is(err, state.ErrFull) {
		t.Errorf("got %v", err)
	}
	if c := s.Counts(); c.Busy != 1 || c.Failed != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stages())
	forged := ev("1", "{}")
	forged.Source, forged.Extensions = "/namespaces/shop/topics/paid", map[string]string{"principal": "key:admin"}
	forged.Chain = event.Chain{ID: "c", Depth: 2}
	send := func(principal string) Stored {
		t.Helper()
		stored, err := w.in.Publish(t.Context(), "shop", "orders", principal, []event.Message{forged})
		if err != nil {
			t.Fatal(err)
		}
		return stored[0]
	}
	if s := send("key:a"); s.Duplicate {
		t.Error("the first one is a duplicate")
	}
	if s := send("key:a"); !s.Duplicate {
		t.Error("the same id of the same sender was stored twice")
	}
	if s := send("key:b"); s.Duplicate {
		t.Error("one sender took another's id")
	}
	m := w.stored(t)[0]
	if m.Source != "/namespaces/shop/topics/orders" || m.Extensions["principal"] != "key:a" || m.Extensions["claimedsource"] != "/namespaces/shop/topics/paid" || m.Chain.Depth != 2 || m.ID != "1" {
		t.Errorf("got %+v", m)
	}
	if e := w.entries[0]; e.Channel != "topic.orders" || !strings.HasPrefix(e.ID, "1~") {
		t.Errorf("got %+v", e)
	}
	var invalid *InvalidError
	for _, topic := range []string{"", "a.b", "*", ">", "Orders", "a b"} {
		if _, err := w.in.Publish(t.Context(), "shop", topic, "key:a", []event.Message{ev("9", "{}")}); !errors.As(err, &invalid) {
			t.Errorf("topic %q: got %v", topic, err)
		}
		if _, err := w.in.Publish(t.Context(), topic, "orders", "key:a", []event.Message{ev("9", "{}")}); !errors.As(err, &invalid) {
			t.Errorf("namespace %q: got %v", topic, err)
		}
	}
	if len(w.entries) != 2 {
		t.Errorf("%d stored", len(w.entries))
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stages())
	m := event.Message{Event: event.Event{ID: "r-1", DataContentType: "application/json"}, Data: []byte("not JSON"), Detail: map[string]string{"http.method": "POST"}}
	if _, err := w.in.Async(t.Context(), orders, "key:a", m); err != nil {
		t.Fatal(err)
	}
	got := w.stored(t)[0]
	if w.entries[0].Channel != "async.orders" || w.entries[0].ID != "r-1" || got.Source != "/namespaces/shop/functions/orders" || got.Type != TypeInvoke || string(got.Data) != "not JSON" || got.Detail["http.method"] != "POST" || got.Extensions["principal"] != "key:a" {
		t.Errorf("got %+v %+v", w.entries[0], got)
	}
	var invalid *InvalidError
	if _, err := w.in.Async(t.Context(), function.Ref{Namespace: "shop", Name: "a.b"}, "", m); !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
}

// Whatever breaks the bounds of an event can be kept and read again.
func TestDeadLettersCanBeStored(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", event.MaxAttribute)
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("x%d", i)] = "1"
	}
	for name, change := range map[string]func(*event.Message){
		"no id":        func(m *event.Message) { m.ID = "" },
		"long id":      func(m *event.Message) { m.ID = long },
		"control":      func(m *event.Message) { m.Subject = "a\x00\u0085b" },
		"not UTF-8":    func(m *event.Message) { m.Type = "\xff\xfe{}" },
		"no type":      func(m *event.Message) { m.Type = "" },
		"far future":   func(m *event.Message) { m.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"extensions":   func(m *event.Message) { m.Extensions = many },
		"extension":    func(m *event.Message) { m.Extensions = map[string]string{"Bad": "1", "good": "1"} },
		"long source":  func(m *event.Message) { m.Source = long },
		"too much":     func(m *event.Message) { m.Data = make([]byte, event.MaxData+1) },
		"long key":     func(m *event.Message) { m.Key = long },
		"detail":       func(m *event.Message) { m.Detail = map[string]string{"a": strings.Repeat("x", event.MaxDetail)} },
		"detail UTF-8": func(m *event.Message) { m.Detail = map[string]string{"a": "\xff"} },
		"text":         func(m *event.Message) { m.DataContentType, m.Data = "text/plain; charset=utf-8", []byte("\xff") },
	} {
		w := newWorld(t, stages())
		m := ev("1", "{}")
		change(&m)
		s := w.sink(t, "", "")
		for range 2 {
			if err := s.Accept(t.Context(), []event.Message{m}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(w.letters) != 1 || len(w.entries) > 0 {
			t.Errorf("%s: %d dead letters, %d stored", name, len(w.letters), len(w.entries))
			continue
		}
		kept := w.letters[0].Message
		b, err := kept.Encode()
		if err == nil {
			_, err = event.Decode(b)
		}
		if err != nil || w.letters[0].ID == "" || kept.Source != "/namespaces/shop/functions/orders/triggers/in" {
			t.Errorf("%s: %v, %+v", name, err, w.letters[0])
		}
	}
}

func TestContent(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":0`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	for _, c := range []struct{ kind, data, want string }{
		{"application/json", ` {"a":[1,-0.5e+3,"é\u00e9\ud83d\ude00",true,false,null,{}],"b":[]} `, ""},
		{"application/json", ``, ""},
		{"application/json", deep(64), ""},
		{"application/json", deep(65), "deeper than 64"},
		{"application/json", strings.Repeat("[", 1_000_000), "deeper than 64"},
		{"application/json", keys(100), ""},
		{"application/json", strings.Replace(keys(100), `"k99"`, `"k3"`, 1), "twice"},
		{"application/json", keys(MaxJSONMembers + 1), "more than 100000 keys"},
		{"application/json", "[" + strings.Repeat("0,", MaxJSONValues) + "0]", "more than 1000000 values"},
		{"application/json", `{"a":1,"\u0061":2}`, "twice"},
		{"application/json", `{"a":{"b":1},"c":{"b":1}}`, ""},
		{"application/json", "{\"a\":\"\xff\"}", "not UTF-8"},
		{"application/json", "{\"a\":\"\x01\"}", "control character"},
		{"application/json", "\ufeff{}", "no value"},
		{"application/json", `{} {}`, "goes on"},
		{"application/json", `{"a":}`, "no value"},
		{"application/json", `[1,]`, "no value"},
		{"application/json", `[1 2]`, "without comma"},
		{"application/json", `{"a" 1}`, "without colon"},
		{"application/json", `{"a":1 "b":2}`, "without comma"},
		{"application/json", `{a:1}`, "no text"},
		{"application/json", `"\x"`, "escape"},
		{"application/json", `"abc`, "without end"},
		{"application/json", `"abc\`, "without end"},
		{"application/json", `[`, "too early"},
		{"application/json", `01`, "goes on"},
		{"application/json", `-`, "without digits"},
		{"application/json", `1.`, "its point"},
		{"application/json", `1e`, "without exponent"},
		{"application/json", `1e999999999999`, "exponent beyond"},
		{"application/json", `1E-0001001`, "exponent beyond"},
		{"application/json", `1e-000001000`, ""},
		{"application/json", strings.Repeat("9", 1001), "more than 1000 characters"},
		{"application/vnd.x+json; charset=utf-8", `{`, "too early|no text"},
		{"application/json; charset", `{`, "too early|no text"},
		{"application/JSON", `{`, "too early|no text"},
		{"text/plain", "\xff", "UTF-8"},
		{"text/plain; charset=iso-8859-1", "\xff", ""},
		{"application/octet-stream", "\xff{", ""},
		{"", "\xff{", ""},
	} {
		w := newWorld(t, stages())
		m := ev("1", c.data)
		m.DataContentType = c.kind
		_, err := w.sink(t, "", "").Offer(t.Context(), []event.Message{m})
		ok := err == nil && c.want == ""
		for _, want := range strings.Split(c.want, "|") {
			ok = ok || (err != nil && want != "" && strings.Contains(err.Error(), want))
		}
		if !ok {
			t.Errorf("%s %.60q: got %v, want %q", c.kind, c.data, err, c.want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\u00e9"]}`, `[[[]]]`, `"\ud800"`, `-0`, `{"a":1,"a":2}`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkJSON(b) == nil && !json.Valid(b) {
			t.Errorf("%q was taken", b)
		}
	})
}

// What the standard library takes and we do not has one of our own reasons.
func FuzzJSONRefusals(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5e3,"\u00e9"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := checkJSON(b)
		if w == nil || !json.Valid(b) {
			return
		}
		for _, ours := range []string{"twice", "UTF-8", "deeper", "more than", "exponent beyond"} {
			if strings.Contains(w.reason, ours) {
				return
			}
		}
		t.Errorf("%q is valid, and refused: %s", b, w.reason)
	})
}

func TestIntakeUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stages())
	s := w.sink(t, `{"filter":{"sql":"type = 'order.created'"}}`, `{"type":"object","required":["n"]}`)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				data := fmt.Sprintf(`{"n":%d}`, i)
				if i%10 == 0 {
					data = `{}`
				}
				m := ev(fmt.Sprintf("%d-%d", g, i), data)
				if i%10 == 1 {
					m.Type = "other"
				}
				if err := s.Accept(t.Context(), []event.Message{m}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if c := s.Counts(); c.Stored != 8*160 || c.Invalid != 8*20 || c.Filtered != 8*20 || c != w.in.Counts() {
		t.Errorf("got %+v, %+v", c, w.in.Counts())
	}
}

func BenchmarkAccept(b *testing.B) {
	w := newWorld(b, stages())
	s := w.sink(b, "", `{"type":"object","properties":{"n":{"type":"integer"}}}`)
	m := ev("1", `{"n":1,"text":"`+strings.Repeat("x", 480)+`"}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Accept(b.Context(), []event.Message{m}); err != nil {
			b.Fatal(err)
		}
	}
}

package cloudevent_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
)

// lower gives headers as the doors hand them in.
func lower(h http.Header) headers {
	out := make(headers, len(h))
	for k, v := range h {
		out[strings.ToLower(k)] = v
	}
	return out
}

// sdkEvents are events as users of the SDK make them.
func sdkEvents(t *testing.T) []ce.Event {
	t.Helper()
	make1 := func(id string, contentType string, data any) ce.Event {
		e := ce.NewEvent()
		e.SetID(id)
		e.SetSource("https://shop.example/orders?x=1")
		e.SetType("com.example.order.created")
		if err := e.SetData(contentType, data); err != nil {
			t.Fatal(err)
		}
		return e
	}
	a := make1("a", ce.ApplicationJSON, map[string]any{"n": 1, "s": "é<>"})
	a.SetSubject("order 7, 100%")
	a.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	a.SetDataSchema("https://shop.example/schema.json")
	a.SetExtension("partitionkey", "customer7")
	a.SetExtension("number", 7)
	a.SetExtension("flag", true)
	b := make1("b", ce.TextPlain, "plain é")
	c := make1("c", "application/octet-stream", []byte{0, 0xff, 1})
	d := ce.NewEvent()
	d.SetID("d")
	d.SetSource("/relative")
	d.SetType("nothing")
	return []ce.Event{a, b, c, d}
}

// same compares what the SDK meant with what we read.
func same(t *testing.T, how string, want ce.Event, got event.Message) {
	t.Helper()
	// The SDK's client stamps a time when there is none.
	if want.Time().IsZero() {
		got.Time = want.Time()
	}
	if got.ID != want.ID() || got.Source != want.Source() || got.Type != want.Type() || got.Subject != want.Subject() ||
		!got.Time.Equal(want.Time()) || string(got.Data) != string(want.Data()) || got.Detail["dataschema"] != want.DataSchema() {
		t.Errorf("%s: got  %+v\nwant %v", how, got, want)
	}
	if len(want.Data()) > 0 && got.DataContentType != want.DataContentType() {
		t.Errorf("%s: got type %q, want %q", how, got.DataContentType, want.DataContentType())
	}
	if len(got.Extensions) != len(want.Extensions()) {
		t.Errorf("%s: got %v, want %v", how, got.Extensions, want.Extensions())
	}
	for k := range want.Extensions() {
		var text string
		if err := want.ExtensionAs(k, &text); err == nil && text != got.Extensions[k] {
			t.Errorf("%s: extension %s: got %q, want %q", how, k, got.Extensions[k], text)
		}
	}
}

func TestReadsWhatTheSDKSends(t *testing.T) {
	t.Parallel()
	type request struct {
		header headers
		body   []byte
	}
	got := make(chan request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{lower(r.Header), b}
	}))
	t.Cleanup(server.Close)
	client, err := ce.NewClientHTTP(ce.WithTarget(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	for how, mode := range map[string]func(context.Context) context.Context{
		"binary": binding.WithForceBinary, "structured": binding.WithForceStructured,
	} {
		for _, e := range sdkEvents(t) {
			if err := client.Send(mode(t.Context()), e); ce.IsUndelivered(err) {
				t.Fatal(err)
			}
			r := <-got
			all, err := cloudevent.Read(r.header, r.body)
			if err != nil || len(all) != 1 {
				t.Fatalf("%s %s: %v", how, e.ID(), err)
			}
			same(t, how, e, all[0])
		}
	}
	req, err := cehttp.NewHTTPRequestFromEvents(t.Context(), server.URL, sdkEvents(t))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	r := <-got
	all, err := cloudevent.Read(r.header, r.body)
	if err != nil || len(all) != len(sdkEvents(t)) {
		t.Fatalf("batch: %d, %v", len(all), err)
	}
	for i, e := range sdkEvents(t) {
		same(t, "batch", e, all[i])
	}
}

func TestTheSDKReadsWhatWeWrite(t *testing.T) {
	t.Parallel()
	ours := []event.Message{
		{Event: event.Event{ID: "1", Source: "/a", Type: "t", DataContentType: "application/json"}, Data: []byte(`{"x":"<é>"}`)},
		{Event: event.Event{ID: "2", Source: "/a", Type: "t", DataContentType: "text/plain", Subject: "s"}, Data: []byte("x\n")},
		{Event: event.Event{ID: "3", Source: "/a", Type: "t", DataContentType: "image/png", Time: time.Unix(7, 0)}, Data: []byte{0xff, 0}},
		{Event: event.Event{ID: "4", Source: "/a", Type: "t", Extensions: map[string]string{"k": "v"}}},
	}
	for _, m := range ours {
		b, err := cloudevent.WriteStructured(&m)
		if err != nil {
			t.Fatal(err)
		}
		var e ce.Event
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		same(t, "structured", e, m)
		// The binary form is event's; the SDK judges it here, beside the others.
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(string(m.Data)))
		for k, v := range m.Headers() {
			req.Header[http.CanonicalHeaderKey(k)] = v
		}
		back, err := cehttp.NewEventFromHTTPRequest(req)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "binary", *back, m)
	}
	b, err := cloudevent.WriteBatch(ours)
	if err != nil {
		t.Fatal(err)
	}
	var all []ce.Event
	if err := json.Unmarshal(b, &all); err != nil || len(all) != len(ours) {
		t.Fatalf("batch: %d, %v", len(all), err)
	}
	for i := range all {
		same(t, "batch", all[i], ours[i])
	}
}

package cloudevent_test

import (
	"encoding/json"
	"reflect"
	"testing"

	ce "github.com/cloudevents/sdk-go/v2"

	"github.com/casemate-dev/casemate/internal/event/cloudevent"
)

// FuzzStructured has the SDK judge: what we accept it accepts too, and it means the same.
func FuzzStructured(f *testing.F) {
	for _, tc := range refusals {
		if len(tc.body) < 4096 {
			f.Add([]byte(tc.body))
		}
	}
	for _, more := range []string{``, `,"data":{"a":[1]},"subject":"s"`, `,"data_base64":"AA==","x":1`, `,"data":"x","datacontenttype":"text/plain"`} {
		f.Add([]byte(object(more)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := cloudevent.Read(structured(), b)
		if err != nil {
			return
		}
		m := got[0]
		if err := m.Validate(); err != nil {
			t.Fatalf("read an event that is not valid: %v", err)
		}
		var e ce.Event
		if err := json.Unmarshal(b, &e); err != nil {
			t.Skip() // the SDK is narrower in places: it wants source to be more of a URI
		}
		if e.ID() != m.ID || e.Type() != m.Type || e.Subject() != m.Subject {
			t.Fatalf("got %+v, the SDK %v", m, e)
		}
		again, err := cloudevent.WriteStructured(&m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := cloudevent.Read(structured(), again)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again)
		}
		if len(back[0].Data) == 0 && len(m.Data) == 0 {
			back[0].Data, m.Data = nil, nil
		}
		if !reflect.DeepEqual(back[0], m) {
			t.Fatalf("got  %+v\nwant %+v", back[0], m)
		}
	})
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`[` + object("") + `,` + object(`,"data":1`) + `]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[[],{}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := cloudevent.Read(batch(), b)
		if err != nil {
			return
		}
		for i := range got {
			if err := got[i].Validate(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := cloudevent.WriteBatch(got); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzBinary(f *testing.F) {
	f.Add("1", "a%20b", "2026-01-01T00:00:00Z", "k", "v", "application/json", []byte(`{}`))
	f.Add("\xff", `"q\"`, "", "a-b", "%", "text/plain; charset=x", []byte{0})
	f.Fuzz(func(t *testing.T, id, subject, at, k, v, contentType string, body []byte) {
		h := binary(headers{"ce-id": {id}, "ce-subject": {subject}, "ce-time": {at}, "ce-" + k: {v}, "content-type": {contentType}})
		got, err := cloudevent.Read(h, body)
		if err != nil {
			return
		}
		if err := got[0].Validate(); err != nil {
			t.Fatal(err)
		}
		// What event writes is read to the same.
		back, err := cloudevent.Read(got[0].Headers(), body)
		if err != nil {
			t.Fatal(err)
		}
		back[0].Detail = got[0].Detail // dataschema is not an attribute of event's
		if !reflect.DeepEqual(got, back) {
			t.Fatalf("got  %+v\nwant %+v", back, got)
		}
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add("events.example.com", "10")
	f.Add("a\r\nb", "-1")
	f.Fuzz(func(t *testing.T, origin, rate string) {
		h := cloudevent.Handshake{Origins: []string{"*"}}
		answer, _ := h.Answer(headers{"webhook-request-origin": {origin}, "webhook-request-rate": {rate}})
		for _, v := range answer {
			for i := range len(v) {
				if v[i] < 0x20 || v[i] > 0x7e {
					t.Fatalf("%q is not fit for a header", v)
				}
			}
		}
	})
}

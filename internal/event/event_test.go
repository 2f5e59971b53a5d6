package event_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

func valid() event.Event {
	return event.Event{ID: "1", Source: "//casemate/key:abc", Type: "order.created"}
}

func TestValidateNamesTheAttribute(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*event.Event)
		want   string
	}{
		"no id":              {func(e *event.Event) { e.ID = "" }, "id"},
		"no source":          {func(e *event.Event) { e.Source = "" }, "source"},
		"no type":            {func(e *event.Event) { e.Type = "" }, "type"},
		"header injection":   {func(e *event.Event) { e.Subject = "a\r\nx-evil: 1" }, "subject"},
		"not UTF-8":          {func(e *event.Event) { e.Type = "\xff" }, "type"},
		"too long":           {func(e *event.Event) { e.Subject = strings.Repeat("x", event.MaxAttribute+1) }, "subject"},
		"extension's name":   {func(e *event.Event) { e.Extensions = map[string]string{"Bad-Name": "1"} }, `"Bad-Name"`},
		"forged source":      {func(e *event.Event) { e.Extensions = map[string]string{"source": "//bank"} }, "source"},
		"extension's value":  {func(e *event.Event) { e.Extensions = map[string]string{"x": "\x00"} }, "x"},
		"content type break": {func(e *event.Event) { e.DataContentType = "a/b\nx: y" }, "datacontenttype"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := valid()
			tc.change(&e)
			var ae *event.AttributeError
			if err := e.Validate(); !errors.As(err, &ae) || ae.Attribute != tc.want {
				t.Errorf("got %v, want attribute %s", err, tc.want)
			}
		})
	}
	e := valid()
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
}

func TestHeadersAreBinaryMode(t *testing.T) {
	t.Parallel()
	e := valid()
	e.Subject = `naïve "5 %"`
	e.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e.DataContentType = "application/json"
	e.Extensions = map[string]string{"traceid": "7"}
	h := e.Headers()
	for k, want := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "//casemate/key:abc", "ce-type": "order.created",
		"ce-subject": "na%C3%AFve%20%225%20%25%22", "ce-time": "2026-01-02T03:04:05Z",
		"content-type": "application/json", "ce-traceid": "7",
	} {
		if got := h[k]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", k, got, want)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("id", "type", "subject", "k", "v")
	f.Add("\r\n", "é", "%", "source", "\x7f")
	f.Fuzz(func(t *testing.T, id, typ, subject, k, v string) {
		e := event.Event{ID: id, Source: "//casemate", Type: typ, Subject: subject, Extensions: map[string]string{k: v}}
		if e.Validate() != nil {
			return
		}
		for name, values := range e.Headers() {
			for _, s := range append(values, name) {
				for i := range len(s) {
					if s[i] < 0x20 || s[i] > 0x7e {
						t.Fatalf("%q is not fit for a header", s)
					}
				}
			}
		}
	})
}

package queue_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/connector"
	"github.com/casemate-dev/casemate/connector/queue"
)

func settings(t testing.TB) queue.Settings {
	t.Helper()
	var s queue.Settings
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEventOfAMessage(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Key = "header.customer"
	e := s.Event(queue.Raw{
		ID: "1-0", Subject: "orders", Time: time.UnixMilli(1), Data: []byte("x"), Key: "other",
		Detail: []queue.Entry{
			{Name: "header.customer", Value: "7"},
			{Name: "header.customer", Value: "8"},
			{Name: "header.bin", Value: "\xff"},
			{Name: "header.traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		},
	})
	if e.ID != "1-0" || e.Type != queue.Type || e.Key != "7" || e.DataContentType != "application/octet-stream" ||
		e.Detail["header.bin.base64"] != "/w==" || e.Detail["queue.omitted"] != "1" || e.Extensions["traceparent"] == "" {
		t.Errorf("%+v", e)
	}
	e = s.Event(queue.Raw{ID: "1", Data: make([]byte, queue.MaxData+1)})
	if e.Type != queue.TypeOversized || e.Data != nil || e.Detail["queue.oversized"] != "6291457" {
		t.Errorf("%+v", e)
	}
}

func FuzzEventIsAlwaysTaken(f *testing.F) {
	f.Add("id", "subject", "text/plain", "key", "name", "value")
	f.Add("", "\n", "a/b\r\nx: y", strings.Repeat("k", 300), "\xff", strings.Repeat("\x00", 40000))
	f.Fuzz(func(t *testing.T, id, subject, contentType, key, name, value string) {
		s := settings(t)
		e := s.Event(queue.Raw{ID: id, Subject: subject, ContentType: contentType, Key: key, Detail: []queue.Entry{{name, value}, {"b", value}}})
		for _, a := range []string{e.ID, e.Subject, e.DataContentType, e.Key} {
			if len(a) > 1024 || !utf8.ValidString(a) || strings.ContainsFunc(a, func(r rune) bool { return r < 0x20 || (r >= 0x7f && r <= 0x9f) }) {
				t.Fatalf("attribute %q", a)
			}
		}
		size := 0
		for k, v := range e.Detail {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				t.Fatalf("detail %q=%q", k, v)
			}
			size += len(k) + len(v)
		}
		b, err := json.Marshal(e.Detail)
		if e.ID == "" || len(e.Key) > 256 || size > 32<<10 || err != nil || len(b) > 70<<10 {
			t.Fatalf("%+v", e)
		}
	})
}

func TestLinkIsSafeByDefault(t *testing.T) {
	t.Parallel()
	for raw, field := range map[string]string{
		`{"servers":["a:1"]}`:                                   "",
		`{"servers":["localhost:1"],"plaintext":true}`:          "",
		`{"servers":["a:1"],"plaintext":true}`:                  "plaintext",
		`{"servers":["a:1"],"insecurePlaintext":true}`:          "",
		`{"servers":["redis://a:1"]}`:                           "servers",
		`{"servers":["u@a:1"]}`:                                 "servers",
		`{"servers":["a:0"]}`:                                   "servers",
		`{"servers":["a"]}`:                                     "servers",
		`{"servers":[]}`:                                        "servers",
		`{"servers":"a:1"}`:                                     "servers",
		`{"servers":["a:1"],"password":"x"}`:                    "password",
		`{"servers":["a:1"],"ca":"x"}`:                          "ca",
		`{"servers":["a:1"],"colour":"x"}`:                      "colour",
		`[]`:                                                    "settings",
		`{"servers":["a:1"],"username":"` + "\\u0000" + `"}`:    "username",
		`{"servers":["a:1"],"username":"a"}{"servers":["b:1"]}`: "settings",
	} {
		var l queue.Link
		err := queue.Read([]byte(raw), &l, "ca")
		if err == nil {
			err = l.Check()
		}
		var fe *connector.FieldError
		if got := ""; errors.As(err, &fe) {
			if got = fe.Field; got != field {
				t.Errorf("%s: field %q, want %q", raw, got, field)
			}
		} else if err != nil || field != "" {
			t.Errorf("%s: %v, want field %q", raw, err, field)
		}
	}
}

func TestPlaintextStaysOnThisMachine(t *testing.T) {
	t.Parallel()
	// TEST-NET-1 (RFC 5737) belongs to nobody; the refusal comes before anything is sent.
	_, err := queue.Dial(t.Context(), "tcp", "192.0.2.1:1", true)
	if err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("got %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, s := range []queue.Settings{{Prefetch: -1}, {Prefetch: 1001}, {ContentType: "no type"}, {Key: strings.Repeat("x", 257)}} {
		var fe *connector.FieldError
		if err := s.Check(); !errors.As(err, &fe) || !slices.Contains([]string{"prefetch", "contentType", "key"}, fe.Field) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

package event

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestOlderFormIsRead is for what was stored before there was the present form.
func TestOlderFormIsRead(t *testing.T) {
	t.Parallel()
	stored := `{"v":1,"id":"1","source":"/a","type":"t","subject":"s","time":"2026-01-02T03:04:05.000000006Z","datacontenttype":"text/plain",` +
		`"ext":{"a":"b"},"key":"k","detail":{"x":"<y>\n"},"chain":{"id":"0","depth":3}}` + "\nline\nline"
	got, err := Decode([]byte(stored))
	if err != nil || !reflect.DeepEqual(got, full()) {
		t.Errorf("got %+v, %v, want %+v", got, err, full())
	}
}

// TestStoredFormStaysAsItIs holds bytes that are on disks.
func TestStoredFormStaysAsItIs(t *testing.T) {
	t.Parallel()
	m := full()
	m.Extensions["b"], m.Extensions["A0"] = "", "c" // not valid, but that is not looked at
	delete(m.Extensions, "A0")
	want := "\x02\x30\x011\x02/a\x01t\x01s\x0atext/plain\x01k\x010\x06" + // up to the depth of the chain
		"\x01\xca\xd6\xb9\x95\x0d\x06" + // seconds and nanoseconds
		"\x02\x01a\x01b\x01b\x00" + "\x01\x01x\x04<y>\n" + "line\nline"
	for range 20 { // the order of a map is another one each time
		if b, err := m.Encode(); err != nil || string(b) != want {
			t.Fatalf("got %q, %v, want %q", b, err, want)
		}
	}
	if got, err := Decode([]byte(want)); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v, want %+v", got, err, m)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	good := "\x02\x11\x011\x02/a\x01t\x00\x00\x00\x00\x00\x01\x00\x05\x00\x00data"
	if m, err := Decode([]byte(good)); err != nil || !m.Time.Equal(time.Unix(0, 5)) || string(m.Data) != "data" {
		t.Fatalf("the good one gave %+v, %v", m, err)
	}
	for what, b := range map[string]string{
		"nothing":                   "",
		"another form":              "\x03" + good[1:],
		"a head beyond its end":     "\x02\x20" + good[2:16],
		"a long number":             "\x02\x91\x00" + good[2:],
		"no head":                   "\x02",
		"a head with a rest":        "\x02\x12" + good[2:19] + "\x00",
		"a head too short":          "\x02\x10" + good[2:],
		"text beyond the head":      "\x02\x11\x7f" + good[3:],
		"a time of another kind":    strings.Replace(good, "\x01\x00\x05", "\x02\x00\x05", 1),
		"two lengths for one value": strings.Replace(good, "\x00\x05\x00", "\x80\x00\x00", 1),
		"an extension twice":        "\x02\x15\x011\x02/a\x01t\x00\x00\x00\x00\x00\x00\x02\x01a\x00\x01a\x00\x00",
		"more pairs than there are": "\x02\x11\x011\x02/a\x01t\x00\x00\x00\x00\x00\x00\xff\x01\x00\x00",
		"more nanoseconds":          "\x02\x15\x011\x02/a\x01t\x00\x00\x00\x00\x00\x01\x00\x80\x94\xeb\xdc\x03\x00\x00",
		"an older form without end": `{"v":1,"id":"1","source":"/a","type":"t"}`,
		"an older form of 2":        `{"v":2,"id":"1","source":"/a","type":"t"}` + "\n",
	} {
		if m, err := Decode([]byte(b)); !errors.Is(err, errForm) {
			t.Errorf("%s: got %+v, %v", what, m, err)
		}
	}
	var a *AttributeError
	if _, err := Decode([]byte(strings.Replace(good, "/a", "/\n", 1))); !errors.As(err, &a) {
		t.Errorf("an attribute that is not valid gave %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"v":1,"id":"1","source":"/a","type":"t","ext":{"id":"2"}}` + "\n"))
	f.Add([]byte(`{"v":1,"id":"1","source":"/a","type":"t","time":"2026-01-02T03:04:05+01:00","ext":{"b":"2","a":"1"}}` + "\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		if b[0] == formBinary && !bytes.Equal(again, b) {
			t.Fatalf("%q is written as %q", b, again)
		}
		m.Time = m.Time.UTC() // the older form may have said it elsewhere
		if len(m.Extensions) == 0 {
			m.Extensions = nil
		}
		if len(m.Detail) == 0 {
			m.Detail = nil
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("it does not come back: %v", err)
		}
	})
}

func BenchmarkStored(b *testing.B) {
	m := &Message{
		Event: Event{ID: "e1", Source: "/namespaces/a/functions/b/triggers/c", Type: "bench.event", Time: time.Unix(1767323045, 6), DataContentType: "application/octet-stream"},
		Data:  make([]byte, 512),
	}
	b.ReportAllocs()
	for b.Loop() {
		stored, err := m.Encode()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(stored); err != nil {
			b.Fatal(err)
		}
	}
}

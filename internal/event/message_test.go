package event

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func full() *Message {
	return &Message{
		Event: Event{
			ID: "1", Source: "/a", Type: "t", Subject: "s", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
			DataContentType: "text/plain", Extensions: map[string]string{"a": "b"},
		},
		Data: []byte("line\nline"), Key: "k", Detail: map[string]string{"x": "<y>\n"}, Chain: Chain{ID: "0", Depth: 3},
	}
}

func TestStoredMessageComesBack(t *testing.T) {
	t.Parallel()
	for _, m := range []*Message{full(), {Event: Event{ID: "1", Source: "/a", Type: "t"}, Data: []byte{}}} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("got %+v, %v, want %+v", got, err, m)
		}
	}
}

// TestWhatIsValidCanBeStored takes the largest of everything, in its longest form.
func TestWhatIsValidCanBeStored(t *testing.T) {
	t.Parallel()
	m := full()
	m.Extensions = map[string]string{}
	for i := range MaxExtensions {
		m.Extensions["e"+string(rune('a'+i%26))+string(rune('a'+i/26))] = strings.Repeat("<", MaxAttribute)
	}
	m.ID, m.Source, m.Subject = strings.Repeat("&", MaxAttribute), strings.Repeat("<", MaxAttribute), strings.Repeat(">", MaxAttribute)
	m.Detail = map[string]string{"d": strings.Repeat("\x01", MaxDetail-1)}
	m.Key = strings.Repeat("\x01", maxKey)
	m.Data = make([]byte, MaxData)
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("it does not come back: %v", err)
	}
}

func TestMessagesOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Message){
		"data":         func(m *Message) { m.Data = make([]byte, MaxData+1) },
		"detail":       func(m *Message) { m.Detail = map[string]string{"a": strings.Repeat("x", MaxDetail)} },
		"partitionkey": func(m *Message) { m.Key = strings.Repeat("k", maxKey+1) },
		"time":         func(m *Message) { m.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"id":           func(m *Message) { m.ID = "" },
	} {
		m := full()
		change(m)
		var a *AttributeError
		if err := m.Validate(); !errors.As(err, &a) || a.Attribute != want {
			t.Errorf("%s: it gave %v", want, err)
		}
	}
	m := full()
	m.Detail = map[string]string{"a": "\xff"}
	if m.Validate() == nil {
		t.Error("a detail that is no text was taken")
	}
}

package queue_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Whatever a far side sends, the event can be stored: one that cannot would come again and
// again and hold its queue up.
func FuzzMessage(f *testing.F) {
	f.Add("1", "orders", "application/json", []byte("{}"), []byte("k"), "header.a", []byte("v"), int64(1700000000), 3)
	f.Add("\xff", "a\nb", "text/plain; x=\"\n\"", []byte(nil), []byte(strings.Repeat("k", 300)), "\x00", []byte("\x00"), int64(-1<<60), 40)
	f.Add(strings.Repeat("i", 2000), "", "", []byte("x"), []byte("\xfe"), "header.<", []byte(strings.Repeat("<", 4000)), int64(1<<60), 40)
	f.Add("\u0085", "\u2028", "é", []byte("x"), []byte("\u2028"), "header.\u2028", []byte(strings.Repeat("\u2028", 3000)), int64(253402300800), 9)
	f.Fuzz(func(t *testing.T, id, subject, contentType string, data, key []byte, name string, value []byte, when int64, n int) {
		if id == "" {
			return // every kind makes one
		}
		var s queue.Settings
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		r := queue.Raw{ID: id, Subject: subject, ContentType: contentType, Data: data, Key: key, Time: time.Unix(when, 0)}
		for range min(max(n, 0), 100) {
			r.Detail = append(r.Detail, queue.Entry{Name: name, Value: value})
		}
		m := s.Message(r)
		m.Source = "/test"
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := event.Decode(b); err != nil {
			t.Fatal(err)
		}
		if again := s.Message(r); again.ID != m.ID || again.Key != m.Key {
			t.Errorf("the same message has the ids %q and %q", m.ID, again.ID)
		}
	})
}

func TestHeadersThatFindNoRoomAreCounted(t *testing.T) {
	t.Parallel()
	var s queue.Settings
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	r := queue.Raw{ID: "1", Detail: []queue.Entry{queue.Text("queue.kind", "x"), queue.Text("header.big", strings.Repeat("x", event.MaxDetail)), queue.Text("header.small", "y")}}
	m := s.Message(r)
	if m.Detail["queue.kind"] != "x" || m.Detail["header.small"] != "y" || m.Detail["queue.omitted"] != "1" {
		t.Errorf("got %d details, omitted %q", len(m.Detail), m.Detail["queue.omitted"])
	}
}

// A name that leads off this machine must not be spoken to in the clear.
func TestPlaintextStaysOnThisMachine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own := queue.Link{Servers: []string{"localhost:1"}, Plaintext: true}
	c, err := own.DialPlain(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// 192.0.2.1 is nobody's (RFC 5737): the refusal comes before any packet.
	if _, err := own.DialPlain(ctx, "tcp", "192.0.2.1:1"); err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("got %v", err)
	}
}

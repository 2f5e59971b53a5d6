// Package queue is what the kinds of message queues below it share: the settings that
// all of them know, the way to the far side, and how a queue's message becomes an event.
//
// It may be imported by those kinds alone; it imports source and leaves. Messages of one
// binding are handed in one batch after another, in the order in which the far side gave
// them, and are acknowledged only after that. All of it may be used from many goroutines.
//
// # Settings of every trigger
//
//	prefetch     messages that may be under way unacknowledged, 1 to 1000 (64)
//	contentType  of messages that do not say what they are (application/octet-stream)
//	key          the entry of the event's detail that orders, for example header.customer
//	filter       which events the function wants; the intake's, not looked at here
//
// # Settings of every connection
//
//	servers            one or more of host:port
//	username           with the secret password
//	serverName         what the certificate must be for, when it is not the host
//	plaintext          true: no TLS, which is done to this machine alone
//	insecurePlaintext  true: no TLS, to anywhere
//
// Certificates are always verified: against the secret ca when there is one, otherwise
// against the system's authorities. A client certificate is the secrets cert and key.
//
// # Messages that no event can hold
//
// A body of more than event.MaxData becomes an event without data, of another type
// (TypeOversized), with its length in the detail queue.oversized: whoever needs the body
// is told, whoever wants messages is not handed an empty one, and the queue goes on.
// Headers that find no room are left out and counted in queue.omitted. Text that an
// attribute cannot hold is left out of the attribute and stands, in base64, in the detail.
package queue

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Types of the events.
const (
	Type          = "casemate.queue.message"
	TypeOversized = "casemate.queue.oversized"
)

// Bounds.
const (
	DefaultPrefetch = 64
	MaxPrefetch     = 1000
	// defaultContentType is what a message is whose sender says nothing: guessing would
	// let its content decide how it is read.
	defaultContentType = "application/octet-stream"
	// detailRoom is kept below event.MaxDetail, and encodedRoom below what an encoded
	// event's head may have, so that a message's headers can never make an event invalid.
	detailRoom  = event.MaxDetail - 1<<10
	encodedRoom = 64 << 10
	maxKey      = 256
)

// Settings are known to the triggers of every kind. The zero value is fit for use.
type Settings struct {
	Prefetch    int             `json:"prefetch"`
	ContentType string          `json:"contentType"`
	Key         string          `json:"key"`
	Filter      json.RawMessage `json:"filter"`
}

// Read reads a trigger's settings into a kind's own, of which common is a part, and checks
// what all kinds share. It fails with a *source.FieldError.
func Read(t *function.Trigger, kind string, into any, common *Settings) error {
	if err := source.Settings(t.Settings, into); err != nil {
		return err
	}
	if t.Connection == "" {
		return &source.FieldError{Field: "connection", Reason: "must name a connection of kind " + kind}
	}
	return common.Check()
}

// Check sets defaults. It fails with a *source.FieldError.
func (s *Settings) Check() error {
	switch {
	case s.Prefetch == 0:
		s.Prefetch = DefaultPrefetch
	case s.Prefetch < 0 || s.Prefetch > MaxPrefetch:
		return &source.FieldError{Field: "prefetch", Reason: fmt.Sprintf("must be 1 to %d", MaxPrefetch)}
	}
	if s.ContentType == "" {
		s.ContentType = defaultContentType
	} else if _, _, err := mime.ParseMediaType(s.ContentType); err != nil || !clean(s.ContentType) {
		return &source.FieldError{Field: "contentType", Reason: "must be a media type such as application/json"}
	}
	if len(s.Key) > maxKey {
		return &source.FieldError{Field: "key", Reason: "must name an entry of the event's detail such as header.customer"}
	}
	return nil
}

// Raw is a message as the far side gave it. None of it need be valid.
type Raw struct {
	ID          string
	Subject     string
	Time        time.Time
	ContentType string
	Data        []byte
	Oversized   int64  // length of a body that was not even read, and so is not in Data
	Key         []byte // the far side's own ordering key; empty for none
	Detail      []Entry
}

// Entry is one name and value of a message's detail. The first ones are the surest to
// find room.
type Entry struct {
	Name  string
	Value []byte
}

// Text makes an entry.
func Text(name, value string) Entry { return Entry{name, []byte(value)} }

// Number makes an entry.
func Number[N ~int | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint64](name string, n N) Entry {
	return Entry{name, fmt.Appendf(nil, "%d", n)}
}

var traceForm = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Message makes an event of r that is valid once its source is stamped.
func (s *Settings) Message(r Raw) event.Message {
	m := event.Message{
		Event: event.Event{ID: r.ID, Type: Type, DataContentType: r.ContentType},
		Data:  r.Data,
		Key:   orderingKey(r.Key),
	}
	size := max(r.Oversized, int64(len(r.Data)))
	var own []Entry
	if size > event.MaxData {
		own = append(own, Text("queue.oversized", strconv.FormatInt(size, 10)))
		m.Data, m.Type = nil, TypeOversized
	}
	if !clean(m.ID) {
		m.ID = digest([]byte(m.ID))
		own = append(own, Entry{"queue.id.base64", base64Of([]byte(r.ID))})
	}
	if m.Subject = r.Subject; !clean(m.Subject) {
		m.Subject = ""
		own = append(own, Entry{"queue.subject.base64", base64Of([]byte(r.Subject))})
	}
	if _, _, err := mime.ParseMediaType(m.DataContentType); err != nil || !clean(m.DataContentType) {
		m.DataContentType = s.ContentType
	}
	// What is outside has no form in RFC 3339.
	if y := r.Time.UTC().Year(); !r.Time.IsZero() && y >= 1970 && y <= 9999 {
		m.Time = r.Time.UTC()
	}
	m.Detail = details(append(own, r.Detail...))
	if s.Key != "" {
		m.Key = orderingKey([]byte(m.Detail[s.Key]))
	}
	if t := m.Detail["header.traceparent"]; traceForm.MatchString(t) {
		m.Extensions = map[string]string{"traceparent": t}
	}
	return m
}

// details keeps the entries that there is room for, in their order.
func details(entries []Entry) map[string]string {
	d := make(map[string]string, len(entries))
	size, encoded, omitted := 0, 0, 0
	for _, e := range entries {
		if len(e.Name)+len(e.Value) > detailRoom {
			omitted++
			continue
		}
		name, value := e.Name, string(e.Value)
		if !strings.HasSuffix(name, ".base64") && !printable(value) {
			name, value = name+".base64", string(base64Of(e.Value))
		}
		// A header may be there more than once.
		for n := 2; ; n++ {
			if _, there := d[name]; !there || n > 64 {
				break
			}
			name = e.Name + "." + strconv.Itoa(n)
		}
		cost := encodedSize(name) + encodedSize(value)
		_, there := d[name]
		if there || !printable(name) || size+len(name)+len(value) > detailRoom || encoded+cost > encodedRoom {
			omitted++
			continue
		}
		size, encoded = size+len(name)+len(value), encoded+cost
		d[name] = value
	}
	if omitted > 0 {
		d["queue.omitted"] = strconv.Itoa(omitted)
	}
	return d
}

// encodedSize is at least what JSON makes of s.
func encodedSize(s string) int {
	n := 6
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c >= 0x7f || c == '<' || c == '>' || c == '&':
			n += 6
		case c == '"' || c == '\\':
			n += 2
		default:
			n++
		}
	}
	return n
}

// orderingKey is k itself where it is fit for one, and otherwise its digest: the same keys
// stay the same.
func orderingKey(k []byte) string {
	if len(k) <= maxKey && clean(string(k)) {
		return string(k)
	}
	return digest(k)
}

// clean says whether an attribute of an event may hold s.
func clean(s string) bool { return len(s) <= event.MaxAttribute && printable(s) }

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || (r >= 0x7f && r <= 0x9f) }) < 0
}

func digest(b []byte) string {
	d := sha256.Sum256(b)
	return "sha256-" + hex.EncodeToString(d[:])
}

func base64Of(b []byte) []byte { return base64.StdEncoding.AppendEncode(nil, b) }

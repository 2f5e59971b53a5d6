// Package queue is for connectors of message queues: the settings that queues have in
// common, the way to their servers, and how a message becomes an event that a node always
// takes. It keeps to what the queues built into the node do, so that a function need not
// know which of both brought an event.
//
// It needs the standard library alone. Nothing in it is kept between calls, and all of it
// may be used from many goroutines.
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

	"github.com/casemate-dev/casemate/connector"
)

// Types of the events.
const (
	Type = "casemate.queue.message"
	// TypeOversized is of an event whose message has more than MaxData: it has no data, and
	// the detail queue.oversized says how long the message was.
	TypeOversized = "casemate.queue.oversized"
)

// Bounds, in bytes unless they count.
const (
	MaxData         = 6 << 20
	DefaultPrefetch = 64
	MaxPrefetch     = 1000

	maxAttribute = 1024
	maxKey       = 256
	maxDetail    = 31 << 10
	maxEncoded   = 64 << 10
)

// defaultContentType is what a message is that does not say. Guessing would let its
// content decide how it is read.
const defaultContentType = "application/octet-stream"

// Settings are what triggers of every queue know. Embed them.
type Settings struct {
	Prefetch    int             `json:"prefetch"`    // messages under way without an answer
	ContentType string          `json:"contentType"` // of messages that do not say
	Key         string          `json:"key"`         // the entry of the detail that orders
	Filter      json.RawMessage `json:"filter"`      // the node's; not looked at
}

// Check sets defaults. It fails with a *connector.FieldError.
func (s *Settings) Check() error {
	switch {
	case s.Prefetch == 0:
		s.Prefetch = DefaultPrefetch
	case s.Prefetch < 0 || s.Prefetch > MaxPrefetch:
		return &connector.FieldError{Field: "prefetch", Reason: fmt.Sprintf("must be 1 to %d", MaxPrefetch)}
	}
	if s.ContentType == "" {
		s.ContentType = defaultContentType
	} else if _, _, err := mime.ParseMediaType(s.ContentType); err != nil || !clean(s.ContentType) {
		return &connector.FieldError{Field: "contentType", Reason: "must be a media type such as application/json"}
	}
	if len(s.Key) > maxKey {
		return &connector.FieldError{Field: "key", Reason: "must name an entry of the event's detail such as header.customer"}
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
	Key         string  // the far side's own ordering key
	Detail      []Entry // the first are the surest to find room
}

// Entry is one name and value of the detail.
type Entry struct{ Name, Value string }

var traceForm = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Event makes an event of a message, whatever the message holds. Settings must have been
// checked.
func (s *Settings) Event(r Raw) connector.Event {
	e := connector.Event{ID: r.ID, Type: Type, DataContentType: r.ContentType, Data: r.Data, Key: orderingKey(r.Key)}
	var own []Entry
	if len(r.Data) > MaxData {
		own = append(own, Entry{"queue.oversized", strconv.Itoa(len(r.Data))})
		e.Data, e.Type = nil, TypeOversized
	}
	if !clean(e.ID) || e.ID == "" {
		e.ID = digest(r.ID)
		own = append(own, Entry{"queue.id.base64", base64.StdEncoding.EncodeToString([]byte(r.ID))})
	}
	if e.Subject = r.Subject; !clean(e.Subject) {
		e.Subject = ""
		own = append(own, Entry{"queue.subject.base64", base64.StdEncoding.EncodeToString([]byte(r.Subject))})
	}
	if _, _, err := mime.ParseMediaType(e.DataContentType); err != nil || !clean(e.DataContentType) {
		e.DataContentType = s.ContentType
	}
	// What lies outside has no form in RFC 3339.
	if y := r.Time.UTC().Year(); !r.Time.IsZero() && y >= 1970 && y <= 9999 {
		e.Time = r.Time.UTC()
	}
	e.Detail = details(append(own, r.Detail...))
	if s.Key != "" {
		e.Key = orderingKey(e.Detail[s.Key])
	}
	if t := e.Detail["header.traceparent"]; traceForm.MatchString(t) {
		e.Extensions = map[string]string{"traceparent": t}
	}
	return e
}

// details keeps the entries that there is room for, in their order.
func details(entries []Entry) map[string]string {
	d := make(map[string]string, len(entries))
	size, encoded, omitted := 0, 0, 0
	for _, e := range entries {
		name, value := e.Name, e.Value
		if !strings.HasSuffix(name, ".base64") && !printable(value) {
			name, value = name+".base64", base64.StdEncoding.EncodeToString([]byte(value))
		}
		j, err := json.Marshal([]string{name, value})
		_, there := d[name]
		if err != nil || there || !printable(name) || size+len(name)+len(value) > maxDetail || encoded+len(j) > maxEncoded {
			omitted++
			continue
		}
		size, encoded = size+len(name)+len(value), encoded+len(j)
		d[name] = value
	}
	if omitted > 0 {
		d["queue.omitted"] = strconv.Itoa(omitted)
	}
	return d
}

// orderingKey is k itself where it is fit for one, and otherwise its digest: the same keys
// stay the same.
func orderingKey(k string) string {
	if len(k) <= maxKey && clean(k) {
		return k
	}
	return digest(k)
}

// clean says whether an attribute of an event may hold s.
func clean(s string) bool { return len(s) <= maxAttribute && printable(s) }

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || (r >= 0x7f && r <= 0x9f) }) < 0
}

func digest(s string) string {
	d := sha256.Sum256([]byte(s))
	return "sha256-" + hex.EncodeToString(d[:])
}

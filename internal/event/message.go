package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Bounds on a message, in bytes.
const (
	MaxData   = 6 << 20   // of the data
	MaxDetail = 32 << 10  // of all names and values of Detail together
	maxKey    = 256       // of an ordering key
	maxHead   = 256 << 10 // of everything but the data, encoded: control characters take six times their size
)

// Message is an event with its data, and with what decides how it is delivered.
type Message struct {
	Event
	Data []byte
	// Key orders: of the messages of one trigger that have the same key, each is done
	// before the next one begins. Empty means that the order does not matter.
	Key string
	// Detail is what the source says beyond the event: headers of a queue's message, for
	// example. Functions get it apart from the event's own attributes.
	Detail map[string]string
	// Chain is set for an event that a function brought about.
	Chain Chain
}

// Chain says which events led to this one, so that functions that set each other off
// are stopped.
type Chain struct {
	ID    string `json:"id,omitempty"`    // of the first event of the chain
	Depth int    `json:"depth,omitempty"` // 0 for an event from outside
}

// Validate checks the event and the bounds. It fails with an *AttributeError.
func (m *Message) Validate() error {
	if err := m.Event.Validate(); err != nil {
		return err
	}
	if y := m.Time.UTC().Year(); y < 0 || y > 9999 {
		return &AttributeError{"time", "is outside of the years that RFC 3339 can write"}
	}
	if len(m.Data) > MaxData {
		return &AttributeError{"data", fmt.Sprintf("has %d bytes, more than %d", len(m.Data), MaxData)}
	}
	if len(m.Key) > maxKey || !utf8.ValidString(m.Key) {
		return &AttributeError{"partitionkey", fmt.Sprintf("must be text of at most %d bytes", maxKey)}
	}
	size := 0
	for k, v := range m.Detail {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return &AttributeError{"detail", "is not valid UTF-8"}
		}
		size += len(k) + len(v)
	}
	if size > MaxDetail {
		return &AttributeError{"detail", fmt.Sprintf("has %d bytes, more than %d", size, MaxDetail)}
	}
	return nil
}

// head is a stored message's first line.
type head struct {
	Form            int               `json:"v"`
	ID              string            `json:"id"`
	Source          string            `json:"source"`
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"ext,omitempty"`
	Key             string            `json:"key,omitempty"`
	Detail          map[string]string `json:"detail,omitempty"`
	Chain           *Chain            `json:"chain,omitempty"`
}

// storedForm is the number of the form below; another one is refused.
const storedForm = 1

// Encode gives the form in which a message is stored: a line of JSON, then the data.
// The message must be valid.
func (m *Message) Encode() ([]byte, error) {
	h := head{
		Form: storedForm, ID: m.ID, Source: m.Source, Type: m.Type, Subject: m.Subject,
		DataContentType: m.DataContentType, Extensions: m.Extensions, Key: m.Key, Detail: m.Detail,
	}
	if !m.Time.IsZero() {
		t := m.Time.UTC()
		h.Time = &t
	}
	if m.Chain != (Chain{}) {
		h.Chain = &m.Chain
	}
	var b bytes.Buffer
	b.Grow(256 + len(m.Data))
	e := json.NewEncoder(&b) // which ends the line
	e.SetEscapeHTML(false)
	if err := e.Encode(&h); err != nil {
		return nil, fmt.Errorf("encoding event: %v", err)
	}
	if b.Len() > maxHead {
		return nil, fmt.Errorf("encoding event: its attributes have %d bytes, more than %d", b.Len(), maxHead)
	}
	b.Write(m.Data)
	return b.Bytes(), nil
}

// errForm is what does not come from Encode.
var errForm = errors.New("decoding event: malformed")

// Decode reads what Encode made. The data is a part of b, not a copy.
func Decode(b []byte) (*Message, error) {
	line, data, ok := bytes.Cut(b, []byte{'\n'})
	if !ok || len(line) > maxHead {
		return nil, errForm
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var h head
	if err := d.Decode(&h); err != nil || h.Form != storedForm {
		return nil, errForm
	}
	m := &Message{
		Event: Event{
			ID: h.ID, Source: h.Source, Type: h.Type, Subject: h.Subject,
			DataContentType: h.DataContentType, Extensions: h.Extensions,
		},
		Data: data, Key: h.Key, Detail: h.Detail,
	}
	if h.Time != nil {
		m.Time = *h.Time
	}
	if h.Chain != nil {
		m.Chain = *h.Chain
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decoding event: %w", err)
	}
	return m, nil
}

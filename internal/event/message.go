package event

import (
	"fmt"
	"unicode/utf8"
)

// Bounds on a message, in bytes.
const (
	MaxData   = 6 << 20  // of the data
	MaxDetail = 32 << 10 // of all names and values of Detail together
	maxKey    = 256      // of an ordering key
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

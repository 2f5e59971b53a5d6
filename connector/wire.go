package connector

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxNodeLine bounds a line of the node, in bytes: docs/spec/connector.md.
const maxNodeLine = 2 << 20

// message is any line of the protocol; which fields it has depends on Message.
type message struct {
	Message string `json:"message"`

	// ready
	Protocols []int    `json:"protocols,omitempty"`
	Kinds     []Kind   `json:"kinds,omitempty"`
	Program   *program `json:"program,omitempty"`

	// start, check
	Protocol    int               `json:"protocol,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	Trigger     string            `json:"trigger,omitempty"`
	Settings    json.RawMessage   `json:"settings,omitempty"`
	Connection  json.RawMessage   `json:"connection,omitempty"`
	Secrets     map[string][]byte `json:"secrets,omitempty"`
	SecretNames []string          `json:"secretNames,omitempty"`
	Credits     *credits          `json:"credits,omitempty"`

	// start, position
	Position string `json:"position,omitempty"`

	// events, accepted, refused, ping, pong
	ID     uint64              `json:"id,omitempty"`
	Events []json.RawMessage   `json:"events,omitempty"`
	Detail []map[string]string `json:"detail,omitempty"`

	// refused, checked, health
	Index  *int   `json:"index,omitempty"`
	Reason string `json:"reason,omitempty"`
	Field  string `json:"field,omitempty"`
	State  State  `json:"state,omitempty"`
	Lag    *int64 `json:"lag,omitempty"`
}

type program struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// credits bound what waits for an answer: events, and bytes of their lines. Line bounds
// one line, without its end.
type credits struct {
	Events int `json:"events"`
	Bytes  int `json:"bytes"`
	Line   int `json:"line"`
}

// readLines hands in one line after another, without their ends, until f fails or in ends.
func readLines(in io.Reader, most int, f func([]byte) error) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 64<<10), most+2) // with its end, and one that shows it was not longer
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return err
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes: %w", most, ErrProtocol)
	}
	return s.Err()
}

// encode gives the event in the JSON form of CloudEvents.
func (e *Event) encode(kind string) (json.RawMessage, error) {
	attributes := make(map[string]any, 8+len(e.Extensions))
	for k, v := range e.Extensions {
		attributes[k] = v
	}
	attributes["specversion"] = "1.0"
	attributes["id"] = e.ID
	attributes["source"] = "/connectors/" + kind
	attributes["type"] = e.Type
	for k, v := range map[string]string{"subject": e.Subject, "datacontenttype": e.DataContentType, "partitionkey": e.Key} {
		if v != "" {
			attributes[k] = v
		}
	}
	if !e.Time.IsZero() {
		attributes["time"] = e.Time.UTC().Format(time.RFC3339Nano)
	}
	if len(e.Data) > 0 {
		// In base64 even JSON, so that the function gets these very bytes.
		attributes["data_base64"] = e.Data
	}
	return json.Marshal(attributes)
}

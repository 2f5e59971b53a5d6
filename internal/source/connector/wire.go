package connector

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
)

// protocols are the versions of the protocol that we speak.
var protocols = []int{1}

// Bounds of the protocol, in bytes unless they count: docs/spec/connector.md.
const (
	maxEvents     = 1024     // without an answer
	maxBytes      = 16 << 20 // of lines of events without an answer
	maxLine       = 10 << 20 // of a line from the connector: 6 MiB of data in base64, and more
	maxFirstLine  = 64 << 10 // before it was started
	maxOwnLine    = 2 << 20  // of ours
	maxPosition   = 48 << 10
	maxReason     = 1024
	maxExtensions = 16 // the platform adds some
	maxAttributes = 64 // of one event, with the extensions
	maxSecrets    = 16 // that a kind may ask for
	maxSecret     = 64 << 10
)

// message is any line of the protocol; which fields it has depends on Message.
type message struct {
	Message string `json:"message"`

	Protocols []int     `json:"protocols,omitempty"`
	Kinds     []offered `json:"kinds,omitempty"`
	Program   *program  `json:"program,omitempty"`

	Protocol    int               `json:"protocol,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	Trigger     string            `json:"trigger,omitempty"`
	Settings    json.RawMessage   `json:"settings,omitempty"`
	Connection  json.RawMessage   `json:"connection,omitempty"`
	Secrets     map[string][]byte `json:"secrets,omitempty"`
	SecretNames []string          `json:"secretNames,omitempty"`
	Credits     *credits          `json:"credits,omitempty"`

	Position string `json:"position,omitempty"`

	ID     uint64          `json:"id,omitempty"`
	Events json.RawMessage `json:"events,omitempty"`
	Detail json.RawMessage `json:"detail,omitempty"`

	Index  *int   `json:"index,omitempty"`
	Reason string `json:"reason,omitempty"`
	Field  string `json:"field,omitempty"`
	State  string `json:"state,omitempty"`
	Lag    *int64 `json:"lag,omitempty"`
}

// offered is a kind that a connector says it serves.
type offered struct {
	Name       string   `json:"name"`
	Connection bool     `json:"connection,omitempty"`
	Secrets    []string `json:"secrets,omitempty"`
}

type program struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

type credits struct {
	Events int `json:"events"`
	Bytes  int `json:"bytes"`
	Line   int `json:"line"`
}

// A violation is what no connector may do; it is ended for it.
type violation struct{ what string }

func (v *violation) Error() string { return "it breaks the protocol: " + v.what }

// parse reads one line.
func parse(line []byte) (*message, error) {
	m := new(message)
	if err := json.Unmarshal(line, m); err != nil || m.Message == "" {
		return nil, &violation{"a line is not a message"}
	}
	return m, nil
}

// choose gives the kind by its name and the version to speak.
func choose(m *message, name string) (*offered, int, error) {
	if m.Message != "ready" {
		return nil, 0, &violation{fmt.Sprintf("its first message is %.20q, not ready", m.Message)}
	}
	version := 0
	for _, v := range m.Protocols {
		if slices.Contains(protocols, v) {
			version = max(version, v)
		}
	}
	if version == 0 {
		return nil, 0, fmt.Errorf("it speaks versions %s of the protocol, this node %s: install one that fits", list(m.Protocols), list(protocols))
	}
	for i := range m.Kinds {
		k := &m.Kinds[i]
		if k.Name != name {
			continue
		}
		if len(k.Secrets) > maxSecrets {
			return nil, 0, &violation{fmt.Sprintf("it asks for %d secrets", len(k.Secrets))}
		}
		return k, version, nil
	}
	return nil, 0, fmt.Errorf("it does not serve the kind %s", name)
}

func list(versions []int) string {
	var b strings.Builder
	for i, v := range versions[:min(len(versions), 8)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(v))
	}
	if b.Len() == 0 {
		return "(none)"
	}
	return b.String()
}

// elements splits a JSON array of at most most elements.
func elements(raw json.RawMessage, most int) ([]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("is not an array")
	}
	var found []json.RawMessage
	for d.More() {
		if len(found) == most {
			return nil, fmt.Errorf("has more than %d elements", most)
		}
		var e json.RawMessage
		if err := d.Decode(&e); err != nil {
			return nil, errors.New("is not an array")
		}
		found = append(found, e)
	}
	return found, nil
}

// batch reads a message of events. A violation is an error; events that break a rule of
// their own give the index of the first one and the reason.
func batch(m *message) (events []event.Message, bad int, reason string, err error) {
	raws, err := elements(m.Events, maxEvents)
	if err != nil {
		return nil, 0, "", &violation{"events " + err.Error()}
	}
	if len(raws) == 0 {
		return nil, 0, "", &violation{"a message of events has none"}
	}
	var details []json.RawMessage
	if len(m.Detail) > 0 {
		if details, err = elements(m.Detail, len(raws)); err != nil {
			return nil, 0, "", &violation{"detail " + err.Error()}
		}
		if len(details) != len(raws) {
			return nil, 0, "", &violation{"detail has another number of elements than events"}
		}
	}
	events = make([]event.Message, len(raws))
	for i, raw := range raws {
		e, err := cloudEvent(raw)
		if err == nil && details != nil {
			e.Detail, err = detail(details[i])
		}
		if err == nil {
			err = e.Validate()
		}
		if err != nil {
			// Its place is kept, since the line's credits count it.
			return events, i, clean(err.Error(), maxReason), nil
		}
		e.Source = "" // the platform's to say
		events[i] = *e
	}
	return events, -1, "", nil
}

// detail reads an object of texts.
func detail(raw json.RawMessage) (map[string]string, error) {
	if len(raw) > 2*event.MaxDetail {
		return nil, &event.AttributeError{Attribute: "detail", Reason: fmt.Sprintf("has more than %d bytes", event.MaxDetail)}
	}
	var d map[string]string
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, &event.AttributeError{Attribute: "detail", Reason: "must be an object of texts"}
	}
	if len(d) == 0 {
		return nil, nil
	}
	return d, nil
}

// reserved are the extensions that the platform alone sets.
var reserved = []string{"principal", "claimedsource", "replayof", "attempt", "chainid", "chaindepth"}

// cloudEvent reads an event in CloudEvents' JSON form, version 1.0. It fails with an
// *event.AttributeError. Its source is a stand-in.
func cloudEvent(raw json.RawMessage) (*event.Message, error) {
	attributes, err := members(raw)
	if err != nil {
		return nil, err
	}
	m := &event.Message{Event: event.Event{Source: "/"}}
	var spec string
	for _, a := range []struct {
		name string
		into *string
	}{
		{"specversion", &spec},
		{"id", &m.ID},
		{"type", &m.Type},
		{"subject", &m.Subject},
		{"datacontenttype", &m.DataContentType},
		{"partitionkey", &m.Key},
	} {
		if v, ok := attributes[a.name]; ok {
			if err := text(a.name, v, a.into); err != nil {
				return nil, err
			}
		}
	}
	if spec != event.SpecVersion {
		return nil, &event.AttributeError{Attribute: "specversion", Reason: "must be " + event.SpecVersion}
	}
	if v, ok := attributes["time"]; ok {
		var s string
		if err := text("time", v, &s); err != nil {
			return nil, err
		}
		if m.Time, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return nil, &event.AttributeError{Attribute: "time", Reason: "is not a time of RFC 3339"}
		}
	}
	if err := payload(m, attributes); err != nil {
		return nil, err
	}
	for _, name := range []string{
		"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64", "partitionkey",
	} {
		delete(attributes, name)
	}
	return m, extensions(m, attributes)
}

// members splits a JSON object whose names differ.
func members(raw json.RawMessage) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, &event.AttributeError{Attribute: "event", Reason: "must be an object"}
	}
	found := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, &event.AttributeError{Attribute: "event", Reason: "must be an object"}
		}
		if _, again := found[name]; again {
			return nil, &event.AttributeError{Attribute: fmt.Sprintf("%.40q", name), Reason: "is there twice"}
		}
		if len(found) == maxAttributes {
			return nil, &event.AttributeError{Attribute: "event", Reason: fmt.Sprintf("has more than %d attributes", maxAttributes)}
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, &event.AttributeError{Attribute: fmt.Sprintf("%.40q", name), Reason: "is not JSON"}
		}
		if string(v) != "null" { // CloudEvents' JSON form, 2.2: as if it were not there
			found[name] = v
		}
	}
	return found, nil
}

func text(name string, raw json.RawMessage, into *string) error {
	if len(raw) > 8*event.MaxAttribute {
		return &event.AttributeError{Attribute: name, Reason: fmt.Sprintf("is longer than %d bytes", event.MaxAttribute)}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return &event.AttributeError{Attribute: name, Reason: "must be text"}
	}
	return nil
}

// payload reads the data: CloudEvents' JSON form, 3.1.
func payload(m *event.Message, attributes map[string]json.RawMessage) error {
	data, plain := attributes["data"]
	coded, binary := attributes["data_base64"]
	switch {
	case plain && binary:
		return &event.AttributeError{Attribute: "data_base64", Reason: "and data exclude each other"}
	case binary:
		var s string
		if json.Unmarshal(coded, &s) != nil {
			return &event.AttributeError{Attribute: "data_base64", Reason: "must be text"}
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return &event.AttributeError{Attribute: "data_base64", Reason: "is not base64"}
		}
		m.Data = b
	case plain:
		if m.DataContentType == "" {
			m.DataContentType = "application/json"
		}
		var s string
		if !isJSON(m.DataContentType) && json.Unmarshal(data, &s) == nil {
			m.Data = []byte(s)
		} else {
			m.Data = bytes.Clone(data)
		}
	}
	return nil
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || t == "text/json" || strings.HasSuffix(t, "+json"))
}

// extensions reads what is left of the attributes.
func extensions(m *event.Message, attributes map[string]json.RawMessage) error {
	if len(attributes) > maxExtensions {
		return &event.AttributeError{Attribute: "extensions", Reason: fmt.Sprintf("at most %d are accepted from a connector", maxExtensions)}
	}
	for name, raw := range attributes {
		if slices.Contains(reserved, name) {
			return &event.AttributeError{Attribute: name, Reason: "is the platform's to set"}
		}
		var s string
		switch {
		case raw[0] == '"':
			if err := text(name, raw, &s); err != nil {
				return err
			}
		case string(raw) == "true", string(raw) == "false":
			s = string(raw)
		default:
			// CloudEvents' Integer is of 32 bits; there are no other numbers.
			n, err := strconv.ParseInt(string(raw), 10, 32)
			if err != nil {
				return &event.AttributeError{Attribute: fmt.Sprintf("%.40q", name), Reason: "must be text, a boolean or an integer"}
			}
			s = strconv.FormatInt(n, 10)
		}
		if m.Extensions == nil {
			m.Extensions = map[string]string{}
		}
		m.Extensions[name] = s
	}
	return nil
}

// clean makes text of others fit for a log: one line, valid, short.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || (r >= 0x7f && r <= 0x9f) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

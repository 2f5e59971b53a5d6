// Package filter decides whether an event is wanted: the filter dialects of the
// CloudEvents Subscriptions API 1.0, section 3.2.4.1 (exact, prefix, suffix, all, any,
// not, sql), where sql is CloudEvents SQL 1.0.
//
// It imports event and the CloudEvents SDK; intake, delivery and whoever checks a
// manifest may import it, leaves must not. What Compile returns holds no state and may
// be called from many goroutines.
//
// A filter is written by whoever deploys a function and runs for every event, so its
// size, its depth and its number of parts are bounded; each part costs at most one pass
// over one attribute, and attributes are bounded by event.Message.Validate. A filter that
// cannot be decided (an attribute is not there, a value cannot be cast) does not match.
package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
)

// Bounds on a filter.
const (
	MaxBytes = 16 << 10 // of the JSON
	MaxDepth = 8        // of all, any and not within each other
	MaxParts = 100      // filters in all, an attribute of exact, prefix or suffix being one
	MaxSQL   = 2048     // bytes of one expression
	maxNest  = 64       // brackets of one expression within each other
)

// Func reports whether an event is wanted.
type Func func(*event.Message) bool

// Error names the place in a filter, such as all[1].exact.type, and what to do about it.
type Error struct{ Field, Reason string }

func (e *Error) Error() string { return e.Field + " " + e.Reason }

// Compile reads a filter: one object with one dialect, or a list of them that must all
// match. Nothing, null and an empty list match every event. It fails with an *Error.
func Compile(raw json.RawMessage) (Func, error) {
	if len(raw) > MaxBytes {
		return nil, &Error{"filter", fmt.Sprintf("has %d bytes, more than %d", len(raw), MaxBytes)}
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return everything, nil
	}
	if !json.Valid(raw) || !utf8.Valid(raw) {
		return nil, &Error{"filter", "is not valid JSON in UTF-8"}
	}
	c := &compiler{}
	if raw[0] == '[' {
		parts, err := c.list("filter", raw, 0, true)
		if err != nil {
			return nil, err
		}
		return all(parts), nil
	}
	return c.one("filter", raw, 0)
}

func everything(*event.Message) bool { return true }

// compiler counts what was compiled so far.
type compiler struct{ parts int }

func (c *compiler) count(field string) error {
	if c.parts++; c.parts > MaxParts {
		return &Error{field, fmt.Sprintf("makes more than %d parts", MaxParts)}
	}
	return nil
}

// one compiles an object with exactly one dialect.
func (c *compiler) one(field string, raw json.RawMessage, depth int) (Func, error) {
	if depth > MaxDepth {
		return nil, &Error{field, fmt.Sprintf("is nested deeper than %d", MaxDepth)}
	}
	if err := c.count(field); err != nil {
		return nil, err
	}
	fields, err := object(field, raw)
	if err != nil {
		return nil, err
	}
	if len(fields) != 1 {
		return nil, &Error{field, fmt.Sprintf("must be an object with one of exact, prefix, suffix, all, any, not and sql, and has %d fields", len(fields))}
	}
	name, value := fields[0].name, fields[0].value
	at := field + "." + name
	if field == "filter" {
		at = name
	}
	switch name {
	case "exact":
		return c.attributes(at, value, func(a, want string) bool { return a == want })
	case "prefix":
		return c.attributes(at, value, strings.HasPrefix)
	case "suffix":
		return c.attributes(at, value, strings.HasSuffix)
	case "all":
		parts, err := c.list(at, value, depth+1, false)
		if err != nil {
			return nil, err
		}
		return all(parts), nil
	case "any":
		parts, err := c.list(at, value, depth+1, false)
		if err != nil {
			return nil, err
		}
		return func(m *event.Message) bool {
			for _, p := range parts {
				if p(m) {
					return true
				}
			}
			return false
		}, nil
	case "not":
		part, err := c.one(at, value, depth+1)
		if err != nil {
			return nil, err
		}
		return func(m *event.Message) bool { return !part(m) }, nil
	case "sql":
		return sql(at, value)
	default:
		return nil, &Error{fmt.Sprintf("%s.%.40s", field, strconv.Quote(name)), "is no dialect: use exact, prefix, suffix, all, any, not or sql"}
	}
}

func all(parts []Func) Func {
	return func(m *event.Message) bool {
		for _, p := range parts {
			if !p(m) {
				return false
			}
		}
		return true
	}
}

func (c *compiler) list(field string, raw json.RawMessage, depth int, mayBeEmpty bool) ([]Func, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil || items == nil {
		return nil, &Error{field, "must be a list of filters"}
	}
	if len(items) == 0 && !mayBeEmpty {
		return nil, &Error{field, "must not be empty"}
	}
	if len(items) > MaxParts {
		return nil, &Error{field, fmt.Sprintf("has more than %d filters", MaxParts)}
	}
	parts := make([]Func, len(items))
	for i, item := range items {
		var err error
		if parts[i], err = c.one(fmt.Sprintf("%s[%d]", field, i), item, depth); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// attributes compiles the object of exact, prefix and suffix: every attribute in it must
// be there and match.
func (c *compiler) attributes(field string, raw json.RawMessage, match func(have, want string) bool) (Func, error) {
	fields, err := object(field, raw)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		return nil, &Error{field, "must name at least one attribute"}
	}
	type pair struct{ name, want string }
	pairs := make([]pair, len(fields))
	for i, f := range fields {
		if err := c.count(field); err != nil {
			return nil, err
		}
		if !attributeName(f.name) {
			return nil, &Error{fmt.Sprintf("%s.%.40s", field, strconv.Quote(f.name)), "cannot name an attribute: 1 to 20 lower-case letters or digits"}
		}
		var want string
		if err := json.Unmarshal(f.value, &want); err != nil || want == "" {
			return nil, &Error{field + "." + f.name, "must be text that is not empty"}
		}
		if len(want) > event.MaxAttribute {
			return nil, &Error{field + "." + f.name, fmt.Sprintf("is longer than %d bytes, as no attribute is", event.MaxAttribute)}
		}
		pairs[i] = pair{f.name, want}
	}
	return func(m *event.Message) bool {
		for _, p := range pairs {
			if have, ok := Attribute(m, p.name); !ok || !match(have, p.want) {
				return false
			}
		}
		return true
	}, nil
}

// attributeName reports whether a name is one that CloudEvents allows (section 3).
func attributeName(s string) bool {
	if s == "" || len(s) > 20 || s == "data" {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Attribute gives an attribute or extension of an event as text, and whether it is
// there. The ordering key is the extension partitionkey.
func Attribute(m *event.Message, name string) (string, bool) {
	var v string
	switch name {
	case "specversion":
		v = event.SpecVersion
	case "id":
		v = m.ID
	case "source":
		v = m.Source
	case "type":
		v = m.Type
	case "subject":
		v = m.Subject
	case "datacontenttype":
		v = m.DataContentType
	case "time":
		if m.Time.IsZero() {
			return "", false
		}
		v = m.Time.UTC().Format(time.RFC3339Nano)
	default:
		if x, ok := m.Extensions[name]; ok {
			return x, true
		}
		if name != "partitionkey" {
			return "", false
		}
		v = m.Key
	}
	return v, v != ""
}

type field struct {
	name  string
	value json.RawMessage
}

// object reads a JSON object and refuses a field that is there twice, of which one
// reader would see the first and another the second.
func object(at string, raw json.RawMessage) ([]field, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	wrong := &Error{at, "must be a JSON object"}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, wrong
	}
	var fields []field
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, wrong
		}
		for _, f := range fields {
			if f.name == name {
				return nil, &Error{fmt.Sprintf("%s.%.40s", at, strconv.Quote(name)), "is there twice"}
			}
		}
		if len(fields) == MaxParts {
			return nil, &Error{at, fmt.Sprintf("has more than %d fields", MaxParts)}
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, wrong
		}
		fields = append(fields, field{name, value})
	}
	if _, err := d.Token(); err != nil {
		return nil, wrong
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong
	}
	return fields, nil
}

// Package event is the envelope in which events travel: CloudEvents 1.0, and its
// binary HTTP form in which they reach a function.
//
// It is a leaf: it imports the standard library alone and anybody may import it.
package event

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// SpecVersion of CloudEvents that we speak.
const SpecVersion = "1.0"

// Bounds on attributes. CloudEvents 1.0, section 5, asks carriers to forward at
// least 64 KiB in all; what identifies an event should be far shorter.
const (
	MaxAttribute  = 1024
	MaxExtensions = 32
)

// Event is a CloudEvent without its data, which travels as the body.
type Event struct {
	ID              string
	Source          string // a URI reference, stamped by the platform and nobody else
	Type            string
	Subject         string
	Time            time.Time
	DataContentType string
	Extensions      map[string]string
}

// AttributeError names an attribute that breaks the specification.
type AttributeError struct{ Attribute, Reason string }

func (e *AttributeError) Error() string { return "event attribute " + e.Attribute + ": " + e.Reason }

// extensionName reports whether s has the form of an extension's name.
func extensionName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 20
}

// Validate checks required attributes, their form and their size (CloudEvents
// 1.0, section 3). It fails with an *AttributeError.
func (e *Event) Validate() error {
	for _, a := range []struct {
		name, value string
		required    bool
	}{
		{"id", e.ID, true},
		{"source", e.Source, true},
		{"type", e.Type, true},
		{"subject", e.Subject, false},
		{"datacontenttype", e.DataContentType, false},
	} {
		if a.required && a.value == "" {
			return &AttributeError{a.name, "must not be empty"}
		}
		if err := text(a.name, a.value); err != nil {
			return err
		}
	}
	// The form of a type is left open by the specification, but braces and spaces
	// are a body or a sentence that went into the wrong place.
	if strings.ContainsAny(e.Type, "{}[]\"' ") {
		return &AttributeError{"type", "must be a name such as com.example.order.created"}
	}
	if len(e.Extensions) > MaxExtensions {
		return &AttributeError{"extensions", fmt.Sprintf("at most %d are accepted, got %d", MaxExtensions, len(e.Extensions))}
	}
	for k, v := range e.Extensions {
		if !extensionName(k) {
			return &AttributeError{fmt.Sprintf("%.40q", k), "cannot name an extension: its name is 1 to 20 lower-case letters or digits"}
		}
		switch k {
		case "id", "source", "type", "subject", "time", "specversion", "datacontenttype", "dataschema", "data":
			return &AttributeError{k, "is an attribute of its own and cannot be an extension"}
		}
		if err := text(k, v); err != nil {
			return err
		}
	}
	return nil
}

// text refuses what section 3.1 leaves out of the String type.
func text(name, v string) error {
	if len(v) > MaxAttribute {
		return &AttributeError{name, fmt.Sprintf("is longer than %d bytes", MaxAttribute)}
	}
	if plain(v) {
		return nil
	}
	if !utf8.ValidString(v) {
		return &AttributeError{name, "is not valid UTF-8"}
	}
	for _, r := range v {
		if r < 0x20 || (r >= 0x7f && r <= 0x9f) {
			return &AttributeError{name, "contains a control character"}
		}
	}
	return nil
}

// plain reports whether all of s is printable ASCII, as nearly all attributes are.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// Headers gives the event's binary-mode HTTP headers with lower-case names
// (CloudEvents HTTP binding 1.0, section 3.1.3). The event must be valid.
func (e *Event) Headers() map[string][]string {
	const own = 7 // at most, without extensions
	h := make(map[string][]string, own+len(e.Extensions))
	values := make([]string, 0, own+len(e.Extensions)) // of all, in one piece
	set := func(name, value string) {
		values = append(values, value)
		n := len(values)
		h[name] = values[n-1 : n : n]
	}
	set("ce-specversion", SpecVersion)
	set("ce-id", Escape(e.ID))
	set("ce-source", Escape(e.Source))
	set("ce-type", Escape(e.Type))
	if e.Subject != "" {
		set("ce-subject", Escape(e.Subject))
	}
	if !e.Time.IsZero() {
		set("ce-time", e.Time.UTC().Format(time.RFC3339Nano))
	}
	if e.DataContentType != "" {
		set("content-type", e.DataContentType)
	}
	for k, v := range e.Extensions {
		set("ce-"+k, Escape(v))
	}
	return h
}

// Escape percent-encodes what section 3.1.3.2 of the HTTP binding names: space,
// the double quote, the percent sign and everything outside printable ASCII.
func Escape(s string) string {
	fits := func(c byte) bool { return c > 0x20 && c < 0x7f && c != '"' && c != '%' }
	i := 0
	for i < len(s) && fits(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		if c := s[i]; fits(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

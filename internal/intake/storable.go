package intake

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
)

// storable makes an event that breaks the bounds of events into one that can be kept as a
// dead letter, and read again. What fits stays as it is.
func storable(m event.Message, source string) event.Message {
	m.Source = source
	if y := m.Time.Year(); y < 1 || y > 9999 {
		m.Time = time.Time{}
	}
	if fits(&m) {
		return m
	}
	m.ID, m.Subject, m.DataContentType = plain(m.ID), plain(m.Subject), plain(m.DataContentType)
	m.Type = strings.Map(func(r rune) rune {
		if strings.ContainsRune("{}[]\"' ", r) {
			return '_'
		}
		return r
	}, plain(m.Type))
	if m.ID == "" {
		m.ID = "none"
	}
	if m.Type == "" {
		m.Type = "none"
	}
	if len(m.Data) > event.MaxData {
		m.Data = m.Data[:event.MaxData]
	}
	if !fits(&m) {
		m.Key = ""
	}
	if !fits(&m) {
		m.Extensions = kept(m.Extensions)
	}
	if !fits(&m) {
		m.Detail = nil
	}
	if !fits(&m) {
		m.Extensions = nil
	}
	return m
}

// fits reports whether a message can be stored and read again.
func fits(m *event.Message) bool {
	if m.Validate() != nil {
		return false
	}
	head := *m
	head.Data = nil
	_, err := head.Encode()
	return err == nil
}

// kept gives those extensions that are well formed.
func kept(extensions map[string]string) map[string]string {
	good := map[string]string{}
	for k, v := range extensions {
		if len(good) == event.MaxExtensions {
			break
		}
		e := event.Event{ID: "1", Source: "/", Type: "t", Extensions: map[string]string{k: v}}
		if e.Validate() == nil {
			good[k] = v
		}
	}
	return good
}

// plain gives text that an attribute may hold.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
	if len(s) > event.MaxAttribute {
		cut := event.MaxAttribute
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	return s
}

package process

import (
	"bytes"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// quickHead reads a head line in the form that nearly every guest writes: the
// members status and headers, once each, names and values without escapes and in
// ASCII, blanks wherever JSON allows them. It gives ok only where encoding/json
// gives the same, and leaves everything else, mistakes too, to it.
func quickHead(line []byte) (head sandbox.ResponseHead, ok bool) {
	s := scanner{rest: line}
	seen := ""
	for more := s.opens('{', '}'); more; more = s.more('}') {
		name := s.text()
		s.take(':')
		if s.bad || strings.Contains(seen, name) {
			return head, false
		}
		switch name {
		case "status":
			head.Status = s.status()
		case "headers":
			head.Headers = s.headers()
		default:
			return head, false
		}
		seen += name
	}
	s.blanks()
	if s.bad || len(s.rest) > 0 || head.Status < 200 || head.Status > 599 {
		return sandbox.ResponseHead{}, false
	}
	return head, true
}

// scanner takes JSON off the front of rest. After the first thing that it does not
// take, bad is set and what it gives means nothing.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) blanks() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

// next takes c if it comes next.
func (s *scanner) next(c byte) bool {
	s.blanks()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) take(c byte) {
	if !s.next(c) {
		s.bad = true
	}
}

// opens takes the beginning of a list or an object, and reports whether it has a
// first member.
func (s *scanner) opens(begin, end byte) bool {
	s.take(begin)
	return !s.bad && !s.next(end)
}

// more takes what stands between two members, or the end.
func (s *scanner) more(end byte) bool {
	if s.bad || s.next(end) {
		return false
	}
	s.take(',')
	return !s.bad
}

// text takes a string without escapes, all of it printable ASCII.
func (s *scanner) text() string {
	s.take('"')
	end := bytes.IndexByte(s.rest, '"')
	if s.bad || end < 0 {
		s.bad = true
		return ""
	}
	t := s.rest[:end]
	s.rest = s.rest[end+1:]
	for _, c := range t {
		if c < ' ' || c > '~' || c == '\\' {
			s.bad = true
			return ""
		}
	}
	return known(t)
}

// known spares the strings of nearly every answer an allocation each.
func known(t []byte) string {
	switch string(t) {
	case "status":
		return "status"
	case "headers":
		return "headers"
	case "content-type":
		return "content-type"
	case "Content-Type":
		return "Content-Type"
	case "application/json":
		return "application/json"
	case "text/plain; charset=utf-8":
		return "text/plain; charset=utf-8"
	case "text/html; charset=utf-8":
		return "text/html; charset=utf-8"
	}
	return string(t)
}

// status takes a number of three digits.
func (s *scanner) status() int {
	s.blanks()
	if len(s.rest) < 4 {
		s.bad = true
		return 0
	}
	n := 0
	for _, c := range s.rest[:3] {
		if c < '0' || c > '9' {
			s.bad = true
		}
		n = n*10 + int(c-'0')
	}
	s.rest = s.rest[3:] // a fourth digit is neither comma nor end
	return n
}

// headers takes an object of header fields, each valid and named once.
func (s *scanner) headers() map[string][]string {
	var headers map[string][]string
	for more := s.opens('{', '}'); more; more = s.more('}') {
		name := s.text()
		s.take(':')
		var values []string
		if s.blanks(); len(s.rest) > 0 && s.rest[0] == '[' {
			for more := s.opens('[', ']'); more; more = s.more(']') {
				values = append(values, s.text())
			}
		} else {
			values = []string{s.text()}
		}
		lower := strings.ToLower(name)
		if _, twice := headers[lower]; s.bad || twice || !isToken(name) {
			s.bad = true
			return nil
		}
		if headers == nil {
			headers = make(map[string][]string)
		}
		headers[lower] = values
	}
	return headers
}

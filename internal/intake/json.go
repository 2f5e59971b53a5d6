package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Bounds on data in JSON.
const (
	MaxJSONDepth   = 64        // objects and lists within each other
	MaxJSONValues  = 1_000_000 // in all
	MaxJSONMembers = 100_000   // of one object
	maxNumber      = 1_000     // characters of a number
	maxExponent    = 1_000     // and its exponent, of either sign: who computes with it pays by its size
)

// checkJSON reads JSON once, keeps nothing of it, and finds what is wrong: syntax (RFC
// 8259), text that is not UTF-8, what is beyond the bounds above, and an object that has
// a key twice, of which one reader sees the first and another the second.
func checkJSON(b []byte) *finding { return checkJSONUpTo(b, MaxJSONValues) }

func checkJSONUpTo(b []byte, values int) *finding {
	s := &scanner{b: b, most: values}
	s.space()
	s.value(0)
	if s.wrong == "" {
		s.space()
		if s.at < len(b) {
			s.fail("goes on after its end")
		}
	}
	if s.wrong != "" {
		return &finding{"data", fmt.Sprintf("is JSON that %s (byte %d)", s.wrong, s.at)}
	}
	return nil
}

type scanner struct {
	b      []byte
	at     int
	values int
	most   int    // values
	wrong  string // the first mistake; at stays where it is
}

func (s *scanner) fail(reason string) bool {
	if s.wrong == "" {
		s.wrong = reason
	}
	return false
}

func (s *scanner) space() {
	for s.at < len(s.b) && (s.b[s.at] == ' ' || s.b[s.at] == '\n' || s.b[s.at] == '\t' || s.b[s.at] == '\r') {
		s.at++
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

func (s *scanner) value(depth int) bool {
	if s.values++; s.values > s.most {
		return s.fail(fmt.Sprintf("has more than %d values", s.most))
	}
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if depth == MaxJSONDepth {
			return s.fail(fmt.Sprintf("is nested deeper than %d", MaxJSONDepth))
		}
		if c == '{' {
			return s.object(depth + 1)
		}
		return s.list(depth + 1)
	case c == '"':
		_, ok := s.text()
		return ok
	case c == '-' || (c >= '0' && c <= '9'):
		return s.number()
	default:
		for _, word := range []string{"true", "false", "null"} {
			if bytes.HasPrefix(s.b[s.at:], []byte(word)) {
				s.at += len(word)
				return true
			}
		}
		if s.at >= len(s.b) {
			return s.fail("ends too early")
		}
		return s.fail("has something that is no value")
	}
}

func (s *scanner) list(depth int) bool {
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return true
	}
	for {
		s.space()
		if !s.value(depth) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return true
		default:
			return s.fail("has a list without comma or end")
		}
	}
}

func (s *scanner) object(depth int) bool {
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return true
	}
	var keys keySet
	for n := 1; ; n++ {
		if n > MaxJSONMembers {
			return s.fail(fmt.Sprintf("has an object with more than %d keys", MaxJSONMembers))
		}
		s.space()
		if s.peek() != '"' {
			return s.fail("has an object whose key is no text")
		}
		key, ok := s.text()
		if !ok {
			return false
		}
		if !keys.add(key) {
			return s.fail("has an object with a key twice: " + clip(strconv.Quote(string(key[:min(len(key), 60)]))))
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("has a key without colon")
		}
		s.at++
		s.space()
		if !s.value(depth) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return true
		default:
			return s.fail("has an object without comma or end")
		}
	}
}

// text reads a string and gives what it says.
func (s *scanner) text() ([]byte, bool) {
	start := s.at
	s.at++
	escaped := false
	for s.at < len(s.b) {
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			raw := s.b[start:s.at]
			if !escaped {
				return raw[1 : len(raw)-1], true
			}
			var said string
			if err := json.Unmarshal(raw, &said); err != nil {
				return nil, s.fail("has text with an escape that there is not")
			}
			return []byte(said), true
		case c == '\\':
			escaped = true
			s.at += 2
		case c < 0x20:
			return nil, s.fail("has text with a control character")
		case c < utf8.RuneSelf:
			s.at++
		default:
			r, size := utf8.DecodeRune(s.b[s.at:])
			if r == utf8.RuneError && size == 1 {
				return nil, s.fail("is not UTF-8")
			}
			s.at += size
		}
	}
	s.at = len(s.b)
	return nil, s.fail("has text without end")
}

func (s *scanner) number() bool {
	start := s.at
	digits := func() bool {
		from := s.at
		for s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9' {
			s.at++
		}
		return s.at > from
	}
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !digits() {
		return s.fail("has a number without digits")
	}
	if s.peek() == '.' {
		s.at++
		if !digits() {
			return s.fail("has a number that ends with its point")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		from := s.at
		if !digits() {
			return s.fail("has a number without exponent")
		}
		exponent := bytes.TrimLeft(s.b[from:s.at], "0")
		if n, _ := strconv.Atoi(string(exponent[:min(len(exponent), 9)])); n > maxExponent {
			return s.fail(fmt.Sprintf("has a number with an exponent beyond %d", maxExponent))
		}
	}
	if s.at-start > maxNumber {
		return s.fail(fmt.Sprintf("has a number of more than %d characters", maxNumber))
	}
	return true
}

// keySet holds the keys of one object. Most objects have few.
type keySet struct {
	few  [][]byte
	many map[string]struct{}
}

// add reports whether the key is new.
func (k *keySet) add(key []byte) bool {
	const fewest = 16
	if k.many != nil {
		if _, there := k.many[string(key)]; there {
			return false
		}
		k.many[string(key)] = struct{}{}
		return true
	}
	for _, have := range k.few {
		if bytes.Equal(have, key) {
			return false
		}
	}
	k.few = append(k.few, key)
	if len(k.few) > fewest {
		k.many = make(map[string]struct{}, 4*fewest)
		for _, have := range k.few {
			k.many[string(have)] = struct{}{}
		}
		k.few = nil
	}
	return true
}

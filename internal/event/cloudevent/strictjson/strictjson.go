// Package strictjson refuses JSON that two readers may understand in two ways, or that
// costs more to read than to send, before anything acts on it: text that is not UTF-8,
// an object that names a member twice, and deep nesting (RFC 7493, sections 2.1 and 2.3).
//
// It is a leaf: it imports the standard library alone and anybody may import it. It keeps
// no state. Members, Elements and String take only what Check has let pass.
package strictjson

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// What Check refuses.
var (
	ErrSyntax    = errors.New("is not one JSON value")
	ErrText      = errors.New("has text that is not UTF-8")
	ErrDepth     = errors.New("is nested too deeply")
	ErrDuplicate = errors.New("names a member twice")
	ErrKind      = errors.New("is another kind of JSON value")
)

// Check reads b once and returns nil when it is one JSON value in UTF-8 whose objects and
// arrays are nested at most depth levels and in which no object names a member twice. It
// needs eight bytes of memory for each member, whatever the names are. It fails with one
// of the errors above.
func Check(b []byte, depth int) error {
	if !utf8.Valid(b) {
		return ErrText
	}
	// The standard library stops at 10,000 levels itself, so this is no way round.
	if !json.Valid(b) {
		return ErrSyntax
	}
	w := walker{seed: maphash.MakeSeed()}
	for i := 0; i < len(b); {
		switch b[i] {
		case '{', '[':
			if len(w.open) == depth {
				return ErrDepth
			}
			w.open = append(w.open, frame{object: b[i] == '{', first: len(w.names)})
			w.name = b[i] == '{'
		case '}', ']':
			if !w.closed() {
				return ErrDuplicate
			}
		case ',':
			w.name = w.open[len(w.open)-1].object
		case '"':
			end := stringEnd(b, i)
			if w.name {
				if err := w.named(b[i:end]); err != nil {
					return err
				}
			}
			i = end
			continue
		}
		i++
	}
	return nil
}

// walker goes over text that is known to be JSON.
type walker struct {
	seed  maphash.Seed
	open  []frame
	names []uint64 // of all objects that are open, by a keyed hash
	name  bool     // the next string is a member's name
}

type frame struct {
	object bool
	first  int // index in names
}

// named takes a member's name in. Hashes stand for names: the seed is drawn for each
// text, so nobody can make two names collide, and by chance a million members do so once
// in thirty million texts; such a text is refused, which is safe.
func (w *walker) named(raw []byte) error {
	s, err := String(raw)
	if err != nil {
		return err
	}
	w.names = append(w.names, maphash.String(w.seed, s))
	w.name = false
	return nil
}

// closed ends the innermost value and says whether its names were all different.
func (w *walker) closed() bool {
	f := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	w.name = false
	names := w.names[f.first:]
	w.names = w.names[:f.first]
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return false
		}
	}
	return true
}

// Member is a name and its value, as it stands in the text.
type Member struct {
	Name  string
	Value []byte // a part of the text, not a copy
}

// Members gives the members of an object, in order. b must have passed Check. It fails
// with ErrKind when b is something else.
func Members(b []byte) ([]Member, error) {
	var all []Member
	err := each(b, '{', func(at int) (int, error) {
		end := stringEnd(b, at)
		name, err := String(b[at:end])
		if err != nil {
			return 0, err
		}
		at = space(b, end)
		at = space(b, at+1) // the colon
		end = valueEnd(b, at)
		all = append(all, Member{name, b[at:end]})
		return end, nil
	})
	return all, err
}

// Elements gives the elements of an array, at most limit+1 of them, so that the caller
// sees that there are too many. b must have passed Check. It fails with ErrKind when b is
// something else.
func Elements(b []byte, limit int) ([][]byte, error) {
	var all [][]byte
	err := each(b, '[', func(at int) (int, error) {
		end := valueEnd(b, at)
		all = append(all, b[at:end])
		if len(all) > limit {
			return len(b), nil
		}
		return end, nil
	})
	return all, err
}

// each calls part with the beginning of every part of an object or array.
func each(b []byte, opener byte, part func(at int) (int, error)) error {
	i := space(b, 0)
	if i == len(b) || b[i] != opener {
		return ErrKind
	}
	i = space(b, i+1)
	for i < len(b) && b[i] != '}' && b[i] != ']' {
		end, err := part(i)
		if err != nil {
			return err
		}
		i = space(b, end)
		if i < len(b) && b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return nil
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd is the index after the string that begins at i.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// valueEnd is the index after the value that begins at i.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 {
				return i // the end of what this value is in
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// String reads a string. raw must be a part of text that has passed Check. It fails with
// ErrKind when raw is something else, and with ErrText when it escapes half a surrogate
// pair, which no UTF-8 text can hold.
func String(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", ErrKind
	}
	raw = raw[1 : len(raw)-1]
	if !slices.Contains(raw, '\\') {
		return string(raw), nil
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if len(raw) < i+7 || raw[i+1] != '\\' || raw[i+2] != 'u' {
					return "", ErrText
				}
				r = utf16.DecodeRune(r, hex4(raw[i+3:]))
				if r == utf8.RuneError {
					return "", ErrText
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default: // quote, backslash, slash
			out = append(out, raw[i])
		}
	}
	return string(out), nil
}

// hex4 reads the four digits after \u; that they are there has been checked.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= 'a':
			c -= 'a' - 10
		case c >= 'A':
			c -= 'A' - 10
		default:
			c -= '0'
		}
		r = r<<4 | rune(c)
	}
	return r
}

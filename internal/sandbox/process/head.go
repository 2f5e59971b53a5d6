package process

import (
	"encoding/json"
	"strconv"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// appendHead appends the head line of a guest's input, line end included. It is
// what encoding/json makes of the head, but for the order of names in a map, which
// means nothing: that package would sort them, for each request.
func appendHead(b []byte, h *sandbox.Head) []byte {
	b = appendText(append(b, `{"id":`...), h.ID)
	b = appendText(append(b, `,"method":`...), h.Method)
	b = appendText(append(b, `,"path":`...), h.Path)
	if h.Query != "" {
		b = appendText(append(b, `,"query":`...), h.Query)
	}
	b = appendHeaders(append(b, `,"headers":`...), h.Headers)
	if len(h.Params) > 0 {
		b = append(b, `,"params":{`...)
		for name, value := range h.Params {
			b = append(appendText(b, name), ':')
			b = append(appendText(b, value), ',')
		}
		b[len(b)-1] = '}'
	}
	b = appendText(append(b, `,"trigger":`...), h.Trigger)
	if h.Caller != "" {
		b = appendText(append(b, `,"caller":`...), h.Caller)
	}
	if h.Deadline != 0 {
		b = strconv.AppendInt(append(b, `,"deadline":`...), h.Deadline, 10)
	}
	return append(b, '}', '\n')
}

func appendHeaders(b []byte, headers map[string][]string) []byte {
	if headers == nil {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for name, values := range headers {
		b = append(appendText(b, name), ':')
		switch {
		case values == nil:
			b = append(b, "null"...)
		case len(values) == 0:
			b = append(b, "[]"...)
		default:
			b = append(b, '[')
			for _, v := range values {
				b = append(appendText(b, v), ',')
			}
			b[len(b)-1] = ']'
		}
		b = append(b, ',')
	}
	if len(headers) == 0 {
		return append(b, '}')
	}
	b[len(b)-1] = '}'
	return b
}

// appendText appends s as a JSON string. What needs escaping is left to
// encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain(s[i]) {
			escaped, err := json.Marshal(s)
			if err != nil {
				panic("process: encoding/json refused a string: " + err.Error()) // it never does
			}
			return append(b, escaped...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// plain reports characters that stand for themselves in what encoding/json writes:
// printable ASCII but for the quote, the backslash and what HTML reserves.
func plain(c byte) bool {
	return ' ' <= c && c <= '~' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

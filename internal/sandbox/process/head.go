package process

import (
	"strconv"

	"github.com/casemate-dev/casemate/internal/jsontext"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// appendHead appends the head line of a guest's input, line end included. It is
// what encoding/json makes of the head, but for the order of names in a map, which
// means nothing: that package would sort them, for each request.
func appendHead(b []byte, h *sandbox.Head) []byte {
	b = jsontext.Append(append(b, `{"id":`...), h.ID)
	b = jsontext.Append(append(b, `,"method":`...), h.Method)
	b = jsontext.Append(append(b, `,"path":`...), h.Path)
	if h.Query != "" {
		b = jsontext.Append(append(b, `,"query":`...), h.Query)
	}
	b = appendHeaders(append(b, `,"headers":`...), h.Headers)
	if len(h.Params) > 0 {
		b = append(b, `,"params":{`...)
		for name, value := range h.Params {
			b = append(jsontext.Append(b, name), ':')
			b = append(jsontext.Append(b, value), ',')
		}
		b[len(b)-1] = '}'
	}
	b = jsontext.Append(append(b, `,"trigger":`...), h.Trigger)
	if h.Caller != "" {
		b = jsontext.Append(append(b, `,"caller":`...), h.Caller)
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
		b = append(jsontext.Append(b, name), ':')
		switch {
		case values == nil:
			b = append(b, "null"...)
		case len(values) == 0:
			b = append(b, "[]"...)
		default:
			b = append(b, '[')
			for _, v := range values {
				b = append(jsontext.Append(b, v), ',')
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

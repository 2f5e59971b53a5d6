package cloudevent

import (
	"strings"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
)

// readBinary reads attributes from headers (HTTP binding 1.0, section 3.1).
func readBinary(header map[string][]string, contentType string, body []byte) (*event.Message, error) {
	var b builder
	for name, values := range header {
		attribute, ok := strings.CutPrefix(name, "ce-")
		if !ok {
			continue
		}
		if len(values) != 1 {
			return nil, malformed("attribute %.40q is there %d times", attribute, len(values))
		}
		// The binding gives both a place of their own.
		if attribute == "datacontenttype" || attribute == "data" {
			return nil, malformed("attribute %s must not be a header", attribute)
		}
		if len(values[0]) > 3*event.MaxAttribute {
			return nil, malformed("attribute %.40q is longer than %d bytes", attribute, event.MaxAttribute)
		}
		v, err := headerValue(attribute, values[0])
		if err != nil {
			return nil, err
		}
		if err := b.set(attribute, v); err != nil {
			return nil, err
		}
	}
	if contentType != "" {
		if err := b.set("datacontenttype", contentType); err != nil {
			return nil, err
		}
		if len(body) > 0 && isJSON(contentType) {
			if err := strictjson.Check(body, MaxDepth); err != nil {
				return nil, jsonError("the data", err)
			}
		}
	}
	b.m.Data = body
	m, err := b.message()
	if err != nil {
		return nil, err
	}
	return m, nil
}

// headerValue undoes quoting and percent-encoding (HTTP binding 1.0, section 3.1.3.2). A
// percent sign that begins no escape stands for itself: SDKs that encode nothing send it.
// What is no UTF-8 then is refused with the whole event.
func headerValue(name, v string) (string, *Error) {
	if strings.HasPrefix(v, `"`) {
		var ok bool
		if v, ok = unquote(v); !ok {
			return "", malformed("attribute %.40q has a quote that does not end", name)
		}
	}
	if strings.Contains(v, "%") {
		out := make([]byte, 0, len(v))
		for i := 0; i < len(v); i++ {
			if v[i] == '%' && i+2 < len(v) && isHex(v[i+1]) && isHex(v[i+2]) {
				out = append(out, unhex(v[i+1])<<4|unhex(v[i+2]))
				i += 2
				continue
			}
			out = append(out, v[i])
		}
		v = string(out)
	}
	return v, nil
}

// unquote reads a quoted-string (RFC 9110, section 5.6.4), which older senders use.
func unquote(v string) (string, bool) {
	var out strings.Builder
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
			if i == len(v) {
				return "", false
			}
			out.WriteByte(v[i])
		case '"':
			return out.String(), i == len(v)-1
		default:
			out.WriteByte(v[i])
		}
	}
	return "", false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}

package cloudevent

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
)

func readStructured(body []byte) (*event.Message, error) {
	if err := strictjson.Check(body, MaxDepth+1); err != nil {
		return nil, jsonError("the event", err)
	}
	m, err := readEvent(body)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func readBatch(body []byte) ([]event.Message, error) {
	if err := strictjson.Check(body, MaxDepth+2); err != nil {
		return nil, jsonError("the batch", err)
	}
	parts, err := strictjson.Elements(body, MaxEvents)
	if err != nil {
		return nil, malformed("the batch is no array")
	}
	if len(parts) > MaxEvents {
		return nil, &Error{TooLarge, -1, fmt.Sprintf("the batch has more than %d events", MaxEvents)}
	}
	all := make([]event.Message, 0, len(parts))
	for i, p := range parts {
		m, err := readEvent(p)
		if err != nil {
			err.Event = i
			return nil, err
		}
		all = append(all, *m)
	}
	return all, nil
}

// readEvent reads one event from JSON that has been checked (JSON event format 1.0,
// section 3).
func readEvent(b []byte) (*event.Message, *Error) {
	members, err := strictjson.Members(b)
	if err != nil {
		return nil, malformed("an event must be an object")
	}
	var at builder
	var data, base []byte
	for _, m := range members {
		switch m.Name {
		case "data":
			data = m.Value
			continue
		case "data_base64":
			base = m.Value
			continue
		}
		v, set, err := attribute(m)
		if err != nil {
			return nil, err
		}
		if set {
			if err := at.set(m.Name, v); err != nil {
				return nil, err
			}
		}
	}
	if err := at.data(data, base); err != nil {
		return nil, err
	}
	return at.message()
}

// attribute reads a value as the canonical text of its type (CloudEvents 1.0, section
// 3.1). An attribute that is null is one that is not there.
func attribute(m strictjson.Member) (text string, set bool, bad *Error) {
	switch m.Value[0] {
	case '"':
		s, err := strictjson.String(m.Value)
		if err != nil {
			return "", false, malformed("attribute %.40q %v", m.Name, err)
		}
		return s, true, nil
	case 'n':
		return "", false, nil
	}
	switch m.Name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return "", false, malformed("attribute %s must be a string", m.Name)
	}
	switch m.Value[0] {
	case 't', 'f':
		return string(m.Value), true, nil
	case '{', '[':
		return "", false, malformed("attribute %.40q must be a string, a boolean or an integer", m.Name)
	}
	n, err := strconv.ParseInt(string(m.Value), 10, 32)
	if err != nil {
		return "", false, malformed("attribute %.40q must be an integer of 32 bits", m.Name)
	}
	return strconv.FormatInt(n, 10), true, nil
}

// data decides between the two places in which data can be (JSON event format 1.0,
// section 3.1.1).
func (b *builder) data(data, base []byte) *Error {
	switch {
	case data != nil && base != nil:
		return malformed("there is both data and data_base64")
	case base != nil:
		s, err := strictjson.String(base)
		if err != nil {
			return malformed("data_base64 must be a string")
		}
		if b.m.Data, err = base64.StdEncoding.Strict().DecodeString(s); err != nil {
			return malformed("data_base64 is not base64")
		}
	case data == nil:
	case b.m.DataContentType == "" || isJSON(b.m.DataContentType):
		if b.m.DataContentType == "" {
			b.m.DataContentType = "application/json"
		}
		b.m.Data = data
	default:
		s, err := strictjson.String(data)
		if err != nil {
			return malformed("data of another type than JSON must be a string")
		}
		b.m.Data = []byte(s)
	}
	return nil
}

package cloudevent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
)

// WriteStructured gives an event in the structured form, the body of a request of type
// StructuredType. JSON data stands in it byte for byte; Detail and Chain do not travel.
// It fails with an *event.AttributeError when the message is not valid.
func WriteStructured(m *event.Message) ([]byte, error) {
	var b bytes.Buffer
	if err := write(&b, m); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// WriteBatch gives events in the batch form, the body of a request of type BatchType. It
// fails when there are more than MaxEvents, and as WriteStructured does.
func WriteBatch(all []event.Message) ([]byte, error) {
	if len(all) > MaxEvents {
		return nil, fmt.Errorf("writing events: %d are more than %d", len(all), MaxEvents)
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := write(&b, &all[i]); err != nil {
			return nil, err
		}
	}
	b.WriteByte(']')
	return b.Bytes(), nil
}

func write(b *bytes.Buffer, m *event.Message) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("writing event: %w", err)
	}
	b.WriteString(`{"specversion":"` + event.SpecVersion + `"`)
	member(b, "id", m.ID)
	member(b, "source", m.Source)
	member(b, "type", m.Type)
	if m.Subject != "" {
		member(b, "subject", m.Subject)
	}
	if !m.Time.IsZero() {
		member(b, "time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	if m.DataContentType != "" {
		member(b, "datacontenttype", m.DataContentType)
	}
	if s := m.Detail["dataschema"]; s != "" {
		member(b, "dataschema", s)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Extensions)) {
		member(b, k, m.Extensions[k])
	}
	if _, ok := m.Extensions["partitionkey"]; !ok && m.Key != "" {
		member(b, "partitionkey", m.Key)
	}
	writeData(b, m)
	b.WriteByte('}')
	return nil
}

func writeData(b *bytes.Buffer, m *event.Message) {
	switch {
	case len(m.Data) == 0:
	case isJSON(m.DataContentType) && utf8.Valid(m.Data) && json.Valid(m.Data):
		b.WriteString(`,"data":`)
		b.Write(m.Data)
	case strings.HasPrefix(m.DataContentType, "text/") && utf8.Valid(m.Data):
		member(b, "data", string(m.Data))
	default:
		b.WriteString(`,"data_base64":"`)
		b.WriteString(base64.StdEncoding.EncodeToString(m.Data))
		b.WriteByte('"')
	}
}

func member(b *bytes.Buffer, name, value string) {
	// A string always has a JSON form; a name is letters and digits.
	v, _ := json.Marshal(value)
	b.WriteString(`,"` + name + `":`)
	b.Write(v)
}

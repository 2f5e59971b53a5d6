// Package cloudevent reads and writes the HTTP forms of CloudEvents 1.0: binary,
// structured and batch, and answers the handshake of its web hooks.
//
// It is a leaf beside event: it imports that and the standard library, and anybody may
// import it. It keeps no state and may be used from many goroutines. It says what an
// event claims to be; it does not say that the claim is true: Source, and extensions that
// the platform gives a meaning to, are the sender's until somebody stamps them.
//
// Everything that it reads is bounded: see Limits. Text that is not UTF-8, objects that
// name a member twice, attributes that are sent twice and data in two places are refused
// and not repaired, because the next reader might repair them in another way.
package cloudevent

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
)

// Media types of the forms (JSON event format 1.0, sections 3 and 4).
const (
	StructuredType = "application/cloudevents+json"
	BatchType      = "application/cloudevents-batch+json"
)

// Bounds on what is read.
const (
	MaxEvents = 1000    // of one batch
	MaxBody   = 9 << 20 // bytes: the most data of an event in base64, and its attributes
	MaxDepth  = 64      // levels of objects and arrays in the data
)

// Code says what is wrong with a request.
type Code string

// Codes of errors, and the status that answers them.
const (
	NotCloudEvent Code = "not-cloudevent" // 415: none of the forms
	Unsupported   Code = "unsupported"    // 415: a form or a version that is not spoken here
	Malformed     Code = "malformed"      // 400
	TooLarge      Code = "too-large"      // 413
)

// Error is what Read fails with. Its text names the attribute and not its value.
type Error struct {
	Code   Code
	Event  int // index in a batch; -1 when it is no batch
	Reason string
}

func (e *Error) Error() string {
	if e.Event >= 0 {
		return fmt.Sprintf("reading event %d of the batch: %s", e.Event, e.Reason)
	}
	return "reading event: " + e.Reason
}

// Status is the HTTP status that answers the request (web hooks 1.0, section 2.2).
func (e *Error) Status() int {
	switch e.Code {
	case NotCloudEvent, Unsupported:
		return 415
	case TooLarge:
		return 413
	default:
		return 400
	}
}

func malformed(format string, a ...any) *Error {
	return &Error{Malformed, -1, fmt.Sprintf(format, a...)}
}

// Read reads the events of a request from its headers, whose names are in lower case, and
// its body. Data of the messages may be a part of body. A batch may hold no event. The
// partitionkey of an event is its Key as well; its dataschema is in Detail. It fails with
// an *Error, and then no event is to be used.
func Read(header map[string][]string, body []byte) ([]event.Message, error) {
	if len(body) > MaxBody {
		return nil, &Error{TooLarge, -1, fmt.Sprintf("the body has %d bytes, more than %d", len(body), MaxBody)}
	}
	ct, err := contentType(header)
	if err != nil {
		return nil, err
	}
	media := ""
	if ct != "" {
		m, params, err := mime.ParseMediaType(ct)
		if err != nil {
			return nil, malformed("content-type is malformed")
		}
		media = m
		if cs, ok := params["charset"]; ok && strings.HasPrefix(m, "application/cloudevents") && !strings.EqualFold(cs, "utf-8") {
			return nil, &Error{Unsupported, -1, "only UTF-8 is read"}
		}
	}
	switch {
	case media == StructuredType:
		m, err := readStructured(body)
		if err != nil {
			return nil, err
		}
		return []event.Message{*m}, nil
	case media == BatchType:
		return readBatch(body)
	case strings.HasPrefix(media, "application/cloudevents"):
		return nil, &Error{Unsupported, -1, "only the JSON formats are read, and not " + media}
	case header["ce-specversion"] != nil:
		m, err := readBinary(header, ct, body)
		if err != nil {
			return nil, err
		}
		return []event.Message{*m}, nil
	default:
		return nil, &Error{NotCloudEvent, -1, "there is neither a header ce-specversion nor a content type of CloudEvents"}
	}
}

func contentType(header map[string][]string) (string, error) {
	v := header["content-type"]
	switch len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	default:
		return "", malformed("content-type is there %d times", len(v))
	}
}

// builder collects attributes, from headers or from JSON.
type builder struct {
	m    event.Message
	spec string
}

// set takes an attribute in, which has not been there before: names of JSON members and
// of headers are checked to be different, and content-type is no attribute's name.
func (b *builder) set(name, value string) *Error {
	switch name {
	case "specversion":
		b.spec = value
	case "id":
		b.m.ID = value
	case "source":
		if _, err := url.Parse(value); err != nil {
			return malformed("attribute source is no URI reference")
		}
		b.m.Source = value
	case "type":
		b.m.Type = value
	case "subject":
		if value == "" {
			return malformed("attribute subject must not be empty")
		}
		b.m.Subject = value
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil || len(value) > 64 {
			return malformed("attribute time is no time of RFC 3339")
		}
		b.m.Time = t.UTC()
	case "datacontenttype":
		if _, _, err := mime.ParseMediaType(value); err != nil {
			return malformed("attribute datacontenttype is no media type")
		}
		b.m.DataContentType = value
	case "dataschema":
		if u, err := url.Parse(value); err != nil || !u.IsAbs() || len(value) > event.MaxAttribute {
			return malformed("attribute dataschema is no absolute URI")
		}
		b.m.Detail = map[string]string{"dataschema": value}
	default:
		if b.m.Extensions == nil {
			b.m.Extensions = make(map[string]string)
		}
		if len(b.m.Extensions) == event.MaxExtensions {
			return malformed("there are more than %d extensions", event.MaxExtensions)
		}
		b.m.Extensions[name] = value
	}
	return nil
}

// message checks the whole.
func (b *builder) message() (*event.Message, *Error) {
	switch b.spec {
	case event.SpecVersion:
	case "":
		return nil, malformed("attribute specversion must not be empty")
	default:
		return nil, &Error{Unsupported, -1, "only version " + event.SpecVersion + " of CloudEvents is read"}
	}
	b.m.Key = b.m.Extensions["partitionkey"]
	if len(b.m.Data) > event.MaxData {
		return nil, &Error{TooLarge, -1, fmt.Sprintf("the data has %d bytes, more than %d", len(b.m.Data), event.MaxData)}
	}
	if err := b.m.Validate(); err != nil {
		return nil, malformed("%v", err)
	}
	return &b.m, nil
}

// isJSON says whether data of a media type is JSON (JSON event format, section 3.1).
func isJSON(contentType string) bool {
	m, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	_, sub, _ := strings.Cut(m, "/")
	return sub == "json" || strings.HasSuffix(sub, "+json")
}

// jsonError says what strictjson found.
func jsonError(what string, err error) *Error {
	if errors.Is(err, strictjson.ErrDepth) {
		return malformed("%s is nested deeper than %d levels", what, MaxDepth)
	}
	return malformed("%s %v", what, err)
}

package azure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// reply is the body of a handler's answer. Keys are matched whatever their letter
// case.
type reply struct {
	Outputs     map[string]json.RawMessage
	Logs        []json.RawMessage
	ReturnValue json.RawMessage
}

// Answer is what an invocation gave.
type Answer struct {
	Response sandbox.ResponseHead
	Body     []byte
	Logs     []string // lines that the handler gave along
	Dropped  []string // outputs that it set and that lead nowhere here; sorted
}

// maxLogs bounds the lines that are taken from one answer.
const maxLogs = 1000

// decode makes an answer of what a handler gave back.
func decode(f *Function, body []byte) (Answer, error) {
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		return Answer{}, &Error{Kind: BadAnswer, Detail: "the handler's answer is not {\"Outputs\": …, \"Logs\": …, \"ReturnValue\": …}", Cause: err}
	}
	var a Answer
	for _, raw := range r.Logs[:min(len(r.Logs), maxLogs)] {
		a.Logs = append(a.Logs, text(raw))
	}
	for name, raw := range r.Outputs {
		if name != f.output() && !null(raw) {
			a.Dropped = append(a.Dropped, name)
		}
	}
	slices.Sort(a.Dropped)
	value := r.ReturnValue
	switch out := f.output(); {
	case f.HTTP() && out == "":
		a.Response.Status = 204
		return a, nil
	case f.HTTP() && out != ReturnName:
		value = r.Outputs[out]
	case f.HTTP():
		// A string may be a response, or other JSON, in text.
		var s string
		if json.Unmarshal(value, &s) == nil && json.Valid([]byte(s)) {
			value = json.RawMessage(s)
		}
	}
	return a, a.respond(value, f.HTTP())
}

// respond sets the answer to a value. An object that looks like a response is one.
func (a *Answer) respond(value json.RawMessage, sniff bool) error {
	a.Response.Status = 200
	if null(value) {
		a.Response.Status = 204
		return nil
	}
	var members map[string]json.RawMessage
	if sniff && json.Unmarshal(value, &members) == nil {
		fields := map[string]json.RawMessage{}
		for name, v := range members {
			fields[strings.ToLower(name)] = v
		}
		status, hasStatus := fields["statuscode"]
		if !hasStatus || null(status) {
			status, hasStatus = fields["status"]
		}
		body, hasBody := fields["body"]
		headers, hasHeaders := fields["headers"]
		if hasStatus || hasBody || hasHeaders {
			if err := a.setStatus(status); err != nil {
				return err
			}
			if err := a.setHeaders(headers); err != nil {
				return err
			}
			value = body
		}
	}
	a.setBody(value)
	return nil
}

func (a *Answer) setStatus(raw json.RawMessage) error {
	if null(raw) {
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(text(raw)))
	if err != nil || n < 200 || n > 599 {
		return &Error{Kind: BadAnswer, Detail: fmt.Sprintf("the handler's answer has the status %.40q", text(raw)), Cause: err}
	}
	a.Response.Status = n
	return nil
}

func (a *Answer) setHeaders(raw json.RawMessage) error {
	if null(raw) {
		return nil
	}
	var headers map[string]json.RawMessage
	if err := json.Unmarshal(raw, &headers); err != nil {
		return &Error{Kind: BadAnswer, Detail: "the handler's answer has headers that are no object", Cause: err}
	}
	a.Response.Headers = map[string][]string{}
	for name, v := range headers {
		var several []json.RawMessage
		if json.Unmarshal(v, &several) != nil {
			several = []json.RawMessage{v}
		}
		for _, one := range several {
			if null(one) {
				continue
			}
			if !fieldOK(name, text(one)) {
				return &Error{Kind: BadAnswer, Detail: fmt.Sprintf("the handler's answer has a header %.60q that cannot be sent", name)}
			}
			key := strings.ToLower(name)
			a.Response.Headers[key] = append(a.Response.Headers[key], text(one))
		}
	}
	return nil
}

// setBody takes a string as it is, and everything else as JSON.
func (a *Answer) setBody(raw json.RawMessage) {
	if null(raw) {
		return
	}
	kind := "application/json; charset=utf-8"
	var s string
	if json.Unmarshal(raw, &s) == nil {
		a.Body, kind = []byte(s), "text/plain; charset=utf-8"
	} else {
		a.Body = raw
	}
	if a.Response.Headers == nil {
		a.Response.Headers = map[string][]string{}
	}
	if _, given := a.Response.Headers["content-type"]; !given {
		a.Response.Headers["content-type"] = []string{kind}
	}
}

func null(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// text gives a string without its quotes, and other JSON as it is.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil && !null(raw) {
		return s
	}
	return string(raw)
}

// fieldOK reports whether a header field can be sent (RFC 9110, section 5).
func fieldOK(name, value string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return name != ""
}

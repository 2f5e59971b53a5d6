package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// errNoAnswer means that the guest ended well and wrote nothing.
var errNoAnswer = errors.New(`nothing was written on standard output; write a line of JSON like {"status":200}, then the body`)

// splitAnswer reads what a guest wrote: a head line, then the body, which shares
// out's memory. The errors are made for the guest's author.
func splitAnswer(out []byte) (sandbox.ResponseHead, []byte, error) {
	if len(out) == 0 {
		return sandbox.ResponseHead{}, nil, errNoAnswer
	}
	line, body, _ := bytes.Cut(out, []byte("\n"))
	if len(line) > sandbox.MaxHeadLine {
		return sandbox.ResponseHead{}, nil, fmt.Errorf("the head line exceeds %d bytes", sandbox.MaxHeadLine)
	}
	if head, ok := quickHead(line); ok {
		return head, body, nil
	}
	head, err := slowHead(line)
	if err != nil {
		return sandbox.ResponseHead{}, nil, err
	}
	return head, body, nil
}

// slowHead reads any head line that encoding/json reads, and says what is wrong
// with one that cannot be used.
func slowHead(line []byte) (sandbox.ResponseHead, error) {
	var raw struct {
		Status  int               `json:"status"`
		Headers map[string]values `json:"headers"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return sandbox.ResponseHead{}, fmt.Errorf("the first line is not a head in JSON: %v", err)
	}
	if raw.Status < 200 || raw.Status > 599 {
		return sandbox.ResponseHead{}, fmt.Errorf("status %d is not one of 200 to 599", raw.Status)
	}
	head := sandbox.ResponseHead{Status: raw.Status}
	if len(raw.Headers) > 0 {
		head.Headers = make(map[string][]string, len(raw.Headers))
	}
	for name, vs := range raw.Headers {
		if !isToken(name) {
			return sandbox.ResponseHead{}, fmt.Errorf("header name %.80q is not valid", name)
		}
		for _, v := range vs {
			if !isFieldValue(v) {
				return sandbox.ResponseHead{}, fmt.Errorf("the value of header %.80q is not valid", name)
			}
		}
		name = strings.ToLower(name)
		head.Headers[name] = append(head.Headers[name], vs...)
	}
	return head, nil
}

// values is a header's value: a string, or a list of strings.
type values []string

// UnmarshalJSON implements json.Unmarshaler.
func (v *values) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*v = values{s}
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return errors.New("a header's value must be a string or a list of strings")
	}
	*v = list
	return nil
}

// isToken reports whether s can be a field name (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s can be a field value: no control characters but
// the tab, so that no guest can begin a header or a body of its own (RFC 9110,
// section 5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

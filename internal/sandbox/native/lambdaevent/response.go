package lambdaevent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// ContentTypePrelude is the type of a streamed answer that begins with its status,
// headers and cookies as JSON; eight zero bytes part them from the body.
const ContentTypePrelude = "application/vnd.awslambda.http-integration-response"

// preludeEnd ends the JSON of a ContentTypePrelude answer.
var preludeEnd = make([]byte, 8)

const (
	typeJSON   = "application/json"
	typeForm   = "application/x-www-form-urlencoded"
	nameType   = "content-type"
	nameCookie = "set-cookie"
)

// ToHTTP gives the HTTP answer for what a function gave, by the rules of format 2.0:
//
//   - An object with statusCode is the answer: headers, cookies, body, isBase64Encoded.
//   - Other JSON is the body of a 200 of type application/json; of a string, its text.
//   - A payload of another type than JSON is the body, with its type, unless it is the
//     type that curl sends by itself, as the bootstrap in AWS's tutorial does.
//
// It fails when the payload is none of these; the error names what is wrong and holds
// nothing of the payload but names.
func ToHTTP(payload []byte, contentType string) (sandbox.ResponseHead, []byte, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = strings.ToLower(strings.TrimSpace(contentType))
	}
	switch {
	case media == ContentTypePrelude:
		return fromPrelude(payload)
	case media == "" || media == typeForm || media == typeJSON || strings.HasSuffix(media, "+json"):
		return fromJSON(payload)
	}
	h := sandbox.ResponseHead{Status: http.StatusOK}
	if err := addHeader(&h, nameType, contentType); err != nil {
		return sandbox.ResponseHead{}, nil, err
	}
	return h, payload, nil
}

// fromJSON reads a buffered payload.
func fromJSON(payload []byte) (sandbox.ResponseHead, []byte, error) {
	inferred := sandbox.ResponseHead{Status: http.StatusOK, Headers: map[string][]string{nameType: {typeJSON}}}
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 {
		return inferred, nil, nil
	}
	switch payload[0] {
	case '{':
		var fields map[string]json.RawMessage // a struct's fields would match in any case
		if json.Unmarshal(payload, &fields) != nil {
			return sandbox.ResponseHead{}, nil, errNoJSON
		}
		if _, ok := fields["statusCode"]; ok {
			return fromFields(fields, true)
		}
	case '"':
		var s string
		if json.Unmarshal(payload, &s) != nil {
			return sandbox.ResponseHead{}, nil, errNoJSON
		}
		return inferred, []byte(s), nil
	default:
		if !json.Valid(payload) {
			return sandbox.ResponseHead{}, nil, errNoJSON
		}
	}
	return inferred, payload, nil
}

var errNoJSON = errors.New("the function's answer is not JSON")

// fromPrelude reads a streamed answer of type ContentTypePrelude.
func fromPrelude(payload []byte) (sandbox.ResponseHead, []byte, error) {
	prelude, body, ok := bytes.Cut(payload, preludeEnd)
	if !ok {
		return sandbox.ResponseHead{}, nil, errors.New("the function's answer has no end of its prelude (eight zero bytes)")
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(prelude, &fields) != nil {
		return sandbox.ResponseHead{}, nil, errors.New("the prelude of the function's answer is not a JSON object")
	}
	h, _, err := fromFields(fields, false)
	return h, body, err
}

// fromFields reads an explicit answer. A prelude's body comes after it, and a default
// type would only guess at it.
func fromFields(fields map[string]json.RawMessage, withBody bool) (h sandbox.ResponseHead, body []byte, err error) {
	h = sandbox.ResponseHead{Status: http.StatusOK, Headers: make(map[string][]string)}
	fail := func(err error) (sandbox.ResponseHead, []byte, error) { return sandbox.ResponseHead{}, nil, err }
	if raw := field(fields, "statusCode"); raw != nil {
		h.Status, err = strconv.Atoi(strings.Trim(string(raw), `"`))
		if err != nil || h.Status < 200 || h.Status > 599 {
			return fail(errors.New("statusCode of the function's answer is not a number from 200 to 599"))
		}
	}
	var headers map[string]any
	if raw := field(fields, "headers"); raw != nil && json.Unmarshal(raw, &headers) != nil {
		return fail(errors.New("headers of the function's answer is not an object"))
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value, ok := headerValue(headers[name])
		if !ok {
			return fail(fmt.Errorf("header %.64q of the function's answer is not a string", name))
		}
		if err := addHeader(&h, name, value); err != nil {
			return fail(err)
		}
	}
	var list []string
	if raw := field(fields, "cookies"); raw != nil && json.Unmarshal(raw, &list) != nil {
		return fail(errors.New("cookies of the function's answer is not a list of strings"))
	}
	for _, c := range list {
		if err := addHeader(&h, nameCookie, c); err != nil {
			return fail(err)
		}
	}
	if !withBody {
		return h, nil, nil
	}
	if _, ok := h.Headers[nameType]; !ok {
		h.Headers[nameType] = []string{typeJSON}
	}
	body, err = bodyOf(fields)
	if err != nil {
		return fail(err)
	}
	return h, body, nil
}

// bodyOf reads body and isBase64Encoded.
func bodyOf(fields map[string]json.RawMessage) ([]byte, error) {
	raw := field(fields, "body")
	if raw == nil {
		return nil, nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil, errors.New("body of the function's answer is not a string; encode it with JSON.stringify or json.dumps")
	}
	var encoded bool
	if raw := field(fields, "isBase64Encoded"); raw != nil && json.Unmarshal(raw, &encoded) != nil {
		return nil, errors.New("isBase64Encoded of the function's answer is not true or false")
	}
	if !encoded {
		return []byte(s), nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("body of the function's answer is not base64, and isBase64Encoded is true")
	}
	return b, nil
}

// field gives a field's JSON; nil when it is missing or null.
func field(fields map[string]json.RawMessage, name string) json.RawMessage {
	if raw := fields[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

// headerValue gives the text of what JSON had as a header's value.
func headerValue(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// addHeader adds one field, when it cannot be taken for more than that.
func addHeader(h *sandbox.ResponseHead, name, value string) error {
	if !isToken(name) {
		return fmt.Errorf("%.64q is not a header's name", name)
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7F {
			return fmt.Errorf("header %.64q of the function's answer has a control character", name)
		}
	}
	if h.Headers == nil {
		h.Headers = make(map[string][]string)
	}
	name = strings.ToLower(name)
	h.Headers[name] = append(h.Headers[name], value)
	return nil
}

// isToken says whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

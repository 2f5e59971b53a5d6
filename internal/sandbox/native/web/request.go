package web

import (
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Request is one request to the guest.
type Request struct {
	Method string
	Target string // origin form: path and query, escaped; see Target
	// Header has lower-case names. Fields that concern one connection, and those that
	// frame the body, are left out.
	Header map[string][]string
	Extra  []Field // further fields, which take the place of those in Header
	Body   []byte
}

// Field is one header field.
type Field struct{ Name, Value string }

// Target gives the origin form (RFC 9112, section 3.2.1) of a decoded path and a
// query as sent.
func Target(path, query string) string {
	b := appendPath(make([]byte, 0, len(path)+len(query)+2), path)
	return string(appendQuery(b, query))
}

const upperHex = "0123456789ABCDEF"

// appendPath escapes what may not stand in a path (RFC 3986, section 3.3). A path
// that was decoded cannot hold an escaped slash, so slashes are separators.
func appendPath(b []byte, path string) []byte {
	if path == "" || path[0] != '/' {
		b = append(b, '/')
	}
	for i := range len(path) {
		if c := path[i]; pathByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

// appendQuery appends a query as it was sent. Only what would end the request line
// is escaped.
func appendQuery(b []byte, query string) []byte {
	if query == "" {
		return b
	}
	b = append(b, '?')
	for i := range len(query) {
		if c := query[i]; c > ' ' && c < 0x7f && c != '#' {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

func pathByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	default:
		return strings.IndexByte("/-._~!$&'()*+,;=:@", c) >= 0
	}
}

// tokenByte reports what may stand in methods and field names (RFC 9110, 5.6.2).
func tokenByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	default:
		return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
	}
}

func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// fieldValue reports whether s can be a field's value (RFC 9110, section 5.5).
func fieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// ofConnection reports fields that concern one connection only (RFC 9110, section
// 7.6.1), and those with which a message is framed, which whoever writes it sets.
func ofConnection(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"te", "trailer", "transfer-encoding", "upgrade", "content-length", "expect":
		return true
	default:
		return false
	}
}

// appendRequest appends the request's head, or fails with a BadRequest.
func appendRequest(b []byte, r *Request, host string) ([]byte, error) {
	switch {
	case !token(r.Method) || r.Method == "CONNECT":
		return nil, &Error{Kind: BadRequest, Detail: "the method cannot be sent on"}
	case !originForm(r.Target):
		return nil, &Error{Kind: BadRequest, Detail: "the path cannot be sent on"}
	}
	b = append(append(append(append(b, r.Method...), ' '), r.Target...), " HTTP/1.1\r\n"...)
	if _, given := r.Header["host"]; !given && !r.extra("host") {
		b = append(append(append(b, "host: "...), host...), "\r\n"...)
	}
	// Always in one order. Of objects whose fields come in another one each time, Node.js
	// makes new kinds again and again, and never gets to compile what uses them.
	var few [32]string
	names := few[:0]
	for name := range r.Header {
		if !ofConnection(name) && !r.extra(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			if !token(name) || !fieldValue(v) {
				return nil, &Error{Kind: BadRequest, Detail: "a header field cannot be sent on"}
			}
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	for _, f := range r.Extra {
		if !token(f.Name) || !fieldValue(f.Value) {
			return nil, &Error{Kind: BadRequest, Detail: "a header field cannot be sent on"}
		}
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	if len(r.Body) > 0 || r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH" {
		b = append(strconv.AppendInt(append(b, "content-length: "...), int64(len(r.Body)), 10), "\r\n"...)
	}
	return append(b, '\r', '\n'), nil
}

func (r *Request) extra(name string) bool {
	for i := range r.Extra {
		if r.Extra[i].Name == name {
			return true
		}
	}
	return false
}

func originForm(target string) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return target != "" && target[0] == '/'
}

// Environment is what a guest that listens on port is told, besides what its
// version sets (Cloud Run's container contract; Knative's runtime contract). A
// version must not set these itself.
func Environment(service, revision string, port int) []string {
	return []string{
		"PORT=" + strconv.Itoa(port),
		"K_SERVICE=" + service,
		"K_REVISION=" + revision,
		"K_CONFIGURATION=" + service,
	}
}

// fromHead makes the request that a head describes.
func fromHead(h *sandbox.Head, body []byte) Request {
	method := h.Method
	if method == "" {
		method = "POST" // a trigger that is no request
	}
	return Request{Method: method, Target: Target(h.Path, h.Query), Header: h.Headers, Body: body}
}

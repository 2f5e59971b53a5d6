package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api/problem"
)

// checkRequestLine refuses methods that are not requests to a resource and
// targets that are not in the one canonical form.
func (g *Gateway) checkRequestLine(x *exchange) error {
	if !servedMethod(x.r.Method) {
		return problem.New(problem.NotImplemented, "this method is not served").At("method")
	}
	path, query, reason := canonical(x.r.RequestURI)
	if reason == "" && (path != x.r.URL.Path || query != x.r.URL.RawQuery || x.r.URL.Host != "" || x.r.URL.Scheme != "") {
		reason = "the path can be read in more than one way"
	}
	if reason != "" {
		return problem.New(problem.InvalidPath, "%s", reason).At("path")
	}
	return nil
}

// servedMethod accepts upper-case names except CONNECT, which asks for a tunnel,
// and TRACE, which echoes credentials (RFC 9110, sections 9.3.6 and 9.3.8).
// Others are told apart by the route. "get" is a method of its own, and refused
// so that no function takes it for GET.
func servedMethod(m string) bool {
	if m == "" || len(m) > maxMethod || m == http.MethodConnect || m == http.MethodTrace {
		return false
	}
	for i := range len(m) {
		if m[i] < 'A' || m[i] > 'Z' {
			return false
		}
	}
	return true
}

// canonical splits a request target in origin form (RFC 9112, section 3.2.1)
// into the decoded path and the query as sent. The reason says why it is refused.
func canonical(target string) (path, query, reason string) {
	if target == "" || target[0] != '/' {
		return "", "", "the target must be a path that begins with /"
	}
	raw, query, _ := strings.Cut(target, "?")
	if !utf8.ValidString(query) || strings.IndexByte(query, '#') >= 0 {
		return "", "", "the query holds bytes that must be percent-encoded"
	}
	if plainPath(raw) {
		return raw, query, ""
	}
	path, reason = decodedPath(raw)
	return path, query, reason
}

// plainPath reports, in one pass and for nearly every request, that a path means
// the same to everybody: no empty segment, no dot at the start of a segment, and
// only characters that never need decoding.
func plainPath(raw string) bool {
	previous := byte(0)
	for i := range len(raw) {
		c := raw[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		case c == '/':
			if previous == '/' {
				return false
			}
		case c == '.':
			if previous == '/' {
				return false
			}
		default:
			return false
		}
		previous = c
	}
	return true
}

// decodedPath does what plainPath cannot, with a reason for each refusal.
func decodedPath(raw string) (path, reason string) {
	if strings.IndexByte(raw, '#') >= 0 {
		return "", "the path holds a fragment"
	}
	if hasEscape(raw, "2f") {
		return "", "the path holds an encoded slash"
	}
	path, err := url.PathUnescape(raw)
	if err != nil {
		return "", "the path holds a malformed percent-encoding"
	}
	if !utf8.ValidString(path) {
		return "", "the path is not valid UTF-8"
	}
	for _, r := range path {
		if r == '\\' {
			return "", "the path holds a backslash"
		}
		if unicode.IsControl(r) {
			return "", "the path holds a control character"
		}
	}
	// Whoever decodes once more would find what was refused here.
	if hasEscape(path, "2e", "2f", "5c", "00") {
		return "", "the path holds a doubly encoded separator"
	}
	rest := path[1:]
	for more := true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if segment == "" && more {
			return "", "the path holds an empty segment"
		}
		// "..;x" is a dot segment to those who cut parameters off segments.
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return "", "the path holds a dot segment"
		}
	}
	return path, ""
}

// hasEscape reports whether s holds % followed by one of the pairs of lower-case
// hex digits, in either case.
func hasEscape(s string, pairs ...string) bool {
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 || len(s) < i+3 {
			return false
		}
		for _, pair := range pairs {
			if strings.EqualFold(s[i+1:i+3], pair) {
				return true
			}
		}
		s = s[i+1:]
	}
}

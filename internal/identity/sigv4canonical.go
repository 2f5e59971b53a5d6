package identity

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// canonicalHead writes the canonical request without its last part, the digest of
// the body. The path must have no empty and no dot segments: those who sign would
// take them out, and a door that takes two spellings of a path for one is refused
// by nobody here.
func canonicalHead(r *SignedRequest, signed []string) ([]byte, error) {
	path, query, _ := strings.Cut(r.Target, "?")
	canonical, ok := canonicalQuery(query)
	if !ok {
		return nil, &SignatureError{SignatureMalformed, "the query can be read in more than one way; percent-encode it"}
	}
	b := make([]byte, 0, 512)
	b = append(append(b, r.Method...), '\n')
	// Once more than it is encoded already, which is the rule for all services but
	// S3: the signature is over the path as sent.
	b = append(appendEncoded(b, path, true), '\n')
	b = append(append(b, canonical...), '\n')
	for _, name := range signed {
		b = append(append(b, name...), ':')
		var ok bool
		if b, ok = appendField(b, r, name); !ok {
			return nil, &SignatureError{SignatureMalformed, "a signed header is missing: " + name}
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(append(b, strings.Join(signed, ";")...), '\n')
	return b, nil
}

// appendField writes the values of a field, each without blanks around it and with
// one in place of several.
func appendField(b []byte, r *SignedRequest, name string) ([]byte, bool) {
	values := fieldValues(r.Header, name)
	if name == "host" {
		values = []string{r.Host}
	}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " ")...)
	}
	return b, len(values) > 0
}

func fieldValues(h http.Header, name string) []string {
	return h[textproto.CanonicalMIMEHeaderKey(name)]
}

// canonicalQuery sorts the parameters by name and value and writes each in one
// way. A plus is a blank, as botocore sends it and net/url reads it. Refused is what
// a reader could take for something else than the signer: a semicolon, which
// separates for some; an empty parameter; broken escapes.
func canonicalQuery(raw string) (string, bool) {
	if raw == "" {
		return "", true
	}
	if strings.IndexByte(raw, ';') >= 0 {
		return "", false
	}
	var pairs [][2]string
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			return "", false
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err := url.QueryUnescape(name)
		if err != nil {
			return "", false
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return "", false
		}
		pairs = append(pairs, [2]string{string(appendEncoded(nil, n, false)), string(appendEncoded(nil, v, false))})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0])
		b.WriteByte('=')
		b.WriteString(p[1])
	}
	return b.String(), true
}

// appendEncoded percent-encodes every byte but the unreserved ones (RFC 3986,
// section 2.3) and, in a path, the slash.
func appendEncoded(b []byte, s string, path bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', path && c == '/':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

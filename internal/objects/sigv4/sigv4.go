// Package sigv4 checks AWS Signature Version 4 the way S3 uses it: in the Authorization
// header and in signed URLs, with bodies that are signed whole, in chunks, or not at all.
//
// Only the object store's door imports it. It holds no secrets: it is handed the signing
// key of a day, region and service. A Signature belongs to one goroutine.
//
// Left out on purpose: Version 4A and Version 2, session tokens, and POST forms. A
// signature may be used twice within its window, as with AWS; TLS keeps it from third
// parties. Sources: "Signature Calculations for the Authorization Header", "Authenticating
// Requests: Using Query Parameters", and the pages on transferring payloads in chunks,
// Amazon S3 API Reference.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is how far the date of a request may be from the clock. Bodies of S3 take long
// to send, so it is that of S3 and not shorter.
const Window = 15 * time.Minute

// MaxExpiry is how long a signed URL may be good.
const MaxExpiry = 7 * 24 * time.Hour

const (
	algorithm        = "AWS4-HMAC-SHA256"
	service          = "s3"
	terminator       = "aws4_request"
	timeForm         = "20060102T150405Z"
	dateForm         = "20060102"
	maxAuthorization = 4 << 10 // bytes
	maxSigned        = 100     // headers
	maxName          = 64      // bytes of an access key's id or a region
	emptyDigest      = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Fault is what kind of thing is wrong with a signature.
type Fault string

// The faults, and how S3 calls them.
const (
	Missing   Fault = "AccessDenied"
	Malformed Fault = "AuthorizationHeaderMalformed"
	BadQuery  Fault = "AuthorizationQueryParametersError"
	Skewed    Fault = "RequestTimeTooSkewed"
	Expired   Fault = "ExpiredToken" // of a signed URL; S3 says AccessDenied
	Unserved  Fault = "InvalidRequest"
	Mismatch  Fault = "SignatureDoesNotMatch"
	BadDigest Fault = "XAmzContentSHA256Mismatch"
)

// Error says what is wrong with a signature. Both fields may be shown to whoever sent it.
type Error struct {
	Fault  Fault
	Reason string
}

func (e *Error) Error() string { return "checking the signature: " + e.Reason }

// Payload is how a body is covered.
type Payload int

// How a body may be covered by the signature.
const (
	Whole          Payload = iota // by its digest
	Unsigned                      // not at all
	Chunks                        // each chunk has a signature
	ChunksTrailer                 // the same, and a signed trailer follows
	UnsignedChunks                // in chunks without signatures, and a trailer follows
)

var payloads = map[string]Payload{
	"UNSIGNED-PAYLOAD":                           Unsigned,
	"STREAMING-AWS4-HMAC-SHA256-PAYLOAD":         Chunks,
	"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": ChunksTrailer,
	"STREAMING-UNSIGNED-PAYLOAD-TRAILER":         UnsignedChunks,
}

// Request is what is signed, as it came over the wire.
type Request struct {
	Method        string
	Path          string // not decoded
	Query         string // not decoded
	Host          string
	Header        http.Header
	ContentLength int64
	TLS           bool
}

// Signature is the signature of a request, not checked before Verify.
type Signature struct {
	AccessKey string
	Day       string
	Region    string
	Service   string // always s3
	Presigned bool
	Payload   Payload
	Digest    string // of the body, when Payload is Whole; in hex
	given     []byte
	canonical []byte
	date      string
	key       []byte // the signing key, once verified
}

// Parse finds and examines the one signature of a request. It fails with an *Error.
func Parse(r *Request, now time.Time) (*Signature, error) {
	query, ok := parseQuery(r.Query)
	if !ok {
		return nil, &Error{Unserved, "the query can be read in more than one way; percent-encode it"}
	}
	if _, old := query.get("AWSAccessKeyId"); old {
		// What AWS's own clients sign URLs with for their oldest regions.
		return nil, &Error{Unserved, "signatures of version 2 are not served: have the client sign URLs with s3v4, or for a younger region such as eu-central-1"}
	}
	_, presigned := query.get("X-Amz-Signature")
	fields := r.Header["Authorization"]
	switch {
	case presigned && len(fields) > 0, len(fields) > 1:
		return nil, &Error{Unserved, "the request is signed more than once"}
	case presigned:
		return parsePresigned(r, query, now)
	case len(fields) == 0:
		return nil, &Error{Missing, "the request is not signed"}
	}
	return parseHeader(r, query, fields[0], now)
}

func parseHeader(r *Request, query params, field string, now time.Time) (*Signature, error) {
	rest, ok := strings.CutPrefix(field, algorithm+" ")
	if !ok || len(field) > maxAuthorization {
		return nil, &Error{Unserved, "the only way to sign that is served is " + algorithm}
	}
	part := map[string]string{}
	for p := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(p, " "), "=")
		if _, twice := part[name]; twice || value == "" {
			return nil, &Error{Malformed, "each part of the Authorization header must be there once"}
		}
		part[name] = value
	}
	if len(part) != 3 {
		return nil, &Error{Malformed, "the Authorization header needs Credential, SignedHeaders and Signature, and no more"}
	}
	s := &Signature{}
	if err := s.credential(part["Credential"], part["Signature"], Malformed); err != nil {
		return nil, err
	}
	at, err := s.dated(r.Header["X-Amz-Date"], Malformed)
	if err != nil {
		return nil, err
	}
	if at.Before(now.Add(-Window)) || at.After(now.Add(Window)) {
		return nil, &Error{Skewed, "the date of the request is too far from the clock, which says " + now.UTC().Format(timeForm)}
	}
	hash := r.Header["X-Amz-Content-Sha256"]
	if len(hash) != 1 {
		return nil, &Error{Unserved, "exactly one x-amz-content-sha256 is needed"}
	}
	if err := s.covers(hash[0], r.TLS); err != nil {
		return nil, err
	}
	return s, s.canonicalise(r, query, part["SignedHeaders"], hash[0], Malformed)
}

func parsePresigned(r *Request, query params, now time.Time) (*Signature, error) {
	value := func(name string) string { v, _ := query.get(name); return v }
	if value("X-Amz-Algorithm") != algorithm {
		return nil, &Error{BadQuery, "X-Amz-Algorithm must be " + algorithm}
	}
	s := &Signature{Presigned: true, Payload: Unsigned}
	if err := s.credential(value("X-Amz-Credential"), value("X-Amz-Signature"), BadQuery); err != nil {
		return nil, err
	}
	at, err := s.dated([]string{value("X-Amz-Date")}, BadQuery)
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.Atoi(value("X-Amz-Expires"))
	if err != nil || seconds < 1 || time.Duration(seconds)*time.Second > MaxExpiry {
		return nil, &Error{BadQuery, "X-Amz-Expires must be 1 to 604800"}
	}
	switch {
	case at.After(now.Add(Window)):
		return nil, &Error{Expired, "the signed URL is not good yet"}
	case !now.Before(at.Add(time.Duration(seconds) * time.Second)):
		return nil, &Error{Expired, "the signed URL has expired"}
	}
	hash := "UNSIGNED-PAYLOAD"
	if v, ok := query.get("X-Amz-Content-Sha256"); ok && v != hash {
		hash = v
		if err := s.covers(hash, true); err != nil {
			return nil, err
		}
	}
	if h := r.Header["X-Amz-Content-Sha256"]; len(h) > 0 && (len(h) > 1 || h[0] != hash) {
		return nil, &Error{BadQuery, "x-amz-content-sha256 is another one than the URL was signed with"}
	}
	if s.Payload != Unsigned && s.Payload != Whole {
		return nil, &Error{BadQuery, "bodies in chunks are not served with signed URLs"}
	}
	return s, s.canonicalise(r, query.without("X-Amz-Signature"), value("X-Amz-SignedHeaders"), hash, BadQuery)
}

// covers reads x-amz-content-sha256.
func (s *Signature) covers(hash string, tls bool) error {
	if isDigest(hash) {
		s.Payload, s.Digest = Whole, hash
		return nil
	}
	p, ok := payloads[hash]
	switch {
	case !ok:
		return &Error{Unserved, "x-amz-content-sha256 must be the digest of the body, UNSIGNED-PAYLOAD, or name a form of chunks that is served"}
	case (p == Unsigned || p == UnsignedChunks) && !tls:
		return &Error{Unserved, "without TLS the body must be signed"}
	}
	s.Payload = p
	return nil
}

func isDigest(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

func (s *Signature) credential(credential, signature string, fault Fault) error {
	c := strings.Split(credential, "/")
	if len(c) != 5 || c[4] != terminator || !plainName(c[0]) || !plainName(c[2]) {
		return &Error{fault, "the Credential is not of the form id/date/region/s3/" + terminator}
	}
	if c[3] != service {
		return &Error{fault, "the Credential is scoped to another service than " + service}
	}
	if _, err := time.Parse(dateForm, c[1]); err != nil {
		return &Error{fault, "the Credential holds no date of the form " + dateForm}
	}
	if !isDigest(signature) {
		return &Error{fault, "the Signature is not 64 lower-case hex digits"}
	}
	s.AccessKey, s.Day, s.Region, s.Service = c[0], c[1], c[2], c[3]
	var err error
	s.given, err = hex.DecodeString(signature)
	return err
}

func (s *Signature) dated(fields []string, fault Fault) (time.Time, error) {
	if len(fields) != 1 {
		return time.Time{}, &Error{fault, "exactly one X-Amz-Date is needed"}
	}
	at, err := time.Parse(timeForm, fields[0])
	if err != nil || at.Format(timeForm) != fields[0] {
		return time.Time{}, &Error{fault, "X-Amz-Date is not of the form " + timeForm}
	}
	if at.Format(dateForm) != s.Day {
		return time.Time{}, &Error{fault, "the Credential is scoped to another day than X-Amz-Date"}
	}
	s.date = fields[0]
	return at, nil
}

// canonicalise writes the canonical request, after it has made sure that nothing that
// decides what the request does was left unsigned.
func (s *Signature) canonicalise(r *Request, query params, list, hash string, fault Fault) error {
	signed := strings.Split(list, ";")
	if len(signed) > maxSigned || !slices.IsSorted(signed) {
		return &Error{fault, "SignedHeaders is not a sorted list of lower-case names"}
	}
	for i, name := range signed {
		if name == "" || (i > 0 && name == signed[i-1]) || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return &Error{fault, "SignedHeaders is not a sorted list of lower-case names"}
		}
	}
	if !slices.Contains(signed, "host") {
		return &Error{fault, "the host header is not signed"}
	}
	if _, token := query.get("X-Amz-Security-Token"); token || len(r.Header["X-Amz-Security-Token"]) > 0 {
		return &Error{Unserved, "session tokens are not served; access keys of this node have none"}
	}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if len(values) > 1 {
			return &Error{Unserved, "a header is there twice: " + name}
		}
		if !slices.Contains(signed, strings.ToLower(name)) && (!s.Presigned || name != "X-Amz-Content-Sha256") {
			return &Error{Missing, "a header is not signed: " + name}
		}
	}
	path, err := url.PathUnescape(r.Path)
	if err != nil {
		return &Error{Unserved, "the path is not percent-encoded"}
	}
	b := make([]byte, 0, 512)
	b = append(append(b, r.Method...), '\n')
	b = append(appendEncoded(b, path, true), '\n')
	b = append(append(b, query.canonical()...), '\n')
	for _, name := range signed {
		b = append(append(b, name...), ':')
		var ok bool
		if b, ok = appendField(b, r, name); !ok {
			return &Error{fault, "a signed header is missing: " + name}
		}
		b = append(b, '\n')
	}
	b = append(append(append(append(b, '\n'), list...), '\n'), hash...)
	s.canonical = b
	return nil
}

// Verify checks the signature with the signing key for its Day, Region and Service. It
// fails with an *Error. The key is kept for the chunks of the body, not copied.
func (s *Signature) Verify(signingKey []byte) error {
	sum := sha256.Sum256(s.canonical)
	toSign := algorithm + "\n" + s.date + "\n" + s.scope() + "\n" + hex.EncodeToString(sum[:])
	if !hmac.Equal(s.given, sign(signingKey, toSign)) {
		return &Error{Mismatch, "the signature is not that of this request under this key"}
	}
	s.key = signingKey
	return nil
}

func (s *Signature) scope() string {
	return s.Day + "/" + s.Region + "/" + s.Service + "/" + terminator
}

// SigningKey derives the key that Verify takes from a secret.
func SigningKey(secret, day, region, service string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, region, service, terminator} {
		key = sign(key, part)
	}
	return key
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func plainName(s string) bool {
	return s != "" && len(s) <= maxName &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// appendField writes the values of a field, each without blanks around it and with one
// in place of several.
func appendField(b []byte, r *Request, name string) ([]byte, bool) {
	values := r.Header[textproto.CanonicalMIMEHeaderKey(name)]
	switch {
	case name == "host":
		values = []string{r.Host}
	case name == "content-length" && len(values) == 0 && r.ContentLength >= 0: // net/http took it out
		values = []string{strconv.FormatInt(r.ContentLength, 10)}
	}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " ")...)
	}
	return b, len(values) > 0
}

// params are the parameters of a query, decoded, in the order of the query.
type params [][2]string

// parseQuery refuses what a reader could take for something else than the signer: a
// semicolon, which separates for some; an empty parameter; broken escapes; and a
// parameter that is there twice.
func parseQuery(raw string) (params, bool) {
	if raw == "" {
		return nil, true
	}
	if strings.IndexByte(raw, ';') >= 0 {
		return nil, false
	}
	var out params
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		n, err := url.QueryUnescape(name)
		if err != nil || n == "" {
			return nil, false
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return nil, false
		}
		if _, twice := out.get(n); twice || len(out) >= maxSigned {
			return nil, false
		}
		out = append(out, [2]string{n, v})
	}
	return out, true
}

func (p params) get(name string) (string, bool) {
	for _, q := range p {
		if q[0] == name {
			return q[1], true
		}
	}
	return "", false
}

func (p params) without(name string) params {
	return slices.DeleteFunc(slices.Clone(p), func(q [2]string) bool { return q[0] == name })
}

func (p params) canonical() string {
	encoded := make([][2]string, 0, len(p))
	for _, q := range p {
		encoded = append(encoded, [2]string{string(appendEncoded(nil, q[0], false)), string(appendEncoded(nil, q[1], false))})
	}
	slices.SortFunc(encoded, func(a, b [2]string) int { return strings.Compare(a[0]+"=", b[0]+"=") })
	var b strings.Builder
	for i, q := range encoded {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(q[0] + "=" + q[1])
	}
	return b.String()
}

// appendEncoded percent-encodes every byte but the unreserved ones (RFC 3986, section
// 2.3) and, in a path, the slash.
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

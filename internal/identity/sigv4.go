package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// This file checks AWS Signature Version 4 as far as the Lambda API needs it: in
// the Authorization header, over the whole body. The object store's door, which needs
// more, checks signatures itself, with what SigningKey gives it. Left out on purpose are signed
// URLs, which would be credentials that end in logs; payloads that are not signed
// or signed in chunks, which only S3 has; and Version 4A, which is for requests
// to many regions. A signature may be used twice within its window, as with AWS:
// it has no nonce, so that two equal requests of one second are signed alike, and
// TLS keeps it from third parties.
//
// Source: "Create a signed AWS API request", AWS Identity and Access Management
// User Guide.

// SignatureWindow is how far the date of a signature may be from the clock.
const SignatureWindow = 5 * time.Minute

const (
	sigAlgorithm     = "AWS4-HMAC-SHA256"
	sigAsymmetric    = "AWS4-ECDSA-P256-SHA256" // Version 4A
	sigService       = "lambda"
	sigTerminator    = "aws4_request"
	sigTimeForm      = "20060102T150405Z"
	sigDateForm      = "20060102"
	maxAuthorization = 4 << 10 // bytes
	maxSignedHeaders = 100
	maxRegion        = 64 // bytes

	headerAmzDate   = "X-Amz-Date"
	headerAmzHash   = "X-Amz-Content-Sha256"
	headerAmzToken  = "X-Amz-Security-Token" //nolint:gosec // a name, not a credential
	headerAmzPrefix = "X-Amz-"
	queryAmzPrefix  = "x-amz-" // of the parameters of a signed URL, in lower case
)

// SignatureFault is what kind of thing is wrong with a signature that can be seen
// without knowing the key.
type SignatureFault string

// The faults.
const (
	SignatureMissing   SignatureFault = "missing"   // the request is not signed
	SignatureMalformed SignatureFault = "malformed" // or in a way that is not served
	SignatureScope     SignatureFault = "scope"     // it is for another service or another day
	SignatureTime      SignatureFault = "time"      // it is too old, or from the future
)

// SignatureError says what is wrong with a signature in itself. Both fields may be
// shown to whoever sent it: they say nothing about any key.
type SignatureError struct {
	Fault  SignatureFault
	Reason string
}

func (e *SignatureError) Error() string { return "checking the signature: " + e.Reason }

// SignedRequest is what a signature covers, as it came over the wire.
type SignedRequest struct {
	Method string
	Target string // path and query, not decoded
	Host   string
	Header http.Header
}

// Signature is a signature under examination. It belongs to one goroutine.
type Signature struct {
	keys    *Keys
	key     *held
	known   bool
	given   [sha256.Size]byte
	claimed string // the digest of the body that the request names, if it does
	head    []byte // of the canonical request: all but the digest of the body
	scope   string
	date    string // x-amz-date
	day     string
	region  string
	service string
}

// Signed begins to check a signature: all that can be done without the body. It
// fails with a *SignatureError, ErrInvalid, ErrExpired or ErrRevoked; the latter
// three must look alike to the caller, who has not shown yet to hold the secret. The body may be read when it succeeds:
// somebody who knows the id of a valid key asks, with a fresh date. Who it is,
// only Verify says.
func (k *Keys) Signed(r *SignedRequest) (*Signature, error) {
	auth, err := presentedSignature(r)
	if err != nil {
		return nil, err
	}
	s := &Signature{keys: k, given: auth.signature, scope: auth.scope, day: auth.day, region: auth.region, service: auth.service}
	if s.date, err = auth.checkDate(r.Header[headerAmzDate], k.clock()); err != nil {
		return nil, err
	}
	if s.claimed, err = checkSignedFields(r.Header, auth.signed); err != nil {
		return nil, err
	}
	if s.head, err = canonicalHead(r, auth.signed); err != nil {
		return nil, err
	}
	s.key, s.known = k.accessKey(auth.accessKey)
	ended := s.key.ended(k.clock())
	if s.claimed == "" && s.known && ended == nil {
		return s, nil
	}
	// An unknown id costs the work of a known one before it is refused, and so does
	// a key that has ended.
	_, err = s.verify(s.claimed)
	switch {
	case s.claimed == "" && ended != nil:
		return nil, ended // whether the signature is right, the body would say
	case err != nil:
		return nil, err
	}
	return s, nil
}

// Region is the one that the signature is for. Any will do, since there is one
// node; it is only spoken back.
func (s *Signature) Region() string { return s.region }

// Verify answers who signed the request with this body. It fails with ErrInvalid,
// ErrExpired or ErrRevoked.
func (s *Signature) Verify(body []byte) (Principal, error) {
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	if s.claimed == "" {
		return s.verify(digest)
	}
	// The signature over the digest that was claimed is good (Signed).
	if s.claimed != digest {
		return Principal{}, ErrInvalid
	}
	return s.holder()
}

// verify compares the signature with that of the key, whoever's it is.
func (s *Signature) verify(bodyDigest string) (Principal, error) {
	secret, err := s.keys.secretOf(s.key)
	if err != nil {
		return Principal{}, ErrInvalid // it opened when the key was loaded
	}
	same := hmac.Equal(s.given[:], s.sign(secret, bodyDigest))
	clear(secret)
	if !same || !s.known {
		return Principal{}, ErrInvalid
	}
	return s.holder()
}

// holder answers whose key it is, unless that has ended by now.
func (s *Signature) holder() (Principal, error) {
	if err := s.key.ended(s.keys.clock()); err != nil {
		return Principal{}, err
	}
	return s.key.principal, nil
}

// sign computes the signature that the secret gives.
func (s *Signature) sign(secret []byte, bodyDigest string) []byte {
	canonical := sha256.Sum256(append(s.head[:len(s.head):len(s.head)], bodyDigest...))
	toSign := sigAlgorithm + "\n" + s.date + "\n" + s.scope + "\n" + hex.EncodeToString(canonical[:])
	return hmacSHA256(signingKey(secret, s.day, s.region, s.service), toSign)
}

// signingKey derives what signs for a day, a region and a service.
func signingKey(secret []byte, day, region, service string) []byte {
	key := append(append(make([]byte, 0, len("AWS4")+len(secret)), "AWS4"...), secret...)
	defer clear(key)
	derived := key
	for _, part := range []string{day, region, service, sigTerminator} {
		derived = hmacSHA256(derived, part)
	}
	return derived
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// authorization is what the Authorization header says.
type authorization struct {
	accessKey string
	scope     string // day/region/service/aws4_request
	day       string
	region    string
	service   string
	signed    []string // names of fields, sorted
	signature [sha256.Size]byte
}

// presentedSignature finds the one signature of a request.
func presentedSignature(r *SignedRequest) (*authorization, error) {
	_, query, _ := strings.Cut(r.Target, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if strings.HasPrefix(strings.ToLower(pair), queryAmzPrefix) {
			return nil, &SignatureError{SignatureMalformed, "signed URLs are not served; sign in the Authorization header"}
		}
	}
	fields := r.Header["Authorization"]
	switch {
	case len(fields) == 0:
		return nil, &SignatureError{SignatureMissing, "the request is not signed"}
	case len(fields) > 1:
		return nil, &SignatureError{SignatureMalformed, "there is more than one Authorization header"}
	case len(fields[0]) > maxAuthorization:
		return nil, &SignatureError{SignatureMalformed, "the Authorization header is too long"}
	}
	a, err := parseAuthorization(fields[0])
	if err != nil {
		return nil, err
	}
	if a.service != sigService {
		return nil, &SignatureError{SignatureScope, "the credential is scoped to another service than " + sigService}
	}
	if len(r.Header[headerAmzToken]) > 0 {
		return nil, &SignatureError{SignatureMalformed, "session tokens are not served; access keys of this node have none"}
	}
	return a, nil
}

// parseAuthorization reads
//
//	AWS4-HMAC-SHA256 Credential=<id>/<day>/<region>/<service>/aws4_request, SignedHeaders=<a;b>, Signature=<64 hex digits>
//
// with each part exactly once, in any order, as the signers of AWS write it.
func parseAuthorization(text string) (*authorization, error) {
	malformed := func(reason string) (*authorization, error) {
		return nil, &SignatureError{SignatureMalformed, reason}
	}
	algorithm, rest, _ := strings.Cut(text, " ")
	switch {
	case algorithm == sigAsymmetric:
		return malformed("signatures of version 4A are not served; use version 4, " + sigAlgorithm)
	case strings.HasPrefix(algorithm, "AWS4-") && algorithm != sigAlgorithm:
		return malformed("the only algorithm served is " + sigAlgorithm)
	case algorithm != sigAlgorithm:
		return nil, &SignatureError{SignatureMissing, "the request is not signed with AWS Signature Version 4"}
	}
	var credential, signed, signature string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " "), "=")
		to := map[string]*string{"Credential": &credential, "SignedHeaders": &signed, "Signature": &signature}[name]
		if to == nil || *to != "" || value == "" {
			return malformed("the Authorization header needs Credential, SignedHeaders and Signature, each once")
		}
		*to = value
	}
	if credential == "" || signed == "" || signature == "" {
		return malformed("the Authorization header needs Credential, SignedHeaders and Signature, each once")
	}
	a := &authorization{signed: strings.Split(signed, ";")}
	c := strings.Split(credential, "/")
	if len(c) != 5 || c[4] != sigTerminator || !validSigName(c[2], maxRegion) || !validSigName(c[3], maxRegion) {
		return malformed("the Credential is not of the form id/date/region/service/" + sigTerminator)
	}
	if _, err := time.Parse(sigDateForm, c[1]); err != nil {
		return malformed("the Credential holds no date of the form " + sigDateForm)
	}
	a.accessKey, a.day, a.region, a.service = c[0], c[1], c[2], c[3]
	a.scope = credential[len(c[0])+1:]
	if len(a.signed) > maxSignedHeaders || !slices.IsSorted(a.signed) {
		return malformed("SignedHeaders is not a sorted list of lower-case names")
	}
	for i, name := range a.signed {
		if !validSignedName(name) || (i > 0 && name == a.signed[i-1]) {
			return malformed("SignedHeaders is not a sorted list of lower-case names")
		}
	}
	if n, err := hex.Decode(a.signature[:], []byte(signature[:min(len(signature), 2*sha256.Size)])); err != nil || n != sha256.Size ||
		len(signature) != 2*sha256.Size || signature != strings.ToLower(signature) {
		return malformed("the Signature is not 64 lower-case hex digits")
	}
	return a, nil
}

// checkDate takes the date of the request if it is that of the scope and near now.
func (a *authorization) checkDate(fields []string, now time.Time) (string, error) {
	if len(fields) != 1 {
		return "", &SignatureError{SignatureMalformed, "exactly one X-Amz-Date is needed"}
	}
	at, err := time.Parse(sigTimeForm, fields[0])
	if err != nil || at.Format(sigTimeForm) != fields[0] {
		return "", &SignatureError{SignatureMalformed, "X-Amz-Date is not of the form " + sigTimeForm}
	}
	if at.Format(sigDateForm) != a.day {
		return "", &SignatureError{SignatureScope, "the credential is scoped to another day than X-Amz-Date"}
	}
	switch now = now.UTC(); {
	case at.Before(now.Add(-SignatureWindow)):
		return "", &SignatureError{SignatureTime, "the signature has expired: it is of " + fields[0] + ", and here it is " + now.Format(sigTimeForm)}
	case at.After(now.Add(SignatureWindow)):
		return "", &SignatureError{SignatureTime, "the signature is not yet good: it is of " + fields[0] + ", and here it is " + now.Format(sigTimeForm)}
	}
	return fields[0], nil
}

// checkSignedFields makes sure that nothing which decides what the request does
// could have been changed, added or doubled. It answers the digest that the
// request claims for its body, if any.
func checkSignedFields(h http.Header, signed []string) (claimed string, err error) {
	malformed := func(reason string) (string, error) {
		return "", &SignatureError{SignatureMalformed, reason}
	}
	if !slices.Contains(signed, "host") {
		return malformed("the host header is not signed")
	}
	for name, values := range h {
		if !strings.HasPrefix(name, headerAmzPrefix) {
			continue
		}
		if !slices.Contains(signed, strings.ToLower(name)) {
			return malformed("a header is not signed: " + name)
		}
		if len(values) > 1 {
			return malformed("a header is there twice: " + name)
		}
	}
	if v := h[headerAmzHash]; len(v) == 1 {
		if len(v[0]) != 2*sha256.Size || strings.Trim(v[0], "0123456789abcdef") != "" {
			return malformed("X-Amz-Content-Sha256 is not the digest of the body; bodies must be signed whole")
		}
		claimed = v[0]
	}
	return claimed, nil
}

// validSigName accepts what regions and services are named with.
func validSigName(s string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// validSignedName accepts the name of a field in lower case. A name with an
// underscore could be taken for another one.
func validSignedName(s string) bool {
	return validSigName(s, 128) && strings.ToLower(textproto.CanonicalMIMEHeaderKey(s)) == s
}

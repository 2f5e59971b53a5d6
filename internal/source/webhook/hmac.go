package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HMACSettings say how a sender signs.
type HMACSettings struct {
	Header    string `json:"header"`              // that holds the signature
	Prefix    string `json:"prefix,omitempty"`    // before it, such as sha256=
	Encoding  string `json:"encoding,omitempty"`  // hex (the default), base64, base64url
	Algorithm string `json:"algorithm,omitempty"` // sha256 (the default), sha384, sha512
	Key       string `json:"key,omitempty"`       // how the secret is written: text (the default), hex, base64
	// Signed is the text that is signed: {timestamp}, {id} and {body} stand for the two
	// headers and the raw body, which comes last. Without it that is {body}.
	Signed          string `json:"signed,omitempty"`
	TimestampHeader string `json:"timestampHeader,omitempty"`
	TimestampForm   string `json:"timestampForm,omitempty"` // seconds (the default), milliseconds, rfc3339
	IDHeader        string `json:"idHeader,omitempty"`
	// Members of a body of JSON, by their names with full stops between: data.id. An id in
	// the body is as good as a signed one.
	IDField      string `json:"idField,omitempty"`
	EventField   string `json:"eventField,omitempty"`
	SubjectField string `json:"subjectField,omitempty"`
}

// macs says whether one of sums is the MAC of the parts under one of the keys. It
// computes and compares all of them.
func macs(h func() hash.Hash, keys, sums [][]byte, parts ...[]byte) bool {
	good := 0
	for _, k := range keys {
		m := hmac.New(h, k)
		for _, p := range parts {
			m.Write(p)
		}
		want := m.Sum(nil)
		for _, s := range sums {
			good |= subtle.ConstantTimeCompare(want, s)
		}
	}
	return good == 1
}

// Characters that the parts of a signed text may have. What stands after a part in a
// template begins with another character, so that no text can be taken apart in two ways.
const (
	digits     = "0123456789"
	stampChars = digits + "TZ:+-"
	idChars    = digits + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"
)

// template is a signed text: what stands before the body.
type template []templatePart

type templatePart struct {
	literal string
	hole    string // timestamp, id, or "" for the literal
}

func parseTemplate(text string) (template, error) {
	rest, ok := strings.CutSuffix(text, "{body}")
	if !ok {
		return nil, errors.New("must end with {body}")
	}
	var t template
	for rest != "" {
		literal, after, found := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return nil, errors.New("has a } without {")
		}
		if literal != "" {
			t = append(t, templatePart{literal: literal})
		}
		if !found {
			break
		}
		hole, after, ok := strings.Cut(after, "}")
		if !ok || hole != "timestamp" && hole != "id" {
			return nil, errors.New("may hold {timestamp}, {id} and {body} once each, and no other braces")
		}
		if slices.ContainsFunc(t, func(p templatePart) bool { return p.hole == hole }) {
			return nil, errors.New("holds {" + hole + "} twice")
		}
		t = append(t, templatePart{hole: hole})
		rest = after
	}
	return t, nil
}

// distinct says whether every text of the template can be taken apart in one way only.
func (t template) distinct(stamp string) bool {
	for i, p := range t {
		if p.hole == "" {
			continue
		}
		chars := idChars
		if p.hole == "timestamp" {
			chars = stamp
		}
		if i+1 == len(t) || t[i+1].hole != "" || strings.ContainsRune(chars, rune(t[i+1].literal[0])) {
			return false
		}
	}
	return true
}

func (t template) has(hole string) bool {
	return slices.ContainsFunc(t, func(p templatePart) bool { return p.hole == hole })
}

func (h *HMACSettings) stampChars() string {
	if h.TimestampForm == "rfc3339" {
		return stampChars
	}
	return digits
}

func (h *HMACSettings) check(forCloudEvents bool, into *template) error {
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fill(&h.Encoding, "hex")
	fill(&h.Algorithm, "sha256")
	fill(&h.Key, "text")
	fill(&h.Signed, "{body}")
	if h.TimestampHeader != "" {
		fill(&h.TimestampForm, "seconds")
	}
	t, err := parseTemplate(h.Signed)
	switch {
	case !headerForm.MatchString(h.Header):
		return field("hmac.header", "must be a header's name in lower case")
	case len(h.Prefix) > 32:
		return field("hmac.prefix", "must have at most 32 characters")
	case !slices.Contains([]string{"hex", "base64", "base64url"}, h.Encoding):
		return field("hmac.encoding", "must be hex, base64 or base64url")
	case !slices.Contains([]string{"sha256", "sha384", "sha512"}, h.Algorithm):
		return field("hmac.algorithm", "must be sha256, sha384 or sha512")
	case !slices.Contains([]string{"text", "hex", "base64"}, h.Key):
		return field("hmac.key", "must be text, hex or base64")
	case !slices.Contains([]string{"", "seconds", "milliseconds", "rfc3339"}, h.TimestampForm):
		return field("hmac.timestampForm", "must be seconds, milliseconds or rfc3339")
	case err != nil || len(h.Signed) > 200:
		return field("hmac.signed", "%v", err)
	case t.has("timestamp") != (h.TimestampHeader != ""):
		return field("hmac.timestampHeader", "must be set if and only if signed holds {timestamp}: a time that is not signed says nothing")
	case h.TimestampHeader == "" && h.TimestampForm != "":
		return field("hmac.timestampForm", "is only for a timestampHeader")
	case t.has("id") != (h.IDHeader != ""):
		return field("hmac.idHeader", "must be set if and only if signed holds {id}: an id that is not signed can be changed")
	case !t.distinct(h.stampChars()):
		return field("hmac.signed", "must have a character after {timestamp} and {id} that cannot be a part of them, such as a full stop")
	case h.TimestampHeader != "" && !headerForm.MatchString(h.TimestampHeader):
		return field("hmac.timestampHeader", "must be a header's name in lower case")
	case h.IDHeader != "" && !headerForm.MatchString(h.IDHeader):
		return field("hmac.idHeader", "must be a header's name in lower case")
	case h.IDHeader != "" && h.IDField != "":
		return field("hmac.idField", "must not be set beside idHeader")
	}
	for name, f := range map[string]string{"hmac.idField": h.IDField, "hmac.eventField": h.EventField, "hmac.subjectField": h.SubjectField} {
		if f != "" && forCloudEvents {
			return field(name, "is not for CloudEvents, which have attributes of their own")
		}
		if len(f) > maxName || strings.Count(f, ".") > 8 {
			return field(name, "must be at most nine names with full stops between")
		}
	}
	*into = t
	return nil
}

// key reads a secret.
func (h *HMACSettings) key(text []byte) ([]byte, error) {
	var k []byte
	var err error
	switch h.Key {
	case "hex":
		k, err = hex.DecodeString(string(text))
	case "base64":
		k, err = base64.StdEncoding.DecodeString(string(text))
	default:
		k = text
	}
	if err != nil {
		return nil, errors.New("is not written in " + h.Key)
	}
	return k, nil
}

func (h *HMACSettings) hash() func() hash.Hash {
	switch h.Algorithm {
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	default:
		return sha256.New
	}
}

// decode reads bytes in one of the encodings.
func decode(encoding, text string) ([]byte, error) {
	switch encoding {
	case "base64":
		return base64.StdEncoding.DecodeString(text)
	case "base64url":
		return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	default:
		return hex.DecodeString(text)
	}
}

func (h *HMACSettings) time(text string) (time.Time, error) {
	switch h.TimestampForm {
	case "milliseconds":
		if len(text) > 15 || strings.Trim(text, digits) != "" {
			return time.Time{}, errNoTime
		}
		n, err := strconv.ParseInt(text, 10, 64)
		return time.UnixMilli(n), err
	case "rfc3339":
		if strings.Trim(text, stampChars) != "" {
			return time.Time{}, errNoTime
		}
		return time.Parse(time.RFC3339, text)
	default:
		return seconds(text)
	}
}

func verifyHMAC(s *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	h := s.HMAC
	signature, no := r.only(h.Header)
	if no != nil {
		return nil, no
	}
	encoded, ok := strings.CutPrefix(signature, h.Prefix)
	if !ok {
		return nil, refuse(Malformed, h.Header+" does not begin with "+strconv.Quote(h.Prefix))
	}
	sum, err := decode(h.Encoding, encoded)
	if err != nil || len(sum) != h.hash()().Size() {
		return nil, refuse(Malformed, h.Header+" holds no signature of this algorithm and encoding")
	}
	p := &proof{}
	var parts [][]byte
	for _, part := range s.template {
		text := part.literal
		switch part.hole {
		case "timestamp":
			if text, no = r.only(h.TimestampHeader); no != nil {
				return nil, no
			}
			if p.at, err = h.time(text); err != nil {
				return nil, refuse(Malformed, h.TimestampHeader+" is no time in the form that was set")
			}
		case "id":
			if text, no = r.only(h.IDHeader); no != nil {
				return nil, no
			}
			if strings.Trim(text, idChars) != "" {
				return nil, refuse(Malformed, h.IDHeader+" holds other characters than letters, digits, _ and -")
			}
			p.id = text
		}
		parts = append(parts, []byte(text))
	}
	decoded := make([][]byte, 0, len(keys))
	for _, text := range keys {
		k, err := h.key(text)
		if err != nil {
			return nil, refuse(NotReady, "a key "+err.Error())
		}
		decoded = append(decoded, k)
	}
	if !macs(h.hash(), decoded, [][]byte{sum}, append(parts, r.Body)...) {
		return nil, refuse(BadSignature, "no active key made the signature")
	}
	return p, nil
}

// readHMAC takes the id from where it is signed: a header of the signed text, a member of
// the body, or else time and body together, so that a copy is the same event and the same
// body at another time is another one.
func readHMAC(h *HMACSettings, r *Request, p *proof) (reading, *Refusal) {
	is := reading{id: p.id, name: unnamed}
	if h.IDField+h.EventField+h.SubjectField != "" {
		d, no := object(r.Body)
		if no != nil {
			return is, no
		}
		get := func(path string) string {
			if path == "" {
				return ""
			}
			return d.text(strings.Split(path, ".")...)
		}
		if h.IDField != "" {
			if is.id = get(h.IDField); is.id == "" {
				return is, refuse(Malformed, "the body has no id where the settings say")
			}
		}
		if h.EventField != "" {
			is.name = get(h.EventField)
		}
		is.subject = get(h.SubjectField)
	}
	if is.id == "" {
		is.id = digest([]byte(strconv.FormatInt(p.at.UnixMilli(), 10)), r.Body)
	}
	return is, nil
}

func isJSON(r *Request) bool {
	m, _, err := mime.ParseMediaType(first(r.Header["content-type"]))
	return err == nil && (m == "application/json" || strings.HasSuffix(m, "+json"))
}

func isForm(r *Request) bool {
	m, _, err := mime.ParseMediaType(first(r.Header["content-type"]))
	return err == nil && m == "application/x-www-form-urlencoded"
}

package s3api

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// document answers with XML.
func (x *exchange) document(status int, v any) {
	b, err := xml.Marshal(v)
	if err != nil {
		x.Log.Error("writing an S3 document", "request", x.id, "error", err)
		status, b = http.StatusInternalServerError, []byte("<Error><Code>InternalError</Code></Error>")
	}
	b = append([]byte(xml.Header), b...)
	h := x.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	x.started = true
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(b) // the client may have gone
	}
}

// parse reads the document in a request's body, after the checks of its signature and
// checksums.
func (x *exchange) parse(most int64, into any) error {
	b, err := x.body()
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(b, most+1))
	if err != nil {
		return err
	}
	if int64(len(raw)) > most {
		return invalid("MaxMessageLengthExceeded", "the document is longer than "+strconv.FormatInt(most, 10)+" bytes")
	}
	return parseXML(raw, into)
}

// parseXML reads exactly one document. Declarations of types and entities are refused:
// no document of S3 has any, and bombs are made of them.
func parseXML(raw []byte, into any) error {
	if bytes.Contains(raw, []byte("<!")) {
		return errMalformedXML
	}
	d := xml.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(into); err != nil {
		return errMalformedXML
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if text, ok := t.(xml.CharData); err != nil || !ok || strings.TrimSpace(string(text)) != "" {
			return errMalformedXML
		}
	}
}

// stamp is a time as S3's documents have it.
type stamp time.Time

// MarshalText writes the time.
func (s stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format("2006-01-02T15:04:05.000Z")), nil
}

// encodeKey writes a key for encoding-type=url, in a way that is read alike by those who
// take a plus for a blank and those who do not.
func encodeKey(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

type owner struct{ ID, DisplayName string }

// everything has one owner: access is by scopes.
var house = owner{"casemate", "casemate"}

package runtimeapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// drainLimit is how much of a body that is too large is read and thrown away, in bytes,
// so that a client that writes all before it reads sees why it was refused.
const drainLimit = 64 << 20

// firstRead is the most that is set aside for a body on the word of its Content-Length alone, in bytes.
const firstRead = 64 << 10

// maxErrorType bounds the name of an error, in bytes.
const maxErrorType = 256

// maxMessage bounds the message taken out of a fault, in bytes; the payload has all of it.
const maxMessage = 8 << 10

// unknownError stands for a type that the guest did not give, or gave in an unusable form.
const unknownError = "Function.Unknown"

var errTooLarge = errors.New("body too large")

// readBody reads a body of at most limit bytes. With errTooLarge it gives the first
// limit bytes. length is what the guest announced, or -1.
func readBody(r io.Reader, length, limit int64) ([]byte, error) {
	body := make([]byte, 0, max(512, min(length+1, firstRead)))
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		// One byte over the limit is read to see that there is one.
		room := body[len(body):min(int64(cap(body)), limit+1)]
		n, err := r.Read(room)
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			_, _ = io.CopyN(io.Discard, r, drainLimit)
			return body[:limit], errTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, fmt.Errorf("reading body: %w", err)
		}
	}
}

// newFault makes a Fault of an error report. AWS documents errorMessage, errorType and
// stackTrace, and lets runtimes send anything.
func newFault(headerType string, body []byte, cut bool) *Fault {
	var report struct{ ErrorType, ErrorMessage any }
	f := &Fault{Type: errorType(headerType), Payload: body}
	known := !cut && json.Unmarshal(body, &report) == nil
	if known {
		if s, ok := report.ErrorType.(string); ok && errorType(s) != "" {
			f.Type = errorType(s) // what the developer sees; the header is a category
		}
		f.Message, _ = report.ErrorMessage.(string)
	}
	if f.Type == "" {
		f.Type = unknownError
	}
	if !known && (cut || !json.Valid(body)) {
		f.Message = string(body)
	}
	f.Message = strings.ToValidUTF8(f.Message[:min(len(f.Message), maxMessage)], "\uFFFD")
	if cut || !json.Valid(body) {
		f.Payload = faultJSON(f.Type, f.Message)
	}
	return f
}

// errorType gives s when it can be the name of an error in a header and in a log, or "".
func errorType(s string) string {
	if len(s) > maxErrorType {
		return ""
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return ""
		}
	}
	return s
}

// faultJSON is the form that AWS documents for errors.
func faultJSON(errType, message string) []byte {
	b, err := json.Marshal(struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}{message, errType})
	if err != nil {
		panic("runtimeapi: encoding two strings: " + err.Error()) // it never fails
	}
	return b
}

// responseTooLarge is the fault of a function whose answer exceeds limit.
func responseTooLarge(limit int64) *Fault {
	f := &Fault{
		Type:    "Function.ResponseSizeTooLarge",
		Message: fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", limit),
	}
	f.Payload = faultJSON(f.Type, f.Message)
	return f
}

// trailerFault gives the fault that a streamed answer ended with, or nil. The body of
// such a fault is base64 of what a report to /error would have.
func trailerFault(trailer http.Header, limit int64) *Fault {
	errType := trailer.Get(headerErrorType)
	encoded := trailer.Get(headerErrorBody)
	if errType == "" && encoded == "" {
		return nil
	}
	body, err := base64.StdEncoding.DecodeString(encoded)
	cut := err != nil || int64(len(body)) > limit
	if cut {
		body = nil
	}
	return newFault(errType, body, cut)
}

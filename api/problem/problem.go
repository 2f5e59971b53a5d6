// Package problem is the platform's one catalogue of errors: each has a stable
// code, an HTTP status, a title and a remedy, and is shown to callers as RFC
// 9457 problem details.
//
// Any package may import it. An Error keeps two things apart: Detail and Field,
// which a caller may read, and the private cause, which only logs see. Nothing
// but Write turns an error into a response, and an error that is not one of
// ours shows its caller nothing at all.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// MediaType of a rendered problem (RFC 9457, section 3).
const MediaType = "application/problem+json"

// TypeBase precedes the code in a problem's type member.
const TypeBase = "https://casemate.dev/errors#"

// Error is a failure with a public face.
type Error struct {
	Code       Code
	Detail     string        // public: what happened, in this case
	Field      string        // public: what part of the input is meant, if any
	Remedy     string        // public: overrides the catalogue's remedy
	RetryAfter time.Duration // when positive, sent as Retry-After
	cause      error
}

// New returns an Error whose detail is formatted for the caller to read. Never
// format a cause into it; attach that with Because.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Because attaches the private cause and returns e.
func (e *Error) Because(err error) *Error { e.cause = err; return e }

// At names the input field that is meant and returns e.
func (e *Error) At(field string) *Error { e.Field = field; return e }

// Fix says what the caller can do, in this case, and returns e.
func (e *Error) Fix(format string, args ...any) *Error {
	e.Remedy = fmt.Sprintf(format, args...)
	return e
}

// After asks the caller to wait d before trying again and returns e.
func (e *Error) After(d time.Duration) *Error { e.RetryAfter = d; return e }

// Error is for logs: it includes the cause.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Detail
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the private cause, for errors.Is within the process.
func (e *Error) Unwrap() error { return e.cause }

// From returns the Error within err, or one that says only that the fault is
// ours, with err as its private cause. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, "something went wrong on our side").Because(err)
}

// HasCode reports whether err is, or wraps, an Error with the code.
func HasCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Details is the wire form: RFC 9457 members and our extensions.
type Details struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Instance  string `json:"instance,omitempty"`
	Code      Code   `json:"code"`
	Field     string `json:"field,omitempty"`
	Remedy    string `json:"remedy,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	Receipt   string `json:"receipt,omitempty"`
}

// Render gives the public face of e.
func Render(e *Error, requestID string) Details {
	row := Lookup(e.Code)
	d := Details{
		Type: TypeBase + string(e.Code), Title: row.Title, Status: row.Status,
		Detail: e.Detail, Code: e.Code, Field: e.Field, Remedy: row.Remedy, RequestID: requestID,
	}
	if e.Remedy != "" {
		d.Remedy = e.Remedy
	}
	return d
}

// Write answers a request with the public face of err. It sets Retry-After in
// whole seconds, at least one, when the error asks for it.
func Write(w http.ResponseWriter, err error, requestID string) {
	e := From(err)
	if e == nil {
		return
	}
	WriteDetails(w, Render(e, requestID), e.RetryAfter)
}

// WriteDetails answers with d as it stands.
func WriteDetails(w http.ResponseWriter, d Details, retryAfter time.Duration) {
	h := w.Header()
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(max(1, int64((retryAfter+time.Second-1)/time.Second)), 10))
	}
	body, err := json.Marshal(d)
	if err != nil { // cannot happen: every member is a string or a number
		body = []byte(`{"status":500,"code":"internal"}`)
	}
	w.WriteHeader(d.Status)
	_, _ = w.Write(append(body, '\n')) // the client is gone; nobody is left to tell
}

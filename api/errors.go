package api

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// Error is a node's refusal, as it was answered.
//
//	var refused *api.Error
//	if errors.As(err, &refused) && refused.Code == problem.PlanStale { … }
type Error struct {
	problem.Details
	RetryAfter time.Duration // how long the node asks to wait; 0: it does not say
}

// Error gives the title and the detail, and on a line of its own what to do next.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Title)
	if e.Field != "" {
		b.WriteString(" (" + e.Field + ")")
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Remedy != "" {
		b.WriteString("\nhint: " + e.Remedy)
	}
	return b.String()
}

// HasCode reports whether err is, or wraps, a node's refusal with the code.
func HasCode(err error, code problem.Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// ConnectError means that no answer came from the node: the request may or may
// not have reached it.
type ConnectError struct {
	Address string // the node's, as configured
	Hint    string // what to do next
	cause   error
}

// Error names the address and the cause, and on a line of its own what to do next.
func (e *ConnectError) Error() string {
	return fmt.Sprintf("connecting to %s: %v\nhint: %s", e.Address, e.cause, e.Hint)
}

// Unwrap gives the cause: a net, TLS or x509 error.
func (e *ConnectError) Unwrap() error { return e.cause }

// What to do about a connection that failed.
const (
	hintDown    = "start a node with `casemate up`, or see which ones this client knows with `casemate config contexts`"
	hintTrust   = "this is not the node the context was made for, or it has a new authority; check the address, then copy its ca.pem into the context"
	hintExpired = "the node's certificate is out of date; check the clocks of both machines, then restart the node"
	hintName    = "reach the node by a name or address that its certificate covers, or start it with that name"
	hintPlain   = "whatever answers there does not speak TLS; check the address and the port"
	hintCut     = "the node may have stopped in the middle; see `casemate status`, then try again"
)

// connectError explains why a round trip to address gave no answer. A context
// that ended stays matchable as such.
func connectError(address string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats method and URL
	}
	return &ConnectError{Address: address, Hint: hintFor(err), cause: err}
}

func hintFor(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		dns     *net.DNSError
	)
	switch {
	case errors.As(err, &unknown):
		return hintTrust
	case errors.As(err, &name):
		return hintName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return hintExpired
	case errors.As(err, &invalid):
		return hintTrust
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return hintPlain
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &dns):
		return hintDown
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return hintCut
	default:
		return hintDown
	}
}

// maxProblem bounds an error answer, in bytes.
const maxProblem = 64 << 10

// refusal reads an answer that is not a success.
func refusal(address string, resp *http.Response) error {
	e := &Error{RetryAfter: retryAfter(resp.Header)}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == problem.MediaType {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		if err == nil && json.Unmarshal(body, &e.Details) == nil && e.Code != "" {
			e.Status = resp.StatusCode
			return e
		}
		e.Details = problem.Details{}
	}
	e.Status = resp.StatusCode
	e.RequestID = resp.Header.Get(RequestIDHeader)
	for _, row := range problem.Catalogue() { // an answer to HEAD has no body
		if row.Status == resp.StatusCode && e.RequestID != "" {
			e.Code, e.Title, e.Remedy = row.Code, row.Title, row.Remedy
			return e
		}
	}
	e.Title = "The answer is not from a Casemate node"
	e.Detail = fmt.Sprintf("%s answered %d %s", address, resp.StatusCode, http.StatusText(resp.StatusCode))
	e.Remedy = "Check the address of the context: it must be the control listener of a node (port 8444 unless it was changed)."
	return e
}

// maxRetryAfter keeps a hostile or mistaken answer from stalling a client.
const maxRetryAfter = time.Hour

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
}

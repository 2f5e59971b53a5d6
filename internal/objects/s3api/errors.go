package s3api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/sigv4"
	"github.com/casemate-dev/casemate/internal/state"
)

// apiError is an error as S3 answers it.
type apiError struct {
	status int
	code   string
	reason string
}

func (e *apiError) Error() string { return e.code + ": " + e.reason }

func invalid(code, reason string) error { return &apiError{http.StatusBadRequest, code, reason} }

var (
	errDenied         = &apiError{http.StatusForbidden, "AccessDenied", "this access key may not do that with this bucket"}
	errNotImplemented = &apiError{http.StatusNotImplemented, "NotImplemented", "this operation, parameter or header is not served"}
	errPrecondition   = &apiError{http.StatusPreconditionFailed, "PreconditionFailed", "a condition of the request does not hold"}
	errNotModified    = &apiError{http.StatusNotModified, "NotModified", ""}
	errMalformedXML   = &apiError{http.StatusBadRequest, "MalformedXML", "the document is not well formed, or not what this operation takes"}
)

// known maps errors of the store.
var known = []struct {
	is     error
	status int
	code   string
}{
	{objects.ErrNoBucket, http.StatusNotFound, "NoSuchBucket"},
	{objects.ErrNoKey, http.StatusNotFound, "NoSuchKey"},
	{objects.ErrNoVersion, http.StatusNotFound, "NoSuchVersion"},
	{objects.ErrNoUpload, http.StatusNotFound, "NoSuchUpload"},
	{objects.ErrMarker, http.StatusMethodNotAllowed, "MethodNotAllowed"},
	{objects.ErrBucketExists, http.StatusConflict, "BucketAlreadyOwnedByYou"},
	{objects.ErrNotEmpty, http.StatusConflict, "BucketNotEmpty"},
	{objects.ErrName, http.StatusBadRequest, "InvalidBucketName"},
	{objects.ErrKeyLong, http.StatusBadRequest, "KeyTooLongError"},
	{objects.ErrMetaLarge, http.StatusBadRequest, "MetadataTooLarge"},
	{objects.ErrKey, http.StatusBadRequest, "InvalidArgument"},
	{objects.ErrMeta, http.StatusBadRequest, "InvalidArgument"},
	{objects.ErrTooMany, http.StatusBadRequest, "TooMany"},
	{objects.ErrPart, http.StatusBadRequest, "InvalidPart"},
	{objects.ErrPartOrder, http.StatusBadRequest, "InvalidPartOrder"},
	{objects.ErrPartSmall, http.StatusBadRequest, "EntityTooSmall"},
	{objects.ErrCondition, http.StatusPreconditionFailed, "PreconditionFailed"},
	{objects.ErrTooLarge, http.StatusBadRequest, "EntityTooLarge"},
	{state.ErrFull, http.StatusInsufficientStorage, "InsufficientStorage"},
	{state.ErrConflict, http.StatusConflict, "OperationAborted"},
	{io.ErrUnexpectedEOF, http.StatusBadRequest, "IncompleteBody"},
	{os.ErrDeadlineExceeded, http.StatusBadRequest, "RequestTimeout"},
}

// render gives the answer to an error. What is not known shows nothing.
func render(err error) *apiError {
	var a *apiError
	var s *sigv4.Error
	var body *sigv4.BodyError
	var notify *objects.NotifyError
	switch {
	case errors.As(err, &a):
		return a
	case errors.As(err, &s):
		return renderSignature(s)
	case errors.As(err, &body):
		return &apiError{http.StatusBadRequest, "IncompleteBody", body.Reason}
	case errors.As(err, &notify):
		return &apiError{http.StatusServiceUnavailable, "SlowDown", "the change was made, but its event was not taken yet: try again"}
	}
	for _, k := range known {
		if errors.Is(err, k.is) {
			return &apiError{k.status, k.code, k.is.Error()}
		}
	}
	return &apiError{http.StatusInternalServerError, "InternalError", "the store failed; the log says more under this request's id"}
}

func renderSignature(s *sigv4.Error) *apiError {
	switch s.Fault {
	case sigv4.Missing, sigv4.Skewed, sigv4.Mismatch:
		return &apiError{http.StatusForbidden, string(s.Fault), s.Reason}
	case sigv4.Expired:
		return &apiError{http.StatusForbidden, "AccessDenied", s.Reason}
	default:
		return &apiError{http.StatusBadRequest, string(s.Fault), s.Reason}
	}
}

// errorDocument is the body of an error.
type errorDocument struct {
	XMLName   struct{} `xml:"Error"`
	Code      string
	Message   string
	Resource  string
	RequestID string `xml:"RequestId"`
}

// fail answers an error.
func (x *exchange) fail(err error) {
	x.failure = err
	e := render(err)
	if e.status >= http.StatusInternalServerError && e.status != http.StatusNotImplemented {
		x.Log.Error("S3 request failed", "request", x.id, "method", x.r.Method, "bucket", x.bucket, "error", err)
	}
	if x.started { // the client must not take what it has for the whole
		panic(http.ErrAbortHandler)
	}
	if e.status == http.StatusNotModified {
		x.w.WriteHeader(e.status)
		return
	}
	h := x.w.Header()
	for _, name := range []string{"Content-Range", "Content-Encoding", "Content-Disposition", "Cache-Control", "Last-Modified", "Etag", "Content-Length", "Accept-Ranges"} {
		h.Del(name)
	}
	if e.status >= http.StatusBadRequest && x.r.Body != nil && x.r.ContentLength != 0 {
		h.Set("Connection", "close") // the rest of the body is of no use
	}
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	x.document(e.status, errorDocument{Code: e.code, Message: e.reason, Resource: strings.ToValidUTF8(path, "?"), RequestID: x.id})
}

package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// lambdaError is a refusal with the name that AWS has for it.
type lambdaError struct {
	name   string
	reason *problem.Error
}

func (e *lambdaError) Error() string { return e.name + ": " + e.reason.Error() }

// Unwrap lets the log and everybody else see the problem.
func (e *lambdaError) Unwrap() error { return e.reason }

// lambdaFault is the body of an error: AWS Lambda API Reference, Common Errors.
type lambdaFault struct {
	Type    string `json:"Type"` // User or Service
	Message string `json:"Message"`
	Reason  string `json:"Reason,omitempty"` // of a TooManyRequestsException
}

// refuseLambda answers with the public face of an error in the form of AWS.
func (g *Gateway) refuseLambda(x *exchange, err error, e *problem.Error) {
	name, status, reason := lambdaErrorOf(err, e)
	f := lambdaFault{Type: "User", Message: e.Detail, Reason: reason}
	if status >= http.StatusInternalServerError {
		f.Type = "Service"
	}
	if e.Field != "" {
		f.Message = e.Field + ": " + f.Message
	}
	body, jerr := json.Marshal(f)
	if jerr != nil { // cannot happen: all members are strings
		body = []byte(`{"Type":"Service"}`)
	}
	x.setHeader("X-Amzn-Errortype", name)
	if e.RetryAfter > 0 {
		x.setHeader("Retry-After", strconv.FormatInt(max(1, int64((e.RetryAfter+time.Second-1)/time.Second)), 10))
	}
	if e.Code == problem.BodyTooLarge {
		g.takeRest(x)
	}
	g.sendLambda(x, &lambdaAnswer{status: status, body: body})
}

// maxLambdaRest is how much of a body that is too large is read all the same, in bytes.
const maxLambdaRest = 32 << 20

// takeRest reads the rest of a body that is too large, and throws it away: clients of
// AWS write all of a request before they read, and would find the connection broken
// instead of learning why. Whoever has a body looked at has named an access key. They get
// the time that any body has; who waits to be asked for the body is not asked.
func (g *Gateway) takeRest(x *exchange) {
	if len(x.r.Header["Expect"]) > 0 {
		return
	}
	g.setReadDeadline(x, g.clock().Add(g.limits.BodyGrace))
	_, _ = io.CopyN(io.Discard, x.r.Body, maxLambdaRest)
}

// lambdaErrorOf gives an error the name, the status and the reason that clients of
// AWS act on. Those that they try again by themselves, 429 and 500 to 504, are
// used only where nothing has run.
func lambdaErrorOf(err error, e *problem.Error) (name string, status int, reason string) {
	status = problem.Lookup(e.Code).Status
	var named *lambdaError
	if errors.As(err, &named) {
		return named.name, status, ""
	}
	switch e.Code {
	case problem.BadRequest, problem.InvalidHeader, problem.InvalidPath:
		return "InvalidParameterValueException", http.StatusBadRequest, ""
	case problem.Forbidden, problem.Unauthenticated:
		return "AccessDeniedException", http.StatusForbidden, ""
	case problem.NotFound:
		return "ResourceNotFoundException", http.StatusNotFound, ""
	case problem.RequestTimeout:
		return "RequestTimeoutException", status, ""
	case problem.BodyTooLarge:
		return "RequestTooLargeException", status, ""
	case problem.TooManyRequests:
		return "TooManyRequestsException", http.StatusTooManyRequests, "ReservedFunctionConcurrentInvocationLimitExceeded"
	case problem.Overloaded:
		return "TooManyRequestsException", http.StatusTooManyRequests, "ConcurrentInvocationLimitExceeded"
	case problem.BacklogFull:
		return "TooManyRequestsException", http.StatusTooManyRequests, "FunctionInvocationRateLimitExceeded"
	case problem.InvalidEvent, problem.HeadersTooLarge:
		return "InvalidRequestContentException", http.StatusBadRequest, ""
	case problem.NotImplemented:
		return "NotImplementedException", status, ""
	case problem.StorageFull:
		// The function ran, but its answer is withheld: 507, which no client repeats.
		return "ServiceException", status, ""
	case problem.Draining:
		return "ServiceException", http.StatusServiceUnavailable, ""
	default:
		return "ServiceException", http.StatusInternalServerError, ""
	}
}

// lambdaAnswer is what is sent.
type lambdaAnswer struct {
	status      int
	contentType string // application/json when empty
	body        []byte
}

// jsonAnswer makes an answer of what an operation found.
func jsonAnswer(v any) (*lambdaAnswer, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, problem.New(problem.Internal, "something went wrong on our side").Because(err)
	}
	return &lambdaAnswer{status: http.StatusOK, body: body}, nil
}

// sendLambda writes an answer; what is particular to it has been set.
func (g *Gateway) sendLambda(x *exchange, a *lambdaAnswer) {
	h := x.w.Header()
	h["X-Amzn-Requestid"] = []string{x.id}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	if x.receipt != "" {
		h[headerReceipt] = []string{x.receipt}
	}
	if a.status != http.StatusNoContent {
		h["Content-Type"] = []string{"application/json"}
		if a.contentType != "" {
			h["Content-Type"] = []string{a.contentType}
		}
		h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	}
	g.limitAnswerTime(x, len(a.body))
	x.WriteHeader(a.status)
	if len(a.body) > 0 {
		_, _ = x.Write(a.body) // the client is gone; the receipt says what was done
	}
}

package gateway

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

const (
	maxLogResult     = 4 << 10 // bytes of the log in an answer, before base64
	maxClientContext = 3583    // bytes, of base64
	emptyEvent       = "{}"    // what a function gets when nothing was sent
)

// The headers of Invoke, in the form of net/http.
const (
	headerInvocationType  = "X-Amz-Invocation-Type"
	headerLogType         = "X-Amz-Log-Type"
	headerClientContext   = "X-Amz-Client-Context"
	headerTraceID         = "X-Amzn-Trace-Id"
	headerFunctionError   = "X-Amz-Function-Error"
	headerLogResult       = "X-Amz-Log-Result"
	headerExecutedVersion = "X-Amz-Executed-Version"
)

// runLambda does what the request asks for.
func (g *Gateway) runLambda(x *exchange) (err error) {
	if x.lambda.op == opInvoke {
		x.lambda.answer, err = g.invokeLambda(x)
	} else {
		x.lambda.answer, err = g.readLambda(x)
	}
	return err
}

// oneOf reads a header field that has a few values and a default.
func oneOf(x *exchange, name, otherwise string, others ...string) (string, error) {
	v := x.r.Header.Get(name)
	if v == "" || v == otherwise {
		return otherwise, nil
	}
	for _, o := range others {
		if v == o {
			return v, nil
		}
	}
	return "", problem.New(problem.BadRequest, "want %s or %s", otherwise, strings.Join(others, " or ")).At(name)
}

func (g *Gateway) invokeLambda(x *exchange) (*lambdaAnswer, error) {
	kind, err := oneOf(x, headerInvocationType, "RequestResponse", "Event", "DryRun")
	if err != nil {
		return nil, err
	}
	logs, err := oneOf(x, headerLogType, "None", "Tail")
	if err != nil {
		return nil, err
	}
	call, err := g.lambdaCall(x)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Event":
		if g.async == nil {
			return nil, problem.New(problem.NotImplemented, "this node does not keep events, and will not take one that it could lose; call with RequestResponse")
		}
		if _, err := g.accept(x, call); err != nil {
			return nil, err
		}
		return &lambdaAnswer{status: http.StatusAccepted}, nil
	case "DryRun":
		if _, _, err := g.lambda.Functions.Resolve(x.target.ref, x.lambda.qualifier, first); err != nil {
			return nil, err
		}
		return &lambdaAnswer{status: http.StatusNoContent}, nil
	}
	if logs == "Tail" {
		call.KeepLog, call.KeepLogBytes = maxLogResult, maxLogResult
	}
	out, err := g.invoker.Invoke(x.r.Context(), call)
	if out == nil {
		if err == nil {
			err = problem.New(problem.Internal, "something went wrong on our side")
		}
		return nil, err
	}
	x.receipt = out.Receipt.ID
	if err != nil && len(out.Fault) == 0 {
		return nil, err
	}
	x.setHeader(headerExecutedVersion, function.Digest(out.Receipt.Version).Hex())
	if logs == "Tail" {
		x.setHeader(headerLogResult, base64.StdEncoding.EncodeToString(logTail(out.Log)))
	}
	if len(out.Fault) > 0 {
		// The log of the node tells a failed call from another one, though both are 200.
		x.failure = problem.From(err)
		x.setHeader(headerFunctionError, "Unhandled")
		return &lambdaAnswer{status: http.StatusOK, body: out.Fault}, nil
	}
	a := &lambdaAnswer{status: http.StatusOK, body: out.Body}
	if ct := out.Headers["content-type"]; len(ct) == 1 && validFieldValue(ct[0]) {
		a.contentType = ct[0]
	}
	return a, nil
}

// lambdaCall makes the call of the event that was sent.
func (g *Gateway) lambdaCall(x *exchange) (*invoke.Call, error) {
	event := x.body
	if len(event) == 0 {
		event = []byte(emptyEvent)
	}
	if !utf8.Valid(event) || !json.Valid(event) { // JSON is UTF-8 (RFC 8259, section 8.1), which json.Valid does not look at
		return nil, &lambdaError{"InvalidRequestContentException", problem.New(problem.BadRequest, "Could not parse request body into json")}
	}
	headers := map[string][]string{
		"content-type": {"application/json"}, "content-length": {strconv.Itoa(len(event))}, "x-request-id": {x.id},
	}
	if v := x.r.Header.Get(headerClientContext); v != "" {
		var object map[string]any
		b, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(v) > maxClientContext || json.Unmarshal(b, &object) != nil {
			return nil, &lambdaError{"InvalidRequestContentException", problem.New(problem.BadRequest, "Client context must be a valid Base64-encoded JSON object.")}
		}
		headers["x-amz-client-context"] = []string{v}
	}
	if v := x.r.Header[headerTraceID]; len(v) == 1 && validFieldValue(v[0]) {
		headers["x-amzn-trace-id"] = v[:1:1]
	}
	return &invoke.Call{
		Ref: x.target.ref, Qualifier: x.lambda.qualifier, Principal: x.principal,
		Trigger: invoke.TriggerLambda, Route: x.target.route, RequestID: x.id,
		Method: http.MethodPost, Path: "/", Headers: headers, Body: event,
	}, nil
}

// first decides a split alias where nothing is run: the largest share comes first.
func first(int) int { return 0 }

// logTail is the end of a log, at most maxLogResult bytes of it.
func logTail(lines []string) []byte {
	var b []byte
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	return b[max(0, len(b)-maxLogResult):]
}

package native

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
	"github.com/casemate-dev/casemate/internal/sandbox/native/lambdaevent"
	"github.com/casemate-dev/casemate/internal/sandbox/native/runtimeapi"
)

// bootstrap is the file that a version of the runtime provided consists of. AWS looks
// for it in layers too, which we do not have.
const bootstrap = "bootstrap"

// triggerHTTP is what Head.Trigger says of a request through a route. Whatever comes
// otherwise is an event: its body reaches the code as it is.
const triggerHTTP = "http"

// lambda speaks the Lambda Runtime API.
type lambda struct{ v *function.Version }

func (l *lambda) dir() string { return "" }

func (l *lambda) terminates() bool { return false }

// command follows AWS's list of variables (Lambda Developer Guide, "Defined runtime
// environment variables"), without credentials, which the code has no use for here.
func (l *lambda) command(p Place) (args, env []string) {
	v := l.v
	env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + p.API,
		"LAMBDA_TASK_ROOT=" + p.Task,
		"LAMBDA_RUNTIME_DIR=" + p.Clients,
		"AWS_LAMBDA_FUNCTION_NAME=" + v.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=" + v.ID.Short(),
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + mebibytes(v.Config.Limits.Memory),
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + v.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + v.ID.Short(),
		"AWS_REGION=" + function.Region, "AWS_DEFAULT_REGION=" + function.Region,
	}
	handler := v.Config.Handler
	switch v.Config.Runtime {
	case function.RuntimeNodeJS:
		env = append(env, "AWS_EXECUTION_ENV=AWS_Lambda_nodejs")
		args = append(nodeCommand(v, p), path.Join(p.Clients, clients.Node))
	case function.RuntimePython:
		env = append(env, "AWS_EXECUTION_ENV=AWS_Lambda_python")
		args = []string{p.Python, "-S", "-B", path.Join(p.Clients, clients.Python)}
	default:
		if handler == "" {
			handler = bootstrap
		}
		args = []string{path.Join(p.Task, bootstrap)}
	}
	return args, environment(v, p, append(env, "_HANDLER="+handler))
}

func (l *lambda) open(c Cell, _ func() time.Time) guest {
	return &lambdaGuest{v: l.v, api: runtimeapi.New(c.API(), runtimeapi.Options{MaxResponse: l.v.Config.Limits.Output})}
}

// lambdaGuest is the code in one cell.
type lambdaGuest struct {
	v   *function.Version
	api *runtimeapi.Server
}

func (g *lambdaGuest) ready(ctx context.Context) error {
	select {
	case <-g.api.Ready():
		return nil
	case <-g.api.InitFailed():
		f := g.api.InitError()
		why := badCode("the code could not be initialised: %s: %s", f.Type, f.Message)
		why.Fault = f.Payload // what AWS answers to those who call
		return why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *lambdaGuest) close() { _ = g.api.Close() }

func (g *lambdaGuest) invoke(ctx context.Context, inv *sandbox.Invocation) (head sandbox.ResponseHead, body []byte, err error) {
	fromHTTP := inv.Head.Trigger == triggerHTTP
	payload := inv.Body
	switch {
	case fromHTTP:
		if payload, err = lambdaevent.FromHTTP(&inv.Head, inv.Body, time.UnixMilli(inv.Head.Deadline).Add(-g.v.Config.Limits.Timeout)); err != nil {
			return head, nil, &sandbox.Error{Kind: sandbox.BadAnswer, Cause: err}
		}
	case len(payload) == 0:
		payload = []byte("{}") // as AWS passes no payload
	case !json.Valid(payload):
		// AWS refuses it at its door, where ours does too; what comes another way is text.
		if payload, err = json.Marshal(string(payload)); err != nil {
			return head, nil, &sandbox.Error{Kind: sandbox.BadAnswer, Cause: err}
		}
	}
	answer, err := g.api.Invoke(ctx, runtimeapi.Event{
		RequestID: inv.Head.ID, ARN: function.ARN(function.Region, g.v.Ref), Deadline: time.UnixMilli(inv.Head.Deadline),
		Payload: payload, ClientContext: clientContext(&inv.Head), TraceID: first(&inv.Head, "x-amzn-trace-id"),
	})
	switch {
	case errors.Is(err, runtimeapi.ErrNotTaken):
		return head, nil, fmt.Errorf("%w: %w", errUntouched, err)
	case errors.Is(err, runtimeapi.ErrDisconnected), errors.Is(err, runtimeapi.ErrInit), errors.Is(err, runtimeapi.ErrClosed), errors.Is(err, runtimeapi.ErrBusy):
		return head, nil, &sandbox.Error{Kind: sandbox.Lost, Cause: err}
	case err != nil:
		return head, nil, err
	case answer.Fault != nil && answer.Fault.Type == tooLarge:
		return head, nil, &sandbox.Error{Kind: sandbox.Output, Fault: answer.Fault.Payload}
	case answer.Fault != nil:
		return head, nil, &sandbox.Error{Kind: sandbox.Fault, Fault: answer.Fault.Payload, Cause: errors.New(answer.Fault.Type)}
	case !fromHTTP:
		return sandbox.ResponseHead{Status: 200, Headers: map[string][]string{"content-type": {"application/json"}}}, answer.Body, nil
	}
	head, body, err = lambdaevent.ToHTTP(answer.Body, answer.ContentType)
	if err != nil {
		return head, nil, &sandbox.Error{Kind: sandbox.BadAnswer, Public: err.Error(), Cause: err}
	}
	return head, body, nil
}

// triggerLambda is what Head.Trigger says of a call through the Lambda API.
const triggerLambda = "lambda"

// clientContext gives what an AWS client said of itself: JSON, which it sends in Base64.
// Anything else, and what came by another way, is left out.
func clientContext(h *sandbox.Head) string {
	if h.Trigger != triggerLambda {
		return ""
	}
	text, err := base64.StdEncoding.DecodeString(first(h, "x-amz-client-context"))
	if err != nil || !json.Valid(text) {
		return ""
	}
	return string(text)
}

func first(h *sandbox.Head, name string) string {
	if values := h.Headers[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// tooLarge is the type of the fault of an answer above its limit.
const tooLarge = "Function.ResponseSizeTooLarge"

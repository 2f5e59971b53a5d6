package azure

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/web"
)

// Kind says what went wrong, besides what package web knows of.
type Kind string

// The ways to fail.
const (
	BadAnswer Kind = "bad-answer" // the answer is not what the protocol has
	Failed    Kind = "failed"     // the handler answered with a status other than 2xx
)

// Error is how a Handler fails, besides *web.Error. Detail may be shown to the
// caller; Cause may not.
type Error struct {
	Kind   Kind
	Status int // of Failed
	Detail string
	Cause  error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("calling the custom handler: %s: %v", e.Detail, e.Cause)
	}
	return "calling the custom handler: " + e.Detail
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Handler calls one custom handler, one invocation at a time.
type Handler struct {
	app    *App
	client *web.Client
	clock  func() time.Time
}

// NewHandler gives a handler that speaks through a client, which stays the caller's
// to close.
func NewHandler(app *App, client *web.Client, clock func() time.Time) *Handler {
	return &Handler{app: app, client: client, clock: clock}
}

// Invoke has the app serve one invocation. Which of its functions that is, the
// request's path decides; name, the platform's name of the function, does where no
// route matches. A request that no function is for is answered with 404, as Azure
// does. It fails with an *Error, a *web.Error or the context's cause.
func (h *Handler) Invoke(ctx context.Context, head *sandbox.Head, body []byte, name string) (Answer, error) {
	f, params, ok := h.app.choose(head.Method, head.Path, name)
	if !ok {
		return Answer{Response: sandbox.ResponseHead{Status: 404}}, nil
	}
	extra := []web.Field{
		{Name: "x-azure-functions-hostversion", Value: hostVersion},
		{Name: "x-azure-functions-invocationid", Value: head.ID},
	}
	if h.app.Forward && f.forwarded() {
		res, err := h.client.Do(ctx, &web.Request{
			Method: head.Method, Target: web.Target(head.Path, head.Query), Header: head.Headers, Extra: extra, Body: body,
		})
		if err != nil {
			return Answer{}, err
		}
		return Answer{Response: sandbox.ResponseHead{Status: res.Status, Headers: res.Header}, Body: res.Body}, nil
	}
	b, err := encode(f, head, params, body, h.clock())
	if err != nil {
		return Answer{}, &Error{Kind: BadAnswer, Detail: "the invocation cannot be handed over", Cause: err}
	}
	header := map[string][]string{
		"content-type": {"application/json; charset=utf-8"},
		"user-agent":   {"Azure-Functions-Host/" + hostVersion},
	}
	for _, pass := range []string{"traceparent", "tracestate"} {
		if v := head.Headers[pass]; v != nil {
			header[pass] = v
		}
	}
	res, err := h.client.Do(ctx, &web.Request{Method: "POST", Target: web.Target("/"+f.Name, ""), Header: header, Extra: extra, Body: b})
	switch {
	case err != nil:
		return Answer{}, err
	case res.Status < 200 || res.Status > 299:
		return Answer{}, &Error{Kind: Failed, Status: res.Status, Detail: fmt.Sprintf("the handler answered with status %d", res.Status)}
	}
	return decode(f, res.Body)
}

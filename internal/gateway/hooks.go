package gateway

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/identity"
)

// Routes of webhook triggers. Who sends is known by a signature over the body, so nothing
// is known before the body is there, and afterwards no more than that the sender has the
// trigger's key: the request becomes an event and is never a call of the function.

// principalHook is who sends to a webhook, in the log. It may do nothing.
const principalHook = "webhook"

// hookChallenge stands in a 401, which must have a challenge (RFC 9110, section 11.6.1).
// The scheme is the trigger's affair.
const hookChallenge = `Signature realm="webhook"`

// maxHookBody is the most that a route for a webhook may accept: a batch of CloudEvents.
const maxHookBody = cloudevent.MaxBody

// authenticateHook lets a request pass as far as the hooks, unless it carries a key of
// ours: whoever sends one believes to act under it, and it would reach what verifies a
// signature, and perhaps the function.
func (g *Gateway) authenticateHook(x *exchange) error {
	x.principal = identity.Principal{Kind: principalHook}
	if c := presented(x, false); c.count > 0 {
		x.setHeader("Www-Authenticate", hookChallenge)
		return problem.New(problem.Unauthenticated, "an API key was sent to a web hook").
			Fix("Send no API key here: who sends is known by the signature. If the key has gone to a third party, revoke it.")
	}
	if g.hooks == nil {
		return problem.New(problem.NotImplemented, "this node takes no web hooks")
	}
	// Anybody can have us read and verify a body, so how often has a bound.
	if wait := g.hooks.Admit(x.target.ref.Namespace, x.target.hook, sender(x.r), x.r.ContentLength); wait > 0 {
		return problem.New(problem.TooManyRequests, "more requests come for this web hook than it is to take").
			Fix("Wait for the time in Retry-After, then try again. The trigger's setting rate is the bound.").After(wait)
	}
	return nil
}

// receiveHook hands a request over.
func (g *Gateway) receiveHook(x *exchange) error {
	answer, err := g.hooks.Receive(x.r.Context(), HookRequest{
		Namespace: x.target.ref.Namespace, Path: x.target.hook, Method: x.r.Method, Header: hookHeaders(x.r), Body: x.body, From: sender(x.r),
	})
	if err != nil {
		p := problem.From(eventProblem(err))
		switch problem.Lookup(p.Code).Status {
		case http.StatusUnauthorized:
			x.setHeader("Www-Authenticate", hookChallenge)
		case http.StatusMethodNotAllowed:
			x.setHeader("Allow", http.MethodPost)
		}
		return p
	}
	if answer.Status < 200 || answer.Status > 299 {
		return problem.New(problem.Internal, "something went wrong on our side")
	}
	contentType := ""
	for name, value := range answer.Header {
		if !validToken(name) || !validFieldValue(value) {
			return problem.New(problem.Internal, "something went wrong on our side")
		}
		if strings.EqualFold(name, "content-type") {
			contentType = value
			continue
		}
		x.w.Header().Set(name, value)
	}
	if contentType == "" && len(answer.Body) > 0 {
		contentType = "application/octet-stream"
	}
	g.sendOwn(x, answer.Status, contentType, answer.Body)
	return nil
}

// sender is the address that a request comes from, invalid when it has none: such senders
// share what is one address's. No header is asked, since anybody can write one.
func sender(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr()
}

// hookHeaders are the fields as sent, in lower case: a signature may cover any of them.
// What concerns the connection is left out, and what claims to come from a proxy or from
// us, since triggers can show headers to functions.
func hookHeaders(r *http.Request) map[string][]string {
	out := make(map[string][]string, len(r.Header))
	for name, values := range r.Header {
		switch {
		case hopByHop(name), name == headerAPIKey, name == headerHost, name == "Forwarded", name == "X-Real-Ip",
			strings.HasPrefix(name, "X-Forwarded-"), strings.HasPrefix(name, "Casemate-"):
		default:
			out[strings.ToLower(name)] = values
		}
	}
	return out
}

// problem says no more than the status does: why exactly a signature was refused is what
// a forger wants to know.
func (e *HookRefusal) problem() *problem.Error {
	switch e.Status {
	case http.StatusBadRequest:
		return problem.New(problem.BadRequest, "the request is not what the trigger's provider sends")
	case http.StatusUnauthorized:
		return problem.New(problem.Unauthenticated, "the signature, or its time, is not valid").
			Fix("Check the key on both sides and the clocks. The node's log says why, by the request id.")
	case http.StatusForbidden:
		return problem.New(problem.Forbidden, "this sender may not deliver here").Fix("List the sender in the trigger's settings.")
	case http.StatusNotFound:
		return problem.New(problem.NotFound, "nothing is served here")
	case http.StatusMethodNotAllowed:
		return problem.New(problem.MethodNotAllowed, "a web hook takes POST").At("method")
	case http.StatusGone:
		return problem.New(problem.Gone, "the trigger is no more")
	case http.StatusRequestEntityTooLarge:
		return problem.New(problem.BodyTooLarge, "the body, or what is in it, is too large").At("body")
	case http.StatusUnsupportedMediaType:
		return problem.New(problem.UnsupportedMedia, "this form of CloudEvents is not read here")
	case http.StatusUnprocessableEntity:
		return problem.New(problem.InvalidEvent, "the event breaks the trigger's rules")
	case http.StatusTooManyRequests:
		return problem.New(problem.BacklogFull, "no more events are taken in for now").After(e.after())
	case http.StatusServiceUnavailable:
		return problem.New(problem.Overloaded, "the event cannot be taken in right now").After(e.after())
	default:
		return problem.New(problem.Internal, "something went wrong on our side")
	}
}

func (e *HookRefusal) after() time.Duration {
	if e.RetryAfter > 0 {
		return e.RetryAfter
	}
	return eventsRetry
}

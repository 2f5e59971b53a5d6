package gateway

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

const (
	headerInvocation = "Casemate-Invocation" // the id of one that was accepted
	headerPrefer     = "Prefer"
	// invocationsPath begins the addresses of invocations that were accepted; the id follows.
	invocationsPath = reservedPrefix + "/invocations/"
)

// typeInvoke is the type of an event that stands for an invocation.
const typeInvoke = "casemate.function.invoke"

// Where such an event's Detail has the request, but for its body.
const (
	asyncTrigger   = "async.trigger"
	asyncQualifier = "async.qualifier"
	asyncRequestID = "async.requestid"
	asyncRoute     = "async.route"
	asyncMethod    = "async.method"
	asyncPath      = "async.path"
	asyncQuery     = "async.query"
	asyncHeaders   = "async.headers" // JSON
	asyncParams    = "async.params"  // JSON
)

// postpone stores a request whose caller prefers not to wait, and answers it. The caller
// must be known and allowed: whoever may not see the outcome has nothing to wait for, and
// nobody unknown makes the node keep anything. For others, as for a node that keeps no
// events, the preference is one that is not honoured (RFC 7240, section 2).
func (g *Gateway) postpone(x *exchange) error {
	if g.async == nil || x.lambda != nil || len(x.r.Header[headerPrefer]) == 0 || !asksAsync(x.r.Header[headerPrefer]) ||
		!x.principal.May(identity.Invoke, x.target.ref) {
		return nil
	}
	id, err := g.accept(x, g.callOf(x))
	if err != nil {
		return err
	}
	address := invocationsPath + id
	x.setHeader("Preference-Applied", "respond-async")
	x.setHeader("Location", address)
	return g.sendOwnJSON(x, http.StatusAccepted, struct {
		ID        string `json:"id"`
		StatusURL string `json:"status_url"`
	}{id, address})
}

// accept keeps a call that is to run later. When it returns, the call and the fact that it
// was accepted are on disk. The second comes first: an id that was handed out is known.
func (g *Gateway) accept(x *exchange, c *invoke.Call) (id string, err error) {
	if _, _, err := g.async.Versions.Resolve(c.Ref, c.Qualifier, first); err != nil {
		return "", err
	}
	ctx, principal := x.r.Context(), c.Principal.String()
	id = g.newID()
	m, err := messageOf(id, c)
	if err != nil {
		return "", err
	}
	if err := g.async.Outcomes.Pending(ctx, id, c.Ref, principal); err != nil {
		return "", eventProblem(err)
	}
	if err := g.async.Queue.Async(ctx, c.Ref, principal, *m); err != nil {
		g.async.Outcomes.Forget(id)
		return "", eventProblem(err)
	}
	x.setHeader(headerInvocation, id)
	return id, nil
}

// messageOf makes the event that stands for a call.
func messageOf(id string, c *invoke.Call) (*event.Message, error) {
	headers, err := json.Marshal(c.Headers)
	if err != nil {
		return nil, problem.New(problem.Internal, "something went wrong on our side").Because(err)
	}
	params, err := json.Marshal(c.Params)
	if err != nil {
		return nil, problem.New(problem.Internal, "something went wrong on our side").Because(err)
	}
	m := &event.Message{
		Event: event.Event{ID: id, Type: typeInvoke}, Data: c.Body,
		Detail: map[string]string{
			asyncTrigger: c.Trigger, asyncQualifier: c.Qualifier, asyncRequestID: c.RequestID, asyncRoute: c.Route,
			asyncMethod: c.Method, asyncPath: c.Path, asyncQuery: c.Query, asyncHeaders: string(headers), asyncParams: string(params),
		},
	}
	size := 0
	for name, value := range m.Detail {
		size += len(name) + len(value)
	}
	if size > event.MaxDetail {
		return nil, problem.New(problem.HeadersTooLarge, "path, query and headers of a request that is to run later have %d bytes, more than %d", size, event.MaxDetail)
	}
	if ct := c.Headers["content-type"]; len(ct) == 1 && len(ct[0]) <= event.MaxAttribute && !strings.ContainsFunc(ct[0], unfitForAttribute) {
		m.DataContentType = ct[0]
	}
	return m, nil
}

// unfitForAttribute reports what a header field may hold and an attribute may not.
func unfitForAttribute(r rune) bool { return r < 0x20 || (r >= 0x7f && r <= 0x9f) }

// Recall makes a call of an event that stands for an accepted invocation of the function,
// and is false for any other event. Who delivers such an event calls it. The caller is the
// one that was verified when the call was accepted, and may do this one thing.
func Recall(ref function.Ref, m *event.Message) (*invoke.Call, bool) {
	// The platform alone says what the source is, and nobody else writes such details.
	if m.Type != typeInvoke || m.Source != "/namespaces/"+ref.Namespace+"/functions/"+ref.Name {
		return nil, false
	}
	d := m.Detail
	if t := d[asyncTrigger]; t != invoke.TriggerHTTP && t != invoke.TriggerLambda {
		return nil, false
	}
	kind, id, _ := strings.Cut(m.Extensions["principal"], ":")
	c := &invoke.Call{
		Ref: ref, Qualifier: d[asyncQualifier], Trigger: d[asyncTrigger], Route: d[asyncRoute], RequestID: d[asyncRequestID],
		Principal: identity.Principal{
			Kind: kind, ID: id, Scopes: []identity.Scope{{Action: identity.Invoke, Namespace: ref.Namespace, Function: ref.Name}},
		},
		Event:  invoke.Event{ID: m.ID, Chain: m.Chain.ID, Depth: m.Chain.Depth},
		Method: d[asyncMethod], Path: d[asyncPath], Query: d[asyncQuery], Body: m.Data,
	}
	if json.Unmarshal([]byte(d[asyncHeaders]), &c.Headers) != nil || json.Unmarshal([]byte(d[asyncParams]), &c.Params) != nil {
		return nil, false
	}
	return c, true
}

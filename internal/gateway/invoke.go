package gateway

import (
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/invoke"
)

// invoke hands the request over. What it fails with has a public face already;
// anything else shows as internal and nothing more.
func (g *Gateway) invoke(x *exchange) error {
	if x.lambda != nil {
		return g.runLambda(x)
	}
	outcome, err := g.invoker.Invoke(x.r.Context(), g.callOf(x))
	if outcome != nil {
		x.receipt = outcome.Receipt.ID
	}
	if err != nil {
		return err
	}
	if outcome == nil {
		return problem.New(problem.Internal, "something went wrong on our side")
	}
	x.outcome = outcome
	return nil
}

// callOf makes the call that a request on a function's route is.
func (g *Gateway) callOf(x *exchange) *invoke.Call {
	e := x.target
	call := &invoke.Call{
		Ref: e.ref, Principal: x.principal, Public: e.public,
		Trigger: invoke.TriggerHTTP, Route: e.route, RequestID: x.id,
		Method: x.r.Method, Path: x.r.URL.Path[e.mounted:], Query: x.r.URL.RawQuery,
		Headers: g.inboundHeaders(x), Body: x.body,
	}
	if len(e.params) > 0 {
		call.Params = make(map[string]string, len(e.params))
		for _, name := range e.params {
			call.Params[name] = x.r.PathValue(name)
		}
	}
	return call
}

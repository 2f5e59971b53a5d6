package gateway

import (
	"errors"
	"net/http"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

// pendingRetry is when to look again at what is pending.
const pendingRetry = "1"

// routeInvocation finds the address of an invocation. Whether there is one, and who may
// see it, is asked when it is known who asks.
func (g *Gateway) routeInvocation(x *exchange, id string) error {
	if g.async == nil || !validRequestID(id) {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.setHeader("Allow", "GET, HEAD")
		return problem.New(problem.MethodNotAllowed, "this path is served for other methods").At("method")
	}
	x.target = &endpoint{kind: toInvocation, route: http.MethodGet + " " + invocationsPath + "{id}", invocation: id}
	return nil
}

// invocationStatus is the answer.
type invocationStatus struct {
	ID       string            `json:"id"`
	Function string            `json:"function"`
	Status   string            `json:"status"` // pending, succeeded or failed
	Accepted time.Time         `json:"accepted"`
	Ended    time.Time         `json:"ended,omitzero"`
	Attempts int               `json:"attempts"`
	Receipt  string            `json:"receipt,omitempty"`
	Version  string            `json:"version,omitempty"`
	Reason   string            `json:"reason,omitempty"` // why it was given up
	Error    *invocationError  `json:"error,omitempty"`  // when the function did not answer
	Answer   *invocationAnswer `json:"answer,omitempty"` // when it did
}

type invocationError struct {
	Code   problem.Code `json:"code"`
	Title  string       `json:"title"`
	Detail string       `json:"detail,omitempty"`
}

type invocationAnswer struct {
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers,omitempty"`
	Body    []byte              `json:"body,omitempty"`        // base64
	Omitted int                 `json:"bodyOmitted,omitempty"` // bytes of one that was too large to keep
}

// tellInvocation answers whoever may invoke the function. To others it is as if there
// were nothing, whatever the id.
func (g *Gateway) tellInvocation(x *exchange) error {
	nothing := problem.New(problem.NotFound, "there is no such invocation, or its outcome is not kept any more")
	inv, err := g.async.Outcomes.Get(x.r.Context(), x.target.invocation)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nothing
	case err != nil:
		return problem.New(problem.Internal, "the outcome cannot be read").Because(err)
	case !x.principal.May(identity.Invoke, inv.Ref):
		return nothing
	}
	out := invocationStatus{
		ID: inv.ID, Function: inv.Ref.String(), Status: inv.State, Accepted: inv.Accepted, Ended: inv.Ended,
		Attempts: inv.Attempts, Receipt: inv.Receipt, Version: inv.Version, Reason: inv.Reason,
	}
	switch {
	case inv.State == statePending:
		x.setHeader("Retry-After", pendingRetry)
	case inv.Status != 0:
		out.Answer = &invocationAnswer{inv.Status, inv.Headers, inv.Body, inv.Omitted}
	case inv.State == stateFailed && inv.Code != "":
		row := problem.Lookup(problem.Code(inv.Code))
		out.Error = &invocationError{row.Code, row.Title, inv.Detail}
	}
	return g.sendOwnJSON(x, http.StatusOK, out)
}

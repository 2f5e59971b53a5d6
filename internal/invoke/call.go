package invoke

import (
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

// How an invocation came about, as stamped into the guest's head and the receipt.
const (
	TriggerHTTP   = "http"   // through a route of the gateway
	TriggerInvoke = "invoke" // by an operator, through the control plane
	// TriggerLambda is the Lambda API of the gateway: Body is an event, and the answer's
	// body is what the function returned. A version that does not take its work from the
	// Lambda Runtime API gets the event as the body of a request.
	TriggerLambda = "lambda"
	// The others deliver events. TriggerEvent has them in a form of CloudEvents,
	// TriggerSchedule and TriggerQueue in that of the handlers scheduled and queue of a
	// script. An asynchronous invocation has the trigger that its request would have had.
	TriggerEvent    = "event"
	TriggerSchedule = "schedule"
	TriggerQueue    = "queue"
)

// Event says which event a call delivers, for the receipt.
type Event struct {
	ID      string // of the first, in a batch
	Count   int    // of a batch; 0 without one
	Members string // of a batch; see audit.Members
	Source  string // the trigger's name
	Attempt int    // from 1
	Replay  bool
	Chain   string
	Depth   int
}

// Call asks for one invocation. Whoever makes it has authenticated the principal.
type Call struct {
	Ref       function.Ref
	Qualifier string // alias or version id; live when empty
	Principal identity.Principal
	Public    bool   // the route lets anybody in: no scope is asked for
	Trigger   string // one of those above
	Event     Event  // zero when it delivers none
	Route     string // pattern that matched, for the receipt
	RequestID string

	Method  string
	Path    string              // decoded, canonical
	Query   string              // as sent, without "?"
	Headers map[string][]string // lower-case names; no credential, nothing hop-by-hop
	Params  map[string]string   // path parameters
	Body    []byte

	KeepLog      int // how many of the last log lines to return in the Outcome
	KeepLogBytes int // and how many bytes of them at the most; 0 for no such bound
}

// Outcome is how an invocation ended.
type Outcome struct {
	Status  int
	Headers map[string][]string // lower-case names
	Body    []byte
	Receipt audit.Receipt
	Log     []string
	// Fault is set for TriggerLambda alone: how the function failed, as a JSON object with
	// errorMessage and errorType. It is there beside the error that says the same, and
	// alone when a version that is no Lambda function answered with an error status.
	Fault []byte
}

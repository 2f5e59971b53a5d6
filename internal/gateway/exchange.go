package gateway

import (
	"net/http"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

// Header names in net/http's canonical form, as they are keys of its map.
const (
	headerRequestID = "X-Request-Id"
	headerReceipt   = "Casemate-Receipt"
	headerAPIKey    = "X-Api-Key" //nolint:gosec // a name, not a credential
	headerHost      = "Host"
)

// exchange is one request on its way through the stages. It belongs to the
// goroutine of its request. It is the http.ResponseWriter for everything that
// is answered, so that status and size are known to the access log.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	start time.Time
	id    string // of the request

	namespace  string
	target     *endpoint
	lambda     *lambdaRequest // on the Lambda API, whose answers have another form
	preflight  bool           // of target; nothing is invoked
	principal  identity.Principal
	ownedAuth  bool // Authorization was for us, and goes no further
	body       []byte
	reserved   int64 // of the gateway's body memory
	bodyDone   bool  // read to its end
	outcome    *invoke.Outcome
	receipt    string
	admitted   bool // counted as under way
	answered   bool
	wroteHead  bool
	status     int
	bytesOut   int64
	failure    *problem.Error
	routeProbe probe

	slots [6]string // values of single-valued header fields of the answer
	used  int
}

// Header is part of http.ResponseWriter.
func (x *exchange) Header() http.Header { return x.w.Header() }

// WriteHeader is part of http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	x.wroteHead = true
	x.answered = true
	x.status = status
	x.w.WriteHeader(status)
}

// Write is part of http.ResponseWriter.
func (x *exchange) Write(b []byte) (int, error) {
	n, err := x.w.Write(b)
	x.bytesOut += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.w }

// setHeader sets one value. It spares the canonicalization of a name that is
// canonical already and, for the first few, the allocation.
func (x *exchange) setHeader(canonical, value string) {
	if x.used == len(x.slots) {
		x.w.Header()[canonical] = []string{value}
		return
	}
	x.slots[x.used] = value
	x.w.Header()[canonical] = x.slots[x.used : x.used+1 : x.used+1]
	x.used++
}

// refuse answers with the public face of err. It is the only place where an
// error becomes bytes.
func (g *Gateway) refuse(x *exchange, err error) {
	e := problem.From(err)
	x.failure = e
	if x.wroteHead {
		// Half an answer is out. Ending it regularly would pass it off as whole.
		panic(http.ErrAbortHandler)
	}
	if x.lambda != nil {
		g.letGoOfBody(x)
		g.refuseLambda(x, err, e)
		return
	}
	details := problem.Render(e, x.id)
	if x.receipt != "" {
		details.Receipt = x.receipt
		x.setHeader(headerReceipt, x.receipt)
	}
	g.letGoOfBody(x)
	g.limitAnswerTime(x, 0)
	problem.WriteDetails(x, details, e.RetryAfter)
}

// letGoOfBody sees to it that a body we did not want costs little: net/http
// reads a short rest to keep the connection, so that has to come soon, and a
// long or endless one ends the connection.
func (g *Gateway) letGoOfBody(x *exchange) {
	if x.bodyDone || x.r.ContentLength == 0 {
		return
	}
	if x.r.ProtoMajor == 1 && (x.r.ContentLength < 0 || x.r.ContentLength > keepAliveRemainder) {
		x.setHeader("Connection", "close")
	}
	g.setReadDeadline(x, g.clock().Add(lingerTime))
}

// setReadDeadline bounds reads of the body. A writer without deadlines (a test's
// recorder) has no slow clients either.
func (g *Gateway) setReadDeadline(x *exchange, t time.Time) {
	_ = http.NewResponseController(x.w).SetReadDeadline(t)
}

// limitAnswerTime bounds how long a client may take to accept n bytes.
func (g *Gateway) limitAnswerTime(x *exchange, n int) {
	t := g.clock().Add(transferTime(g.limits.AnswerGrace, int64(n), g.limits.MinRate))
	_ = http.NewResponseController(x.w).SetWriteDeadline(t)
}

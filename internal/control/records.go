package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

var errDraining = errors.New("the node is shutting down")

type receiptInput struct {
	ID string `path:"id"`
}

type logInput struct {
	NS        string    `path:"ns"`
	Function  string    `query:"function"`
	RequestID string    `query:"requestId" maxLength:"64"`
	Since     time.Time `query:"since"`
	Tail      int       `query:"tail" minimum:"0" maximum:"10000" doc:"At most this many past records; 0 means 100"`
	Follow    bool      `query:"follow" doc:"Go on with new records until the connection ends"`
}

// logOutput writes the stream itself.
type logOutput struct{ Body func(huma.Context) }

func (h *Handler) registerRecords() {
	register(h, huma.Operation{
		OperationID: "getReceipt", Method: http.MethodGet, Path: "/v1/receipts/{id}", Tags: []string{"records"}, Summary: "The record of one invocation",
	}, func(who identity.Principal, _ *receiptInput) error { return has(who, identity.Read) },
		func(ctx context.Context, x *exchange, in *receiptInput) (*body[api.Receipt], error) {
			r, err := h.cfg.Recorder.Receipt(ctx, in.ID)
			// Whether a receipt exists is for those to know who may read it.
			if errors.Is(err, state.ErrNotFound) || (err == nil && !x.who.May(identity.Read, function.Ref{Namespace: r.Namespace, Name: r.Function})) {
				return nil, problem.New(problem.NotFound, "there is no receipt %.80q that the key may read", in.ID).
					Fix("Check the id; receipts are kept for a limited time.")
			}
			if err != nil {
				return nil, err
			}
			return &body[api.Receipt]{receiptOut(&r)}, nil
		})
	element := h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.LogElement](), true, "LogElement")
	register(h, huma.Operation{
		OperationID: "streamLogs", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/logs", Tags: []string{"records"},
		Summary:   "Log lines and receipts, in order of time, one JSON object a line",
		Responses: map[string]*huma.Response{"200": {Description: "A stream", Content: map[string]*huma.MediaType{api.LogMediaType: {Schema: element}}}},
	}, func(who identity.Principal, in *logInput) error {
		if in.Function == "" {
			return may(who, identity.Read, in.NS, "*")
		}
		return may(who, identity.Read, in.NS, in.Function)
	}, func(_ context.Context, x *exchange, in *logInput) (*logOutput, error) {
		q := audit.Query{Namespace: in.NS, Function: in.Function, RequestID: in.RequestID, Since: in.Since, Tail: in.Tail, Follow: in.Follow}
		if q.Tail == 0 {
			q.Tail = defaultTail
		}
		q.Tail = min(q.Tail, maxTail)
		return &logOutput{func(huma.Context) { h.stream(x, q) }}, nil
	})
}

// stream writes records until there are no more, the client is gone, or the node
// drains. Whatever else ends it is its last line.
func (h *Handler) stream(x *exchange, q audit.Query) {
	h.lines(x, func(ctx context.Context, write func(any) bool) error {
		return h.cfg.Recorder.Stream(ctx, q, func(r audit.Record) bool { return write(recordOut(&r)) })
	})
}

// lines answers with a stream of JSON objects, one a line, as long as run writes, the
// client is there, and the node does not drain. Whatever else ends it is its last
// line.
func (h *Handler) lines(x *exchange, run func(ctx context.Context, write func(any) bool) error) {
	ctx, cancel := context.WithCancelCause(x.request.Context())
	defer cancel(nil)
	defer context.AfterFunc(h.end, func() { cancel(context.Cause(h.end)) })()
	x.Header().Set("Content-Type", api.LogMediaType)
	x.WriteHeader(http.StatusOK)
	out := http.NewResponseController(x)
	alive := true
	write := func(el any) bool {
		line, err := json.Marshal(el)
		if err != nil {
			alive = false
			return false
		}
		// Not every writer has deadlines; the server's own holds then.
		_ = out.SetWriteDeadline(h.cfg.Clock().Add(streamWriteTime))
		_, err = x.Write(append(line, '\n'))
		alive = err == nil && out.Flush() == nil
		_ = out.SetWriteDeadline(time.Time{})
		return alive
	}
	if out.Flush() != nil { // the client sees at once that it is connected
		return
	}
	_ = out.SetWriteDeadline(time.Time{})
	err := run(ctx, write)
	if !alive || x.request.Context().Err() != nil {
		return
	}
	if errors.Is(context.Cause(ctx), errDraining) {
		err = problem.New(problem.Draining, "the node is shutting down, so the stream ends here")
	}
	if err != nil {
		e := explain(err)
		h.logProblem(x, e)
		d := problem.Render(e, x.id)
		write(struct {
			Error problem.Details `json:"error"`
		}{d})
	}
}

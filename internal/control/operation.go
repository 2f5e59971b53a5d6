package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

const jsonMedia = "application/json"

// newAPI makes the part that checks requests against their schema, and documents
// them. None of its own defaults are taken over: it would add documents, links
// and formats that nobody asked for.
func newAPI(mux *http.ServeMux) huma.API {
	format := huma.Format{
		Marshal: func(w io.Writer, v any) error {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			return enc.Encode(v)
		},
		Unmarshal: json.Unmarshal,
	}
	a := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Casemate control API", Version: "1",
				Description: "Sizes are bytes, durations milliseconds, times RFC 3339, digests sha256: and 64 hex digits. Errors are RFC 9457 problem details with a stable code.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key": {Type: "http", Scheme: "bearer", Description: "An API key; `casemate key create` makes one."},
				},
			},
			Security: []map[string][]string{{"key": {}}},
		},
		Formats:       map[string]huma.Format{jsonMedia: format, "json": format},
		DefaultFormat: jsonMedia,
		Transformers:  []huma.Transformer{rewriteModel},

		RejectUnknownQueryParameters: true,
	})
	a.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(&answerContext{inner: ctx}) })
	return a
}

// finishDocument takes out of the document what describes errors we never send.
func finishDocument(a huma.API) {
	schemas := a.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
}

// inner is a huma.Context whose name leaves room for its method Context.
type inner = huma.Context

// answerContext lets rewriteModel correct the status of an answer.
type answerContext struct {
	inner
	status int
}

// SetStatus begins the answer.
func (c *answerContext) SetStatus(status int) {
	if c.status != 0 {
		status = c.status
	}
	c.inner.SetStatus(status)
}

// Unwrap is how humago.Unwrap finds the request.
func (c *answerContext) Unwrap() huma.Context { return c.inner }

// rewriteModel turns the schema check's own errors into ours, without the values
// that they repeat.
func rewriteModel(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := problem.New(problem.BadRequest, "the request does not have the form that is expected")
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		e = problem.New(problem.BodyTooLarge, "the body is larger than this operation accepts").Fix("Send less.")
	case m.Status == http.StatusRequestTimeout:
		e = problem.New(problem.RequestTimeout, "the body did not arrive in time")
	case m.Status >= http.StatusInternalServerError && m.Detail == "cannot read request body":
		e = problem.New(problem.BadRequest, "the body could not be read to its end")
	case m.Status >= http.StatusInternalServerError:
		e = problem.New(problem.Internal, "something went wrong on our side")
	case len(m.Errors) > 0:
		first := m.Errors[0]
		e.Detail = first.Message
		e.Field = strings.TrimPrefix(first.Location, "body.")
		if n := len(m.Errors) - 1; n > 0 {
			e.Detail += " (and " + strconv.Itoa(n) + " more)"
		}
		if first.Message == "unexpected property" {
			name := e.Field[strings.LastIndexByte(e.Field, '.')+1:]
			e.Detail = "there is no field " + strconv.Quote(cut(name)) + " here"
		}
	case m.Detail != "":
		e.Detail = m.Detail
	}
	e.Detail, e.Field = cut(e.Detail), cut(e.Field)
	id := ""
	if x := exchangeOf(ctx.Context()); x != nil {
		id = x.id
	}
	d := problem.Render(e, id)
	if c, ok := ctx.(*answerContext); ok {
		c.status = d.Status
	}
	return d, nil
}

const maxShown = 300 // characters of input in an answer

func cut(s string) string {
	if r := []rune(s); len(r) > maxShown {
		return string(r[:maxShown]) + "…"
	}
	return s
}

// refusal is a problem on its way out of an operation.
type refusal struct {
	problem.Details
	header http.Header
}

// Error, GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (r *refusal) Error() string             { return string(r.Code) }
func (r *refusal) GetStatus() int            { return r.Status }
func (r *refusal) GetHeaders() http.Header   { return r.header }
func (r *refusal) ContentType(string) string { return problem.MediaType }

// withReceipt carries the id of the receipt of a failed invocation.
type withReceipt struct {
	error
	receipt string
}

func (e *withReceipt) Unwrap() error { return e.error }

// explain gives what a caller may know of an error.
func explain(err error) *problem.Error {
	var e *problem.Error
	if !errors.As(err, &e) && errors.Is(err, state.ErrFull) {
		return problem.New(problem.StorageFull, "nothing was stored").Because(err)
	}
	if e == nil && errors.Is(err, state.ErrCorrupt) {
		return problem.New(problem.Internal, "some of what is stored is damaged and was left out").Because(err).
			Fix("Tell whoever runs this node: its data directory has been changed or its disk is failing.")
	}
	return problem.From(err)
}

func (h *Handler) refusal(x *exchange, err error) error {
	e := explain(err)
	h.logProblem(x, e)
	r := &refusal{Details: problem.Render(e, x.id), header: http.Header{}}
	var failed *withReceipt
	if errors.As(err, &failed) {
		r.Receipt = failed.receipt
	}
	if e.RetryAfter > 0 {
		r.header.Set("Retry-After", strconv.Itoa(max(1, int((e.RetryAfter.Seconds()+0.999)))))
	}
	return r
}

// guard decides whether who may do what in asks for.
type guard[I any] func(who identity.Principal, in *I) error

// register adds an operation. Its handler runs only after the guard has agreed.
func register[I, O any](h *Handler, op huma.Operation, allow guard[I], handle func(ctx context.Context, x *exchange, in *I) (*O, error)) {
	if allow == nil {
		panic("control: operation " + op.OperationID + " has no guard")
	}
	op.BodyReadTimeout = bodyTime
	op.Responses = withProblem(h.api, op.Responses)
	op.Middlewares = append(op.Middlewares, mediaType(op))
	huma.Register(h.api, op, func(ctx context.Context, in *I) (*O, error) {
		x := exchangeOf(ctx)
		if err := allow(x.who, in); err != nil {
			return nil, h.refusal(x, err)
		}
		out, err := handle(ctx, x, in)
		if err != nil {
			return nil, h.refusal(x, err)
		}
		return out, nil
	})
}

// withProblem documents the error answer.
func withProblem(a huma.API, responses map[string]*huma.Response) map[string]*huma.Response {
	if responses == nil {
		responses = map[string]*huma.Response{}
	}
	responses["default"] = &huma.Response{
		Description: "Problem details (RFC 9457)",
		Content:     map[string]*huma.MediaType{problem.MediaType: {Schema: huma.SchemaFromType(a.OpenAPI().Components.Schemas, detailsType())}},
	}
	return responses
}

// mediaType refuses bodies of another kind before they are read.
func mediaType(op huma.Operation) func(huma.Context, func(huma.Context)) {
	want := jsonMedia
	if op.RequestBody != nil {
		for m := range op.RequestBody.Content {
			want = m
		}
	}
	return func(ctx huma.Context, next func(huma.Context)) {
		media, _, err := mime.ParseMediaType(ctx.Header("Content-Type"))
		r, w := humago.Unwrap(ctx)
		if (op.Method == http.MethodPost || op.Method == http.MethodPut) && (err != nil || media != want) {
			x := exchangeOf(r.Context())
			problem.Write(w, problem.New(problem.UnsupportedMedia, "the body must be %s", want), x.id)
			return
		}
		next(ctx)
	}
}

// audit logs a change of state, or the attempt at one.
func (h *Handler) audit(x *exchange, action, object string, err error, more ...slog.Attr) {
	outcome := "ok"
	if err != nil {
		outcome = string(explain(err).Code)
	}
	attrs := append([]slog.Attr{
		slog.String("principal", x.who.String()), slog.String("action", action), slog.String("object", object),
		slog.String("outcome", outcome), slog.String("request_id", x.id),
	}, more...)
	h.cfg.Logger.LogAttrs(x.request.Context(), slog.LevelInfo, "audit", attrs...)
}

// may asks for a scope on one function; name may be "*".
func may(who identity.Principal, action identity.Action, ns, name string) error {
	if (ns != "*" && !function.ValidName(ns)) || (name != "*" && !function.ValidName(name)) {
		return problem.New(problem.BadRequest, "%.100q is not the name of a function", ns+"/"+name).
			Fix("A name has 1 to 63 lower-case letters, digits and hyphens, a letter first.")
	}
	if who.May(action, function.Ref{Namespace: ns, Name: name}) {
		return nil
	}
	return problem.New(problem.Forbidden, "the key has no scope %s", identity.Scope{Action: action, Namespace: ns, Function: name})
}

// has asks for a scope with one of the actions, on whatever function.
func has(who identity.Principal, actions ...identity.Action) error {
	for _, s := range who.Scopes {
		if s.Action == identity.Admin {
			return nil
		}
		for _, a := range actions {
			if s.Action == a {
				return nil
			}
		}
	}
	return problem.New(problem.Forbidden, "the key has no scope with the action %s", actions[0])
}

// operator is the guard of what everybody may know who works on this node.
func operator[I any](who identity.Principal, _ *I) error {
	return has(who, identity.Read, identity.Deploy)
}

func administrator[I any](who identity.Principal, _ *I) error {
	return may(who, identity.Admin, "*", "*")
}

package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

type invokeInput struct {
	NS   string `path:"ns"`
	Name string `path:"name"`
	Body api.Invocation
}

func (h *Handler) registerInvocations() {
	register(h, huma.Operation{
		OperationID: "invoke", Method: http.MethodPost, Path: functionPath + "/invocations", Tags: []string{"functions"},
		Summary:     "Run a function and wait for its answer",
		Description: "With event, the body is delivered as the data of a CloudEvent 1.0 in binary mode. An error status that the function chose is a result; a function that failed is a problem, with the id of its receipt.",

		MaxBodyBytes: maxInvokeBody,
	}, func(who identity.Principal, in *invokeInput) error {
		return may(who, identity.Invoke, in.NS, in.Name)
	}, func(ctx context.Context, x *exchange, in *invokeInput) (*body[api.InvocationResult], error) {
		call, err := h.call(x, in)
		if err != nil {
			return nil, err
		}
		out, err := h.cfg.Invoker.Invoke(ctx, call)
		if err != nil {
			if out != nil && out.Receipt.ID != "" {
				err = &withReceipt{err, out.Receipt.ID}
			}
			return nil, err
		}
		return &body[api.InvocationResult]{api.InvocationResult{
			Status: out.Status, Headers: out.Headers, Body: out.Body, Receipt: receiptOut(&out.Receipt), Log: out.Log,
		}}, nil
	})
}

// Forms of the parts of a call.
var (
	methodForm = regexp.MustCompile(`^[A-Z]{1,20}$`)
	headerForm = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]{1,128}$")
)

const (
	maxCallHeaders = 64 << 10 // bytes
	maxCallPath    = 8 << 10
)

// hopByHop lists headers that belong to a connection (RFC 9110, section 7.6.1) or
// hold a credential of this door, and so never reach a function.
func hopByHop(name string) bool {
	return slices.Contains([]string{
		"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade", "content-length", "host", "authorization", "cookie",
	}, name)
}

func (h *Handler) call(x *exchange, in *invokeInput) (*invoke.Call, error) {
	b := &in.Body
	c := &invoke.Call{
		Ref: function.Ref{Namespace: in.NS, Name: in.Name}, Qualifier: b.Qualifier, Principal: x.who, Trigger: invoke.TriggerInvoke, RequestID: x.id,
		Method: b.Method, Path: b.Path, Query: b.Query, Headers: map[string][]string{}, Body: b.Body, KeepLog: keepLogLines,
	}
	if c.Method == "" {
		c.Method = http.MethodPost
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if int64(len(b.Body)) > function.MaxBodyLimit {
		return nil, problem.New(problem.BodyTooLarge, "the body may have %d bytes at most", function.MaxBodyLimit).At("body").Fix("Send less.")
	}
	if !methodForm.MatchString(c.Method) {
		return nil, problem.New(problem.BadRequest, "%.40q is not a method", c.Method).At("method")
	}
	if !canonical(c.Path) {
		return nil, problem.New(problem.InvalidPath, "the path is not in canonical form").At("path")
	}
	if len(c.Query) > maxCallPath || strings.ContainsFunc(c.Query, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return nil, problem.New(problem.BadRequest, "the query holds characters that must be encoded, or is too long").At("query")
	}
	if err := copyHeaders(c.Headers, b.Headers); err != nil {
		return nil, err
	}
	if b.Event != nil {
		return c, h.event(c, b.Event)
	}
	return c, nil
}

func canonical(p string) bool {
	if p[0] != '/' || len(p) > maxCallPath || !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	clean := path.Clean(p)
	return p == clean || (p == clean+"/" && clean != "/")
}

func copyHeaders(to, from map[string][]string) error {
	total := 0
	for name, values := range from {
		lower := strings.ToLower(name)
		field := fmt.Sprintf("headers.%.80s", name)
		if !headerForm.MatchString(lower) {
			return problem.New(problem.InvalidHeader, "%.80q is not the name of a header", name).At("headers")
		}
		if strings.HasPrefix(lower, "ce-") {
			return problem.New(problem.InvalidHeader, "headers that begin with ce- are stamped by the node").At(field).Fix("Describe the event as event.")
		}
		if hopByHop(lower) {
			return problem.New(problem.InvalidHeader, "the header %s does not reach a function", lower).At(field)
		}
		if to[lower] != nil {
			return problem.New(problem.InvalidHeader, "the header %s is given twice", lower).At(field).Fix("Give its values as one list.")
		}
		for _, v := range values {
			total += len(name) + len(v)
			if strings.ContainsFunc(v, func(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }) {
				return problem.New(problem.InvalidHeader, "the header %s holds a control character", lower).At(field)
			}
		}
		to[lower] = slices.Clone(values)
	}
	if total > maxCallHeaders {
		return problem.New(problem.HeadersTooLarge, "the headers may have %d bytes at most", maxCallHeaders).At("headers")
	}
	return nil
}

// event makes the call deliver a CloudEvent in binary mode (CloudEvents 1.0, HTTP
// binding, section 3.1). Its source says who sent it: the node knows.
func (h *Handler) event(c *invoke.Call, e *api.Event) error {
	c.Method = http.MethodPost
	ev := event.Event{
		ID: e.ID, Source: "//casemate/" + c.Principal.String(), Type: e.Type, Subject: e.Subject, Time: h.cfg.Clock(),
		DataContentType: e.DataContentType, Extensions: e.Extensions,
	}
	if ev.ID == "" {
		ev.ID = h.cfg.NewID()
	}
	if err := ev.Validate(); err != nil {
		var bad *event.AttributeError
		if !errors.As(err, &bad) {
			return err
		}
		return problem.New(problem.BadRequest, "the event's attribute %s %s", bad.Attribute, bad.Reason).At("event." + bad.Attribute)
	}
	maps.Copy(c.Headers, ev.Headers())
	return nil
}

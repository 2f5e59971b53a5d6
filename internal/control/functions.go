package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/registry"
	"github.com/casemate-dev/casemate/internal/state"
)

type namespaceInput struct {
	NS string `path:"ns"`
}

type functionInput struct {
	NS   string `path:"ns"`
	Name string `path:"name"`
}

// The fields are repeated in each: parameters in an embedded struct that is not
// exported would not be read.

type aliasInput struct {
	NS    string `path:"ns"`
	Name  string `path:"name"`
	Alias string `path:"alias"`
}

type setAliasInput struct {
	NS    string `path:"ns"`
	Name  string `path:"name"`
	Alias string `path:"alias"`
	Body  api.SetAlias
}

type rollbackInput struct {
	NS   string `path:"ns"`
	Name string `path:"name"`
	Body api.Rollback
}

func (in *functionInput) ref() function.Ref { return function.Ref{Namespace: in.NS, Name: in.Name} }
func (in *aliasInput) ref() function.Ref    { return function.Ref{Namespace: in.NS, Name: in.Name} }
func (in *setAliasInput) ref() function.Ref { return function.Ref{Namespace: in.NS, Name: in.Name} }
func (in *rollbackInput) ref() function.Ref { return function.Ref{Namespace: in.NS, Name: in.Name} }

const functionPath = "/v1/namespaces/{ns}/functions/{name}"

// readsIn is the guard of a listing, which then shows what the key may read.
func readsIn(who identity.Principal, in *namespaceInput) error {
	for _, s := range who.Scopes {
		if s.Action == identity.Admin || (s.Action == identity.Read && (s.Namespace == "*" || s.Namespace == in.NS)) {
			return nil
		}
	}
	return problem.New(problem.Forbidden, "the key has no scope to read in %.80q", in.NS)
}

func (h *Handler) registerFunctions() {
	read := func(who identity.Principal, in *functionInput) error { return may(who, identity.Read, in.NS, in.Name) }
	register(h, huma.Operation{
		OperationID: "listFunctions", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/functions", Tags: []string{"functions"},
		Summary: "The functions that the key may read, by name",
	}, readsIn, func(ctx context.Context, x *exchange, in *namespaceInput) (*body[list[api.Function]], error) {
		out := list[api.Function]{Items: []api.Function{}}
		base := h.gatewayURL(ctx)
		for _, f := range h.cfg.Registry.Functions(in.NS) {
			if x.who.May(identity.Read, f.Ref) {
				out.Items = append(out.Items, functionOut(&f, false, urlsOf(base, &f)))
			}
		}
		return &body[list[api.Function]]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "getFunction", Method: http.MethodGet, Path: functionPath, Tags: []string{"functions"},
		Summary: "A function, with its aliases' history and recent statistics",
	}, read, func(ctx context.Context, _ *exchange, in *functionInput) (*body[api.Function], error) {
		f, err := h.cfg.Registry.Function(in.ref())
		if err != nil {
			return nil, err
		}
		out := functionOut(&f, true, urlsOf(h.gatewayURL(ctx), &f))
		if out.Stats, err = h.stats(ctx, in.ref()); err != nil {
			return nil, err
		}
		if on := h.cfg.Events; on != nil {
			if out.Triggers, err = h.triggersOf(ctx, on, in.ref()); err != nil {
				return nil, err
			}
		}
		return &body[api.Function]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "listVersions", Method: http.MethodGet, Path: functionPath + "/versions", Tags: []string{"functions"},
		Summary: "A function's versions, newest first",
	}, read, func(_ context.Context, _ *exchange, in *functionInput) (*body[list[api.Version]], error) {
		f, err := h.cfg.Registry.Function(in.ref())
		if err != nil {
			return nil, err
		}
		vs, err := h.cfg.Registry.Versions(in.ref())
		if err != nil {
			return nil, err
		}
		out := list[api.Version]{Items: make([]api.Version, 0, len(vs))}
		for _, v := range vs {
			out.Items = append(out.Items, versionOut(v, f.Aliases))
		}
		return &body[list[api.Version]]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "deleteFunction", Method: http.MethodDelete, Path: functionPath, Tags: []string{"functions"},
		Summary: "Delete a function with its aliases and versions",
	}, func(who identity.Principal, in *functionInput) error {
		return may(who, identity.Deploy, in.NS, in.Name)
	}, func(ctx context.Context, x *exchange, in *functionInput) (*nothing, error) {
		err := h.cfg.Registry.Delete(ctx, in.ref(), x.who.String())
		h.audit(x, "function.delete", in.ref().String(), err)
		return nil, err
	})
	h.registerAliases()
}

func (h *Handler) registerAliases() {
	const path = functionPath + "/aliases/{alias}"
	register(h, huma.Operation{
		OperationID: "setAlias", Method: http.MethodPut, Path: path, Tags: []string{"aliases"},
		Summary: "Point an alias at versions, by weight", MaxBodyBytes: maxSmallBody,
	}, func(who identity.Principal, in *setAliasInput) error {
		return may(who, identity.Deploy, in.NS, in.Name)
	}, func(ctx context.Context, x *exchange, in *setAliasInput) (*body[api.Alias], error) {
		a, err := h.setAlias(ctx, x, in)
		h.audit(x, "alias.set", in.ref().String(), err, slog.String("alias", in.Alias), slog.Any("targets", in.Body.Targets))
		if err != nil {
			return nil, err
		}
		return &body[api.Alias]{aliasOut(a, true)}, nil
	})
	register(h, huma.Operation{
		OperationID: "deleteAlias", Method: http.MethodDelete, Path: path, Tags: []string{"aliases"}, Summary: "Remove an alias",
	}, func(who identity.Principal, in *aliasInput) error {
		return may(who, identity.Deploy, in.NS, in.Name)
	}, func(ctx context.Context, x *exchange, in *aliasInput) (*nothing, error) {
		err := h.cfg.Registry.DeleteAlias(ctx, in.ref(), in.Alias, x.who.String())
		h.audit(x, "alias.delete", in.ref().String(), err, slog.String("alias", in.Alias))
		return nil, err
	})
	register(h, huma.Operation{
		OperationID: "rollback", Method: http.MethodPost, Path: functionPath + "/rollback", Tags: []string{"aliases"},
		Summary: "Move an alias back to where it pointed before, or to a version", MaxBodyBytes: maxSmallBody,
	}, func(who identity.Principal, in *rollbackInput) error {
		return may(who, identity.Deploy, in.NS, in.Name)
	}, func(ctx context.Context, x *exchange, in *rollbackInput) (*body[api.Alias], error) {
		a, err := h.rollback(ctx, x, in)
		h.audit(x, "rollback", in.ref().String(), err, slog.String("alias", in.Body.Alias), slog.String("to", in.Body.To))
		if err != nil {
			return nil, err
		}
		return &body[api.Alias]{aliasOut(a, true)}, nil
	})
}

// setAlias makes the versions ready before traffic reaches them.
func (h *Handler) setAlias(ctx context.Context, x *exchange, in *setAliasInput) (registry.Alias, error) {
	targets := make([]registry.Weight, 0, len(in.Body.Targets))
	for i, t := range in.Body.Targets {
		v, err := h.cfg.Registry.Version(in.ref(), t.Version)
		if err != nil {
			e := *problem.From(err)
			return registry.Alias{}, e.At(fmt.Sprintf("targets[%d].version", i))
		}
		if err := h.checkTriggers(ctx, x, in.ref(), v.Config.Triggers, fmt.Sprintf("targets[%d].version.", i)); err != nil {
			return registry.Alias{}, err
		}
		if err := h.cfg.Prepare(ctx, v); err != nil {
			return registry.Alias{}, err
		}
		targets = append(targets, registry.Weight{Version: v.ID, Percent: t.Percent})
	}
	return h.cfg.Registry.SetAlias(ctx, in.ref(), in.Alias, targets, in.Body.Revision, x.who.String())
}

// gatewayURL is where the node's other door stands, or "".
func (h *Handler) gatewayURL(ctx context.Context) string {
	for _, l := range h.cfg.Status(ctx).Listeners {
		if l.Name == "gateway" {
			return strings.TrimSuffix(l.URL, "/")
		}
	}
	return ""
}

func (h *Handler) urls(ctx context.Context, ref function.Ref) []string {
	f, err := h.cfg.Registry.Function(ref)
	if err != nil {
		return nil
	}
	return urlsOf(h.gatewayURL(ctx), &f)
}

// urlsOf lists where a function's live version is reached.
func urlsOf(base string, f *registry.Function) []string {
	if f.Live == nil || base == "" {
		return nil
	}
	if f.Namespace != function.DefaultNamespace {
		base += "/~" + f.Namespace
	}
	var out []string
	for _, t := range f.Live.Config.HTTP {
		if u := base + t.Path; !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}

// stats sums up the receipts of the last day, a thousand at most.
func (h *Handler) stats(ctx context.Context, ref function.Ref) (*api.Stats, error) {
	since := h.cfg.Clock().Add(-statsWindow)
	receipts, err := h.cfg.Recorder.Receipts(ctx, audit.Query{Namespace: ref.Namespace, Function: ref.Name, Since: since, Limit: statsReceipts})
	if errors.Is(err, state.ErrCorrupt) { // the function can be described all the same
		h.cfg.Logger.ErrorContext(ctx, "damaged receipts left out of statistics", "function", ref.String(), "cause", err)
	} else if err != nil {
		return nil, err
	}
	out := &api.Stats{Since: since.UTC(), Count: int64(len(receipts))}
	if len(receipts) == statsReceipts { // there may be more before
		out.Since = receipts[len(receipts)-1].Start.UTC()
	}
	walls := make([]time.Duration, 0, len(receipts))
	for i := range receipts {
		r := &receipts[i]
		walls = append(walls, r.Wall)
		out.CPUMillis += millis(r.CPU)
		out.MemoryPeak = max(out.MemoryPeak, r.Memory)
		if r.Outcome != "ok" {
			out.Failed++
		}
		if i < describeReceipts {
			out.Last = append(out.Last, receiptOut(r))
		}
	}
	slices.Sort(walls)
	out.P50Millis, out.P99Millis = millis(quantile(walls, 50)), millis(quantile(walls, 99))
	return out, nil
}

// quantile takes the value below which percent of the sorted values lie (nearest rank).
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1]
}

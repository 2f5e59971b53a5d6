package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

type connectionInput struct {
	NS   string `path:"ns"`
	Name string `path:"name"`
}

type putConnectionInput struct {
	NS   string `path:"ns"`
	Name string `path:"name"`
	Body api.PutConnection
}

type deleteConnectionInput struct {
	NS    string `path:"ns"`
	Name  string `path:"name"`
	InUse bool   `query:"inUse" doc:"Also when triggers in force use it, whose sources then fail"`
}

const connectionsPath = "/v1/namespaces/{ns}/connections"

// mayList says whether somebody may see that a connection is there: who may use it, and
// who may read the whole namespace. Where its credentials lie, only administrators see.
func mayList(who identity.Principal, ns, name string) bool {
	return who.May(identity.Connect, function.Ref{Namespace: ns, Name: name}) || who.May(identity.Read, function.Ref{Namespace: ns, Name: "*"})
}

// listsConnections is the guard of what then shows only what mayList allows.
func listsConnections(who identity.Principal, ns string) error {
	for _, s := range who.Scopes {
		here := s.Namespace == "*" || s.Namespace == ns
		if s.Action == identity.Admin || here && (s.Action == identity.Connect || s.Action == identity.Read && s.Function == "*") {
			return nil
		}
	}
	return problem.New(problem.Forbidden, "the key has no scope to use connections in %.80q", ns)
}

func (h *Handler) registerConnections() {
	register(h, huma.Operation{
		OperationID: "listConnections", Method: http.MethodGet, Path: connectionsPath, Tags: []string{"connections"},
		Summary: "The connections that the key may use, or see",
	}, func(who identity.Principal, in *namespaceInput) error { return listsConnections(who, in.NS) },
		func(ctx context.Context, x *exchange, in *namespaceInput) (*body[list[api.Connection]], error) {
			on, err := h.onEvents()
			if err != nil {
				return nil, err
			}
			all, err := on.Connections.List(ctx, in.NS)
			if err != nil {
				return nil, err
			}
			out := list[api.Connection]{Items: []api.Connection{}}
			for i := range all {
				if mayList(x.who, in.NS, all[i].Name) {
					out.Items = append(out.Items, h.connectionOut(x.who, &all[i]))
				}
			}
			return &body[list[api.Connection]]{out}, nil
		})
	register(h, huma.Operation{
		OperationID: "getConnection", Method: http.MethodGet, Path: connectionsPath + "/{name}", Tags: []string{"connections"}, Summary: "One connection",
	}, func(who identity.Principal, in *connectionInput) error { return listsConnections(who, in.NS) },
		func(ctx context.Context, x *exchange, in *connectionInput) (*body[api.Connection], error) {
			on, err := h.onEvents()
			if err != nil {
				return nil, err
			}
			n, err := on.Connections.Get(ctx, in.NS, in.Name)
			if errors.Is(err, state.ErrNotFound) || err == nil && !mayList(x.who, in.NS, in.Name) {
				return nil, noConnection(in.NS, in.Name)
			}
			if err != nil {
				return nil, err
			}
			return &body[api.Connection]{h.connectionOut(x.who, &n)}, nil
		})
	register(h, huma.Operation{
		OperationID: "putConnection", Method: http.MethodPut, Path: connectionsPath + "/{name}", Tags: []string{"connections"},
		Summary: "Make a connection, or replace it", MaxBodyBytes: maxSmallBody,
		Description: "For administrators, since it names files on the node's machine. Credentials are read from these files each time; they are stored nowhere else.",
	}, administrator[putConnectionInput], func(ctx context.Context, x *exchange, in *putConnectionInput) (*body[api.Connection], error) {
		out, err := h.putConnection(ctx, x, in)
		h.audit(x, "connection.put", in.NS+"/"+in.Name, err, slog.String("kind", in.Body.Kind),
			slog.Any("secrets", slices.Sorted(maps.Keys(in.Body.Files))))
		if err != nil {
			return nil, err
		}
		return &body[api.Connection]{*out}, nil
	})
	register(h, huma.Operation{
		OperationID: "deleteConnection", Method: http.MethodDelete, Path: connectionsPath + "/{name}", Tags: []string{"connections"},
		Summary: "Remove a connection that no trigger in force uses",
	}, administrator[deleteConnectionInput], func(ctx context.Context, x *exchange, in *deleteConnectionInput) (*nothing, error) {
		err := h.deleteConnection(ctx, in)
		h.audit(x, "connection.delete", in.NS+"/"+in.Name, err, slog.Bool("in_use", in.InUse))
		return nil, err
	})
}

func noConnection(ns, name string) error {
	return problem.New(problem.NotFound, "there is no connection %.80q in the namespace %s that the key may see", name, ns).
		Fix("`casemate connection list` shows those there are.")
}

func (h *Handler) connectionOut(who identity.Principal, n *connection.Connection) api.Connection {
	out := api.Connection{
		Namespace: n.Namespace, Name: n.Name, Kind: n.Kind, Settings: n.Settings, Secrets: slices.Sorted(maps.Keys(n.Files)),
		Created: n.Created.UTC(), Creator: n.Creator,
	}
	for _, u := range h.users(n.Namespace, n.Name) {
		if who.May(identity.Read, function.Ref{Namespace: u.Namespace, Name: u.Function}) {
			out.UsedBy = append(out.UsedBy, u.Function+"/"+u.Trigger)
		}
	}
	if who.May(identity.Admin, function.Ref{Namespace: "*", Name: "*"}) {
		out.Files = n.Files
	}
	return out
}

// user is a trigger in force.
type user struct{ Namespace, Function, Trigger string }

// users lists the triggers in force that use a connection, as a source or to send to.
// Any version that an alias points at counts: it may be the live one in a moment.
func (h *Handler) users(ns, name string) []user {
	var out []user
	for _, f := range h.cfg.Registry.Functions(ns) {
		seen := map[string]bool{}
		for _, a := range f.Aliases {
			for _, w := range a.Targets {
				v, err := h.cfg.Registry.Version(f.Ref, string(w.Version))
				if err != nil {
					continue
				}
				for i := range v.Config.Triggers {
					if t := &v.Config.Triggers[i]; uses(t, name) && !seen[t.Name] {
						seen[t.Name] = true
						out = append(out, user{f.Namespace, f.Name, t.Name})
					}
				}
			}
		}
	}
	return out
}

func uses(t *function.Trigger, name string) bool {
	return t.Connection == name || slices.ContainsFunc(slices.Concat(t.Delivery.OnSuccess, t.Delivery.OnFailure), func(d function.Destination) bool { return d.Webhook == name })
}

func (h *Handler) putConnection(ctx context.Context, x *exchange, in *putConnectionInput) (*api.Connection, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	settings := in.Body.Settings
	if len(settings) == 0 {
		settings = json.RawMessage("{}")
	}
	err = on.Connections.Put(ctx, connection.Connection{
		Namespace: in.NS, Name: in.Name, Kind: in.Body.Kind, Settings: settings, Files: in.Body.Files, Creator: x.who.String(),
	})
	var wrong *connection.FieldError
	switch {
	case errors.As(err, &wrong):
		return nil, problem.New(problem.BadRequest, "%s %s", wrong.Field, wrong.Reason).At(strings.Replace(wrong.Field, "secrets", "files", 1)).Because(err).
			Fix("Correct it; credentials belong into files on the node's machine that only their owner can read, and are named, not given.")
	case errors.Is(err, state.ErrConflict):
		return nil, problem.New(problem.Conflict, "somebody else changed the connection %s/%s at the same time", in.NS, in.Name).Because(err)
	case err != nil:
		return nil, err
	}
	n, err := on.Connections.Get(ctx, in.NS, in.Name)
	if err != nil {
		return nil, err
	}
	out := h.connectionOut(x.who, &n)
	return &out, nil
}

func (h *Handler) deleteConnection(ctx context.Context, in *deleteConnectionInput) error {
	on, err := h.onEvents()
	if err != nil {
		return err
	}
	if us := h.users(in.NS, in.Name); len(us) > 0 && !in.InUse {
		names := make([]string, 0, len(us))
		for _, u := range us {
			names = append(names, u.Function+"/"+u.Trigger)
		}
		return problem.New(problem.Conflict, "the connection is used by %.300s", strings.Join(names, ", ")).
			Fix("Deploy these functions without it first. With inUse it goes all the same, and their sources fail.")
	}
	err = on.Connections.Delete(ctx, in.NS, in.Name)
	if errors.Is(err, state.ErrNotFound) {
		return noConnection(in.NS, in.Name)
	}
	return err
}

package control

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

type replayInput struct {
	NS      string `path:"ns"`
	Name    string `path:"name"`
	Trigger string `path:"trigger" doc:"- for the function's asynchronous invocations"`
	Body    api.Replay
}

type replayJobInput struct {
	NS string `path:"ns"`
	ID string `path:"id" maxLength:"64"`
}

func (h *Handler) registerReplays() {
	register(h, huma.Operation{
		OperationID: "replayEvents", Method: http.MethodPost, Path: triggerPath + "/replays", Tags: []string{"events"},
		Summary: "Have stored events of a trigger run anew", MaxBodyBytes: maxSmallBody, DefaultStatus: http.StatusCreated,
		Description: "Events and receipts are marked as a replay. Other triggers of the same topic are left alone.",
	}, func(who identity.Principal, in *replayInput) error { return may(who, identity.Deploy, in.NS, in.Name) },
		func(ctx context.Context, x *exchange, in *replayInput) (*body[api.ReplayJob], error) {
			j, err := h.replay(ctx, in)
			h.audit(x, "events.replay", in.NS+"/"+in.Name+"/"+in.Trigger, err, slog.String("job", j.ID), slog.String("to", j.Qualifier),
				slog.Int("ids", len(in.Body.IDs)), slog.Time("since", value(in.Body.Since)), slog.Time("until", value(in.Body.Until)))
			if err != nil {
				return nil, err
			}
			return &body[api.ReplayJob]{jobOut(&j)}, nil
		})
	register(h, huma.Operation{
		OperationID: "listReplays", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/replays", Tags: []string{"events"},
		Summary: "The replays that the key may read, newest first",
	}, readsIn, func(_ context.Context, x *exchange, in *namespaceInput) (*body[list[api.ReplayJob]], error) {
		on, err := h.onEvents()
		if err != nil {
			return nil, err
		}
		out := list[api.ReplayJob]{Items: []api.ReplayJob{}}
		for _, j := range on.Replays.Jobs(in.NS) {
			if x.who.May(identity.Read, jobRef(&j)) {
				out.Items = append(out.Items, jobOut(&j))
			}
		}
		return &body[list[api.ReplayJob]]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "cancelReplay", Method: http.MethodDelete, Path: "/v1/namespaces/{ns}/replays/{id}", Tags: []string{"events"},
		Summary: "End a replay; what it has published already is run",
	}, func(who identity.Principal, in *replayJobInput) error { return deploysIn(who, in.NS) },
		func(ctx context.Context, x *exchange, in *replayJobInput) (*nothing, error) {
			err := h.cancelReplay(ctx, x, in)
			h.audit(x, "replay.cancel", in.NS+"/"+in.ID, err)
			return nil, err
		})
}

// deploysIn is the guard of operations that find out for themselves on what they are.
func deploysIn(who identity.Principal, ns string) error {
	for _, s := range who.Scopes {
		if s.Action == identity.Admin || (s.Action == identity.Deploy && (s.Namespace == "*" || s.Namespace == ns)) {
			return nil
		}
	}
	return problem.New(problem.Forbidden, "the key has no scope to deploy in %.80q", ns)
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func jobRef(j *delivery.Job) function.Ref {
	return function.Ref{Namespace: j.Selector.Namespace, Name: j.Selector.Function}
}

func jobOut(j *delivery.Job) api.ReplayJob {
	s := &j.Selector
	return api.ReplayJob{
		ID: j.ID, Namespace: s.Namespace, Function: s.Function, Trigger: s.Trigger, IDs: s.IDs, Since: pointer(s.Since), Until: pointer(s.Until),
		Filter: s.Filter, To: j.Qualifier, State: string(j.State), Error: j.Error, Read: j.Read, Published: j.Published,
		Started: j.Started.UTC(), Ended: pointer(j.Ended),
	}
}

func (h *Handler) replay(ctx context.Context, in *replayInput) (delivery.Job, error) {
	on, err := h.onEvents()
	if err != nil {
		return delivery.Job{}, err
	}
	k, err := keyOf(in.NS, in.Name, in.Trigger)
	if err != nil {
		return delivery.Job{}, err
	}
	to, err := h.qualifier(function.Ref{Namespace: in.NS, Name: in.Name}, in.Body.To)
	if err != nil {
		return delivery.Job{}, err
	}
	j, err := on.Replays.Replay(ctx, delivery.Selector{
		Key: k, IDs: in.Body.IDs, Since: value(in.Body.Since), Until: value(in.Body.Until), Filter: in.Body.Filter,
	}, to)
	if err != nil {
		return j, inForce(err)
	}
	return j, nil
}

func (h *Handler) cancelReplay(ctx context.Context, x *exchange, in *replayJobInput) error {
	on, err := h.onEvents()
	if err != nil {
		return err
	}
	jobs := on.Replays.Jobs(in.NS)
	i := slices.IndexFunc(jobs, func(j delivery.Job) bool { return j.ID == in.ID })
	// Whether there is one is for those to know who may end it.
	if i < 0 || !x.who.May(identity.Deploy, jobRef(&jobs[i])) {
		return problem.New(problem.NotFound, "there is no replay %.64q that the key may end", in.ID).Fix("`casemate events jobs` shows the replays there are.")
	}
	return on.Replays.CancelReplay(ctx, in.ID)
}

package control

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/casemate-dev/casemate/internal/state"
)

type deadListInput struct {
	NS       string    `path:"ns"`
	Function string    `query:"function"`
	Trigger  string    `query:"trigger" doc:"Of the function; - for its asynchronous invocations"`
	Webhook  string    `query:"webhook" doc:"The connection that a destination names"`
	Reason   string    `query:"reason" maxLength:"32"`
	Since    time.Time `query:"since" doc:"Died then or later"`
	Until    time.Time `query:"until" doc:"Died before"`
	Limit    int       `query:"limit" minimum:"0" maximum:"1000" doc:"0 means 100"`
}

type deadInput struct {
	NS       string `path:"ns"`
	Sequence uint64 `path:"sequence"`
	Data     bool   `query:"data" doc:"With the event's data, for those who may deploy there"`
}

type deadSelectInput struct {
	NS   string `path:"ns"`
	Body api.DeadSelector
}

const deadPath = "/v1/namespaces/{ns}/dead-letters"

func (h *Handler) registerDeadLetters() {
	register(h, huma.Operation{
		OperationID: "listDeadLetters", Method: http.MethodGet, Path: deadPath, Tags: []string{"events"},
		Summary: "Events that were given up, newest first, without their data",
	}, func(who identity.Principal, in *deadListInput) error {
		if in.Webhook != "" {
			return may(who, identity.Read, in.NS, "*")
		}
		return readsFunctionOrSome(who, in.NS, in.Function)
	}, func(ctx context.Context, x *exchange, in *deadListInput) (*body[api.DeadList], error) {
		out, err := h.listDead(ctx, x, in)
		if err != nil {
			return nil, err
		}
		return &body[api.DeadList]{*out}, nil
	})
	register(h, huma.Operation{
		OperationID: "getDeadLetter", Method: http.MethodGet, Path: deadPath + "/{sequence}", Tags: []string{"events"}, Summary: "One dead letter",
	}, func(who identity.Principal, in *deadInput) error { return readsIn(who, &namespaceInput{in.NS}) },
		func(ctx context.Context, x *exchange, in *deadInput) (*body[api.DeadLetter], error) {
			d, err := h.dead(ctx, x.who, identity.Read, in.NS, in.Sequence)
			if err != nil {
				return nil, err
			}
			if p := deadPlace(d.Key); in.Data && !mayAt(x.who, identity.Deploy, in.NS, p) {
				return nil, dataRefused(in.NS, p)
			}
			return &body[api.DeadLetter]{deadOut(d, in.Data)}, nil
		})
	guard := func(who identity.Principal, in *deadSelectInput) error {
		switch {
		case in.Body.Webhook != "":
			return may(who, identity.Deploy, in.NS, "*")
		case in.Body.Function != "":
			return may(who, identity.Deploy, in.NS, in.Body.Function)
		}
		return deploysIn(who, in.NS)
	}
	register(h, huma.Operation{
		OperationID: "retryDeadLetters", Method: http.MethodPost, Path: deadPath + "/retry", Tags: []string{"events"},
		Summary: "Have dead letters run anew, with all attempts before them", MaxBodyBytes: maxSmallBody,
	}, guard, func(ctx context.Context, x *exchange, in *deadSelectInput) (*body[api.Retried], error) {
		var out api.Retried
		err := h.settleDead(ctx, x, "dead-letters.retry", in, func(on *EventsConfig, k delivery.Key, f delivery.DeadFilter) (int, error) {
			retried, left, err := on.DeadLetters.RetryDead(ctx, k, f)
			out.Retried += retried
			out.Left += left
			return retried, err
		})
		if err != nil {
			return nil, err
		}
		return &body[api.Retried]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "purgeDeadLetters", Method: http.MethodPost, Path: deadPath + "/purge", Tags: []string{"events"},
		Summary: "Remove dead letters for good", MaxBodyBytes: maxSmallBody,
	}, guard, func(ctx context.Context, x *exchange, in *deadSelectInput) (*body[api.Purged], error) {
		var out api.Purged
		err := h.settleDead(ctx, x, "dead-letters.purge", in, func(on *EventsConfig, k delivery.Key, f delivery.DeadFilter) (int, error) {
			n, err := on.DeadLetters.PurgeDead(ctx, k, f)
			out.Purged += n
			return n, err
		})
		if err != nil {
			return nil, err
		}
		return &body[api.Purged]{out}, nil
	})
}

func deadPlace(k delivery.Key) place {
	if k.Function == "" {
		return place{webhook: k.Trigger}
	}
	return place{function: k.Function, trigger: k.Trigger}
}

func deadOut(d *delivery.Dead, all bool) api.DeadLetter {
	p := deadPlace(d.Key)
	out := api.DeadLetter{
		Sequence: d.Sequence, Namespace: d.Namespace, Function: p.function, Trigger: p.trigger, Webhook: p.webhook,
		Reason: string(d.Reason), Code: d.Code, Text: d.Detail, Field: d.Field, Status: d.Status, Attempts: d.Attempts,
		Version: d.Version, Receipt: d.Receipt, EventSequence: d.Event, Stored: d.Stored.UTC(),
		First: pointer(d.First), Last: pointer(d.Last), Died: d.Died.UTC(),
	}
	if d.Message != nil {
		e := api.EventRecord{Sequence: d.Event, Stored: d.Stored.UTC(), Function: p.function, Trigger: p.trigger}
		messageOut(&e, d.Message, all)
		out.Event = &e
	}
	return out
}

// keysOf lists the triggers in force that are meant, all for no name; a trigger that is
// named need not be in force.
func keysOf(on *EventsConfig, ns, fn, trigger, webhook string) ([]delivery.Key, error) {
	switch {
	case webhook != "" && (fn != "" || trigger != ""):
		return nil, problem.New(problem.BadRequest, "dead letters are of a function, or of a webhook").At("webhook").Fix("Name one of the two.")
	case trigger != "" && fn == "":
		return nil, problem.New(problem.BadRequest, "a trigger is one of a function").At("trigger").Fix("Name the function, too.")
	case webhook != "":
		if !function.ValidName(webhook) {
			return nil, problem.New(problem.BadRequest, "%.80q is not the name of a connection", webhook).At("webhook")
		}
		return []delivery.Key{{Namespace: ns, Trigger: webhook}}, nil
	case trigger != "":
		k, err := keyOf(ns, fn, trigger)
		return []delivery.Key{k}, err
	}
	return slices.DeleteFunc(on.Deliveries.Keys(), func(k delivery.Key) bool {
		return k.Namespace != ns || fn != "" && k.Function != fn
	}), nil
}

func (h *Handler) listDead(ctx context.Context, x *exchange, in *deadListInput) (*api.DeadList, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(on, in.NS, in.Function, in.Trigger, in.Webhook)
	if err != nil {
		return nil, err
	}
	limit := in.Limit
	if limit == 0 {
		limit = defaultDead
	}
	out := &api.DeadList{Items: []api.DeadLetter{}, Complete: true}
	f := delivery.DeadFilter{Since: in.Since, Until: in.Until, Reason: delivery.Reason(in.Reason)}
	newest := func() {
		slices.SortFunc(out.Items, func(a, b api.DeadLetter) int { return b.Died.Compare(a.Died) })
		if len(out.Items) > limit {
			out.Items, out.Complete = out.Items[:limit], false
		}
	}
	for _, k := range keys {
		if !mayAt(x.who, identity.Read, in.NS, deadPlace(k)) {
			continue
		}
		err := on.DeadLetters.DeadLetters(ctx, k, f, func(d *delivery.Dead) bool {
			out.Items = append(out.Items, deadOut(d, false))
			if len(out.Items) >= 2*limit { // there may be very many
				newest()
			}
			return ctx.Err() == nil
		})
		out.Damaged = out.Damaged || errors.Is(err, state.ErrCorrupt)
		if err = notDamaged(err); err != nil {
			return nil, err
		}
	}
	newest()
	return out, ctx.Err()
}

// dead finds one by its sequence. One that the caller may not see is not there.
func (h *Handler) dead(ctx context.Context, who identity.Principal, action identity.Action, ns string, sequence uint64) (*delivery.Dead, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	missing := problem.New(problem.NotFound, "there is no dead letter %d that the key may see", sequence).
		Fix("`casemate dead-letters list` shows what there is.")
	if sequence == 0 { // to a filter, it means all
		return nil, missing
	}
	r, err := on.Deads.Get(ctx, sequence)
	if errors.Is(err, state.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	p, ok := placeOf(r.Channel)
	if !ok || p.topic != "" || r.Namespace != ns || !mayAt(who, action, ns, p) {
		return nil, missing
	}
	k := delivery.Key{Namespace: ns, Function: p.function, Trigger: p.trigger + p.webhook} // one of the two is set at most
	var found *delivery.Dead
	err = on.DeadLetters.DeadLetters(ctx, k, delivery.DeadFilter{Sequence: sequence}, func(d *delivery.Dead) bool {
		found = d
		return false
	})
	if found != nil {
		return found, nil
	}
	if err = notDamaged(err); err != nil {
		return nil, err
	}
	return nil, missing // it was dealt with
}

// settleDead has do deal with the dead letters that are meant, trigger after trigger.
func (h *Handler) settleDead(ctx context.Context, x *exchange, action string, in *deadSelectInput, do func(*EventsConfig, delivery.Key, delivery.DeadFilter) (int, error)) error {
	targets, err := h.deadTargets(ctx, x, in)
	if err != nil {
		h.audit(x, action, in.NS+"/"+in.Body.Function, err)
		return err
	}
	for _, t := range targets {
		n, err := do(h.cfg.Events, t.key, t.filter)
		h.audit(x, action, t.key.String(), err, slog.Int("dead_letters", n), slog.Uint64("sequence", t.filter.Sequence))
		if err != nil {
			return err
		}
	}
	return nil
}

type deadTarget struct {
	key    delivery.Key
	filter delivery.DeadFilter
}

func (h *Handler) deadTargets(ctx context.Context, x *exchange, in *deadSelectInput) ([]deadTarget, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	f := delivery.DeadFilter{Since: value(b.Since), Until: value(b.Until), Reason: delivery.Reason(b.Reason)}
	var out []deadTarget
	if len(b.Sequences) > 0 {
		switch {
		case len(b.Sequences) > maxDeadSelected:
			return nil, problem.New(problem.BadRequest, "at most %d can be named at once", maxDeadSelected).At("sequences")
		case b.Function+b.Trigger+b.Webhook+b.Reason != "" || b.Since != nil || b.Until != nil:
			return nil, problem.New(problem.BadRequest, "dead letters are selected by their sequences, or by where they are").At("sequences").Fix("Leave out the one or the other.")
		}
		for i, seq := range b.Sequences {
			d, err := h.dead(ctx, x.who, identity.Deploy, in.NS, seq)
			if err != nil {
				e := *problem.From(err)
				return nil, e.At(fmt.Sprintf("sequences[%d]", i))
			}
			out = append(out, deadTarget{d.Key, delivery.DeadFilter{Sequence: seq}})
		}
		return out, nil
	}
	if b.Function == "" && b.Webhook == "" {
		return nil, problem.New(problem.BadRequest, "which dead letters are meant is not said").At("function").Fix("Name a function, a trigger of it, a webhook, or sequences.")
	}
	keys, err := keysOf(on, in.NS, b.Function, b.Trigger, b.Webhook)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		out = append(out, deadTarget{k, f})
	}
	return out, nil
}

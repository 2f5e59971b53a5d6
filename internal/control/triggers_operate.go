package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

const triggerPath = functionPath + "/triggers/{trigger}"

// Kinds of triggers that have no settings of their own to be named by.
const (
	kindTopic = "topic"
	kindAsync = "async" // shown for a function's asynchronous invocations
)

type triggersInput struct {
	NS       string `path:"ns"`
	Function string `query:"function" doc:"Only the triggers of this one"`
}

type setTriggerInput struct {
	NS      string `path:"ns"`
	Name    string `path:"name"`
	Trigger string `path:"trigger" doc:"- for the function's asynchronous invocations"`
	Body    api.SetTrigger
}

// readsFunctionOrSome is the guard of listings that may be of one function.
func readsFunctionOrSome(who identity.Principal, ns, fn string) error {
	if fn != "" {
		return may(who, identity.Read, ns, fn)
	}
	return readsIn(who, &namespaceInput{ns})
}

func (h *Handler) registerTriggers() {
	register(h, huma.Operation{
		OperationID: "listTriggers", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/triggers", Tags: []string{"events"},
		Summary: "How the triggers in force are doing that the key may read",
	}, func(who identity.Principal, in *triggersInput) error {
		return readsFunctionOrSome(who, in.NS, in.Function)
	},
		func(ctx context.Context, x *exchange, in *triggersInput) (*body[list[api.TriggerStatus]], error) {
			on, err := h.onEvents()
			if err != nil {
				return nil, err
			}
			if in.Function != "" {
				if _, err := h.cfg.Registry.Function(function.Ref{Namespace: in.NS, Name: in.Function}); err != nil {
					return nil, err
				}
			}
			out := list[api.TriggerStatus]{Items: []api.TriggerStatus{}}
			for _, f := range h.cfg.Registry.Functions(in.NS) {
				if (in.Function != "" && in.Function != f.Name) || !x.who.May(identity.Read, f.Ref) {
					continue
				}
				items, err := h.triggersOf(ctx, on, f.Ref)
				if err != nil {
					return nil, err
				}
				out.Items = append(out.Items, items...)
			}
			return &body[list[api.TriggerStatus]]{out}, nil
		})
	register(h, huma.Operation{
		OperationID: "setTrigger", Method: http.MethodPut, Path: triggerPath, Tags: []string{"events"},
		Summary: "Pause a trigger's deliveries, or resume them", MaxBodyBytes: maxSmallBody,
		Description: "Events are stored while a trigger is paused; when too many wait, its source is held back.",
	}, func(who identity.Principal, in *setTriggerInput) error {
		return may(who, identity.Deploy, in.NS, in.Name)
	},
		func(ctx context.Context, x *exchange, in *setTriggerInput) (*body[api.TriggerStatus], error) {
			on, err := h.onEvents()
			if err != nil {
				return nil, err
			}
			k, err := keyOf(in.NS, in.Name, in.Trigger)
			if err != nil {
				return nil, err
			}
			st, err := h.setTrigger(ctx, on, k, in.Body.Paused)
			action := "trigger.resume"
			if in.Body.Paused {
				action = "trigger.pause"
			}
			h.audit(x, action, k.String(), err)
			if err != nil {
				return nil, err
			}
			return &body[api.TriggerStatus]{*st}, nil
		})
}

// keyOf names a trigger as delivery does.
func keyOf(ns, fn, trigger string) (delivery.Key, error) {
	if trigger == api.AsyncTrigger {
		trigger = ""
	} else if !function.ValidName(trigger) {
		return delivery.Key{}, problem.New(problem.BadRequest, "%.80q is not the name of a trigger", trigger).At("trigger")
	}
	return delivery.Key{Namespace: ns, Function: fn, Trigger: trigger}, nil
}

func (h *Handler) setTrigger(ctx context.Context, on *EventsConfig, k delivery.Key, paused bool) (*api.TriggerStatus, error) {
	if _, err := on.Deliveries.Status(ctx, k); err != nil { // a name that was mistyped would be kept for ever
		return nil, inForce(err)
	}
	set := on.Deliveries.Resume
	if paused {
		set = on.Deliveries.Pause
	}
	if err := set(ctx, k); err != nil {
		return nil, err
	}
	st, err := on.Deliveries.Status(ctx, k)
	if err != nil {
		return nil, err
	}
	out := h.triggerOut(on, &st)
	return &out, nil
}

// inForce says what to do about a trigger that is not.
func inForce(err error) error {
	if e := *problem.From(err); e.Code == problem.NotFound && e.Remedy == "" {
		return e.Fix("`casemate triggers list` shows the triggers in force.")
	}
	return err
}

// triggersOf lists a function's triggers by name. Its asynchronous invocations come
// first, when there is something to say of them.
func (h *Handler) triggersOf(ctx context.Context, on *EventsConfig, ref function.Ref) ([]api.TriggerStatus, error) {
	var out []api.TriggerStatus
	for _, k := range on.Deliveries.Keys() {
		if k.Namespace != ref.Namespace || k.Function != ref.Name {
			continue
		}
		st, err := on.Deliveries.Status(ctx, k)
		if problem.HasCode(err, problem.NotFound) { // it went in between
			continue
		}
		if err != nil {
			return nil, err
		}
		quiet := !st.Paused && st.Waiting+int64(st.UnderWay)+int64(st.Retrying)+st.Done.Total+st.Dead.Total+st.Retried.Total == 0
		if k.Trigger == "" && quiet {
			continue
		}
		out = append(out, h.triggerOut(on, &st))
	}
	slices.SortFunc(out, func(a, b api.TriggerStatus) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (h *Handler) triggerOut(on *EventsConfig, st *delivery.Status) api.TriggerStatus {
	out := api.TriggerStatus{
		Namespace: st.Key.Namespace, Function: st.Key.Function, Name: st.Key.Trigger, Kind: kindAsync,
		Running: st.Running, Paused: st.Paused, Held: st.Held, Waiting: st.Waiting, UnderWay: st.UnderWay, Retrying: st.Retrying,
		OldestMillis: st.OldestAge.Milliseconds(), Filtered: st.Filtered,
		Done: api.Tally(st.Done), Dead: api.Tally(st.Dead), Retried: api.Tally(st.Retried),
	}
	if !st.LastError.Time.IsZero() {
		out.LastError = &api.TriggerError{Time: st.LastError.Time.UTC(), Code: st.LastError.Code, Detail: st.LastError.Detail}
	}
	if t := h.liveTrigger(st.Key); t != nil {
		out.Kind, out.Connection = t.Kind, t.Connection
	}
	if s, ok := on.Source(st.Key); ok {
		out.Source = &api.SourceHealth{State: s.State, Reason: s.Reason, Since: s.Since.UTC()}
		if s.Lag >= 0 {
			out.Source.Lag = &s.Lag
		}
	}
	return out
}

// liveTrigger is a trigger as the live version has it, or nil.
func (h *Handler) liveTrigger(k delivery.Key) *function.Trigger {
	f, err := h.cfg.Registry.Function(function.Ref{Namespace: k.Namespace, Name: k.Function})
	if err != nil || f.Live == nil {
		return nil
	}
	for i := range f.Live.Config.Triggers {
		if t := &f.Live.Config.Triggers[i]; t.Name == k.Trigger {
			return t
		}
	}
	return nil
}

// subscription gives the topic that a trigger gets its events from, or "".
func subscription(t *function.Trigger) string {
	if t == nil || t.Kind != kindTopic {
		return ""
	}
	var s struct {
		Topic string `json:"topic"`
	}
	if json.Unmarshal(t.Settings, &s) != nil {
		return ""
	}
	return s.Topic
}

// channelOf is where the events of a trigger come from.
func (h *Handler) channelOf(k delivery.Key) string {
	if topic := subscription(h.liveTrigger(k)); topic != "" {
		return delivery.TopicChannel(topic)
	}
	return k.Channel()
}

// tallies remembers the sum over all triggers for a moment: the status is asked for
// often, and each trigger costs a question to the bus.
type tallies struct {
	mu  sync.Mutex
	at  time.Time
	sum *api.EventCounts
}

// counts sums up all triggers, or gives nil where there are no events.
func (h *Handler) counts(ctx context.Context) *api.EventCounts {
	on, err := h.onEvents()
	if err != nil {
		return nil
	}
	h.tallies.mu.Lock()
	defer h.tallies.mu.Unlock()
	now := h.cfg.Clock()
	if age := now.Sub(h.tallies.at); h.tallies.sum != nil && age >= 0 && age < countsFresh {
		return h.tallies.sum
	}
	sum := &api.EventCounts{}
	for _, k := range on.Deliveries.Keys() {
		st, err := on.Deliveries.Status(ctx, k)
		if err != nil {
			if !problem.HasCode(err, problem.NotFound) && !errors.Is(err, context.Canceled) {
				h.cfg.Logger.WarnContext(ctx, "a trigger's state cannot be read", slog.String("trigger", k.String()), slog.Any("cause", err))
			}
			continue
		}
		if k.Trigger != "" {
			sum.Triggers++
		}
		if st.Paused {
			sum.Paused++
		}
		if s, ok := on.Source(k); ok && s.State == sourceFailing {
			sum.SourcesFailing++
		}
		sum.Waiting += st.Waiting
		sum.UnderWay += st.UnderWay
		sum.Retrying += st.Retrying
		sum.Done += st.Done.Total
		sum.Dead += st.Dead.Total
	}
	if ctx.Err() == nil {
		h.tallies.at, h.tallies.sum = now, sum
	}
	return sum
}

// States of a source that deserve a look.
const (
	sourceFailing = "failing"
	sourceAlert   = "alert"
)

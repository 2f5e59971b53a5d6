package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

type eventInput struct {
	NS       string `path:"ns"`
	ID       string `query:"id" maxLength:"1024"`
	Sequence uint64 `query:"sequence"`
	Data     bool   `query:"data" doc:"With the event's data, for those who may deploy there"`
}

func (h *Handler) registerStory() {
	register(h, huma.Operation{
		OperationID: "getEvent", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/event", Tags: []string{"events"},
		Summary:     "The story of one event, by its id or its sequence",
		Description: "Where it came from, every attempt to deliver it with its receipt, its dead letters and its replays.",
	}, func(who identity.Principal, in *eventInput) error { return readsIn(who, &namespaceInput{in.NS}) },
		func(ctx context.Context, x *exchange, in *eventInput) (*body[api.EventStory], error) {
			out, err := h.story(ctx, x, in)
			if err != nil {
				return nil, err
			}
			return &body[api.EventStory]{*out}, nil
		})
}

// dataRefused is for those who may see that there is an event, and no more.
func dataRefused(ns string, p place) error {
	name := p.function
	if name == "" {
		name = "*"
	}
	return problem.New(problem.Forbidden, "to see the data takes the scope %s", identity.Scope{Action: identity.Deploy, Namespace: ns, Function: name}).
		At("query.data").Fix("Leave the data out, or use a key with that scope.")
}

func (h *Handler) story(ctx context.Context, x *exchange, in *eventInput) (*api.EventStory, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	out := &api.EventStory{Deliveries: []api.EventDelivery{}}
	missing := problem.New(problem.NotFound, "there is no such event that the key may see").
		Fix("`casemate events list` shows what there is; events are kept for a limited time.")
	sequence := in.Sequence
	switch {
	case (in.ID == "") == (sequence == 0):
		return nil, problem.New(problem.BadRequest, "an event is named by its id or by its sequence").At("query.id").Fix("Give one of the two.")
	case in.ID != "":
		sel, err := h.selects(x.who, &eventsInput{NS: in.NS, ID: in.ID})
		if err != nil {
			return nil, err
		}
		s := search[api.EventRecord]{stream: on.Events, ns: in.NS, limit: storyOthers + 1, match: sel.match}
		if err := s.run(ctx, h.cfg.Clock()); err != nil {
			return nil, err
		}
		out.Damaged = s.damaged
		switch {
		case len(s.found) == 0 && !s.complete:
			return nil, problem.New(problem.NotFound, "there is no event with that id since %s, and there are too many before to look at all", s.reached.Format(time.RFC3339)).
				Fix("Find it with `casemate events list --id … --until …`, and show it by its sequence.")
		case len(s.found) == 0:
			return nil, missing
		}
		sequence = s.found[0].Sequence
		for _, o := range s.found[1:] {
			out.Others = append(out.Others, o.Sequence)
		}
	}
	r, err := on.Events.Get(ctx, sequence)
	if errors.Is(err, state.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	p, ok := placeOf(r.Channel)
	if !ok || r.Namespace != in.NS || !mayAt(x.who, identity.Read, in.NS, p) {
		return nil, missing
	}
	if in.Data && !mayAt(x.who, identity.Deploy, in.NS, p) {
		return nil, dataRefused(in.NS, p)
	}
	out.Event = eventOut(&r, in.Data)
	for _, k := range h.takers(in.NS, p) {
		if k.Function != "" && !x.who.May(identity.Read, function.Ref{Namespace: in.NS, Name: k.Function}) {
			continue
		}
		d, damaged, err := h.delivered(ctx, on, k, &r, &out.Event)
		if err != nil {
			return nil, err
		}
		out.Damaged = out.Damaged || damaged
		out.Deliveries = append(out.Deliveries, *d)
	}
	return out, nil
}

// takers lists the triggers that get the events of a channel.
func (h *Handler) takers(ns string, p place) []delivery.Key {
	if p.topic == "" {
		if p.webhook != "" {
			return nil
		}
		return []delivery.Key{{Namespace: ns, Function: p.function, Trigger: p.trigger}}
	}
	var out []delivery.Key
	for _, f := range h.cfg.Registry.Functions(ns) {
		if f.Live == nil {
			continue
		}
		for i := range f.Live.Config.Triggers {
			if t := &f.Live.Config.Triggers[i]; subscription(t) == p.topic {
				out = append(out, delivery.Key{Namespace: ns, Function: f.Name, Trigger: t.Name})
			}
		}
	}
	return out
}

// delivered tells what became of an event at one trigger.
func (h *Handler) delivered(ctx context.Context, on *EventsConfig, k delivery.Key, r *delivery.Record, e *api.EventRecord) (out *api.EventDelivery, damaged bool, err error) {
	out = &api.EventDelivery{Function: k.Function, Trigger: k.Trigger, Attempts: []api.Receipt{}, Complete: true}
	// An event keeps its id over all attempts; a replay's id ends in the event's sequence.
	replayed := fmt.Sprintf(".%d", r.Sequence)
	receipts, err := h.cfg.Recorder.Receipts(ctx, audit.Query{Namespace: k.Namespace, Function: k.Function, Since: r.Time, Limit: storyReceipts, Event: e.ID, EventSuffix: replayed})
	searched := !errors.Is(err, audit.ErrUnsearched)
	if !searched {
		err = nil
	}
	if damaged = errors.Is(err, state.ErrCorrupt); err != nil && !damaged {
		return nil, false, err
	}
	out.Complete = searched && len(receipts) < storyReceipts
	jobs := map[string]bool{}
	var last *audit.Receipt // of the event itself, not of a replay
	for i := len(receipts) - 1; i >= 0; i-- {
		rc := &receipts[i]
		if rc.Source != k.Trigger {
			continue
		}
		job, fits := attemptOf(rc, e.ID, replayed)
		switch {
		case !fits:
			continue
		case job != "":
			jobs[job] = true
		default:
			last = rc
		}
		one := receiptOut(rc)
		one.Members = nil // the batch's others have a story of their own
		out.Attempts = append(out.Attempts, one)
	}
	// One that was tried anew is a record of its own on the stream, under its old id.
	given := false
	err = on.DeadLetters.DeadLetters(ctx, k, delivery.DeadFilter{Match: func(d *delivery.Dead) bool {
		own := d.Event == r.Sequence || d.Message != nil && d.Message.ID == e.ID && d.Message.Source == e.Source
		given = given || own
		return own || d.Message != nil && strings.HasPrefix(d.Message.ID, "replay.") && strings.HasSuffix(d.Message.ID, replayed)
	}}, func(d *delivery.Dead) bool {
		out.DeadLetters = append(out.DeadLetters, deadOut(d, false))
		return len(out.DeadLetters) < storyDead
	})
	damaged = damaged || errors.Is(err, state.ErrCorrupt)
	if notDamaged(err) != nil {
		return nil, false, err
	}
	for _, j := range on.Replays.Jobs(k.Namespace) {
		if s := &j.Selector; s.Key == k && (jobs[j.ID] || slices.Contains(s.IDs, e.ID)) {
			out.Replays = append(out.Replays, jobOut(&j))
		}
	}
	out.State, err = deliveryState(ctx, on, k, last, given)
	return out, damaged, err
}

// attemptOf says whether a receipt is of an attempt to deliver an event, perhaps among
// others, or of which replay of it.
func attemptOf(rc *audit.Receipt, id, replayed string) (job string, fits bool) {
	names := audit.Receipt{Event: id}
	names.EventIDs(func(name string) bool { id = name; return false })
	rc.EventIDs(func(name string) bool {
		if fits = name == id; fits {
			return false
		}
		if rest, ends := strings.CutSuffix(name, replayed); ends && rc.Replay {
			if of, again := strings.CutPrefix(rest, "replay."); again {
				job, fits = of, true
			}
		}
		return !fits
	})
	return job, fits
}

// States of an event at a trigger, as api.EventDelivery has them.
const (
	stateWaiting  = "waiting"
	stateRetrying = "retrying"
	stateDone     = "done"
	stateDead     = "dead"
	stateSettled  = "settled"
	stateUnknown  = "unknown"
)

// deliveryState concludes how an event stands from what there is of it. A trigger with
// nothing in hand has settled every event it was given.
func deliveryState(ctx context.Context, on *EventsConfig, k delivery.Key, last *audit.Receipt, dead bool) (string, error) {
	st, err := on.Deliveries.Status(ctx, k)
	gone := problem.HasCode(err, problem.NotFound)
	if err != nil && !gone {
		return "", err
	}
	idle := !gone && st.Waiting == 0 && st.UnderWay == 0 && st.Retrying == 0
	switch {
	case dead:
		return stateDead, nil
	case last != nil && last.Outcome == "ok" && last.Status < http.StatusBadRequest:
		return stateDone, nil
	case last != nil && !idle && !gone:
		return stateRetrying, nil
	case idle:
		return stateSettled, nil
	case last == nil && st.Waiting > 0 && st.UnderWay == 0 && st.Retrying == 0:
		return stateWaiting, nil
	}
	return stateUnknown, nil
}

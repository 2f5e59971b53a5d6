package control

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/identity"
)

type tailInput struct {
	NS       string `path:"ns"`
	Function string `query:"function" doc:"Events for this function: of its triggers, its topics and its asynchronous invocations"`
	Trigger  string `query:"trigger" doc:"Of the function; - for its asynchronous invocations"`
	Topic    string `query:"topic"`
	Type     string `query:"type" maxLength:"1024" doc:"A star at the end stands for any rest"`
	ID       string `query:"id" maxLength:"1024"`
	Tail     int    `query:"tail" minimum:"0" maximum:"1000" doc:"How many past events come first, at most"`
}

func (h *Handler) registerTail() {
	element := h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.EventElement](), true, "EventElement")
	register(h, huma.Operation{
		OperationID: "tailEvents", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/event-stream", Tags: []string{"events"},
		Summary:   "Events as they are stored, without their data, one JSON object a line, until the connection ends",
		Responses: map[string]*huma.Response{"200": {Description: "A stream", Content: map[string]*huma.MediaType{api.LogMediaType: {Schema: element}}}},
	}, func(who identity.Principal, in *tailInput) error {
		return readsEvents(who, in.NS, in.Function, in.Trigger, in.Topic)
	}, func(ctx context.Context, x *exchange, in *tailInput) (*logOutput, error) {
		on, err := h.onEvents()
		if err != nil {
			return nil, err
		}
		sel, err := h.selects(x.who, &eventsInput{NS: in.NS, Function: in.Function, Trigger: in.Trigger, Topic: in.Topic, Type: in.Type, ID: in.ID})
		if err != nil {
			return nil, err
		}
		// What is shown of the past may be less than asked for: a search back to the first
		// events is what listing them is for. One is needed to know where the new ones begin.
		past := search[uint64]{stream: on.Events, ns: in.NS, limit: 1, match: func(r *delivery.Record) (*uint64, bool) { return &r.Sequence, true }}
		if err := past.run(ctx, h.cfg.Clock()); err != nil {
			return nil, err
		}
		from := StreamFilter{Namespace: in.NS, Channel: sel.channel, Follow: true}
		if len(past.found) > 0 {
			from.After = past.found[0]
		}
		old := search[api.EventRecord]{stream: on.Events, ns: in.NS, channel: sel.channel, limit: min(in.Tail, maxTailed)}
		if in.Tail > 0 {
			old.match = func(r *delivery.Record) (*api.EventRecord, bool) {
				if r.Sequence > from.After {
					return nil, false
				}
				return sel.match(r)
			}
			if err := old.run(ctx, h.cfg.Clock()); err != nil {
				return nil, err
			}
		}
		return &logOutput{func(huma.Context) { h.tail(x, on, from, sel, old.found) }}, nil
	})
}

func (h *Handler) tail(x *exchange, on *EventsConfig, from StreamFilter, sel selection, old []api.EventRecord) {
	h.lines(x, func(ctx context.Context, write func(any) bool) error {
		for i := len(old) - 1; i >= 0; i-- {
			if !write(old[i]) {
				return nil
			}
		}
		return on.Events.Read(ctx, from, func(r delivery.Record) bool {
			e, ok := sel.match(&r)
			return !ok && ctx.Err() == nil || ok && write(e)
		})
	})
}

package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

type eventsInput struct {
	NS       string    `path:"ns"`
	Function string    `query:"function" doc:"Events for this function: of its triggers, its topics and its asynchronous invocations"`
	Trigger  string    `query:"trigger" doc:"Of the function; - for its asynchronous invocations"`
	Topic    string    `query:"topic"`
	Type     string    `query:"type" maxLength:"1024" doc:"A star at the end stands for any rest"`
	ID       string    `query:"id" maxLength:"1024"`
	Since    time.Time `query:"since" doc:"Stored then or later"`
	Until    time.Time `query:"until" doc:"Stored before"`
	Limit    int       `query:"limit" minimum:"0" maximum:"1000" doc:"0 means 50"`
}

type publishInput struct {
	NS    string `path:"ns"`
	Topic string `path:"topic"`
	Body  api.Publish
}

type purgeInput struct {
	NS   string `path:"ns"`
	Body api.PurgeEvents
}

// readsEvents is the guard of listings of events. A topic is nobody's own: to see what
// is in one takes the scope on the whole namespace.
func readsEvents(who identity.Principal, ns, fn, trigger, topic string) error {
	switch {
	case topic != "" && (fn != "" || trigger != ""):
		return problem.New(problem.BadRequest, "events are of a topic, or of a function").At("topic").Fix("Name one of the two.")
	case trigger != "" && fn == "":
		return problem.New(problem.BadRequest, "a trigger is one of a function").At("trigger").Fix("Name the function, too.")
	case topic != "":
		if !function.ValidName(topic) {
			return problem.New(problem.BadRequest, "%.80q is not the name of a topic", topic).At("topic")
		}
		return may(who, identity.Read, ns, "*")
	}
	return readsFunctionOrSome(who, ns, fn)
}

func (h *Handler) registerEvents() {
	register(h, huma.Operation{
		OperationID: "listEvents", Method: http.MethodGet, Path: "/v1/namespaces/{ns}/events", Tags: []string{"events"},
		Summary: "The newest stored events, without their data",
	}, func(who identity.Principal, in *eventsInput) error {
		return readsEvents(who, in.NS, in.Function, in.Trigger, in.Topic)
	}, func(ctx context.Context, x *exchange, in *eventsInput) (*body[api.EventList], error) {
		out, err := h.listEvents(ctx, x, in)
		if err != nil {
			return nil, err
		}
		return &body[api.EventList]{*out}, nil
	})
	register(h, huma.Operation{
		OperationID: "publishEvents", Method: http.MethodPost, Path: "/v1/namespaces/{ns}/topics/{topic}/events", Tags: []string{"events"},
		Summary: "Store events in a topic, all or none", MaxBodyBytes: maxPublishBody,
	}, func(who identity.Principal, in *publishInput) error {
		return may(who, identity.Publish, in.NS, in.Topic)
	}, func(ctx context.Context, x *exchange, in *publishInput) (*body[list[api.Published]], error) {
		out, err := h.publish(ctx, x, in)
		h.audit(x, "events.publish", in.NS+"/topics/"+in.Topic, err, slog.Int("events", len(in.Body.Events)))
		if err != nil {
			return nil, err
		}
		return &body[list[api.Published]]{list[api.Published]{Items: out}}, nil
	})
	register(h, huma.Operation{
		OperationID: "purgeEvents", Method: http.MethodPost, Path: "/v1/namespaces/{ns}/events/purge", Tags: []string{"events"},
		Summary: "Remove stored events, those that still wait among them", MaxBodyBytes: maxSmallBody,
	}, func(who identity.Principal, in *purgeInput) error {
		if in.Body.Topic != "" || in.Body.Function == "" {
			return may(who, identity.Deploy, in.NS, "*")
		}
		return may(who, identity.Deploy, in.NS, in.Body.Function)
	}, func(ctx context.Context, x *exchange, in *purgeInput) (*body[api.Purged], error) {
		n, err := h.purgeEvents(ctx, in)
		b := &in.Body
		object := in.NS + "/" + strings.Trim(b.Function+"/"+b.Trigger, "/")
		if b.Topic != "" {
			object = in.NS + "/topics/" + b.Topic
		}
		h.audit(x, "events.purge", object, err, slog.Time("until", b.Until), slog.Int("purged", n))
		if err != nil {
			return nil, err
		}
		return &body[api.Purged]{api.Purged{Purged: n}}, nil
	})
}

// place is what a channel is for.
type place struct{ topic, function, trigger, webhook string }

// placeOf reads a channel's name; false for those that delivery keeps for itself.
func placeOf(channel string) (place, bool) {
	parts := strings.Split(channel, ".")
	switch {
	case len(parts) == 2 && parts[0] == "topic":
		return place{topic: parts[1]}, true
	case len(parts) == 2 && parts[0] == "async":
		return place{function: parts[1]}, true
	case len(parts) == 3 && parts[0] == "trigger":
		return place{function: parts[1], trigger: parts[2]}, true
	case len(parts) == 2 && parts[0] == "webhook":
		return place{webhook: parts[1]}, true
	}
	return place{}, false
}

// mayAt asks for an action on what a channel is for.
func mayAt(who identity.Principal, action identity.Action, ns string, p place) bool {
	name := p.function
	if name == "" {
		name = "*"
	}
	return who.May(action, function.Ref{Namespace: ns, Name: name})
}

// selection is what a listing of events, or a stream of them, is to show.
type selection struct {
	channel string // "" for all of the namespace
	match   func(*delivery.Record) (*api.EventRecord, bool)
}

// selects makes a selection of a query. What the caller may not see is left out.
func (h *Handler) selects(who identity.Principal, in *eventsInput) (selection, error) {
	var s selection
	topics := map[string]bool{}
	switch {
	case in.Topic != "":
		s.channel = delivery.TopicChannel(in.Topic)
	case in.Trigger != "":
		k, err := keyOf(in.NS, in.Function, in.Trigger)
		if err != nil {
			return s, err
		}
		s.channel = h.channelOf(k)
		if p, _ := placeOf(s.channel); p.topic != "" && !mayAt(who, identity.Read, in.NS, p) {
			return s, problem.New(problem.Forbidden, "the trigger gets the events of topic %s, and to see those takes the scope %s", p.topic,
				identity.Scope{Action: identity.Read, Namespace: in.NS, Function: "*"}).At("trigger")
		}
	case in.Function != "":
		f, err := h.cfg.Registry.Function(function.Ref{Namespace: in.NS, Name: in.Function})
		if err != nil {
			return s, err
		}
		if f.Live != nil {
			for i := range f.Live.Config.Triggers {
				topics[subscription(&f.Live.Config.Triggers[i])] = true
			}
		}
	}
	prefix, open := strings.CutSuffix(in.Type, "*")
	s.match = func(r *delivery.Record) (*api.EventRecord, bool) {
		p, ok := placeOf(r.Channel)
		switch {
		case !ok || !mayAt(who, identity.Read, in.NS, p):
			return nil, false
		case s.channel == "" && in.Function != "" && p.function != in.Function && (p.topic == "" || !topics[p.topic]):
			return nil, false
		case in.ID != "" && !strings.Contains(r.ID, in.ID): // the event's own id is a part of it
			return nil, false
		}
		e := eventOut(r, false)
		if (in.ID != "" && e.ID != in.ID) || (in.Type != "" && e.Type != in.Type && (!open || !strings.HasPrefix(e.Type, prefix))) {
			return nil, false
		}
		return &e, true
	}
	return s, nil
}

// eventOut shows a stored event. All of it only to those who may see its data: what a
// source says besides may be confidential, too.
func eventOut(r *delivery.Record, all bool) api.EventRecord {
	p, _ := placeOf(r.Channel)
	out := api.EventRecord{
		Sequence: r.Sequence, Stored: r.Time.UTC(), Channel: r.Channel, Topic: p.topic, Function: p.function, Trigger: p.trigger, ID: r.ID,
	}
	m, err := event.Decode(r.Data)
	if err != nil {
		out.Unreadable, out.Size = true, int64(len(r.Data))
		return out
	}
	messageOut(&out, m, all)
	return out
}

func messageOut(out *api.EventRecord, m *event.Message, all bool) {
	out.ID, out.Source, out.Type, out.Subject, out.DataContentType = m.ID, m.Source, m.Type, m.Subject, m.DataContentType
	out.Extensions, out.Principal, out.Key = m.Extensions, m.Extensions["principal"], m.Key
	out.Chain, out.Depth, out.Size = m.Chain.ID, m.Chain.Depth, int64(len(m.Data))
	if !m.Time.IsZero() {
		t := m.Time.UTC()
		out.Time = &t
	}
	if all {
		out.Detail, out.Data = m.Detail, m.Data
	}
}

func (h *Handler) listEvents(ctx context.Context, x *exchange, in *eventsInput) (*api.EventList, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	if !in.Since.IsZero() && !in.Until.IsZero() && !in.Since.Before(in.Until) {
		return nil, problem.New(problem.BadRequest, "the time range ends before it begins").At("query.until")
	}
	sel, err := h.selects(x.who, in)
	if err != nil {
		return nil, err
	}
	limit := in.Limit
	if limit == 0 {
		limit = defaultEvents
	}
	s := search[api.EventRecord]{stream: on.Events, ns: in.NS, channel: sel.channel, since: in.Since, until: in.Until, limit: min(limit, maxEvents), match: sel.match}
	if err := s.run(ctx, h.cfg.Clock()); err != nil {
		return nil, err
	}
	out := &api.EventList{Items: s.found, Complete: s.complete, Damaged: s.damaged}
	if !s.complete {
		out.Searched = &s.reached
	}
	return out, nil
}

func (h *Handler) publish(ctx context.Context, x *exchange, in *publishInput) ([]api.Published, error) {
	on, err := h.onEvents()
	if err != nil {
		return nil, err
	}
	if n := len(in.Body.Events); n == 0 || n > maxPublished {
		return nil, problem.New(problem.BadRequest, "1 to %d events are published at once, not %d", maxPublished, n).At("events")
	}
	messages := make([]event.Message, len(in.Body.Events))
	for i, e := range in.Body.Events {
		m := event.Message{
			Event: event.Event{ID: e.ID, Type: e.Type, Subject: e.Subject, DataContentType: e.DataContentType, Extensions: e.Extensions},
			Data:  e.Data, Key: e.Key,
		}
		if e.Time != nil {
			m.Time = *e.Time
		}
		if m.ID == "" {
			m.ID = h.cfg.NewID()
		}
		messages[i] = m
	}
	stored, err := on.Publish(ctx, in.NS, in.Topic, x.who.String(), messages)
	if err != nil {
		return nil, err
	}
	out := make([]api.Published, 0, len(stored))
	for i, s := range stored {
		out = append(out, api.Published{ID: messages[i].ID, Sequence: s.Sequence, Duplicate: s.Duplicate})
	}
	return out, nil
}

// purgeEvents removes what was stored before a time, channel after channel.
func (h *Handler) purgeEvents(ctx context.Context, in *purgeInput) (purged int, err error) {
	on, err := h.onEvents()
	if err != nil {
		return 0, err
	}
	b := &in.Body
	var channels []string
	switch {
	case b.Until.IsZero():
		return 0, problem.New(problem.BadRequest, "up to when events go is not said").At("until")
	case b.Topic != "" && b.Function != "" || b.Topic == "" && b.Function == "":
		return 0, problem.New(problem.BadRequest, "events of a topic or of a function are purged").At("topic").Fix("Name one of the two.")
	case b.Topic != "":
		if !function.ValidName(b.Topic) {
			return 0, problem.New(problem.BadRequest, "%.80q is not the name of a topic", b.Topic).At("topic")
		}
		channels = []string{delivery.TopicChannel(b.Topic)}
	case b.Trigger != "":
		k, err := keyOf(in.NS, b.Function, b.Trigger)
		if err != nil {
			return 0, err
		}
		if topic := subscription(h.liveTrigger(k)); topic != "" {
			return 0, problem.New(problem.BadRequest, "the trigger has no events of its own: it gets those of topic %s, as others may", topic).At("trigger").
				Fix("Purge the topic.")
		}
		channels = []string{k.Channel()}
	default:
		channels = []string{delivery.AsyncChannel(b.Function)}
		f, err := h.cfg.Registry.Function(function.Ref{Namespace: in.NS, Name: b.Function})
		if err != nil {
			return 0, err
		}
		if f.Live != nil {
			for i := range f.Live.Config.Triggers {
				t := &f.Live.Config.Triggers[i]
				if subscription(t) == "" {
					channels = append(channels, delivery.Key{Namespace: in.NS, Function: b.Function, Trigger: t.Name}.Channel())
				}
			}
		}
	}
	for _, c := range channels {
		n, err := purgeChannel(ctx, on.Events, in.NS, c, b.Until)
		purged += n
		if err != nil {
			return purged, err
		}
	}
	return purged, nil
}

func purgeChannel(ctx context.Context, s Stream, ns, channel string, until time.Time) (int, error) {
	var last uint64
	err := s.Read(ctx, StreamFilter{Namespace: ns, Channel: channel, Until: until}, func(r delivery.Record) bool {
		last = r.Sequence
		return true
	})
	// What is damaged behind the last one goes with it, and also when nothing could be read.
	if err = notDamaged(err); err == nil {
		var n int
		n, err = s.Purge(ctx, ns, channel, last)
		if err == nil {
			return n, nil
		}
	}
	if err != nil {
		return 0, fmt.Errorf("purging %s of %s: %w", channel, ns, err)
	}
	return 0, nil
}

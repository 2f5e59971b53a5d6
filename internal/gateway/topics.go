package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/function"
)

// topicsPath begins the paths of topics, in each namespace; the name follows.
const topicsPath = reservedPrefix + "/topics/"

// routeTopic finds the topic, whether or not anybody ever heard of it: a topic is there
// when somebody publishes to it.
func (g *Gateway) routeTopic(x *exchange, namespace, topic string) error {
	if g.topics == nil || !function.ValidName(topic) {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	if x.r.Method != http.MethodPost {
		x.setHeader("Allow", http.MethodPost)
		return problem.New(problem.MethodNotAllowed, "this path is served for other methods").At("method")
	}
	x.namespace = namespace
	x.target = &endpoint{
		kind: toTopic, ref: function.Ref{Namespace: namespace, Name: topic},
		route: http.MethodPost + " " + topicsPath + "{topic}", bodyLimit: cloudevent.MaxBody,
	}
	return nil
}

// publish takes events in for a topic, all or none.
func (g *Gateway) publish(x *exchange) error {
	header := make(map[string][]string)
	for name, values := range x.r.Header {
		if name == "Content-Type" || strings.HasPrefix(name, "Ce-") {
			header[strings.ToLower(name)] = values
		}
	}
	events, err := cloudevent.Read(header, x.body)
	if err != nil {
		return unreadEvent(err)
	}
	stored, err := g.topics.Publish(x.r.Context(), x.target.ref.Namespace, x.target.ref.Name, x.principal.String(), events)
	if err != nil {
		return eventProblem(err)
	}
	if len(stored) != len(events) {
		return problem.New(problem.Internal, "something went wrong on our side")
	}
	type published struct {
		ID        string `json:"id"`
		Sequence  uint64 `json:"sequence"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}
	all := make([]published, len(events))
	for i := range events {
		all[i] = published{events[i].ID, stored[i].Sequence, stored[i].Duplicate}
	}
	return g.sendOwnJSON(x, http.StatusAccepted, struct {
		Events []published `json:"events"`
	}{all})
}

// unreadEvent says what is wrong with what was sent. The text of a *cloudevent.Error names
// attributes and no values.
func unreadEvent(err error) error {
	var e *cloudevent.Error
	if !errors.As(err, &e) {
		return problem.From(err)
	}
	var p *problem.Error
	switch e.Status() {
	case http.StatusUnsupportedMediaType:
		p = problem.New(problem.UnsupportedMedia, "%s", clipped(e.Reason)).
			Fix("Send CloudEvents 1.0: attributes as ce- headers, or %s, or %s.", cloudevent.StructuredType, cloudevent.BatchType)
	case http.StatusRequestEntityTooLarge:
		p = problem.New(problem.BodyTooLarge, "%s", clipped(e.Reason)).At("body").Fix("Send less at once.")
	default:
		p = problem.New(problem.BadRequest, "%s", clipped(e.Reason)).At("event")
	}
	if e.Event >= 0 {
		p.Field = "events[" + strconv.Itoa(e.Event) + "]"
	}
	return p
}

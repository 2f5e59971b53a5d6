package node

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/event/lambdashape"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/webhook"
)

// deliver runs a function for events. Which form they have depends on the runtime: what
// was written for AWS Lambda gets AWS's own, a script's handlers scheduled and queue theirs, and
// all others CloudEvents over HTTP.
func (n *node) deliver(ctx context.Context, c delivery.Call) (delivery.Outcome, error) {
	v, _, err := n.registry.Resolve(c.Ref, c.Qualifier, first)
	if err != nil {
		return delivery.Outcome{}, err
	}
	call, err := n.eventCall(&c, v)
	if err != nil {
		return delivery.Outcome{}, err
	}
	if call.Qualifier == "" {
		call.Qualifier = c.Qualifier
	}
	topic := n.replyTopic(&c, v)
	out, err := n.invoker.Invoke(ctx, call)
	if err == nil && len(out.Fault) > 0 {
		err = problem.New(problem.FunctionCrashed, "the function reported that it failed")
	}
	var d delivery.Outcome
	if out != nil {
		d = delivery.Outcome{
			Status: out.Status, Headers: out.Headers, Body: out.Body, Version: out.Receipt.Version, Receipt: out.Receipt.ID,
		}
		if err == nil {
			err = n.reply(ctx, &c, topic, call, out)
		}
		d.Failed, d.RetryAfter = failedOf(call, c.Messages, out), retryAfter(out.Headers["retry-after"])
	}
	return d, err
}

// replyTopic gives the topic for what a function answers with, "" when there is none. Who
// has a replay run another version chooses what runs, not where it may publish to: that is
// what is in force, and was checked when somebody put it there.
func (n *node) replyTopic(c *delivery.Call, v *function.Version) string {
	triggers := v.Config.Triggers
	if c.Qualifier != "" {
		f, err := n.registry.Function(c.Ref)
		if err != nil || f.Live == nil {
			return ""
		}
		triggers = f.Live.Config.Triggers
	}
	for i := range triggers {
		if t := &triggers[i]; t.Name == c.Trigger {
			return t.Delivery.Reply
		}
	}
	return ""
}

// reply publishes the events that a function answered with, to the topic that its trigger
// names. They are on disk before the event that they follow from is settled; their ids are made
// of its id, so an attempt more makes no second ones.
func (n *node) reply(ctx context.Context, c *delivery.Call, topic string, call *invoke.Call, out *invoke.Outcome) error {
	if topic == "" || call.Trigger != invoke.TriggerEvent || out.Status >= http.StatusBadRequest {
		return nil
	}
	events, err := cloudevent.Read(out.Headers, out.Body)
	var unread *cloudevent.Error
	if errors.As(err, &unread) && unread.Code == cloudevent.NotCloudEvent {
		return nil
	}
	if err != nil {
		return problem.New(problem.FunctionBadAnswer, "the function answered with events that cannot be read: %v", err)
	}
	cause := c.Messages[0]
	for i := range events {
		e := &events[i]
		e.ID = replyID(cause.ID, i)
		e.Source = "/namespaces/" + c.Ref.Namespace + "/functions/" + c.Ref.Name
		delivery.Caused(e, cause)
	}
	if _, err := n.intake.Publish(ctx, c.Ref.Namespace, topic, "function:"+c.Ref.String(), events); err != nil {
		var invalid *intake.InvalidError
		var full *intake.BusyError
		switch {
		case errors.As(err, &invalid):
			return problem.New(problem.FunctionBadAnswer, "the function answered with an event that breaks a rule: %v", invalid)
		case errors.As(err, &full):
			return problem.New(problem.Overloaded, "the topic %s takes no more for now", topic).After(full.RetryAfter)
		default:
			return problem.New(problem.StorageFull, "the function's events could not be stored").Because(err)
		}
	}
	return nil
}

// replyID is the id of the i-th event of an answer: the same for each attempt, and never
// longer than an id may be, however long the cause's is.
func replyID(cause string, i int) string {
	id := fmt.Sprintf("%s.reply.%d", cause, i)
	if len(id) <= event.MaxAttribute {
		return id
	}
	sum := sha256.Sum256([]byte(cause))
	return fmt.Sprintf("sha256:%x.reply.%d", sum, i)
}

// mostRetryAfter is the longest pause that a function may ask for.
const mostRetryAfter = time.Hour

// retryAfter reads what a function asks for, in seconds (RFC 9110, section 10.2.3); a date
// is not read.
func retryAfter(values []string) time.Duration {
	if len(values) != 1 {
		return 0
	}
	n, err := strconv.Atoi(values[0])
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, 1<<20))*time.Second, mostRetryAfter)
}

// first is how a weighted alias is resolved for a form: any of its versions has the same.
func first(int) int { return 0 }

func (n *node) eventCall(c *delivery.Call, v *function.Version) (*invoke.Call, error) {
	m := c.Messages[0]
	call := &invoke.Call{
		Ref: c.Ref, RequestID: n.ids.next(), Method: http.MethodPost, Path: "/", Headers: map[string][]string{},
		Principal: identity.Principal{
			Kind: "trigger", ID: c.Ref.String() + "/" + c.Trigger,
			Scopes: []identity.Scope{{Action: identity.Invoke, Namespace: c.Ref.Namespace, Function: c.Ref.Name}},
		},
		Event: invoke.Event{ID: m.ID, Source: c.Trigger, Attempt: c.Attempt, Replay: c.Replay, Chain: m.Chain.ID, Depth: m.Chain.Depth},
	}
	if len(c.Messages) > 1 {
		ids := make([]string, len(c.Messages))
		for i, m := range c.Messages {
			ids[i] = m.ID
		}
		call.Event.Count, call.Event.Members = len(ids), audit.Members(ids)
	}
	if c.Trigger == "" {
		return asRequest(call, c)
	}
	form := asCloudEvents
	switch {
	case v.Config.Runtime.Lambda():
		form = asLambda
	case v.Config.Runtime.Script() && strings.HasPrefix(m.Type, "casemate.schedule."):
		form = asSchedule
	case v.Config.Runtime.Script() && m.Detail["queue.kind"] != "":
		form = asQueue
	}
	if err := form(call, c); err != nil {
		return nil, fmt.Errorf("writing event %.80q for %s: %w", m.ID, c.Ref, err)
	}
	call.Headers["casemate-attempt"] = []string{fmt.Sprint(c.Attempt)}
	return call, nil
}

// asRequest makes the call that somebody did not want to wait for. What a destination
// sent to a function comes this way, too, and is an event like others.
func asRequest(call *invoke.Call, c *delivery.Call) (*invoke.Call, error) {
	kept, ok := gateway.Recall(c.Ref, c.Messages[0])
	if !ok {
		return call, asCloudEvents(call, c)
	}
	kept.Event = call.Event
	if kept.Qualifier == "" || c.Qualifier != "" {
		kept.Qualifier = c.Qualifier
	}
	return kept, nil
}

// asCloudEvents sends one event in binary mode, and a batch in batch mode.
func asCloudEvents(call *invoke.Call, c *delivery.Call) error {
	call.Trigger = invoke.TriggerEvent
	if len(c.Messages) > 1 {
		all := make([]event.Message, len(c.Messages))
		for i, m := range c.Messages {
			all[i] = *m
		}
		body, err := cloudevent.WriteBatch(all)
		call.Body = body
		call.Headers["content-type"] = []string{cloudevent.BatchType}
		return err
	}
	m := c.Messages[0]
	for name, values := range m.Headers() {
		call.Headers[name] = values
	}
	if m.Key != "" {
		call.Headers["ce-partitionkey"] = []string{event.Escape(m.Key)}
	}
	if len(m.Detail) > 0 {
		detail, err := json.Marshal(m.Detail)
		if err != nil {
			return err
		}
		call.Headers["casemate-detail"] = []string{base64.StdEncoding.EncodeToString(detail)}
	}
	call.Body = m.Data
	return nil
}

func asLambda(call *invoke.Call, c *delivery.Call) (err error) {
	call.Trigger = invoke.TriggerLambda
	call.Headers["content-type"] = []string{"application/json"}
	call.Body, err = lambdashape.Marshal(c.Messages)
	return err
}

// asSchedule is for the handler scheduled of a script.
func asSchedule(call *invoke.Call, c *delivery.Call) (err error) {
	m := c.Messages[0]
	var tick struct {
		Scheduled time.Time `json:"scheduled"`
		Cron      string    `json:"cron"`
	}
	if err := json.Unmarshal(m.Data, &tick); err != nil {
		return err
	}
	call.Trigger = invoke.TriggerSchedule
	call.Headers["content-type"] = []string{"application/json"}
	call.Body, err = json.Marshal(map[string]any{"scheduledTime": tick.Scheduled.UnixMilli(), "cron": tick.Cron})
	return err
}

// queued is one message for the handler queue of a script.
type queued struct {
	ID        string `json:"id"`
	Timestamp int64  `json:"timestamp"`
	Body      any    `json:"body"`
	Attempts  int    `json:"attempts"`
}

// asQueue is for the handler queue of a script: JSON as what it says, other text as
// a string, and everything else in Base64.
func asQueue(call *invoke.Call, c *delivery.Call) (err error) {
	messages := make([]queued, 0, len(c.Messages))
	for _, m := range c.Messages {
		messages = append(messages, queued{m.ID, m.Time.UnixMilli(), queueBody(m), attemptOf(c, m)})
	}
	call.Trigger = invoke.TriggerQueue
	call.Headers["content-type"] = []string{"application/json"}
	call.Body, err = json.Marshal(map[string]any{"queue": c.Messages[0].Detail["queue.name"], "messages": messages})
	return err
}

// attemptOf says how often a message of a call was tried, this time included. A batch has
// messages that were tried before beside new ones, and those say so themselves.
func attemptOf(c *delivery.Call, m *event.Message) int {
	if len(c.Messages) == 1 {
		return c.Attempt
	}
	n, err := strconv.Atoi(m.Extensions["attempt"])
	if err != nil {
		return 1
	}
	return min(max(n, 1), c.Attempt) // no sender's own word goes beyond what can be
}

func queueBody(m *event.Message) any {
	switch {
	case json.Valid(m.Data):
		return json.RawMessage(m.Data)
	case isText(m.Data):
		return string(m.Data)
	default:
		return base64.StdEncoding.EncodeToString(m.Data)
	}
}

// failedOf reads which events of a batch the function says it did not do.
func failedOf(call *invoke.Call, ms []*event.Message, out *invoke.Outcome) []string {
	if call.Trigger == invoke.TriggerQueue {
		var answer struct {
			Retry []string `json:"retry"`
		}
		if json.Unmarshal(out.Body, &answer) != nil {
			return nil
		}
		return answer.Retry
	}
	if len(ms) > 1 || call.Trigger == invoke.TriggerLambda {
		return lambdashape.Failed(ms, out.Body)
	}
	return nil
}

// send hands an event to a webhook, for a destination.
func (n *node) send(ctx context.Context, namespace, name string, m *event.Message) (delivery.Outcome, error) {
	c, err := n.connections.Get(ctx, namespace, name)
	switch {
	case isNotFound(err):
		return delivery.Outcome{}, problem.New(problem.NotFound, "there is no connection %s/%s", namespace, name)
	case err != nil:
		return delivery.Outcome{}, err
	case c.Kind != function.KindWebhook:
		return delivery.Outcome{}, problem.New(problem.NotFound, "the connection %s/%s is no webhook", namespace, name)
	}
	sent, err := webhook.Send(ctx, &source.Connection{
		Namespace: c.Namespace, Name: c.Name, Kind: c.Kind, Settings: c.Settings, Secret: c.Secret,
	}, m, n.clock())
	if err != nil {
		// What it says is for the operator; a dead letter shows the public part.
		n.log.Warn("a webhook could not be reached", "connection", namespace+"/"+name, "event", m.ID, "error", err)
		return delivery.Outcome{}, problem.New(problem.SandboxLost, "the webhook could not be reached").Because(err)
	}
	return delivery.Outcome{Status: sent.Status, Body: sent.Body, RetryAfter: sent.RetryAfter}, nil
}

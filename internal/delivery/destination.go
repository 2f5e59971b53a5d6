package delivery

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

// Types of the events that go to destinations.
const (
	TypeSucceeded = "casemate.delivery.succeeded"
	TypeFailed    = "casemate.delivery.failed"
)

// maxPayload of a request or response is put into a destination's record, in bytes.
const maxPayload = 256 << 10

// destinationRecord is the data of such an event, close to what AWS Lambda sends to a
// destination (Developer Guide, "Retaining records of asynchronous invocations").
type destinationRecord struct {
	Version         string          `json:"version"`
	Timestamp       time.Time       `json:"timestamp"`
	RequestContext  requestContext  `json:"requestContext"`
	RequestPayload  any             `json:"requestPayload"`
	RequestOmitted  int             `json:"requestPayloadOmitted,omitempty"` // bytes that were too many
	ResponseContext responseContext `json:"responseContext"`
	ResponsePayload any             `json:"responsePayload"`
	ResponseOmitted int             `json:"responsePayloadOmitted,omitempty"`
}

type requestContext struct {
	RequestID   string `json:"requestId"` // the receipt's
	FunctionARN string `json:"functionArn"`
	Trigger     string `json:"trigger,omitempty"`
	Event       string `json:"eventId"`
	Type        string `json:"eventType"`
	Condition   string `json:"condition"`
	Attempts    int    `json:"approximateInvokeCount"`
}

type responseContext struct {
	Status        int    `json:"statusCode,omitempty"`
	Version       string `json:"executedVersion,omitempty"`
	FunctionError string `json:"functionError,omitempty"` // the problem's code
	Detail        string `json:"detail,omitempty"`
}

// condition is AWS's word for the end of an event.
func condition(v verdict) string {
	switch {
	case v.end == endDone:
		return "Success"
	case v.reason == ReasonAttempts:
		return "RetriesExhausted"
	case v.reason == ReasonAge:
		return "EventAgeExceeded"
	default:
		return string(v.reason)
	}
}

// outcomes makes the events for the destinations of one that has ended. One that was cut
// off as a loop goes nowhere: its destination may be what loops.
func (t *trigger) outcomes(b *Binding, v verdict, out *Outcome, now time.Time) ([]Entry, error) {
	to, kind, word := b.Delivery.OnSuccess, TypeSucceeded, "done"
	if v.end == endDead {
		to, kind, word = b.Delivery.OnFailure, TypeFailed, "failed"
	}
	if v.end == endAgain || len(to) == 0 || v.it.msg == nil || v.reason == ReasonLoop {
		return nil, nil
	}
	m := v.it.msg
	ref := function.Ref{Namespace: t.key.Namespace, Name: t.key.Function}
	rec := destinationRecord{
		Version: "1.0", Timestamp: now.UTC(),
		RequestContext: requestContext{
			RequestID: v.tried.Receipt, FunctionARN: function.ARN(function.Region, ref), Trigger: t.key.Trigger,
			Event: m.ID, Type: m.Type, Condition: condition(v), Attempts: v.tried.Attempts,
		},
		ResponseContext: responseContext{Status: v.tried.Status, Version: v.tried.Version, FunctionError: v.tried.Code, Detail: v.tried.Detail},
	}
	if q := v.it.rerun.Qualifier; q != "" {
		rec.RequestContext.FunctionARN += ":" + q
	}
	rec.RequestPayload, rec.RequestOmitted = payload(m.Data, m.DataContentType)
	if out != nil {
		rec.ResponsePayload, rec.ResponseOmitted = payload(out.Body, header(out.Headers, "content-type"))
	}
	data, err := json.Marshal(&rec)
	if err != nil {
		return nil, fmt.Errorf("encoding a destination's record: %v", err)
	}
	var entries []Entry
	for i, dst := range to {
		n := event.Message{
			Event: event.Event{
				ID: fmt.Sprintf("%s.%d.%d", word, v.it.seq, i), Source: "/namespaces/" + t.key.Namespace + "/functions/" + t.key.Function,
				Type: kind, Subject: t.key.Trigger, Time: now, DataContentType: "application/json",
			},
			Data: data, Key: m.Key,
		}
		// Two triggers may end the same event of a topic.
		n.ID += "." + t.key.consumer(b.Channel)
		Caused(&n, m)
		encoded, err := n.Encode()
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{Namespace: t.key.Namespace, Channel: channelOf(dst), ID: n.ID, Data: encoded})
	}
	return entries, nil
}

func channelOf(d function.Destination) string {
	switch {
	case d.Function != "":
		return AsyncChannel(d.Function)
	case d.Topic != "":
		return TopicChannel(d.Topic)
	default:
		return Key{Trigger: d.Webhook}.Channel()
	}
}

func header(h map[string][]string, name string) string {
	for k, v := range h {
		if strings.EqualFold(k, name) && len(v) > 0 {
			return v[0]
		}
	}
	return ""
}

// payload shows data as JSON if it is, else as text if it is, else in base64.
func payload(data []byte, contentType string) (shown any, omitted int) {
	kind, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(contentType)), ";")
	switch {
	case len(data) == 0:
		return nil, 0
	case len(data) > maxPayload:
		return nil, len(data)
	case (kind == "" || kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Valid(data):
		return json.RawMessage(data), 0
	case utf8.Valid(data):
		return string(data), 0
	default:
		return struct {
			Base64 string `json:"base64"`
		}{base64.StdEncoding.EncodeToString(data)}, 0
	}
}

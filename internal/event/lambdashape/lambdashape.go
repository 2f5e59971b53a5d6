// Package lambdashape writes events the way AWS's own sources hand them to Lambda
// functions, and reads which events of a batch a function says it did not do.
//
// It imports leaves alone; whoever invokes Lambda runtimes imports it. Its functions hold
// no state and may be called from many goroutines.
//
// # Which shape
//
// The shape follows from the events: from their type, and for queues from the detail
// queue.kind.
//
//	kafka                         Kafka records by topic and partition (self-managed Apache Kafka)
//	amqp                          Amazon MQ for RabbitMQ, messages by queue
//	other queues                  SQS
//	casemate.object.*             S3
//	casemate.kv.*, .postgres.*    a DynamoDB stream
//	casemate.schedule.fired       EventBridge, Scheduled Event
//	everything else               EventBridge, an event of the sender's own
//
// EventBridge knows no batches: one event is an object, several are a list of them, as
// EventBridge Pipes has it. Where AWS has an account and a region stand the platform's.
//
// Sources: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS", "… Apache Kafka",
// "… Amazon MQ", "… Amazon S3", "… DynamoDB"; EventBridge User Guide, "Events"; the Go
// types of github.com/aws/aws-lambda-go/events.
package lambdashape

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

type shape int

const (
	eventBridge shape = iota
	scheduled
	sqs
	kafka
	rabbitMQ
	s3
	dynamoDB
)

// shapeOf gives the shape of a batch. One trigger has one kind of events; should they
// differ all the same, the one shape that fits any event is taken.
func shapeOf(ms []*event.Message) shape {
	first := shapeOfOne(ms[0])
	for _, m := range ms[1:] {
		if shapeOfOne(m) != first {
			return eventBridge
		}
	}
	return first
}

func shapeOfOne(m *event.Message) shape {
	switch m.Detail["queue.kind"] {
	case "":
	case "kafka":
		return kafka
	case "amqp":
		return rabbitMQ
	default:
		return sqs
	}
	switch t := m.Type; {
	case t == "casemate.schedule.fired":
		return scheduled
	case strings.HasPrefix(t, "casemate.object."):
		return s3
	case strings.HasPrefix(t, "casemate.kv."), strings.HasPrefix(t, "casemate.postgres."):
		return dynamoDB
	default:
		return eventBridge
	}
}

// Marshal writes events as the JSON of one invocation. There must be at least one.
func Marshal(ms []*event.Message) ([]byte, error) {
	if len(ms) == 0 {
		return nil, errors.New("writing events for Lambda: there is none")
	}
	var v any
	var err error
	switch s := shapeOf(ms); s {
	case sqs:
		v = sqsEvent(ms)
	case kafka:
		v = kafkaEvent(ms)
	case rabbitMQ:
		v = rabbitEvent(ms)
	case s3:
		v, err = s3Event(ms)
	case dynamoDB:
		v, err = dynamoEvent(ms)
	default:
		v = bridgeEvent(ms, s == scheduled)
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing events for Lambda: %v", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Failed reads what a function answered to a batch: the ids of the events that are to be
// tried again, in their order. A function that says nothing of single events did
// all. One that names an event which there is not, or names none rightly, did none: AWS
// says so, and a function that is wrong about its batch is not to be believed.
//
// Of a stream (Kafka, DynamoDB) everything from the first named event on is tried
// again, as AWS does it, because functions stop there.
func Failed(ms []*event.Message, answer []byte) []string {
	var response struct {
		Failures *json.RawMessage `json:"batchItemFailures"`
	}
	if json.Unmarshal(answer, &response) != nil || response.Failures == nil {
		return nil
	}
	var items []struct {
		Identifier *string `json:"itemIdentifier"`
	}
	if json.Unmarshal(*response.Failures, &items) != nil {
		return ids(ms)
	}
	s := shapeOf(ms)
	failed := make([]bool, len(ms))
	for _, item := range items {
		if item.Identifier == nil || *item.Identifier == "" {
			return ids(ms)
		}
		known := false
		for i, m := range ms {
			if *item.Identifier == m.ID || *item.Identifier == identifier(s, m) {
				failed[i], known = true, true
			}
		}
		if !known {
			return ids(ms)
		}
	}
	if first := slices.Index(failed, true); first >= 0 && (s == kafka || s == dynamoDB) {
		return ids(ms[first:])
	}
	var out []string
	for i, m := range ms {
		if failed[i] {
			out = append(out, m.ID)
		}
	}
	return out
}

func ids(ms []*event.Message) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = m.ID
	}
	return out
}

// identifier is what functions call an event besides its id.
func identifier(s shape, m *event.Message) string {
	switch s {
	case kafka:
		return m.Detail["queue.name"] + "-" + m.Detail["kafka.partition"] + "-" + m.Detail["kafka.offset"]
	case dynamoDB:
		return sequenceNumber(m)
	default:
		return ""
	}
}

// arn names something that is ours the way AWS does.
func arn(service, name string) string {
	return "arn:aws:" + service + ":" + function.Region + ":" + function.Account + ":" + name
}

// header is a header of a queue's message.
type header struct {
	name   string
	value  []byte
	binary bool
}

// headers gives those details that begin with a prefix, in the order of their names.
func headers(m *event.Message, prefix string) []header {
	var hs []header
	for k, v := range m.Detail {
		name, ok := strings.CutPrefix(k, prefix)
		if !ok {
			continue
		}
		h := header{name: name, value: []byte(v)}
		if base, ok := strings.CutSuffix(name, ".base64"); ok {
			if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
				h = header{name: base, value: raw, binary: true}
			}
		}
		hs = append(hs, h)
	}
	sort.Slice(hs, func(i, j int) bool { return hs[i].name < hs[j].name })
	return hs
}

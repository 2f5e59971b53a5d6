package node

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func forms() *node { return &node{ids: &ids{clock: time.Now}} }

func version(r function.Runtime) *function.Version {
	return &function.Version{Config: function.Config{Runtime: r}}
}

func delivered(m *event.Message, more ...*event.Message) *delivery.Call {
	return &delivery.Call{
		Ref: function.Ref{Namespace: "shop", Name: "ship"}, Trigger: "orders", Messages: append([]*event.Message{m}, more...), Attempt: 3,
	}
}

func order(id string) *event.Message {
	return &event.Message{
		Event: event.Event{ID: id, Source: "/namespaces/shop/topics/orders", Type: "order.created", DataContentType: "application/json"},
		Data:  []byte(`{"n":1}`), Key: "k", Detail: map[string]string{"header.a": "b"}, Chain: event.Chain{ID: "0", Depth: 2},
	}
}

func queueMessage(data string) *event.Message {
	m := order("q")
	m.Type, m.Data = "casemate.queue.message", []byte(data)
	m.Detail = map[string]string{"queue.kind": "amqp", "queue.name": "jobs"}
	return m
}

func TestEventsHaveTheFormOfTheirRuntime(t *testing.T) {
	t.Parallel()
	tick := order("t")
	tick.Type, tick.Data = "casemate.schedule.fired", []byte(`{"scheduled":"2026-01-02T03:04:05Z","zone":"UTC","name":"orders","cron":"4 3 * * *"}`)
	for name, c := range map[string]struct {
		runtime function.Runtime
		call    *delivery.Call
		trigger string
		holds   string // in the body
	}{
		"one for a module":           {function.RuntimeGo, delivered(order("1")), invoke.TriggerEvent, `{"n":1}`},
		"a batch for a module":       {function.RuntimeGo, delivered(order("1"), order("2")), invoke.TriggerEvent, `"id":"2"`},
		"a queue's for a module":     {function.RuntimeGo, delivered(queueMessage(`{"n":1}`)), invoke.TriggerEvent, `{"n":1}`},
		"one for a server":           {function.RuntimeHTTP, delivered(order("1")), invoke.TriggerEvent, `{"n":1}`},
		"one for a script":           {function.RuntimeTypeScript, delivered(order("1")), invoke.TriggerEvent, `{"n":1}`},
		"a tick for a script":        {function.RuntimeJavaScript, delivered(tick), invoke.TriggerSchedule, `{"cron":"4 3 * * *","scheduledTime":1767323045000}`},
		"a queue's for a script":     {function.RuntimeJavaScript, delivered(queueMessage(`{"n":1}`)), invoke.TriggerQueue, `"body":{"n":1}`},
		"a queue's text for one":     {function.RuntimeJavaScript, delivered(queueMessage("hi")), invoke.TriggerQueue, `"body":"hi"`},
		"a queue's bytes for one":    {function.RuntimeJavaScript, delivered(queueMessage("\xff\x00")), invoke.TriggerQueue, `"body":"/wA="`},
		"a queue's for Lambda":       {function.RuntimePython, delivered(queueMessage("hi")), invoke.TriggerLambda, `"rmqMessagesByQueue"`},
		"a tick for Lambda":          {function.RuntimeNodeJS, delivered(tick), invoke.TriggerLambda, `"detail-type":"Scheduled Event"`},
		"a topic's event for Lambda": {function.RuntimeProvided, delivered(order("1")), invoke.TriggerLambda, `"detail-type":"order.created"`},
	} {
		call, err := forms().eventCall(c.call, version(c.runtime))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if call.Trigger != c.trigger || !strings.Contains(string(call.Body), c.holds) {
			t.Errorf("%s: it is %s with %s", name, call.Trigger, call.Body)
		}
		if call.Event.ID != c.call.Messages[0].ID || call.Event.Source != "orders" || call.Event.Attempt != 3 || call.Event.Chain != "0" || call.Event.Depth != 2 {
			t.Errorf("%s: the receipt will have %+v", name, call.Event)
		}
	}
}

// A message that was tried before shares a batch with new ones.
func TestMessagesOfAQueueSayHowOftenEachWasTried(t *testing.T) {
	t.Parallel()
	messages := make([]*event.Message, 4)
	for i, attempt := range []string{"", "3", "2", "99"} { // what a sender says is no more than can be
		messages[i] = queueMessage("x")
		if attempt != "" {
			messages[i].Extensions = map[string]string{"attempt": attempt}
		}
	}
	for want, c := range map[string]*delivery.Call{
		"[1 3 2 3]": delivered(messages[0], messages[1:]...),
		"[3]":       delivered(messages[0]),
	} {
		call, err := forms().eventCall(c, version(function.RuntimeJavaScript))
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Messages []struct{ Attempts int } }
		if err := json.Unmarshal(call.Body, &body); err != nil {
			t.Fatal(err)
		}
		got := make([]int, len(body.Messages))
		for i, m := range body.Messages {
			got[i] = m.Attempts
		}
		if fmt.Sprint(got) != want {
			t.Errorf("the attempts are %v, want %s", got, want)
		}
	}
}

func TestABatchNamesAllItsEventsForTheReceipt(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	for want, c := range map[string]*delivery.Call{
		"":                                       delivered(order("1")),
		"1\n2\n" + audit.Members([]string{long}): delivered(order("1"), order("2"), order(long)),
	} {
		call, err := forms().eventCall(c, version(function.RuntimeGo))
		if err != nil {
			t.Fatal(err)
		}
		if call.Event.Members != want {
			t.Errorf("the receipt will have %q, want %q", call.Event.Members, want)
		}
	}
}

func TestModuleGetsBinaryCloudEvents(t *testing.T) {
	t.Parallel()
	call, err := forms().eventCall(delivered(order("1")), version(function.RuntimeRust))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ce-id": "1", "ce-type": "order.created", "ce-source": "/namespaces/shop/topics/orders", "ce-partitionkey": "k",
		"content-type": "application/json", "casemate-attempt": "3",
	} {
		if !slices.Equal(call.Headers[name], []string{want}) {
			t.Errorf("%s is %q, want %q", name, call.Headers[name], want)
		}
	}
	b, err := base64.StdEncoding.DecodeString(call.Headers["casemate-detail"][0])
	var detail map[string]string
	if err != nil || json.Unmarshal(b, &detail) != nil || detail["header.a"] != "b" {
		t.Errorf("the detail is %q", call.Headers["casemate-detail"])
	}
}

// TestTriggerMayCallItsOwnFunctionOnly looks at what the principal of a trigger is allowed.
func TestTriggerMayCallItsOwnFunctionOnly(t *testing.T) {
	t.Parallel()
	call, err := forms().eventCall(delivered(order("1")), version(function.RuntimeRust))
	if err != nil {
		t.Fatal(err)
	}
	p := call.Principal
	if !p.May(identity.Invoke, call.Ref) {
		t.Error("it may not call its own function")
	}
	for _, ref := range []function.Ref{{Namespace: "shop", Name: "other"}, {Namespace: "other", Name: "ship"}, {Namespace: "shop", Name: "*"}} {
		if p.May(identity.Invoke, ref) {
			t.Errorf("it may call %s", ref)
		}
	}
	for _, a := range []identity.Action{identity.Read, identity.Deploy, identity.Publish, identity.Connect, identity.Admin} {
		if p.May(a, call.Ref) {
			t.Errorf("it may %s", a)
		}
	}
}

func TestPartsOfABatchThatFailed(t *testing.T) {
	t.Parallel()
	two := []*event.Message{order("1"), order("2")}
	for name, c := range map[string]struct {
		trigger, body string
		ms            []*event.Message
		want          []string
	}{
		"a script's":            {invoke.TriggerQueue, `{"retry":["2"]}`, two, []string{"2"}},
		"a script's of none":    {invoke.TriggerQueue, `{"retry":[]}`, two, []string{}},
		"AWS's form":            {invoke.TriggerEvent, `{"batchItemFailures":[{"itemIdentifier":"2"}]}`, two, []string{"2"}},
		"nothing said":          {invoke.TriggerEvent, `done`, two, nil},
		"one, and no batch":     {invoke.TriggerEvent, `{"batchItemFailures":[{"itemIdentifier":"1"}]}`, two[:1], nil},
		"one of Lambda's batch": {invoke.TriggerLambda, `{"batchItemFailures":[{"itemIdentifier":"1"}]}`, two[:1], []string{"1"}},
	} {
		got := failedOf(&invoke.Call{Trigger: c.trigger}, c.ms, &invoke.Outcome{Body: []byte(c.body)})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{"7": 7 * time.Second, "-1": 0, "x": 0, "999999999999": mostRetryAfter, "": 0} {
		if got := retryAfter([]string{in}); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	if retryAfter(nil) != 0 || retryAfter([]string{"1", "2"}) != 0 {
		t.Error("it is read although it is not there once")
	}
}

func TestConsumersOfDifferentTriggersHaveDifferentNames(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, name := range []string{"a_b_c", "a_bc_", "a__bc", "ab_c_", "a_b_c_topic_x", "a_b_", "9_b_c"} {
		got := consumer(name)
		if was, there := seen[got]; there {
			t.Errorf("%q and %q are both %q", was, name, got)
		}
		seen[got] = name
		for l := range strings.SplitSeq(got, ".") {
			if !function.ValidName(l) {
				t.Errorf("%q becomes %q, whose part %q is no label", name, got, l)
			}
		}
	}
}

package connector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/connector"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

var awsSecrets = map[string]string{"accessKeyId": "AKIATEST", "secretAccessKey": "hushhush"}

func sqsKind(t testing.TB) *connector.Kind {
	t.Helper()
	return kind(t, build(t, "../../../connectors/sqs"), "sqs", nil)
}

func sqsConnection(m *servertest.Moto) object {
	return object{"region": "us-east-1", "endpoint": fmt.Sprintf("http://127.0.0.1:%d", m.Port)}
}

// empty waits until a queue holds nothing, seen or not.
func empty(t testing.TB, m *servertest.Moto, url any) {
	t.Helper()
	err := servertest.Eventually(t.Context(), func(context.Context) error {
		a := m.SQS(t, "GetQueueAttributes", object{"QueueUrl": url, "AttributeNames": []string{"All"}})["Attributes"].(map[string]any)
		if a["ApproximateNumberOfMessages"] != "0" || a["ApproximateNumberOfMessagesNotVisible"] != "0" {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSQSQueue(t *testing.T) {
	t.Parallel()
	m := servertest.StartMoto(t)
	url := m.SQS(t, "CreateQueue", object{"QueueName": "orders"})["QueueUrl"]
	var want []string
	for i := range 45 {
		want = append(want, fmt.Sprintf("order %02d", i))
		m.SQS(t, "SendMessage", object{"QueueUrl": url, "MessageBody": want[i], "MessageAttributes": object{
			"customer": object{"DataType": "String", "StringValue": "7"}, "bin": object{"DataType": "Binary", "BinaryValue": "AP8="},
		}})
	}
	f := servertest.Bind(t, "sqs", object{"queue": "orders", "wait": "1s", "key": "header.customer"}, sqsConnection(m), awsSecrets)
	f.Run(t, sqsKind(t), awsSecrets)
	got := f.Sink.Different(t, len(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	empty(t, m, url)
	e := f.Sink.Events()[0]
	if e.Type != "casemate.queue.message" || e.Subject != "orders" || e.Key != "7" || e.Time.IsZero() || e.Detail["queue.kind"] != "sqs" ||
		e.Detail["sqs.receivecount"] != "1" || e.Detail["header.customer"] != "7" || e.Detail["header.bin.base64"] != "AP8=" ||
		e.Detail["sqs.attribute.SentTimestamp"] == "" || e.Detail["queue.id"] != e.ID {
		t.Errorf("%+v", e)
	}
}

func TestSQSOrderOfGroups(t *testing.T) {
	t.Parallel()
	m := servertest.StartMoto(t)
	url := m.SQS(t, "CreateQueue", object{"QueueName": "orders.fifo", "Attributes": object{"FifoQueue": "true"}})["QueueUrl"]
	for i := range 30 {
		m.SQS(t, "SendMessage", object{
			"QueueUrl": url, "MessageBody": fmt.Sprintf("%d %02d", i%3, i), "MessageGroupId": fmt.Sprint("group", i%3), "MessageDeduplicationId": fmt.Sprint(i),
		})
	}
	f := servertest.Bind(t, "sqs", object{"queue": url, "wait": "1s"}, sqsConnection(m), awsSecrets)
	f.Run(t, sqsKind(t), awsSecrets)
	got := f.Sink.Different(t, 30)
	for g := range 3 {
		var of []string
		for _, d := range got {
			if d[0] == byte('0'+g) {
				of = append(of, d)
			}
		}
		if len(of) != 10 || !slices.IsSorted(of) {
			t.Errorf("group %d came as %q", g, of)
		}
	}
	if e := f.Sink.Events()[0]; e.Key != "group0" || e.Detail["sqs.groupid"] != "group0" {
		t.Errorf("%+v", e)
	}
	empty(t, m, url)
}

// TestSQSMessagesAreKeptWhileTheyWait has the sink take longer than messages stay
// invisible: without being extended they would be received again.
func TestSQSMessagesAreKeptWhileTheyWait(t *testing.T) {
	t.Parallel()
	m := servertest.StartMoto(t)
	url := m.SQS(t, "CreateQueue", object{"QueueName": "orders"})["QueueUrl"]
	f := servertest.Bind(t, "sqs", object{"queue": "orders", "wait": "1s", "visibility": "6s"}, sqsConnection(m), awsSecrets)
	calls := 0
	taken, free := make(chan struct{}), make(chan struct{})
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if calls++; calls == 1 {
			close(taken)
			<-free
		}
		return nil
	})
	m.SQS(t, "SendMessage", object{"QueueUrl": url, "MessageBody": "slow"})
	f.Run(t, sqsKind(t), awsSecrets)
	<-taken
	// Long polls are the clock: eight of one second without a message. Of the six that it is
	// kept for, three are left when it is extended: so late may a slow machine be.
	for range 8 {
		if got := m.SQS(t, "ReceiveMessage", object{"QueueUrl": url, "WaitTimeSeconds": 1, "VisibilityTimeout": 0}); got["Messages"] != nil {
			t.Fatalf("it was given to another: %v", got)
		}
	}
	close(free)
	f.Sink.Different(t, 1)
	empty(t, m, url)
	if n := len(f.Sink.Events()); n != 1 {
		t.Errorf("it came %d times", n)
	}
}

func TestSQSThatFails(t *testing.T) {
	t.Parallel()
	m := servertest.StartMoto(t)
	f := servertest.Bind(t, "sqs", object{"queue": "orders", "wait": "1s"}, sqsConnection(m), awsSecrets)
	f.Run(t, sqsKind(t), awsSecrets)
	f.Health.Wait(t, 0, source.Failing) // there is no such queue
	url := m.SQS(t, "CreateQueue", object{"QueueName": "orders"})["QueueUrl"]
	m.SQS(t, "SendMessage", object{"QueueUrl": url, "MessageBody": "now"})
	f.Sink.Different(t, 1)
	empty(t, m, url)
	m.Kill()
	f.Health.Wait(t, 0, source.Failing)
	m.Restart()
	url = m.SQS(t, "CreateQueue", object{"QueueName": "orders"})["QueueUrl"]
	m.SQS(t, "SendMessage", object{"QueueUrl": url, "MessageBody": "again"})
	f.Sink.Different(t, 2)
}

func TestSQSSettings(t *testing.T) {
	t.Parallel()
	k := sqsKind(t)
	var fe *source.FieldError
	for raw, field := range map[string]string{
		`{}`: "queue", `{"queue":"a b"}`: "queue", `{"queue":"https://u:p@h/1/q"}`: "queue", `{"queue":"q","visibility":"1s"}`: "visibility", `{"queue":"q","wait":"30s"}`: "wait",
	} {
		if err := k.Check(&function.Trigger{Connection: "far", Settings: []byte(raw)}); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", raw, err)
		}
	}
	both := []string{"accessKeyId", "secretAccessKey"}
	for raw, field := range map[string]string{
		`{}`: "region", `{"region":"us-east-1","endpoint":"http://example.com"}`: "endpoint", `{"region":"us-east-1","secretAccessKey":"x"}`: "secretAccessKey",
		`{"region":"us-east-1"}`: "",
	} {
		err := k.CheckConnection([]byte(raw), both)
		if field == "" && err == nil {
			continue
		}
		if !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if err := k.CheckConnection([]byte(`{"region":"us-east-1"}`), both[:1]); !errors.As(err, &fe) {
		t.Errorf("got %v", err)
	}
}

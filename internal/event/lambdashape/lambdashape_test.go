package lambdashape_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/lambdashape"
)

var when = time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)

func message(id, kind, data string, detail map[string]string) *event.Message {
	return &event.Message{
		Event:  event.Event{ID: id, Source: "/namespaces/shop/functions/f/triggers/in", Type: kind, Time: when, DataContentType: "application/json", Extensions: map[string]string{}},
		Data:   []byte(data),
		Detail: detail,
	}
}

func with(m *event.Message, change func(*event.Message)) *event.Message {
	change(m)
	return m
}

// The expectations are AWS's documented examples with our values in their places.
func TestShapes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		messages []*event.Message
		want     string
	}{
		"SQS": {
			[]*event.Message{with(message("m-1", "casemate.queue.message", `Test message.`, map[string]string{
				"queue.kind": "sqs", "queue.name": "my-queue", "sqs.receivecount": "3", "sqs.groupid": "g", "header.Attr": "v", "header.bin.base64": "AQI=",
				"sqs.attribute.SenderId": "AIDAIENQZJOLO23YVJ4VO", "sqs.attribute.SentTimestamp": "1523232000000", "sqs.attribute.ApproximateFirstReceiveTimestamp": "1523232000001",
				"sqs.attribute.ApproximateReceiveCount": "3", "sqs.attribute.MessageGroupId": "g", "sqs.attribute.MessageDeduplicationId": "d", "sqs.attribute.SequenceNumber": "18849496460467696128",
			}), func(m *event.Message) { m.Extensions["sequence"] = "7" })},
			`{"Records":[{"messageId":"m-1","receiptHandle":"m-1","body":"Test message.","attributes":{"ApproximateReceiveCount":"3","SentTimestamp":"1523232000000","SenderId":"AIDAIENQZJOLO23YVJ4VO","ApproximateFirstReceiveTimestamp":"1523232000001","MessageGroupId":"g","MessageDeduplicationId":"d","SequenceNumber":"18849496460467696128"},
			"messageAttributes":{"Attr":{"stringValue":"v","stringListValues":[],"binaryListValues":[],"dataType":"String"},"bin":{"binaryValue":"AQI=","stringListValues":[],"binaryListValues":[],"dataType":"Binary"}},
			"md5OfBody":"e4e68fb7bd0e697a0ae8f1bb342846b3","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:xx-local-1:000000000000:my-queue","awsRegion":"xx-local-1"}]}`,
		},
		"a body that is no text": {
			[]*event.Message{message("m-1", "casemate.queue.message", "\xff", map[string]string{"queue.kind": "redis", "queue.name": "s"})},
			`{"Records":[{"messageId":"m-1","receiptHandle":"m-1","body":"/w==","attributes":{"ApproximateReceiveCount":"1","SentTimestamp":"1772366400123","SenderId":"000000000000","ApproximateFirstReceiveTimestamp":"1772366400123"},
			"messageAttributes":{"casemate.bodyEncoding":{"stringValue":"base64","stringListValues":[],"binaryListValues":[],"dataType":"String"}},
			"md5OfBody":"4f62884dacaff2ca74aafd10a7f5a7ae","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:xx-local-1:000000000000:s","awsRegion":"xx-local-1"}]}`,
		},
		"Kafka": {
			[]*event.Message{
				message("k-1", "casemate.queue.message", "Hello", map[string]string{"queue.kind": "kafka", "queue.name": "mytopic", "kafka.partition": "0", "kafka.offset": "15", "kafka.timestamp": "1545084650987", "kafka.key": "cmVjb3JkS2V5", "header.headerKey": "header", "header.raw.base64": "dtwAf4A="}),
				message("k-2", "casemate.queue.message", "x", map[string]string{"queue.kind": "kafka", "queue.name": "mytopic", "kafka.partition": "1", "kafka.offset": "7"}),
			},
			`{"eventSource":"SelfManagedKafka","bootstrapServers":"","records":{
			"mytopic-0":[{"topic":"mytopic","partition":0,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","key":"cmVjb3JkS2V5","value":"SGVsbG8=","headers":[{"headerKey":[104,101,97,100,101,114]},{"raw":[118,-36,0,127,-128]}]}],
			"mytopic-1":[{"topic":"mytopic","partition":1,"offset":7,"timestamp":1772366400123,"timestampType":"CREATE_TIME","value":"eA==","headers":[]}]}}`,
		},
		"RabbitMQ": {
			[]*event.Message{message("r-1", "casemate.queue.message", `{"timeout":0}`, map[string]string{"queue.kind": "amqp", "queue.name": "pizzaQueue", "amqp.redelivered": "true", "amqp.property.correlation-id": "c", "amqp.property.priority": "34", "amqp.property.delivery-mode": "1", "amqp.property.timestamp": "1970-01-01T00:33:41Z", "header.header1": "value1"})},
			`{"eventSource":"aws:rmq","eventSourceArn":"arn:aws:mq:xx-local-1:000000000000:broker:casemate","rmqMessagesByQueue":{"pizzaQueue::/":[{"basicProperties":{"contentType":"application/json","contentEncoding":null,"headers":{"header1":{"bytes":[118,97,108,117,101,49]}},"deliveryMode":1,"priority":34,"correlationId":"c","replyTo":null,"expiration":null,"messageId":null,"timestamp":"Jan 1, 1970, 12:33:41 AM","type":null,"userId":null,"appId":null,"clusterId":null,"bodySize":13},"redelivered":true,"data":"eyJ0aW1lb3V0IjowfQ=="}]}}`,
		},
		"S3": {
			[]*event.Message{
				with(message("o-1", "casemate.object.created", `{"bucket":"b","key":"a/Happy Face é.jpg","size":1024,"etag":"\"d41d\"","versionId":"v1","eventTime":"2026-01-02T03:04:05.678Z","operation":"put"}`, nil), func(m *event.Message) { m.Extensions["sequence"] = "255" }),
				with(message("o-2", "casemate.object.removed", `{"bucket":"b","key":"k","size":9,"operation":"delete-marker"}`, nil), func(m *event.Message) { m.Extensions["sequence"] = "256"; m.Extensions["principal"] = "key:a" }),
			},
			`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"xx-local-1","eventTime":"2026-01-02T03:04:05.678Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"AWS:000000000000"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"x-amz-request-id":"o-1","x-amz-id-2":"o-1"},
			"s3":{"s3SchemaVersion":"1.0","configurationId":"/namespaces/shop/functions/f/triggers/in","bucket":{"name":"b","ownerIdentity":{"principalId":"000000000000"},"arn":"arn:aws:s3:::b"},"object":{"key":"a/Happy+Face+%C3%A9.jpg","size":1024,"eTag":"d41d","versionId":"v1","sequencer":"00000000000000FF"}}},
			{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"xx-local-1","eventTime":"2026-03-01T12:00:00.123Z","eventName":"ObjectRemoved:DeleteMarkerCreated","userIdentity":{"principalId":"AWS:key:a"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"x-amz-request-id":"o-2","x-amz-id-2":"o-2"},
			"s3":{"s3SchemaVersion":"1.0","configurationId":"/namespaces/shop/functions/f/triggers/in","bucket":{"name":"b","ownerIdentity":{"principalId":"000000000000"},"arn":"arn:aws:s3:::b"},"object":{"key":"k","sequencer":"0000000000000100"}}}]}`,
		},
		"PostgreSQL": {
			[]*event.Message{with(message("p-1", "casemate.postgres.update", `{"schema":"public","table":"t","operation":"update","key":{"id":101},"new":{"id":101,"name":"x","ok":true,"tags":["a"],"doc":{"n":1.50},"none":null},"old":{"id":101,"name":"w"}}`, nil), func(m *event.Message) { m.Subject = "public.t"; m.Extensions["sequence"] = "111" })},
			`{"Records":[{"eventID":"p-1","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"xx-local-1","eventName":"MODIFY","eventSourceARN":"arn:aws:dynamodb:xx-local-1:000000000000:table/public.t/stream/casemate","dynamodb":{"ApproximateCreationDateTime":1772366400,"Keys":{"id":{"N":"101"}},
			"NewImage":{"id":{"N":"101"},"name":{"S":"x"},"ok":{"BOOL":true},"tags":{"L":[{"S":"a"}]},"doc":{"M":{"n":{"N":"1.50"}}},"none":{"NULL":true}},"OldImage":{"id":{"N":"101"},"name":{"S":"w"}},"SequenceNumber":"111","SizeBytes":177,"StreamViewType":"NEW_AND_OLD_IMAGES"}}]}`,
		},
		"KV": {
			[]*event.Message{with(message("v-1", "casemate.kv.put", `{"bucket":"b","key":"k","operation":"put","value":"AQI=","revision":1}`, nil), func(m *event.Message) { m.Extensions["sequence"] = "1" })},
			`{"Records":[{"eventID":"v-1","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"xx-local-1","eventName":"INSERT","eventSourceARN":"arn:aws:dynamodb:xx-local-1:000000000000:table/b/stream/casemate","dynamodb":{"ApproximateCreationDateTime":1772366400,"Keys":{"key":{"S":"k"}},"NewImage":{"key":{"S":"k"},"value":{"B":"AQI="},"revision":{"N":"1"}},"SequenceNumber":"1","SizeBytes":70,"StreamViewType":"NEW_AND_OLD_IMAGES"}}]}`,
		},
		"schedule": {
			[]*event.Message{with(message("2026-03-01T12:00:00Z", "casemate.schedule.fired", `{}`, nil), func(m *event.Message) { m.Subject = "nightly" })},
			`{"version":"0","id":"0","detail-type":"Scheduled Event","source":"aws.events","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":["arn:aws:events:xx-local-1:000000000000:rule/nightly"],"detail":{}}`,
		},
		"an event of one's own": {
			[]*event.Message{message("1", "com.example.order", `{"n":1}`, nil)},
			`{"version":"0","id":"0","detail-type":"com.example.order","source":"/namespaces/shop/functions/f/triggers/in","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":[],"detail":{"n":1}}`,
		},
		"several, of all forms": {
			[]*event.Message{message("1", "a", `[1]`, nil), message("2", "b", `text`, nil), message("3", "c", "\xff", nil), message("4", "casemate.object.created", "", nil)},
			`[{"version":"0","id":"0","detail-type":"a","source":"/namespaces/shop/functions/f/triggers/in","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":[],"detail":{"data":[1]}},
			{"version":"0","id":"0","detail-type":"b","source":"/namespaces/shop/functions/f/triggers/in","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":[],"detail":{"data":"text"}},
			{"version":"0","id":"0","detail-type":"c","source":"/namespaces/shop/functions/f/triggers/in","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":[],"detail":{"data_base64":"/w=="}},
			{"version":"0","id":"0","detail-type":"casemate.object.created","source":"/namespaces/shop/functions/f/triggers/in","account":"000000000000","time":"2026-03-01T12:00:00Z","region":"xx-local-1","resources":[],"detail":{}}]`,
		},
	} {
		raw, err := lambdashape.Marshal(c.messages)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got, want any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if blank(got); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %s", name, raw)
		}
	}
	if _, err := lambdashape.Marshal(nil); err == nil {
		t.Error("no events were written")
	}
	if _, err := lambdashape.Marshal([]*event.Message{message("1", "casemate.object.created", "x", nil)}); err == nil {
		t.Error("data of another form was written")
	}
}

// blank checks the form of EventBridge's ids and takes them out.
func blank(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			blank(e)
		}
	case map[string]any:
		if id, ok := v["id"].(string); ok && v["version"] == "0" && len(id) == 36 {
			v["id"] = "0"
		}
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	batch := func(kind string) []*event.Message {
		var ms []*event.Message
		for i, id := range []string{"a", "b", "c"} {
			ms = append(ms, message(id, "casemate.queue.message", "{}", map[string]string{"queue.kind": kind, "queue.name": "t", "kafka.partition": "0", "kafka.offset": string(rune('5' + i))}))
		}
		return ms
	}
	rows := []*event.Message{message("a", "casemate.kv.put", "{}", nil), message("b", "casemate.kv.put", "{}", nil)}
	rows[0].Extensions["sequence"], rows[1].Extensions["sequence"] = "10", "11"
	all := []string{"a", "b", "c"}
	for _, c := range []struct {
		messages []*event.Message
		answer   string
		want     []string
	}{
		{batch("sqs"), `{"batchItemFailures":[{"itemIdentifier":"b"}]}`, []string{"b"}},
		{batch("sqs"), `{"batchItemFailures":[{"itemIdentifier":"c"},{"itemIdentifier":"a"},{"itemIdentifier":"a"}]}`, []string{"a", "c"}},
		{batch("sqs"), `{"batchItemFailures":[]}`, nil},
		{batch("sqs"), `{"batchItemFailures":null}`, nil},
		{batch("sqs"), `{}`, nil},
		{batch("sqs"), `null`, nil},
		{batch("sqs"), ``, nil},
		{batch("sqs"), `"done"`, nil},
		{batch("sqs"), `{"batchItemFailures":[{"itemIdentifier":"z"}]}`, all},
		{batch("sqs"), `{"batchItemFailures":[{"itemIdentifier":""}]}`, all},
		{batch("sqs"), `{"batchItemFailures":[{"itemIdentifier":null}]}`, all},
		{batch("sqs"), `{"batchItemFailures":[{"id":"a"}]}`, all},
		{batch("sqs"), `{"batchItemFailures":"a"}`, all},
		{batch("kafka"), `{"batchItemFailures":[{"itemIdentifier":"t-0-6"}]}`, []string{"b", "c"}},
		{batch("kafka"), `{"batchItemFailures":[{"itemIdentifier":"c"}]}`, []string{"c"}},
		{rows, `{"batchItemFailures":[{"itemIdentifier":"11"}]}`, []string{"b"}},
		{rows, `{"batchItemFailures":[{"itemIdentifier":"10"}]}`, []string{"a", "b"}},
	} {
		if got := lambdashape.Failed(c.messages, []byte(c.answer)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.answer, got, c.want)
		}
	}
}

package lambdashape

import (
	"crypto/md5" //nolint:gosec // the field md5OfBody is MD5; nothing relies on it
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

type sqsRecord struct {
	MessageID         string                  `json:"messageId"`
	ReceiptHandle     string                  `json:"receiptHandle"`
	Body              string                  `json:"body"`
	Attributes        map[string]string       `json:"attributes"`
	MessageAttributes map[string]sqsAttribute `json:"messageAttributes"`
	MD5OfBody         string                  `json:"md5OfBody"`
	EventSource       string                  `json:"eventSource"`
	EventSourceARN    string                  `json:"eventSourceARN"`
	AWSRegion         string                  `json:"awsRegion"`
}

type sqsAttribute struct {
	StringValue      *string  `json:"stringValue,omitempty"`
	BinaryValue      []byte   `json:"binaryValue,omitempty"`
	StringListValues []string `json:"stringListValues"`
	BinaryListValues [][]byte `json:"binaryListValues"`
	DataType         string   `json:"dataType"`
}

// bodyEncoding is the message attribute that a body has which SQS could not carry.
const bodyEncoding = "casemate.bodyEncoding"

func sqsEvent(ms []*event.Message) any {
	records := make([]sqsRecord, len(ms))
	for i, m := range ms {
		name := m.Detail["queue.name"]
		sent := strconv.FormatInt(m.Time.UnixMilli(), 10)
		r := sqsRecord{
			MessageID: m.ID, ReceiptHandle: m.ID, Body: string(m.Data), EventSource: "aws:sqs",
			EventSourceARN: arn("sqs", name), AWSRegion: function.Region,
			Attributes: map[string]string{
				"ApproximateReceiveCount":          "1",
				"SentTimestamp":                    sent,
				"SenderId":                         function.Account,
				"ApproximateFirstReceiveTimestamp": sent,
			},
			MessageAttributes: map[string]sqsAttribute{},
		}
		if n := m.Extensions["sequence"]; n != "" {
			r.Attributes["SequenceNumber"] = n
		}
		// What SQS itself says of its message; a sender's attributes are beside it.
		for _, h := range headers(m, "sqs.attribute.") {
			r.Attributes[h.name] = string(h.value)
		}
		for _, n := range []string{m.Detail["sqs.receivecount"], m.Extensions["attempt"]} {
			if n != "" {
				r.Attributes["ApproximateReceiveCount"] = n
			}
		}
		group := m.Detail["sqs.groupid"]
		if group == "" {
			group = m.Key
		}
		if group != "" {
			r.Attributes["MessageGroupId"] = group
		}
		for _, h := range headers(m, "header.") {
			r.MessageAttributes[h.name] = attribute(h)
		}
		if !utf8.Valid(m.Data) {
			r.Body = base64.StdEncoding.EncodeToString(m.Data)
			r.MessageAttributes[bodyEncoding] = attribute(header{value: []byte("base64")})
		}
		sum := md5.Sum([]byte(r.Body)) //nolint:gosec // as above
		r.MD5OfBody = hex.EncodeToString(sum[:])
		records[i] = r
	}
	return map[string]any{"Records": records}
}

func attribute(h header) sqsAttribute {
	a := sqsAttribute{StringListValues: []string{}, BinaryListValues: [][]byte{}, DataType: "String"}
	if h.binary {
		a.BinaryValue, a.DataType = h.value, "Binary"
	} else {
		text := string(h.value)
		a.StringValue = &text
	}
	return a
}

type kafkaRecord struct {
	Topic         string             `json:"topic"`
	Partition     int64              `json:"partition"`
	Offset        int64              `json:"offset"`
	Timestamp     int64              `json:"timestamp"`
	TimestampType string             `json:"timestampType"`
	Key           string             `json:"key,omitempty"`
	Value         []byte             `json:"value"`
	Headers       []map[string][]int `json:"headers"`
}

func kafkaEvent(ms []*event.Message) any {
	records := map[string][]kafkaRecord{}
	for _, m := range ms {
		topic := m.Detail["queue.name"]
		r := kafkaRecord{
			Topic: topic, Partition: number(m.Detail["kafka.partition"]), Offset: number(m.Detail["kafka.offset"]),
			Timestamp: m.Time.UnixMilli(), TimestampType: "CREATE_TIME", Value: m.Data, Headers: []map[string][]int{},
		}
		if ms := m.Detail["kafka.timestamp"]; ms != "" {
			r.Timestamp = number(ms)
		}
		for _, name := range []string{"kafka.key", "kafka.key.base64"} {
			if key := m.Detail[name]; key != "" {
				r.Key = key // in base64, as it is in the detail
			}
		}
		for _, h := range headers(m, "header.") {
			r.Headers = append(r.Headers, map[string][]int{h.name: signed(h.value)})
		}
		at := topic + "-" + strconv.FormatInt(r.Partition, 10)
		records[at] = append(records[at], r)
	}
	return map[string]any{"eventSource": "SelfManagedKafka", "bootstrapServers": "", "records": records}
}

// signed gives bytes as Java has them.
func signed(b []byte) []int {
	out := make([]int, len(b))
	for i, c := range b {
		out[i] = int(int8(c))
	}
	return out
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

type rabbitMessage struct {
	BasicProperties map[string]any `json:"basicProperties"`
	Redelivered     bool           `json:"redelivered"`
	Data            []byte         `json:"data"`
}

func rabbitEvent(ms []*event.Message) any {
	queues := map[string][]rabbitMessage{}
	for _, m := range ms {
		properties := map[string]string{}
		for _, h := range headers(m, "amqp.property.") {
			properties[strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(h.name))] = string(h.value)
		}
		heads := map[string]any{}
		for _, h := range headers(m, "header.") {
			heads[h.name] = map[string]any{"bytes": signed(h.value)}
		}
		text := func(name string) any {
			if v, ok := properties[name]; ok {
				return v
			}
			return nil
		}
		kind := text("contenttype")
		if kind == nil && m.DataContentType != "" {
			kind = m.DataContentType
		}
		vhost := m.Detail["amqp.vhost"]
		if vhost == "" {
			vhost = "/"
		}
		at := m.Detail["queue.name"] + "::" + vhost
		queues[at] = append(queues[at], rabbitMessage{
			Redelivered: m.Detail["amqp.redelivered"] == "true", Data: m.Data,
			BasicProperties: map[string]any{
				"contentType": kind, "contentEncoding": text("contentencoding"), "headers": heads,
				"deliveryMode": number(properties["deliverymode"]), "priority": number(properties["priority"]),
				"correlationId": text("correlationid"), "replyTo": text("replyto"), "expiration": text("expiration"),
				"messageId": text("messageid"), "timestamp": rabbitTime(properties["timestamp"]), "type": text("type"),
				"userId": text("userid"), "appId": text("appid"), "clusterId": text("clusterid"), "bodySize": len(m.Data),
			},
		})
	}
	return map[string]any{"eventSource": "aws:rmq", "eventSourceArn": arn("mq", "broker:casemate"), "rmqMessagesByQueue": queues}
}

// rabbitTime writes a time the way that AWS's Java does, for want of a better one.
func rabbitTime(s string) any {
	if s == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return s
		}
		t = time.Unix(n, 0)
	}
	return t.UTC().Format("Jan 2, 2006, 3:04:05 PM")
}

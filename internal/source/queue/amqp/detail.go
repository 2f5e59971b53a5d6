package amqp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"
	"time"

	client "github.com/rabbitmq/amqp091-go"

	"github.com/casemate-dev/casemate/internal/source/queue"
)

// detail is what a delivery says beyond its body.
func detail(d client.Delivery, name, id string) []queue.Entry {
	entries := []queue.Entry{
		queue.Text("queue.kind", "amqp"),
		queue.Text("queue.name", name),
		queue.Text("queue.id", id),
		queue.Text("amqp.exchange", d.Exchange),
		queue.Text("amqp.routingkey", d.RoutingKey),
		queue.Text("amqp.redelivered", strconv.FormatBool(d.Redelivered)),
	}
	for _, p := range properties(d) {
		if len(p.Value) > 0 {
			p.Name = "amqp.property." + p.Name
			entries = append(entries, p)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(d.Headers)) {
		entries = append(entries, queue.Entry{Name: "header." + k, Value: value(d.Headers[k])})
	}
	return entries
}

// properties of basic (AMQP 0-9-1, section 1.8.2), always the same ones in one order.
func properties(d client.Delivery) []queue.Entry {
	number := func(n uint8) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(int(n))
	}
	when := ""
	if !d.Timestamp.IsZero() {
		when = strconv.FormatInt(d.Timestamp.Unix(), 10)
	}
	return []queue.Entry{
		queue.Text("content-type", d.ContentType),
		queue.Text("content-encoding", d.ContentEncoding),
		queue.Text("delivery-mode", number(d.DeliveryMode)),
		queue.Text("priority", number(d.Priority)),
		queue.Text("correlation-id", d.CorrelationId),
		queue.Text("reply-to", d.ReplyTo),
		queue.Text("expiration", d.Expiration),
		queue.Text("message-id", d.MessageId),
		queue.Text("timestamp", when),
		queue.Text("type", d.Type),
		queue.Text("user-id", d.UserId),
		queue.Text("app-id", d.AppId),
	}
}

// value is a header's value as text, or as the bytes that it is; tables and lists are JSON.
func value(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case []byte:
		return v
	case string:
		return []byte(v)
	case time.Time:
		return v.UTC().AppendFormat(nil, time.RFC3339)
	case client.Table, []any:
		if b, err := json.Marshal(v); err == nil {
			return b
		}
	}
	return fmt.Append(nil, v)
}

// content is a digest of the routing key, the properties, the headers and the body. It has
// nothing of the delivery: that it comes again, or how often, changes nothing.
func content(d client.Delivery) string {
	h := sha256.New()
	part(h, []byte(d.Exchange))
	part(h, []byte(d.RoutingKey))
	for _, p := range properties(d) {
		part(h, p.Value)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Headers)) {
		if k == "x-delivery-count" { // a quorum queue counts deliveries in it
			continue
		}
		part(h, []byte(k))
		part(h, value(d.Headers[k]))
	}
	part(h, d.Body)
	return "sha256-" + hex.EncodeToString(h.Sum(nil))
}

// part writes b so that it cannot run into its neighbours.
func part(h hash.Hash, b []byte) {
	_, _ = fmt.Fprintf(h, "%d:", len(b))
	_, _ = h.Write(b)
}

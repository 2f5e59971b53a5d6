package main

import (
	"context"
	"encoding/json"
)

func main() { Serve(receive) }

// payment is the data of a com.example.order.paid event.
type payment struct {
	Order  string `json:"order"`
	Amount int64  `json:"amountCents"`
}

// receive takes one CloudEvent in HTTP binary mode: its attributes are ce- headers,
// its data is the body. An event may be delivered more than once; whoever acts on
// it must do so once for each source and id.
func receive(_ context.Context, r *Request) (*Response, error) {
	for _, name := range []string{"ce-specversion", "ce-id", "ce-source", "ce-type"} {
		if r.Header(name) == "" {
			return JSON(400, map[string]string{"error": "the header " + name + " is missing"})
		}
	}
	if v := r.Header("ce-specversion"); v != "1.0" {
		return JSON(400, map[string]string{"error": "CloudEvents 1.0 is what this function takes"})
	}
	id, kind := r.Header("ce-id"), r.Header("ce-type")
	println("event", id, "of type", kind, "from", r.Header("ce-source"))

	switch kind {
	case "com.example.order.paid":
		var p payment
		if err := json.Unmarshal(r.Body, &p); err != nil || p.Order == "" || p.Amount <= 0 {
			return JSON(422, map[string]string{"error": "the data is not a payment"})
		}
		return JSON(200, map[string]any{"event": id, "action": "ship", "order": p.Order, "amountCents": p.Amount})
	default:
		// Accepted, so that the sender does not retry what nobody here wants.
		return JSON(202, map[string]string{"event": id, "action": "none"})
	}
}

package main

import (
	"context"
	"testing"
)

func event(kind, data string) *Request {
	return &Request{
		Headers: map[string][]string{
			"ce-specversion": {"1.0"}, "ce-id": {"e-1"}, "ce-source": {"/shop"}, "ce-type": {kind},
		},
		Body: []byte(data),
	}
}

func TestReceive(t *testing.T) {
	noID := event("com.example.order.paid", `{}`)
	delete(noID.Headers, "ce-id")
	future := event("com.example.order.paid", `{}`)
	future.Headers["ce-specversion"] = []string{"2.0"}

	tests := map[string]struct {
		in     *Request
		status int
		body   string
	}{
		"paid":      {event("com.example.order.paid", `{"order":"o-7","amountCents":4325}`), 200, `{"action":"ship","amountCents":4325,"event":"e-1","order":"o-7"}`},
		"no amount": {event("com.example.order.paid", `{"order":"o-7"}`), 422, `{"error":"the data is not a payment"}`},
		"unwanted":  {event("com.example.order.viewed", ``), 202, `{"action":"none","event":"e-1"}`},
		"no id":     {noID, 400, `{"error":"the header ce-id is missing"}`},
		"future":    {future, 400, `{"error":"CloudEvents 1.0 is what this function takes"}`},
	}
	for name, tt := range tests {
		got, err := receive(context.Background(), tt.in)
		if err != nil || got.Status != tt.status || string(got.Body) != tt.body+"\n" {
			t.Errorf("%s: got %d %s, %v, want %d %s", name, got.Status, got.Body, err, tt.status, tt.body)
		}
	}
}

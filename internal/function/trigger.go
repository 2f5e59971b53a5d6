package function

import (
	"encoding/json"
	"net/http"
	"time"
)

// Bounds on triggers and on how they deliver.
const (
	MaxTriggers             = 50 // of one function
	DefaultAttempts         = 5
	MaxAttempts             = 100
	DefaultEventAge         = 6 * time.Hour
	MaxEventAge             = 7 * 24 * time.Hour
	DefaultBackoff          = time.Second
	DefaultBackoffMost      = 5 * time.Minute
	MaxBackoff              = time.Hour
	DefaultEventsAtOnce     = 8
	MaxBatch                = 1000
	MaxBatchWindow          = 5 * time.Minute
	MaxDestinations         = 5
	DefaultBacklog          = 1_000_000 // events that wait for one trigger
	MaxTriggerSchema        = 64 << 10  // bytes
	MaxTriggerSettings      = 64 << 10  // bytes
	MaxChainDepth           = 16        // events that functions set off, one by another
	MaxEventRate        int = 100_000   // per second
)

// Trigger binds a source of events to a function. It belongs to a version; the one that
// the alias live points at is in force.
type Trigger struct {
	Name       string          `json:"name"`                 // unique in the function
	Kind       string          `json:"kind"`                 // schedule, webhook, topic, …
	Connection string          `json:"connection,omitempty"` // of the function's own namespace
	Settings   json.RawMessage `json:"settings,omitempty"`   // a JSON object; its fields are the kind's
	Schema     json.RawMessage `json:"schema,omitempty"`     // JSON Schema 2020-12 for the data
	NoSchema   string          `json:"noSchema,omitempty"`   // or the reason why there is none
	Delivery   Delivery        `json:"delivery"`
}

// KindWebhook is the kind of the triggers that the gateway has a route for: the field
// path of their settings.
const KindWebhook = "webhook"

// Route gives the route of a webhook trigger, and false for one of another kind.
func (t *Trigger) Route() (HTTPTrigger, bool) {
	if t.Kind != KindWebhook {
		return HTTPTrigger{}, false
	}
	var s struct {
		Path string `json:"path"`
	}
	// Settings that are no object have no path, and a route without one is refused.
	_ = json.Unmarshal(t.Settings, &s)
	return HTTPTrigger{Method: http.MethodPost, Path: s.Path, BodyLimit: MaxBodyLimit, Webhook: t.Name}, true
}

// Routes gives all routes: those of the function's own, and those of its webhooks.
func (c *Config) Routes() []HTTPTrigger {
	routes := c.HTTP
	for i := range c.Triggers {
		if r, ok := c.Triggers[i].Route(); ok {
			routes = append(routes[:len(routes):len(routes)], r)
		}
	}
	return routes
}

// Delivery says how the events of a trigger reach the function.
type Delivery struct {
	Concurrency int           `json:"concurrency"`                // events (or batches) under way at once
	Rate        int           `json:"rate,omitempty"`             // begun per second; 0 for no bound
	Ordered     bool          `json:"ordered,omitempty"`          // events of one key one after another
	Attempts    int           `json:"attempts"`                   // before the event is a dead letter
	MaxAge      time.Duration `json:"maxAgeNanos"`                // the same
	Backoff     time.Duration `json:"backoffNanos"`               // before the second attempt; it doubles
	BackoffMost time.Duration `json:"backoffMostNanos"`           //
	Backlog     int           `json:"backlog"`                    // more waiting events are refused at the source
	Batch       int           `json:"batch,omitempty"`            // most events of one invocation; 0 and 1: no batches
	BatchWindow time.Duration `json:"batchWindowNanos,omitempty"` // how long a batch waits to fill
	OnSuccess   []Destination `json:"onSuccess,omitempty"`
	OnFailure   []Destination `json:"onFailure,omitempty"`
	// Reply is the topic for the events that the function answers with, when its answer is
	// one of CloudEvents' forms over HTTP. None when empty.
	Reply string `json:"reply,omitempty"`
}

// Destination is where the outcome of an event goes: one of them is set.
type Destination struct {
	Function string `json:"function,omitempty"` // of the same namespace
	Topic    string `json:"topic,omitempty"`    // of the same namespace
	Webhook  string `json:"webhook,omitempty"`  // a connection of kind webhook
}

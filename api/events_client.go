package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

func triggerPath(ns, fn, trigger string, more ...string) string {
	if trigger == "" {
		trigger = AsyncTrigger
	}
	return path(append([]string{"namespaces", ns, "functions", fn, "triggers", trigger}, more...)...)
}

// Triggers says how the triggers of a namespace are doing, or those of one function.
func (c *Client) Triggers(ctx context.Context, ns, fn string) ([]TriggerStatus, error) {
	return fetchList[TriggerStatus](ctx, c, path("namespaces", ns, "triggers")+query("function", fn))
}

// SetTrigger pauses or resumes a trigger; the empty name is that of the function's
// asynchronous invocations.
func (c *Client) SetTrigger(ctx context.Context, ns, fn, trigger string, in SetTrigger) (*TriggerStatus, error) {
	return fetch[TriggerStatus](ctx, c, http.MethodPut, triggerPath(ns, fn, trigger), in)
}

// Events lists the newest events of a query.
func (c *Client) Events(ctx context.Context, ns string, q EventQuery) (*EventList, error) {
	return fetch[EventList](ctx, c, http.MethodGet, path("namespaces", ns, "events")+query(q.pairs("limit", q.Limit)...), nil)
}

// TailEvents follows the events of a query as they are stored, with the last Tail of the
// past ones first. The range ends as that of Logs does.
func (c *Client) TailEvents(ctx context.Context, ns string, q EventQuery) iter.Seq2[EventRecord, error] {
	return func(yield func(EventRecord, error) bool) {
		q.Since, q.Until = time.Time{}, time.Time{}
		for el, err := range streamOf[EventElement](ctx, c, "events", path("namespaces", ns, "event-stream")+query(q.pairs("tail", q.Tail)...)) {
			if err == nil && el.Error != nil {
				yield(EventRecord{}, &Error{Details: *el.Error})
				return
			}
			if !yield(el.EventRecord, err) || err != nil {
				return
			}
		}
	}
}

// Event tells the story of one event, by its id or by its sequence. Data is shown only to
// keys that may deploy there.
func (c *Client) Event(ctx context.Context, ns, id string, sequence uint64, data bool) (*EventStory, error) {
	return fetch[EventStory](ctx, c, http.MethodGet, path("namespaces", ns, "event")+query("id", id, "sequence", number(sequence), "data", truth(data)), nil)
}

// Publish stores events in a topic, all or none. They are on disk when it returns.
func (c *Client) Publish(ctx context.Context, ns, topic string, in Publish) ([]Published, error) {
	l, err := fetch[list[Published]](ctx, c, http.MethodPost, path("namespaces", ns, "topics", topic, "events"), in)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// PurgeEvents removes stored events, those that still wait among them.
func (c *Client) PurgeEvents(ctx context.Context, ns string, in PurgeEvents) (*Purged, error) {
	return fetch[Purged](ctx, c, http.MethodPost, path("namespaces", ns, "events", "purge"), in)
}

// Replay begins to have stored events of a trigger run anew.
func (c *Client) Replay(ctx context.Context, ns, fn, trigger string, in Replay) (*ReplayJob, error) {
	return fetch[ReplayJob](ctx, c, http.MethodPost, triggerPath(ns, fn, trigger, "replays"), in)
}

// Replays lists the replays of a namespace, newest first.
func (c *Client) Replays(ctx context.Context, ns string) ([]ReplayJob, error) {
	return fetchList[ReplayJob](ctx, c, path("namespaces", ns, "replays"))
}

// CancelReplay ends a replay. What it has published already is run.
func (c *Client) CancelReplay(ctx context.Context, ns, id string) error {
	return c.call(ctx, http.MethodDelete, path("namespaces", ns, "replays", id), nil, nil)
}

// DeadLetters lists dead letters, newest first.
func (c *Client) DeadLetters(ctx context.Context, ns string, q DeadQuery) (*DeadList, error) {
	return fetch[DeadList](ctx, c, http.MethodGet, path("namespaces", ns, "dead-letters")+query("function", q.Function, "trigger", q.Trigger,
		"webhook", q.Webhook, "reason", q.Reason, "since", instant(q.Since), "until", instant(q.Until), "limit", number(uint64(max(q.Limit, 0)))), nil)
}

// DeadLetter shows one.
func (c *Client) DeadLetter(ctx context.Context, ns string, sequence uint64, data bool) (*DeadLetter, error) {
	return fetch[DeadLetter](ctx, c, http.MethodGet, path("namespaces", ns, "dead-letters", strconv.FormatUint(sequence, 10))+query("data", truth(data)), nil)
}

// RetryDead has dead letters run anew.
func (c *Client) RetryDead(ctx context.Context, ns string, in DeadSelector) (*Retried, error) {
	return fetch[Retried](ctx, c, http.MethodPost, path("namespaces", ns, "dead-letters", "retry"), in)
}

// PurgeDead removes dead letters.
func (c *Client) PurgeDead(ctx context.Context, ns string, in DeadSelector) (*Purged, error) {
	return fetch[Purged](ctx, c, http.MethodPost, path("namespaces", ns, "dead-letters", "purge"), in)
}

// Connections lists the connections of a namespace that the key may see.
func (c *Client) Connections(ctx context.Context, ns string) ([]Connection, error) {
	return fetchList[Connection](ctx, c, path("namespaces", ns, "connections"))
}

// Connection shows one.
func (c *Client) Connection(ctx context.Context, ns, name string) (*Connection, error) {
	return fetch[Connection](ctx, c, http.MethodGet, path("namespaces", ns, "connections", name), nil)
}

// PutConnection makes a connection or replaces it.
func (c *Client) PutConnection(ctx context.Context, ns, name string, in PutConnection) (*Connection, error) {
	return fetch[Connection](ctx, c, http.MethodPut, path("namespaces", ns, "connections", name), in)
}

// DeleteConnection removes a connection; with inUse also one that triggers in force need,
// whose sources then fail.
func (c *Client) DeleteConnection(ctx context.Context, ns, name string, inUse bool) error {
	return c.call(ctx, http.MethodDelete, path("namespaces", ns, "connections", name)+query("inUse", truth(inUse)), nil, nil)
}

// Doctor has the node examine itself. With quick it leaves out reading all events. The
// range ends as that of Logs does.
func (c *Client) Doctor(ctx context.Context, quick bool) iter.Seq2[DoctorElement, error] {
	return func(yield func(DoctorElement, error) bool) {
		for el, err := range streamOf[DoctorElement](ctx, c, "examination", path("doctor")+query("quick", truth(quick))) {
			if err == nil && el.Error != nil {
				err = &Error{Details: *el.Error}
			}
			if !yield(el, err) || err != nil {
				return
			}
		}
	}
}

// pairs gives the query's parameters; the last two are of the operation's own.
func (q *EventQuery) pairs(last string, n int) []string {
	return []string{
		"function", q.Function, "trigger", q.Trigger, "topic", q.Topic, "type", q.Type, "id", q.ID,
		"since", instant(q.Since), "until", instant(q.Until), last, number(uint64(max(n, 0))),
	}
}

// query makes a query string of names and values, those with a value.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func truth(b bool) string {
	if !b {
		return ""
	}
	return "true"
}

package control

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
)

// triggersIn sorts triggers by name, since their order means nothing.
func triggersIn(ts []api.Trigger) []function.Trigger {
	var out []function.Trigger
	for _, t := range ts {
		d := &t.Delivery
		out = append(out, function.Trigger{
			Name: t.Name, Kind: t.Kind, Connection: t.Connection,
			Settings: compact(t.Settings), Schema: compact(t.Schema), NoSchema: t.NoSchema,
			Delivery: function.Delivery{
				Concurrency: d.Concurrency, Rate: d.Rate, Ordered: d.Ordered, Attempts: d.Attempts,
				MaxAge: duration(d.MaxAgeMillis), Backoff: duration(d.BackoffMillis), BackoffMost: duration(d.BackoffMostMillis),
				Backlog: d.Backlog, Batch: d.Batch, BatchWindow: duration(d.BatchWindowMillis),
				OnSuccess: destinationsIn(d.OnSuccess), OnFailure: destinationsIn(d.OnFailure), Reply: d.Reply,
			},
		})
	}
	slices.SortStableFunc(out, func(a, b function.Trigger) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func triggersOut(ts []function.Trigger) []api.Trigger {
	var out []api.Trigger
	for _, t := range ts {
		d := &t.Delivery
		out = append(out, api.Trigger{
			Name: t.Name, Kind: t.Kind, Connection: t.Connection, Settings: t.Settings, Schema: t.Schema, NoSchema: t.NoSchema,
			Delivery: api.Delivery{
				Concurrency: d.Concurrency, Rate: d.Rate, Ordered: d.Ordered, Attempts: d.Attempts,
				MaxAgeMillis: d.MaxAge.Milliseconds(), BackoffMillis: d.Backoff.Milliseconds(), BackoffMostMillis: d.BackoffMost.Milliseconds(),
				Backlog: d.Backlog, Batch: d.Batch, BatchWindowMillis: d.BatchWindow.Milliseconds(),
				OnSuccess: destinationsOut(d.OnSuccess), OnFailure: destinationsOut(d.OnFailure), Reply: d.Reply,
			},
		})
	}
	return out
}

func destinationsIn(ds []api.Destination) []function.Destination {
	var out []function.Destination
	for _, d := range ds {
		out = append(out, function.Destination(d))
	}
	return out
}

func destinationsOut(ds []function.Destination) []api.Destination {
	var out []api.Destination
	for _, d := range ds {
		out = append(out, api.Destination(d))
	}
	return out
}

func duration(millis int64) time.Duration { return time.Duration(millis) * time.Millisecond }

// compact writes JSON in one form, so that blanks do not make another version. What is no
// JSON stays as it is, and is refused by the check of its kind.
func compact(raw json.RawMessage) json.RawMessage {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if len(raw) == 0 || d.Decode(&v) != nil {
		return raw
	}
	b, err := json.Marshal(v)
	if err != nil {
		return raw
	}
	return b
}

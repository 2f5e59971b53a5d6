package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/filter"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/outcome"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/connector"
	"github.com/casemate-dev/casemate/internal/source/database"
	"github.com/casemate-dev/casemate/internal/source/folder"
	kvsource "github.com/casemate-dev/casemate/internal/source/keyvalue"
	"github.com/casemate-dev/casemate/internal/source/outbox"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/queue/amqp"
	"github.com/casemate-dev/casemate/internal/source/queue/kafka"
	"github.com/casemate-dev/casemate/internal/source/queue/mqtt"
	"github.com/casemate-dev/casemate/internal/source/queue/nats"
	"github.com/casemate-dev/casemate/internal/source/schedule"
	"github.com/casemate-dev/casemate/internal/source/webhook"
	"github.com/casemate-dev/casemate/internal/state"
)

// How long events and dead letters are kept, and how much of them. An event that was not
// done within function.MaxEventAge is a dead letter, so none goes before it was
// settled; the day above that is for whoever wants to see what happened.
const (
	eventsMaxAge           = function.MaxEventAge + 24*time.Hour
	eventsMaxBytes   int64 = 16 << 30
	eventsKeep             = time.Hour
	deadsMaxAge            = 90 * 24 * time.Hour
	deadsMaxBytes    int64 = 4 << 30
	outcomesMaxBytes int64 = 8 * outcome.DefaultBytes
	// dedupWindow is how long an event's id is remembered: twice the longest time for
	// which a signed webhook may be valid.
	dedupWindow = 2 * time.Hour
)

// Kinds of sources that the node itself knows by name.
const kindSchedule = "schedule"

// startEvents makes the path of events: from the sources by the intake to the bus, and
// from there by delivery to the functions.
func (n *node) startEvents(ctx context.Context) error {
	var err error
	n.events, err = n.bus.Events(ctx, bus.EventsConfig{
		Name: "events", SubjectPrefix: "event", MaxAge: eventsMaxAge, MaxBytes: eventsMaxBytes, Dedup: dedupWindow, Keep: eventsKeep,
	})
	if err != nil {
		return err
	}
	deads, err := n.bus.Events(ctx, bus.EventsConfig{
		Name: "deads", SubjectPrefix: "dead", MaxAge: deadsMaxAge, MaxBytes: deadsMaxBytes, Dedup: dedupWindow,
	})
	if err != nil {
		return err
	}
	n.deads = deads
	kept, err := n.bus.KV(ctx, "delivery")
	if err != nil {
		return err
	}
	asked, err := n.bus.KV(ctx, "later")
	if err != nil {
		return err
	}
	if n.later, err = openLater(ctx, asked); err != nil {
		return err
	}
	positions, err := n.bus.KV(ctx, "sources")
	if err != nil {
		return err
	}
	named, err := n.bus.KV(ctx, "connections")
	if err != nil {
		return err
	}
	ended, err := n.bus.Events(ctx, bus.EventsConfig{
		Name: "outcomes", SubjectPrefix: "outcome", MaxAge: outcome.MaxWait + 2*outcome.DefaultKeep, MaxBytes: outcomesMaxBytes, Dedup: dedupWindow,
	})
	if err != nil {
		return err
	}
	if n.outcomes, err = outcome.Open(ctx, outcome.Config{Stream: outcomeStream{ended}, Clock: n.clock, Logger: n.log}); err != nil {
		return err
	}
	on := stream{n.events}
	n.delivery, err = delivery.Open(ctx, delivery.Config{
		Events: on, Consumers: on, Deads: stream{deads}, State: kept, Invoke: n.deliver, Send: n.send, Results: results{n.outcomes}, Compile: compileFilter,
		Clock: n.clock, Random: rand.Float64, NewID: n.ids.next, Logger: n.log.With("from", "delivery"),
	})
	if err != nil {
		return err
	}
	n.onStop("end deliveries", n.delivery.Stop)
	n.intake, err = intake.New(intake.Config{
		Stream: arrivals{n.events}, DeadLetters: graves{n.delivery}, Backlog: n.backlog, Clock: n.clock, Logger: n.log.With("door", "intake"),
	})
	if err != nil {
		return err
	}
	n.hooks = &webhook.Hooks{}
	s := &sources{
		intake: n.intake, log: n.log.With("from", "source"), clock: n.clock, running: map[delivery.Key]*running{},
		store: func(k delivery.Key) source.Store {
			return cabinet{positions, "source." + k.Namespace + "." + k.Function + "." + k.Trigger + "."}
		},
	}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.openValues(ctx); err != nil {
		return err
	}
	kinds, err := n.sourceKinds(s)
	if err != nil {
		return err
	}
	n.connections = connection.New(named, kinds, n.clock)
	s.connections = n.connections
	n.sources = s
	// Before deliveries end, since sources hand in until then.
	n.onStop("end the sources", s.close)
	s.work.Go(func() { n.outcomes.Run(s.ctx) })
	s.work.Go(func() { n.values.Run(s.ctx) })
	s.work.Go(func() {
		if err := s.clockwork.Run(s.ctx); err != nil {
			n.log.Error("schedules have stopped", "error", err)
		}
	})
	return nil
}

// sourceKinds fills in the kinds of sources, and gives those of connections.
func (n *node) sourceKinds(s *sources) (connectionKinds, error) {
	s.clockwork = schedule.NewClockwork(n.clock)
	folders, err := folder.New(n.opts.Folders)
	if err != nil {
		return nil, err
	}
	s.kinds = map[string]source.Kind{
		kindSchedule: schedule.Kind{}, function.KindWebhook: n.hooks, "folder": folders, "bucket": n.buckets,
		"nats": nats.Kind{}, "amqp": amqp.Kind{}, "kafka": kafka.Kind{}, "mqtt": mqtt.Kind{},
		kindKeyValue:  kvsource.New(changedValues{n.values}),
		postgres.Name: postgres.New(postgres.Config{}), outbox.Name: outbox.New(),
	}
	connections := connectionKinds{
		function.KindWebhook: n.hooks, "nats": nats.Kind{}, "amqp": amqp.Kind{}, "kafka": kafka.Kind{}, "mqtt": mqtt.Kind{},
		"postgres": database.Connections{Kind: "postgres"}, "mysql": database.Connections{Kind: "mysql"},
		"s3": bucket.ConnectionKind{},
	}
	host, err := connector.New(connector.Config{
		Folders: n.connectorFolders(), Unconfined: n.opts.Unsandboxed, Confine: confine, Filter: n.connectorFilter(),
		Weaker: func(kind string, why error) {
			n.log.Warn("a connector may execute programs of the system's library folders: its filter of system calls could not be put on it once it was executed", "kind", kind, "error", why)
		},
	})
	if err != nil {
		return nil, err
	}
	for _, name := range append(host.Installed(), "redis", "sqs") {
		if s.kinds[name] != nil {
			continue
		}
		k, err := host.Kind(name)
		if err != nil {
			return nil, err
		}
		s.kinds[name], connections[name] = k, k
	}
	return connections, nil
}

// backlog is how many events of a channel wait. Topics and what has no trigger in force
// have none: each subscriber has its own.
func (n *node) backlog(namespace, channel string) (int64, error) {
	k, ok := keyOf(namespace, channel)
	if !ok {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	waiting, err := n.delivery.Backlog(ctx, k)
	if isNotFound(err) {
		return 0, nil
	}
	return waiting, err
}

// keyOf is whose events a channel holds, for those that one trigger alone consumes.
func keyOf(namespace, channel string) (delivery.Key, bool) {
	parts := strings.Split(channel, ".")
	switch {
	case parts[0] == "trigger" && len(parts) == 3:
		return delivery.Key{Namespace: namespace, Function: parts[1], Trigger: parts[2]}, true
	case parts[0] == "async" && len(parts) == 2:
		return delivery.Key{Namespace: namespace, Function: parts[1]}, true
	default:
		return delivery.Key{}, false
	}
}

// followTriggers brings deliveries and sources in line with the registry.
func (n *node) followTriggers(ctx context.Context) error {
	var bindings []delivery.Binding
	var listening []trigger
	functions := n.registry.Functions("")
	later := n.later.among(functions)
	for _, f := range functions {
		if f.Live == nil {
			continue
		}
		if later[f.Ref] {
			bindings = append(bindings, delivery.Binding{Key: delivery.Key{Namespace: f.Ref.Namespace, Function: f.Ref.Name}})
		}
		for _, t := range f.Live.Config.Triggers {
			k := delivery.Key{Namespace: f.Ref.Namespace, Function: f.Ref.Name, Trigger: t.Name}
			b := delivery.Binding{Key: k, Delivery: t.Delivery}
			if t.Kind == kindTopic {
				if err := subscribe(&b, &t); err != nil {
					n.log.Error("subscription not taken over", "trigger", k.String(), "error", err)
					continue
				}
			} else {
				listening = append(listening, trigger{k, t})
			}
			bindings = append(bindings, b)
		}
	}
	// Who takes events from the bus is there before who puts them on it.
	if err := n.delivery.Set(ctx, bindings); err != nil {
		return fmt.Errorf("setting triggers: %w", err)
	}
	n.sources.set(ctx, listening)
	n.forgetDeleted(ctx, bindings)
	return nil
}

// forgetDeleted drops what was kept of functions that are there no more. What a new
// version of a function leaves out is kept, since a rollback may be near.
func (n *node) forgetDeleted(ctx context.Context, now []delivery.Binding) {
	there := map[function.Ref]bool{}
	bound := map[delivery.Key]bool{}
	for _, b := range now {
		there[function.Ref{Namespace: b.Namespace, Name: b.Function}] = true
		bound[b.Key] = true
	}
	for k := range n.bound {
		if there[function.Ref{Namespace: k.Namespace, Name: k.Function}] {
			bound[k] = true
			continue
		}
		if err := n.delivery.Forget(ctx, k); err != nil {
			n.log.Warn("a deleted function's place among the events is kept", "trigger", k.String(), "error", err)
			bound[k] = true // another time
		}
	}
	n.bound = bound
}

// subscribe makes a binding one to a topic.
func subscribe(b *delivery.Binding, t *function.Trigger) error {
	rules, err := intake.NewRules(t)
	if err != nil {
		return err
	}
	_, rest, err := intake.SplitSettings(t.Settings)
	if err != nil {
		return err
	}
	plain := *t
	plain.Settings = rest
	topic, err := topicOf(&plain)
	if err != nil {
		return err
	}
	b.Channel = delivery.TopicChannel(topic)
	b.Filter = rules.Wants
	b.Check = func(m *event.Message) (field, reason string) {
		var invalid *intake.InvalidError
		if errors.As(rules.Check(m), &invalid) {
			return invalid.Field, invalid.Reason
		}
		return "", ""
	}
	return nil
}

// compileFilter is for replays.
func compileFilter(raw json.RawMessage) (func(*event.Message) bool, error) {
	f, err := filter.Compile(raw)
	return f, err
}

func isNotFound(err error) bool { return errors.Is(err, state.ErrNotFound) }
func isConflict(err error) bool { return errors.Is(err, state.ErrConflict) }
func isText(b []byte) bool      { return utf8.Valid(b) }

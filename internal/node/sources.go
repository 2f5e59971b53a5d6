package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/schedule"
)

// How soon a source that failed is run again.
const (
	firstRetry = time.Second
	mostRetry  = time.Minute
)

// kindTopic is the kind of triggers that have no source of their own: they get what is
// published to a topic.
const kindTopic = "topic"

// topicSettings are those of a subscription.
type topicSettings struct {
	Topic string `json:"topic"`
}

// forgetter is a kind that has something to clear away on the far side.
type forgetter interface {
	Forget(ctx context.Context, b source.Binding) error
}

// sources runs the sources of the triggers that are in force.
type sources struct {
	kinds       map[string]source.Kind
	intake      *intake.Intake
	connections *connection.Connections
	clockwork   *schedule.Clockwork
	store       func(delivery.Key) source.Store
	log         *slog.Logger
	clock       func() time.Time
	ctx         context.Context
	end         context.CancelFunc
	work        sync.WaitGroup

	mu      sync.Mutex
	running map[delivery.Key]*running
}

// running is one trigger's source.
type running struct {
	key     delivery.Key
	trigger function.Trigger
	sink    *intake.Sink
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	health source.Health
	since  time.Time
}

func (r *running) report(h source.Health, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.State != r.health.State || h.Reason != r.health.Reason {
		r.since = at
	}
	r.health = h
}

// state gives the last report, and since when the state is as it is.
func (r *running) state() (source.Health, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.health, r.since
}

// trigger is one in force.
type trigger struct {
	key     delivery.Key
	trigger function.Trigger
}

// set runs the sources of these triggers and no others. Those that stay the same go on
// undisturbed.
func (s *sources) set(ctx context.Context, want []trigger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[delivery.Key]bool{}
	var start []trigger
	for _, w := range want {
		if r := s.running[w.key]; r != nil && reflect.DeepEqual(r.trigger, w.trigger) {
			keep[w.key] = true
		} else {
			start = append(start, w)
		}
	}
	var ended []*running
	for k, r := range s.running {
		if !keep[k] {
			r.sink.Close()
			r.cancel()
			ended = append(ended, r)
			delete(s.running, k)
		}
	}
	for _, r := range ended {
		<-r.done // the next of that name must not meet this one
	}
	replaced := map[delivery.Key]function.Trigger{}
	for _, w := range start {
		replaced[w.key] = w.trigger
	}
	for _, r := range ended { // before the next one keeps something under the same name
		if next, there := replaced[r.key]; there && next.Kind == r.trigger.Kind && next.Connection == r.trigger.Connection {
			continue
		}
		s.forget(ctx, r)
	}
	for _, w := range start {
		s.start(w)
	}
}

// bind gives what a source is run with. The trigger's filter is the intake's affair.
func (s *sources) bind(ctx context.Context, k delivery.Key, t function.Trigger, sink source.Sink) (source.Binding, error) {
	_, rest, err := intake.SplitSettings(t.Settings)
	if err != nil {
		return source.Binding{}, err
	}
	t.Settings = rest
	b := source.Binding{
		Ref: function.Ref{Namespace: k.Namespace, Name: k.Function}, Trigger: t, Sink: sink, Store: s.store(k),
		Log: s.log.With("trigger", k.String(), "kind", t.Kind), Clock: s.clock, Report: func(source.Health) {},
	}
	if t.Connection != "" {
		c, err := s.connections.Get(ctx, k.Namespace, t.Connection)
		if err != nil {
			return b, err
		}
		for name := range c.Files { // a source takes one that it cannot read for one that is not there
			if _, err := c.Secret(name); err != nil {
				return b, err
			}
		}
		b.Connection = &source.Connection{
			Namespace: c.Namespace, Name: c.Name, Kind: c.Kind, Settings: c.Settings, Secret: c.Secret,
			Secrets: slices.Sorted(maps.Keys(c.Files)),
		}
	}
	return b, nil
}

func (s *sources) start(w trigger) {
	sink, err := s.intake.For(function.Ref{Namespace: w.key.Namespace, Name: w.key.Function}, &w.trigger)
	if err != nil {
		// It was checked when it was deployed, so this is a defect of ours.
		s.log.Error("trigger not started", "trigger", w.key.String(), "error", err)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := &running{
		key: w.key, trigger: w.trigger, sink: sink, cancel: cancel, done: make(chan struct{}),
		health: source.Health{State: source.Starting, Lag: -1}, since: s.clock(),
	}
	s.running[w.key] = r
	s.work.Go(func() {
		defer close(r.done)
		source.Retry(ctx, firstRetry, mostRetry, s.clock, func(ctx context.Context) error {
			b, err := s.bind(ctx, w.key, w.trigger, sink)
			if err != nil {
				return err
			}
			b.Report = func(h source.Health) { r.report(h, s.clock()) }
			return s.run(ctx, b)
		}, func(err error, pause time.Duration) {
			r.report(source.Health{State: source.Failing, Reason: err.Error(), Lag: -1}, s.clock())
			s.log.Warn("a source failed and is run again", "trigger", w.key.String(), "kind", w.trigger.Kind, "pause", pause, "error", err)
		})
	})
}

// run runs a source until ctx ends. All schedules share one goroutine's time.
func (s *sources) run(ctx context.Context, b source.Binding) error {
	if b.Trigger.Kind == function.KindWebhook {
		b.Sink = offering{b.Sink.(*intake.Sink)}
	}
	if b.Trigger.Kind != kindSchedule {
		return s.kinds[b.Trigger.Kind].Run(ctx, b)
	}
	remove, err := s.clockwork.Add(ctx, b)
	if err != nil {
		return err
	}
	<-ctx.Done()
	remove()
	return nil
}

// offering is a sink for a source whose far side waits for the answer: it is told what is
// wrong, and when to come again.
type offering struct{ sink *intake.Sink }

func (o offering) Accept(ctx context.Context, events []event.Message) error {
	_, err := o.sink.Offer(ctx, events)
	return err
}

// forget clears away what a source that ended has on its far side.
func (s *sources) forget(ctx context.Context, r *running) {
	f, ok := s.kinds[r.trigger.Kind].(forgetter)
	if !ok {
		return
	}
	b, err := s.bind(ctx, r.key, r.trigger, r.sink)
	if err == nil {
		err = f.Forget(ctx, b)
	}
	if err != nil {
		s.log.Error("what a removed trigger had on its far side is still there: remove it by hand", "trigger", r.key.String(), "kind", r.trigger.Kind, "error", err)
	}
}

// health gives the last report of a trigger's source.
func (s *sources) healthOf(k delivery.Key) (source.Health, time.Time, bool) {
	s.mu.Lock()
	r := s.running[k]
	s.mu.Unlock()
	if r == nil {
		return source.Health{}, time.Time{}, false
	}
	h, since := r.state()
	return h, since, true
}

// close ends all sources.
func (s *sources) close(ctx context.Context) error {
	s.end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.work.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check says what is wrong with a function's triggers, who deploys them being who. It
// makes no connection to a far side.
func (s *sources) check(ctx context.Context, who identity.Principal, ref function.Ref, triggers []function.Trigger) *problem.Error {
	if len(triggers) > function.MaxTriggers {
		return problem.New(problem.InvalidManifest, "the function has %d triggers and the most is %d", len(triggers), function.MaxTriggers).At("triggers")
	}
	seen := map[string]bool{}
	for i := range triggers {
		t := &triggers[i]
		at := "triggers." + t.Name
		switch {
		case !function.ValidName(t.Name):
			return problem.New(problem.InvalidManifest, "%.80q cannot name a trigger", t.Name).At("triggers").Fix("Use lower-case letters, digits and hyphens, a letter first.")
		case seen[t.Name]:
			return problem.New(problem.InvalidManifest, "two triggers are named %s", t.Name).At(at)
		case len(t.Settings) > function.MaxTriggerSettings || len(t.Schema) > function.MaxTriggerSchema:
			return problem.New(problem.InvalidManifest, "the trigger's settings or schema are too large").At(at)
		}
		seen[t.Name] = true
		if p := s.checkOne(ctx, who, ref, t, at); p != nil {
			return p
		}
	}
	return nil
}

func (s *sources) checkOne(ctx context.Context, who identity.Principal, ref function.Ref, t *function.Trigger, at string) *problem.Error {
	if _, err := intake.NewRules(t); err != nil {
		return fieldProblem(err, at)
	}
	_, rest, err := intake.SplitSettings(t.Settings)
	if err != nil {
		return fieldProblem(err, at)
	}
	plain := *t
	plain.Settings = rest
	if t.Kind == kindTopic {
		if _, err := topicOf(&plain); err != nil {
			return fieldProblem(err, at+"."+t.Kind)
		}
	} else {
		kind := s.kinds[t.Kind]
		if kind == nil {
			return problem.New(problem.InvalidManifest, "there is no kind of trigger %.40q", t.Kind).At(at).Fix("There are %s.", strings.Join(s.kindNames(), ", "))
		}
		if err := kind.Check(&plain); err != nil {
			return fieldProblem(err, at+"."+t.Kind)
		}
	}
	if err := delivery.CheckBinding(delivery.Binding{
		Key: delivery.Key{Namespace: ref.Namespace, Function: ref.Name, Trigger: t.Name}, Delivery: t.Delivery,
	}); err != nil {
		return problem.New(problem.InvalidManifest, "%v", err).At(at + ".delivery")
	}
	return s.mayDo(ctx, who, ref.Namespace, &plain, at)
}

func fieldProblem(err error, at string) *problem.Error {
	var f *source.FieldError
	if errors.As(err, &f) {
		return problem.New(problem.InvalidManifest, "%s %s", f.Field, f.Reason).At(at + "." + f.Field)
	}
	return problem.New(problem.InvalidManifest, "%v", err).At(at)
}

func (s *sources) kindNames() []string {
	names := []string{kindTopic}
	for name := range s.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// topicOf gives the topic that a trigger subscribes to.
func topicOf(t *function.Trigger) (string, error) {
	var settings topicSettings
	if err := source.Settings(t.Settings, &settings); err != nil {
		return "", err
	}
	if !function.ValidName(settings.Topic) {
		return "", &source.FieldError{Field: "topic", Reason: "must name a topic: lower-case letters, digits and hyphens, a letter first"}
	}
	if t.Connection != "" {
		return "", &source.FieldError{Field: "connection", Reason: "has no place here: topics are the platform's own"}
	}
	return settings.Topic, nil
}

// connectionKinds knows how connections are checked.
type connectionKinds map[string]source.ConnectionKind

// CheckConnection fails with a *connection.FieldError.
func (k connectionKinds) CheckConnection(kind string, settings json.RawMessage, secrets []string) error {
	c := k[kind]
	if c == nil {
		names := make([]string, 0, len(k))
		for name := range k {
			names = append(names, name)
		}
		slices.Sort(names)
		return &connection.FieldError{Field: "kind", Reason: fmt.Sprintf("%.40q is not known: there are %s", kind, strings.Join(names, ", "))}
	}
	err := c.CheckConnection(settings, secrets)
	var f *source.FieldError
	if errors.As(err, &f) {
		return &connection.FieldError{Field: "settings." + f.Field, Reason: f.Reason}
	}
	return err
}

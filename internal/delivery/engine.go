package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
)

// DefaultMemory bounds the events in hand, all triggers together, in bytes.
const DefaultMemory int64 = 256 << 20

// Config is what an Engine is made of. Send, Results, Compile, Logger and Memory may be
// left out; without Send, events for webhooks wait.
type Config struct {
	Events    Stream
	Consumers Consumers // of Events
	Deads     Stream
	State     State // of this engine alone
	Invoke    Invoke
	Send      Send
	Results   Results
	// Compile reads the filter of a replay.
	Compile func(filter json.RawMessage) (func(*event.Message) bool, error)
	Clock   func() time.Time
	Random  func() float64 // uniform in [0, 1)
	NewID   func() string  // unique for ever, of letters, digits and dashes
	Logger  *slog.Logger
	Memory  int64
}

// Engine delivers. Make one with Open.
type Engine struct {
	cfg    Config
	hard   context.Context // ends when nothing may go on
	cut    context.CancelFunc
	soft   context.Context // ends when Stop is called
	ebb    context.CancelFunc
	budget budget
	marks  marks
	nonce  string
	// compactAt is the constant of that name, but in tests.
	compactAt int
	ids       atomic.Uint64
	jobs      jobs
	deads     sync.Mutex // held while dead letters are listed to be changed

	mu       sync.Mutex
	closed   bool
	triggers map[Key]*trigger
	left     map[Key]*trigger // not in force any more; some still end what they had under way
	webhooks map[Key]bool     // triggers that nobody asked for: destinations of others
}

// Open reads what operators have asked for. Nothing runs before Set.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	missing := ""
	switch {
	case cfg.Events == nil:
		missing = "Events"
	case cfg.Consumers == nil:
		missing = "Consumers"
	case cfg.Deads == nil:
		missing = "Deads"
	case cfg.State == nil:
		missing = "State"
	case cfg.Invoke == nil:
		missing = "Invoke"
	case cfg.Clock == nil:
		missing = "Clock"
	case cfg.Random == nil:
		missing = "Random"
	case cfg.NewID == nil:
		missing = "NewID"
	}
	if missing != "" {
		return nil, fmt.Errorf("opening delivery: Config.%s is not set", missing)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	e := &Engine{
		cfg: cfg, nonce: cfg.NewID(), compactAt: compactAt, budget: budget{most: cfg.Memory},
		triggers: map[Key]*trigger{}, left: map[Key]*trigger{}, webhooks: map[Key]bool{},
	}
	if err := e.marks.load(ctx, cfg.State); err != nil {
		return nil, fmt.Errorf("opening delivery: %w", err)
	}
	if err := e.loadJobs(); err != nil {
		return nil, fmt.Errorf("opening delivery: %w", err)
	}
	e.hard, e.cut = context.WithCancel(context.Background())
	e.soft, e.ebb = context.WithCancel(e.hard)
	return e, nil
}

func (e *Engine) nextID() string { return fmt.Sprintf("%s.%d", e.nonce, e.ids.Add(1)) }

// Set puts the bindings in force, and no others. Triggers that stay the same go on
// undisturbed; those that are not among them any more end after what they have under way,
// and everything about them is kept for the day they come back (see Forget). It fails and
// changes nothing when a binding is wrong. A subscription to a topic gets what is
// published after the Set that first had it.
func (e *Engine) Set(ctx context.Context, bindings []Binding) error {
	next := map[Key]*Binding{}
	hooks := map[Key]bool{}
	for _, raw := range bindings {
		b, err := raw.ready()
		if err != nil {
			return fmt.Errorf("setting triggers: %w", err)
		}
		if b.Function == "" {
			return fmt.Errorf("setting triggers: %s: a webhook is no trigger of its own", b.Key)
		}
		if next[b.Key] != nil {
			return fmt.Errorf("setting triggers: %s is there twice", b.Key)
		}
		next[b.Key] = b
	}
	for _, b := range bindings {
		for _, dst := range append(append(b.Delivery.OnSuccess[:0:0], b.Delivery.OnSuccess...), b.Delivery.OnFailure...) {
			if dst.Webhook != "" && e.cfg.Send != nil {
				k := Key{Namespace: b.Namespace, Trigger: dst.Webhook}
				w, err := Binding{Key: k}.ready()
				if err != nil {
					return fmt.Errorf("setting triggers: %w", err)
				}
				next[k], hooks[k] = w, true
			}
		}
	}
	for _, b := range next {
		if b.Channel != b.Key.Channel() {
			if err := e.marks.once(ctx, sinceMark(b.Key, b.Channel), []byte(e.cfg.Clock().UTC().Format(time.RFC3339Nano))); err != nil {
				return fmt.Errorf("setting triggers: %w", err)
			}
		}
		if b.Paused || e.marks.has(pauseMark(b.Key)) {
			e.counted(ctx, b)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("setting triggers: the engine is stopped")
	}
	for k, t := range e.triggers {
		if next[k] == nil {
			t.want(false)
			delete(e.triggers, k)
			e.left[k] = t
		}
	}
	for k, b := range next {
		t := e.triggers[k]
		if t == nil {
			// Not a second one while the first still ends: they would share a consumer.
			if t = e.left[k]; t == nil {
				t = &trigger{e: e, key: k}
			}
			delete(e.left, k)
			e.triggers[k] = t
		}
		t.adopt(b, e.wanted(b))
	}
	for k, t := range e.left {
		if t.idle() {
			delete(e.left, k)
		}
	}
	e.webhooks = hooks
	e.resumeJobs()
	return nil
}

// consumes is the consumer of a trigger's own channel.
func (e *Engine) consumes(b *Binding) ConsumerConfig {
	return ConsumerConfig{
		Name: b.Key.consumer(b.Channel), Namespace: b.Namespace, Channel: b.Channel,
		Window: b.window(), AckWait: AckWait, Since: e.since(b.Key, b.Channel),
	}
}

// counted makes the consumer of a trigger that does not run, so that what comes for it is
// counted from the beginning: a source is held back when too much waits.
func (e *Engine) counted(ctx context.Context, b *Binding) {
	if err := e.cfg.Consumers.Prepare(ctx, e.consumes(b)); err != nil {
		e.cfg.Logger.Error("what waits for a paused trigger is not counted before it goes on", slog.String("trigger", b.Key.String()), slog.Any("error", err))
	}
}

func (e *Engine) wanted(b *Binding) bool {
	return !e.closed && !b.Paused && !e.marks.has(pauseMark(b.Key))
}

// Pause stops a trigger's deliveries until Resume, also over restarts. What is under way
// ends. It works for triggers that are not in force, too.
func (e *Engine) Pause(ctx context.Context, k Key) error {
	if err := k.check(); err != nil {
		return fmt.Errorf("pausing: %w", err)
	}
	if err := e.marks.once(ctx, pauseMark(k), []byte("1")); err != nil {
		return fmt.Errorf("pausing: %w", err)
	}
	if b := e.rethink(k); b != nil {
		e.counted(ctx, b)
	}
	return nil
}

// Resume is Pause's reverse. A trigger that its version says is paused stays so.
func (e *Engine) Resume(ctx context.Context, k Key) error {
	if err := k.check(); err != nil {
		return fmt.Errorf("resuming: %w", err)
	}
	if err := e.marks.drop(ctx, pauseMark(k)); err != nil {
		return fmt.Errorf("resuming: %w", err)
	}
	e.rethink(k)
	return nil
}

// rethink starts or ends a trigger whose marks have changed. It gives its binding, nil
// when it is not in force.
func (e *Engine) rethink(k Key) *Binding {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.triggers[k]
	if t == nil {
		return nil
	}
	t.mu.Lock()
	b := t.b
	t.mu.Unlock()
	t.want(e.wanted(b))
	return b
}

// Forget drops everything there is about a trigger that is not in force: its place in
// its channels and its parked events, which are gone with that. Dead letters stay.
func (e *Engine) Forget(ctx context.Context, k Key) error {
	if err := k.check(); err != nil {
		return fmt.Errorf("forgetting: %w", err)
	}
	e.mu.Lock()
	if e.triggers[k] != nil {
		e.mu.Unlock()
		return problem.New(problem.Conflict, "the trigger %s is in force", k).Fix("Take it out of the manifest and deploy, or delete the function.")
	}
	t := e.left[k]
	e.mu.Unlock()
	if t != nil {
		select {
		case <-t.end():
		case <-ctx.Done():
			return fmt.Errorf("forgetting %s: %w", k, context.Cause(ctx))
		}
	}
	if err := e.dropJobs(ctx, k); err != nil {
		return fmt.Errorf("forgetting: %w", err)
	}
	names := []string{k.consumer(k.Channel()), k.consumer(k.side("replay"))}
	keys := []string{pauseMark(k), k.replaysMark()}
	for _, mark := range e.marks.names(sinceMark(k, "")) {
		names = append(names, k.consumer(mark[len(sinceMark(k, "")):]))
		keys = append(keys, mark)
	}
	for _, n := range names {
		if err := e.cfg.Consumers.DropConsumer(ctx, n); err != nil {
			return fmt.Errorf("forgetting %s: %w", k, err)
		}
	}
	if _, err := e.cfg.Events.Purge(ctx, k.Namespace, k.side("retry"), ^uint64(0)>>1); err != nil {
		return fmt.Errorf("forgetting %s: %w", k, err)
	}
	for _, key := range keys {
		if err := e.marks.drop(ctx, key); err != nil {
			return fmt.Errorf("forgetting %s: %w", k, err)
		}
	}
	return nil
}

// Stop begins nothing more and waits for what is under way; the rest stays on the
// stream. When ctx ends it cuts off what still runs, which will be done again, and fails.
func (e *Engine) Stop(ctx context.Context) error {
	e.ebb()
	e.mu.Lock()
	e.closed = true
	var ends []<-chan struct{}
	for _, t := range e.triggers {
		t.want(false)
		ends = append(ends, t.end())
	}
	for _, t := range e.left {
		ends = append(ends, t.end())
	}
	ends = append(ends, e.endJobs())
	e.mu.Unlock()
	defer e.cut()
	for _, end := range ends {
		select {
		case <-end:
		case <-ctx.Done():
			e.cut()
			for _, end := range ends {
				<-end
			}
			return fmt.Errorf("stopping delivery: %w", context.Cause(ctx))
		}
	}
	return nil
}

// idle reports whether nothing of the trigger runs.
func (t *trigger) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sess == nil
}

// end is closed when the trigger does not run any more.
func (t *trigger) end() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sess != nil {
		return t.sess.ended
	}
	c := make(chan struct{})
	close(c)
	return c
}

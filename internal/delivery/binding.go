package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

// Key names a trigger. Without a Trigger it is the asynchronous invocation of the
// Function; without a Function it is the webhook that Trigger names, a connection.
type Key struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function,omitempty"`
	Trigger   string `json:"trigger,omitempty"`
}

// String is for people.
func (k Key) String() string {
	switch {
	case k.Function == "":
		return k.Namespace + " webhook " + k.Trigger
	case k.Trigger == "":
		return k.Namespace + "/" + k.Function
	default:
		return k.Namespace + "/" + k.Function + "/" + k.Trigger
	}
}

func (k Key) check() error {
	for _, l := range []string{k.Namespace, k.Function, k.Trigger} {
		if l != "" && !function.ValidName(l) {
			return fmt.Errorf("trigger %.80q: %.80q is not a name", k.String(), l)
		}
	}
	if k.Namespace == "" || k.Function == "" && k.Trigger == "" {
		return fmt.Errorf("trigger %.80q: it must name a namespace, and a function or a webhook", k.String())
	}
	return nil
}

// Channel is where the events of this trigger alone are stored, and its dead letters.
func (k Key) Channel() string {
	switch {
	case k.Function == "":
		return "webhook." + k.Trigger
	case k.Trigger == "":
		return AsyncChannel(k.Function)
	default:
		return "trigger." + k.Function + "." + k.Trigger
	}
}

// side is a channel beside Channel that this package alone writes to.
func (k Key) side(kind string) string {
	first, rest, _ := strings.Cut(k.Channel(), ".")
	if first == "webhook" {
		kind = "webhook-" + kind
	}
	return kind + "." + rest
}

// AsyncChannel is where asynchronous invocations of a function wait.
func AsyncChannel(fn string) string { return "async." + fn }

// TopicChannel is where the events of a topic are.
func TopicChannel(topic string) string { return "topic." + topic }

// maxConsumer is the longest name of a consumer, in bytes; streams take 220.
const maxConsumer = 200

// consumer names what this trigger has settled of a channel, in labels joined by dots,
// as streams want it.
func (k Key) consumer(channel string) string {
	name := k.Namespace + "." + channel
	if strings.HasPrefix(channel, "topic.") {
		name = k.Namespace + "." + k.Channel() + "." + channel
	}
	if len(name) > maxConsumer {
		sum := sha256.Sum256([]byte(name))
		name = k.Namespace + ".h" + hex.EncodeToString(sum[:16])
	}
	return name
}

// Binding is a trigger in force.
type Binding struct {
	Key
	Channel  string // to consume; empty for the key's own
	Delivery function.Delivery
	Paused   bool                      // as its version says; operators may pause it besides
	Filter   func(*event.Message) bool // nil lets everything through; what it refuses is settled
	// Check finds what breaks the trigger's rules: it never reaches code, and is a dead
	// letter. Nil for channels whose events were checked when they came in.
	Check func(*event.Message) (field, reason string)
}

// CheckBinding says what is wrong with a binding. It fails as Set would.
func CheckBinding(b Binding) error {
	_, err := b.ready()
	return err
}

// ready checks a binding and leaves no default open.
func (b Binding) ready() (*Binding, error) {
	if err := b.Key.check(); err != nil {
		return nil, err
	}
	if b.Channel == "" {
		b.Channel = b.Key.Channel()
	}
	if topic, ok := strings.CutPrefix(b.Channel, "topic."); b.Channel != b.Key.Channel() && !(ok && function.ValidName(topic)) {
		return nil, fmt.Errorf("trigger %s: it cannot consume %.80q; it has its own channel, or a topic of its namespace", b.Key, b.Channel)
	}
	d := &b.Delivery
	for _, n := range []struct {
		name           string
		field          *int
		otherwise, max int
	}{
		{"concurrency", &d.Concurrency, function.DefaultEventsAtOnce, function.MaxConcurrency},
		{"attempts", &d.Attempts, function.DefaultAttempts, function.MaxAttempts},
		{"batch", &d.Batch, 1, function.MaxBatch},
		{"rate", &d.Rate, 0, function.MaxEventRate},
	} {
		if *n.field == 0 {
			*n.field = n.otherwise
		}
		if *n.field < 0 || *n.field > n.max {
			return nil, fmt.Errorf("trigger %s: delivery.%s is %d; it must be 1 to %d", b.Key, n.name, *n.field, n.max)
		}
	}
	for _, n := range []struct {
		name           string
		field          *time.Duration
		otherwise, max time.Duration
	}{
		{"maxAge", &d.MaxAge, function.DefaultEventAge, function.MaxEventAge},
		{"backoff", &d.Backoff, function.DefaultBackoff, function.MaxBackoff},
		{"backoffMost", &d.BackoffMost, max(function.DefaultBackoffMost, d.Backoff), function.MaxBackoff},
		{"batchWindow", &d.BatchWindow, 0, function.MaxBatchWindow},
	} {
		if *n.field == 0 {
			*n.field = n.otherwise
		}
		if *n.field < 0 || *n.field > n.max {
			return nil, fmt.Errorf("trigger %s: delivery.%s is %s; it must be at most %s", b.Key, n.name, *n.field, n.max)
		}
	}
	for _, dst := range append(append([]function.Destination(nil), d.OnSuccess...), d.OnFailure...) {
		if !oneLabel(dst.Function, dst.Topic, dst.Webhook) {
			return nil, fmt.Errorf("trigger %s: a destination must name one function, topic or webhook of its namespace", b.Key)
		}
	}
	if d.Reply != "" && !function.ValidName(d.Reply) {
		return nil, fmt.Errorf("trigger %s: delivery.reply must name a topic of its namespace", b.Key)
	}
	return &b, nil
}

func oneLabel(names ...string) bool {
	set := 0
	for _, n := range names {
		if n == "" {
			continue
		}
		if !function.ValidName(n) {
			return false
		}
		set++
	}
	return set == 1
}

// window is how many events the trigger may have in hand: enough for its concurrency to
// be busy while more are fetched.
func (b *Binding) window() int {
	return min(max(4*b.Delivery.Concurrency*b.Delivery.Batch, 256), 4096)
}

// sameFeed reports whether a running session can go on under the other binding.
func (b *Binding) sameFeed(o *Binding) bool {
	return b.Channel == o.Channel && b.Delivery.Ordered == o.Delivery.Ordered && b.window() == o.window()
}

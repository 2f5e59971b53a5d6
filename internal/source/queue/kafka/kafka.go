// Package kafka is the source of kind "kafka": topics of Apache Kafka, read in a consumer
// group. It may be imported by node alone.
//
// # Settings of a trigger (and those of package queue)
//
//	topics  one or more names of topics; they must exist
//	group   the consumer group; one of the trigger's own when left out
//	from    where a group without offsets begins: "all" there is, or what is "new" since
//	        the trigger first ran; "all" when left out
//
// # Settings of a connection (and those of package queue)
//
//	mechanism  "plain", "scram-sha-256" or "scram-sha-512"; the last one when left out
//	           and there is a user's name
//
// Its secrets are password, ca, cert and key.
//
// # Promises
//
// Records are handed in in the order of their partition, at most prefetch of them in one
// go, and their offsets are committed after they are on disk. A record's id is made of its
// topic, partition, offset and time, so what comes again after a crash or a rebalance is
// the same event. Its key orders, unless the trigger's settings say otherwise.
//
// While records wait for a slow function, the group is not held up: when it wants to
// rebalance, it may, and those of partitions that are gone are left to their new owner.
// Nothing further is fetched meanwhile but what the client has in its buffers (see
// fetchBytes). Only committed transactions are read. When retention has removed what was
// not read yet, that is an alert and reading goes on.
package kafka

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Kind is a source.Kind and a source.ConnectionKind.
type Kind struct{}

// maxTopics of one trigger.
const maxTopics = 64

// topicForm is Kafka's own rule for names.
var topicForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

type settings struct {
	queue.Settings
	Topics []string `json:"topics"`
	Group  string   `json:"group"`
	From   string   `json:"from"`
}

type connection struct {
	queue.Link
	Mechanism string `json:"mechanism"`
}

// Check implements source.Kind.
func (Kind) Check(t *function.Trigger) error {
	_, err := check(t)
	return err
}

func check(t *function.Trigger) (*settings, error) {
	var s settings
	if err := queue.Read(t, "kafka", &s, &s.Settings); err != nil {
		return nil, err
	}
	if len(s.Topics) == 0 || len(s.Topics) > maxTopics {
		return nil, &source.FieldError{Field: "topics", Reason: fmt.Sprintf("must list 1 to %d names of topics", maxTopics)}
	}
	for _, name := range s.Topics {
		if !topicForm.MatchString(name) || name == "." || name == ".." {
			return nil, &source.FieldError{Field: "topics", Reason: fmt.Sprintf("holds %.40q, which is no topic's name: letters, digits, dots, dashes and underscores", name)}
		}
	}
	if s.Group != "" && !topicForm.MatchString(s.Group) {
		return nil, &source.FieldError{Field: "group", Reason: "must be letters, digits, dots, dashes and underscores"}
	}
	if s.From = cmp.Or(s.From, "all"); s.From != "all" && s.From != "new" {
		return nil, &source.FieldError{Field: "from", Reason: `must be "all" or "new"`}
	}
	return &s, nil
}

// CheckConnection implements source.ConnectionKind.
func (Kind) CheckConnection(raw json.RawMessage, secrets []string) error {
	if err := queue.CheckSecrets(raw, secrets, "password"); err != nil {
		return err
	}
	_, err := checkConnection(raw)
	return err
}

func checkConnection(raw json.RawMessage) (*connection, error) {
	var c connection
	if err := source.Settings(raw, &c); err != nil {
		return nil, err
	}
	switch c.Mechanism {
	case "":
		if c.Username != "" {
			c.Mechanism = "scram-sha-512"
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if c.Username == "" {
			return nil, &source.FieldError{Field: "username", Reason: "is needed with a mechanism"}
		}
	default:
		return nil, &source.FieldError{Field: "mechanism", Reason: `must be "plain", "scram-sha-256" or "scram-sha-512"`}
	}
	return &c, c.Check()
}

// sasl is how we authenticate.
func (c *connection) sasl(from *source.Connection) []kgo.Opt {
	user, password := c.Username, func() string { return string(queue.Optional(from, "password")) }
	switch c.Mechanism {
	case "plain":
		return []kgo.Opt{kgo.SASL(plain.Plain(func(context.Context) (plain.Auth, error) {
			return plain.Auth{User: user, Pass: password()}, nil
		}))}
	case "scram-sha-256":
		return []kgo.Opt{kgo.SASL(scram.Sha256(func(context.Context) (scram.Auth, error) {
			return scram.Auth{User: user, Pass: password()}, nil
		}))}
	case "scram-sha-512":
		return []kgo.Opt{kgo.SASL(scram.Sha512(func(context.Context) (scram.Auth, error) {
			return scram.Auth{User: user, Pass: password()}, nil
		}))}
	default:
		return nil
	}
}

// Run implements source.Kind.
func (Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := check(&b.Trigger)
	if err != nil {
		return err
	}
	c, err := checkConnection(b.Connection.Settings)
	if err != nil {
		return err
	}
	r := &reader{settings: s, connection: c}
	return queue.Run(ctx, b, r.listen)
}

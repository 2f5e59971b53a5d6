// Package amqp is the source of kind "amqp": a queue of a broker that speaks AMQP 0-9-1,
// as RabbitMQ does. It may be imported by node alone.
//
// # Settings of a trigger (and those of package queue)
//
//	queue     the queue's name; it must exist
//	identity  "message-id" or "content"; "message-id" when left out
//
// # Settings of a connection (and those of package queue)
//
//	vhost  the virtual host; "/" when left out
//
// Its secrets are password, ca, cert and key. Without a user's name and with a client
// certificate the broker is asked to take the identity from that (EXTERNAL).
//
// # Promises
//
// Nothing is declared: queues are the operator's. A message is acknowledged after it is on
// disk; what was not is delivered again by the broker when the connection is lost. Messages
// are handed in in the broker's order.
//
// The id of an event is the property message-id, so a redelivered message is the same
// event, and so is another one to which its sender gave the same message-id. A message
// without one has an id of this delivery: what the broker delivers again is a new event.
// With the identity "content" its id is a digest of its body and properties: then a
// redelivery is the same event, but so are two messages that say the same, and the second
// one is taken for a duplicate while the first is remembered.
//
// A body that no event can hold is rejected once the event that tells of it is on disk, so
// it goes to the queue's dead letter exchange where there is one. It was in memory before:
// the bound on that is the broker's own (max_message_size).
package amqp

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	client "github.com/rabbitmq/amqp091-go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Kind is a source.Kind and a source.ConnectionKind.
type Kind struct{}

const (
	maxName   = 255       // bytes; the protocol can carry no longer one
	frameSize = 128 << 10 // bytes, RabbitMQ's own choice; none would leave it to the broker
	farewell  = 2 * time.Second
)

type settings struct {
	queue.Settings
	Queue    string `json:"queue"`
	Identity string `json:"identity"`
}

type connection struct {
	queue.Link
	VHost string `json:"vhost"`
}

// Check implements source.Kind.
func (Kind) Check(t *function.Trigger) error {
	_, err := check(t)
	return err
}

func check(t *function.Trigger) (*settings, error) {
	var s settings
	if err := queue.Read(t, "amqp", &s, &s.Settings); err != nil {
		return nil, err
	}
	if s.Queue == "" || len(s.Queue) > maxName {
		return nil, &source.FieldError{Field: "queue", Reason: fmt.Sprintf("must be the name of a queue, of 1 to %d bytes", maxName)}
	}
	if s.Identity = cmp.Or(s.Identity, "message-id"); s.Identity != "message-id" && s.Identity != "content" {
		return nil, &source.FieldError{Field: "identity", Reason: `must be "message-id" or "content"`}
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
	c := connection{VHost: "/"}
	if err := source.Settings(raw, &c); err != nil {
		return nil, err
	}
	if c.VHost == "" || len(c.VHost) > maxName {
		return nil, &source.FieldError{Field: "vhost", Reason: fmt.Sprintf("must be the name of a virtual host, of 1 to %d bytes", maxName)}
	}
	return &c, c.Check()
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
	var drawn [8]byte
	if _, err := rand.Read(drawn[:]); err != nil {
		return fmt.Errorf("drawing a name for this run: %v", err)
	}
	r := &reader{settings: s, connection: c, run: hex.EncodeToString(drawn[:])}
	return queue.Run(ctx, b, r.listen)
}

// reader is one consumer of a queue, over many connections, one at a time.
type reader struct {
	settings   *settings
	connection *connection
	run        string // drawn, begins the ids of messages that have none
	count      uint64
}

// listen runs one connection.
func (r *reader) listen(ctx context.Context, s *queue.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, raw, err := r.dial(ctx, s)
	if err != nil {
		return err
	}
	defer func() {
		// The farewell waits for an answer, which a dead broker does not give.
		t := time.AfterFunc(farewell, func() { _ = raw.Close() })
		_ = conn.Close()
		t.Stop()
	}()
	// Until deliveries begin, calls wait for the broker; after that ctx is looked at, and
	// the connection stays until what is on disk is acknowledged.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("opening a channel: %w", err)
	}
	closed := ch.NotifyClose(make(chan *client.Error, 1))
	cancelled := ch.NotifyCancel(make(chan string, 1))
	state, err := ch.QueueDeclarePassive(r.settings.Queue, true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("looking for queue %q, which must exist: %w", r.settings.Queue, err)
	}
	if err := ch.Qos(r.settings.Prefetch, 0, false); err != nil {
		return fmt.Errorf("setting the prefetch: %w", err)
	}
	in, err := ch.Consume(r.settings.Queue, "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consuming queue %q: %w", r.settings.Queue, err)
	}
	stop()
	s.Running(int64(state.Messages))
	go func() {
		select {
		case <-ctx.Done():
		case e := <-closed:
			if e == nil {
				e = client.ErrClosed
			}
			cancel(fmt.Errorf("the broker closed: %v", e))
		case <-cancelled:
			cancel(fmt.Errorf("the broker ended consuming: queue %q was deleted or moved", r.settings.Queue))
		}
	}()
	err = queue.Feed[client.Delivery]{In: in, Most: r.settings.Prefetch, Message: r.event, Settle: settle}.Run(ctx, s)
	if err != nil {
		return err
	}
	// The reason comes beside the end of deliveries, perhaps a moment after it.
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Second):
		return errors.New("the broker ended consuming")
	}
}

// dial connects to the first server that takes us.
func (r *reader) dial(ctx context.Context, s *queue.Session) (*client.Connection, net.Conn, error) {
	dial, err := r.connection.Dialer(s.Connection)
	if err != nil {
		return nil, nil, err
	}
	password := queue.Optional(s.Connection, "password")
	conf := client.Config{
		Vhost: r.connection.VHost, Heartbeat: queue.DialTimeout, Locale: "en_US", FrameSize: frameSize,
		SASL:       []client.Authentication{&client.PlainAuth{Username: r.connection.Username, Password: string(password)}},
		Properties: client.Table{"product": "Casemate", "connection_name": s.Ref.Namespace + "/" + s.Ref.Name + "/" + s.Trigger.Name},
	}
	if r.connection.Username == "" && r.connection.Encrypted() {
		conf.SASL = []client.Authentication{&client.ExternalAuth{}}
	}
	for _, address := range r.connection.Servers {
		var conn *client.Connection
		var raw net.Conn
		conn, raw, err = open(ctx, conf, func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", address) })
		if err == nil {
			return conn, raw, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, fmt.Errorf("connecting: %w", err)
}

// open is bounded in time also while the broker is silent. TLS, where there is any, is
// dial's: the client sees a plain connection.
func open(ctx context.Context, conf client.Config, dial func(context.Context) (net.Conn, error)) (*client.Connection, net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, queue.DialTimeout)
	defer cancel()
	raw, err := dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := client.Open(raw, conf)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return c, raw, nil
}

// settle acknowledges messages that are on disk: they come in order, so the last one
// stands for all before it.
func settle(held []client.Delivery) error {
	from := 0
	for i, d := range held {
		if len(d.Body) <= event.MaxData {
			continue
		}
		if i > from {
			if err := held[i-1].Ack(true); err != nil {
				return err
			}
		}
		if err := d.Reject(false); err != nil {
			return err
		}
		from = i + 1
	}
	if from < len(held) {
		return held[len(held)-1].Ack(true)
	}
	return nil
}

// event makes an event of d.
func (r *reader) event(d client.Delivery) event.Message {
	raw := queue.Raw{Subject: r.settings.Queue, Time: d.Timestamp, ContentType: d.ContentType, Data: d.Body}
	switch {
	case d.MessageId != "":
		raw.ID = d.MessageId
	case r.settings.Identity == "content":
		raw.ID = content(d)
	default:
		r.count++
		raw.ID = r.run + "-" + strconv.FormatUint(r.count, 10)
	}
	raw.Detail = detail(d, r.settings.Queue, raw.ID)
	return r.settings.Message(raw)
}

package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	client "github.com/rabbitmq/amqp091-go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
	"github.com/casemate-dev/casemate/internal/source/queue/amqp"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

type object = map[string]any

var guest = map[string]string{"password": "guest"}

func bind(t *testing.T, port int, trigger object) *servertest.Far {
	t.Helper()
	return servertest.Bind(t, "amqp", trigger, object{
		"servers": []string{servertest.Local(port)}, "plaintext": true, "username": "guest",
	}, guest)
}

// producer is another client's channel, with confirmations.
func producer(t *testing.T, port int) *client.Channel {
	t.Helper()
	c, err := client.Dial("amqp://guest:guest@" + servertest.Local(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func declare(t *testing.T, ch *client.Channel, name string, args client.Table) {
	t.Helper()
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
}

// publish returns when the broker has confirmed that it keeps the messages.
func publish(t *testing.T, ch *client.Channel, queue string, messages ...client.Publishing) {
	t.Helper()
	for _, m := range messages {
		m.DeliveryMode = client.Persistent
		c, err := ch.PublishWithDeferredConfirmWithContext(t.Context(), "", queue, true, false, m)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := c.WaitContext(t.Context()); err != nil || !ok {
			t.Fatalf("the broker did not take a message: %v", err)
		}
	}
}

func numbers(from, to int) (messages []client.Publishing, texts []string) {
	for i := from; i < to; i++ {
		text := fmt.Sprintf("message %d", i)
		messages, texts = append(messages, client.Publishing{Body: []byte(text), MessageId: fmt.Sprint("id-", i)}), append(texts, text)
	}
	return messages, texts
}

// ready and held are what the broker says of a queue.
func ready(t *testing.T, ch *client.Channel, name string) int {
	t.Helper()
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

func empty(t *testing.T, ch *client.Channel, name string) {
	t.Helper()
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if n := ready(t, ch, name); n != 0 {
			return fmt.Errorf("%d messages are left", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// One broker serves all tests that leave it alone: it takes seconds to start.
func TestQueue(t *testing.T) {
	t.Parallel()
	broker := servertest.StartRabbitMQ(t)
	for name, test := range map[string]func(*testing.T, *servertest.RabbitMQ){
		"messages become events in order":                   inOrder,
		"properties are details":                            properties,
		"nothing is acknowledged before it is accepted":     notBefore,
		"no more than the prefetch is held":                 prefetch,
		"cut connections lose nothing":                      cut,
		"oversized messages are rejected after their event": oversized,
		"a missing queue is named":                          missing,
		"a deleted queue is noticed":                        deleted,
		"a wrong password does not run":                     wrongPassword,
		"equal messages stay apart":                         equal,
		"the sink's refusal ends it":                        refusal,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, broker)
		})
	}
}

func inOrder(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "ordered", nil)
	f := bind(t, broker.Port, object{"queue": "ordered"})
	f.Run(t, amqp.Kind{}, guest)
	f.Health.Wait(t, 0, source.Running)
	messages, texts := numbers(0, 300)
	publish(t, ch, "ordered", messages...)
	if got := f.Sink.Different(t, 300); !slices.Equal(got, texts) {
		t.Errorf("out of order: %q", got)
	}
	if m := f.Sink.Events()[7]; m.ID != "id-7" || m.Subject != "ordered" || m.Type != queue.Type || m.Detail["amqp.redelivered"] != "false" {
		t.Errorf("got %+v", m)
	}
}

func properties(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "properties", nil)
	f := bind(t, broker.Port, object{"queue": "properties", "key": "header.customer"})
	f.Run(t, amqp.Kind{}, guest)
	publish(t, ch, "properties", client.Publishing{
		ContentType: "application/json", CorrelationId: "c-1", AppId: "shop", Body: []byte(`{}`),
		Headers: client.Table{"customer": "zoë", "raw": []byte{0xff}, "n": int64(7), "list": []any{"a"}},
	})
	f.Sink.Different(t, 1)
	m := f.Sink.Events()[0]
	if m.DataContentType != "application/json" || m.Key != "zoë" {
		t.Errorf("got content type %q, key %q", m.DataContentType, m.Key)
	}
	for name, want := range map[string]string{
		"queue.kind": "amqp", "queue.name": "properties", "amqp.exchange": "", "amqp.routingkey": "properties",
		"amqp.property.correlation-id": "c-1", "amqp.property.app-id": "shop",
		"header.customer": "zoë", "header.raw.base64": "/w==", "header.n": "7", "header.list": `["a"]`,
	} {
		if m.Detail[name] != want {
			t.Errorf("%s: got %q, want %q", name, m.Detail[name], want)
		}
	}
}

func notBefore(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "held", nil)
	f := bind(t, broker.Port, object{"queue": "held", "prefetch": 4})
	asked := make(chan struct{}, 1000)
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		asked <- struct{}{}
		return errors.New("the disk is full")
	})
	stop := f.Run(t, amqp.Kind{}, guest)
	messages, texts := numbers(0, 20)
	publish(t, ch, "held", messages...)
	<-asked
	<-asked
	f.Health.Wait(t, 0, source.Failing)
	stop()
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if n := ready(t, ch, "held"); n != 20 {
			return fmt.Errorf("%d of 20 messages are in the queue", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	f.Sink.SetBefore(nil)
	f.Run(t, amqp.Kind{}, guest)
	if got := f.Sink.Different(t, 20); !slices.Equal(got, texts) {
		t.Errorf("got %q", got)
	}
	empty(t, ch, "held")
}

func prefetch(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "many", nil)
	messages, _ := numbers(0, 50)
	publish(t, ch, "many", messages...)
	f := bind(t, broker.Port, object{"queue": "many", "prefetch": 4})
	blocked := make(chan struct{}, 100)
	f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
		blocked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	f.Run(t, amqp.Kind{}, guest)
	<-blocked
	// The broker counts as ready what it has not given to anybody.
	if n := ready(t, ch, "many"); n < 46 {
		t.Errorf("%d of 50 messages are left in the queue with a prefetch of 4", n)
	}
}

func cut(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "cut", nil)
	proxy := servertest.NewProxy(t, broker.Port)
	f := bind(t, proxy.Port, object{"queue": "cut", "prefetch": 7})
	var batches atomic.Int64
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if n := batches.Add(1); n%5 == 0 && n <= 20 {
			proxy.Cut()
		}
		return nil
	})
	f.Run(t, amqp.Kind{}, guest)
	messages, _ := numbers(0, 300)
	publish(t, ch, "cut", messages...)
	f.Sink.Different(t, 300)
	if proxy.Made() < 3 {
		t.Errorf("the connection was made %d times only: nothing was cut", proxy.Made())
	}
	ids := make(map[string]string)
	for _, m := range f.Sink.Events() {
		if was, there := ids[m.ID]; there && was != string(m.Data) {
			t.Errorf("two messages have the id %s", m.ID)
		}
		ids[m.ID] = string(m.Data)
	}
	if len(ids) != 300 {
		t.Errorf("%d ids of 300 messages", len(ids))
	}
	empty(t, ch, "cut")
}

func oversized(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "dead", nil)
	declare(t, ch, "big", client.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
	large := bytes.Repeat([]byte("x"), event.MaxData+1)
	publish(t, ch, "big", client.Publishing{Body: []byte("before")}, client.Publishing{Body: large}, client.Publishing{Body: []byte("after")})
	f := bind(t, broker.Port, object{"queue": "big"})
	f.Run(t, amqp.Kind{}, guest)
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) >= 3 })
	m := f.Sink.Events()[1]
	if m.Type != queue.TypeOversized || len(m.Data) != 0 || m.Detail["queue.oversized"] != fmt.Sprint(len(large)) {
		t.Errorf("got type %q, %d bytes, oversized %q", m.Type, len(m.Data), m.Detail["queue.oversized"])
	}
	empty(t, ch, "big")
	if n := ready(t, ch, "dead"); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}

func missing(t *testing.T, broker *servertest.RabbitMQ) {
	f := bind(t, broker.Port, object{"queue": "nowhere"})
	f.Run(t, amqp.Kind{}, guest)
	h, _ := f.Health.Wait(t, 0, source.Failing)
	if !bytes.Contains([]byte(h.Reason), []byte(`queue "nowhere", which must exist`)) {
		t.Errorf("got %q", h.Reason)
	}
}

func deleted(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "short-lived", nil)
	f := bind(t, broker.Port, object{"queue": "short-lived"})
	f.Run(t, amqp.Kind{}, guest)
	_, seen := f.Health.Wait(t, 0, source.Running)
	if _, err := ch.QueueDelete("short-lived", false, false, false); err != nil {
		t.Fatal(err)
	}
	h, seen := f.Health.Wait(t, seen, source.Failing)
	if !bytes.Contains([]byte(h.Reason), []byte("deleted")) {
		t.Errorf("got %q", h.Reason)
	}
	declare(t, ch, "short-lived", nil)
	f.Health.Wait(t, seen, source.Running)
}

func wrongPassword(t *testing.T, broker *servertest.RabbitMQ) {
	wrong := map[string]string{"password": "not-the-word"}
	f := servertest.Bind(t, "amqp", object{"queue": "q"}, object{
		"servers": []string{servertest.Local(broker.Port)}, "plaintext": true, "username": "guest",
	}, wrong)
	f.Run(t, amqp.Kind{}, wrong)
	h, _ := f.Health.Wait(t, 0, source.Failing)
	if bytes.Contains([]byte(h.Reason), []byte("not-the-word")) {
		t.Errorf("the reason holds the password: %q", h.Reason)
	}
}

// Two messages that say the same are two events, unless settings ask for the contrary.
func equal(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	for identity, want := range map[string]int{"message-id": 2, "content": 1} {
		name := "equal-" + identity
		declare(t, ch, name, nil)
		f := bind(t, broker.Port, object{"queue": name, "identity": identity})
		f.Run(t, amqp.Kind{}, guest)
		publish(t, ch, name, client.Publishing{Body: []byte("plus one")}, client.Publishing{Body: []byte("plus one")})
		f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) == 2 })
		ids := make(map[string]bool)
		for _, m := range f.Sink.Events() {
			ids[m.ID] = true
		}
		if len(ids) != want {
			t.Errorf("identity %s: %d ids, want %d", identity, len(ids), want)
		}
	}
}

func refusal(t *testing.T, broker *servertest.RabbitMQ) {
	ch := producer(t, broker.Port)
	declare(t, ch, "refused", nil)
	publish(t, ch, "refused", client.Publishing{Body: []byte("x")})
	f := bind(t, broker.Port, object{"queue": "refused"})
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		return fmt.Errorf("the trigger has gone: %w", source.ErrRefused)
	})
	if err := (amqp.Kind{}).Run(t.Context(), f.Binding); !errors.Is(err, source.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		if n := ready(t, ch, "refused"); n != 1 {
			return fmt.Errorf("%d messages are left", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// A killed broker has on disk what it confirmed; all of that arrives.
func TestBrokerIsKilledMidStream(t *testing.T) {
	t.Parallel()
	broker := servertest.StartRabbitMQ(t)
	ch := producer(t, broker.Port)
	declare(t, ch, "killed", nil)
	f := bind(t, broker.Port, object{"queue": "killed", "prefetch": 5})
	blocked, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
		if len(f.Sink.Events()) < 20 {
			return nil
		}
		if once.CompareAndSwap(false, true) {
			close(blocked)
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	f.Run(t, amqp.Kind{}, guest)
	_, seen := f.Health.Wait(t, 0, source.Running)
	messages, _ := numbers(0, 100)
	publish(t, ch, "killed", messages...)
	<-blocked
	broker.Kill()
	_, seen = f.Health.Wait(t, seen, source.Failing)
	broker.Restart()
	f.Health.Wait(t, seen, source.Running)
	close(release)
	f.Sink.Different(t, 100)
	empty(t, producer(t, broker.Port), "killed")
}

func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	certs, foreign := servertest.NewCertificates(t, "casemate"), servertest.NewCertificates(t, "casemate")
	secure := servertest.Port(t)
	broker := servertest.StartRabbitMQ(t, "listeners.ssl.1 = "+servertest.Local(secure),
		"ssl_options.cacertfile = "+certs.Directory+"/ca.pem", "ssl_options.certfile = "+certs.Directory+"/server.pem",
		"ssl_options.keyfile = "+certs.Directory+"/server.key", "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true")
	declare(t, producer(t, broker.Port), "q", nil)
	good := map[string]string{"password": "guest", "ca": string(certs.CA), "cert": string(certs.ClientCert), "key": string(certs.ClientKey)}
	for name, tc := range map[string]struct {
		secrets map[string]string
		state   source.State
	}{
		"good":              {good, source.Running},
		"foreign authority": {map[string]string{"password": "guest", "ca": string(foreign.CA), "cert": good["cert"], "key": good["key"]}, source.Failing},
		"no authority":      {map[string]string{"password": "guest", "cert": good["cert"], "key": good["key"]}, source.Failing},
		"no certificate":    {map[string]string{"password": "guest", "ca": good["ca"]}, source.Failing},
	} {
		t.Run(name, func(t *testing.T) {
			f := servertest.Bind(t, "amqp", object{"queue": "q"}, object{"servers": []string{servertest.Local(secure)}, "username": "guest"}, tc.secrets)
			f.Run(t, amqp.Kind{}, tc.secrets)
			f.Health.Wait(t, 0, tc.state)
		})
	}
}

// A broker that takes the connection and says nothing must not hold a stop up.
func TestSilentBrokerDoesNotHoldUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			taken <- c
		}
	}()
	f := bind(t, l.Addr().(*net.TCPAddr).Port, object{"queue": "q"})
	stop := f.Run(t, amqp.Kind{}, guest)
	c := <-taken
	defer c.Close()
	stop()
}

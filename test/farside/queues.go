package farside

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	rabbit "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	mosquitto "github.com/eclipse/paho.mqtt.golang"

	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// at is a server on loopback, to which no TLS is needed.
func at(port int) map[string]any {
	return map[string]any{"servers": []string{servertest.Local(port)}, "plaintext": true}
}

// nats speaks the protocol by hand: a request makes the stream, another one writes to it,
// and both are answered.
func nats(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartNATS(t, nil)
	natsRequest(t, s.Port, "$JS.API.STREAM.CREATE.READINGS", []byte(`{"name":"READINGS","subjects":["readings.>"],"storage":"file"}`))
	return &far{kind: "nats", settings: at(s.Port), cause: func(t testing.TB, _ *Node, e *Event) {
		natsRequest(t, s.Port, e.Name, e.Body())
	}}
}

func natsRequest(t testing.TB, port int, subject string, body []byte) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", servertest.Local(port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
	defer stop()
	if _, err := fmt.Fprintf(c, "CONNECT {\"verbose\":false}\r\nSUB answer 1\r\nPUB %s answer %d\r\n%s\r\n", subject, len(body), body); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "-ERR") {
			t.Fatalf("NATS, %s: %q, %v", subject, line, err)
		}
		if !strings.HasPrefix(line, "MSG answer") {
			continue
		}
		line, err = in.ReadString('\n')
		var answer struct {
			Error *struct {
				Description string `json:"description"`
			} `json:"error"`
		}
		if err != nil || json.Unmarshal([]byte(line), &answer) != nil || answer.Error != nil {
			t.Fatalf("JetStream, %s: %q, %v", subject, line, err)
		}
		return
	}
}

// amqp makes a queue in RabbitMQ and puts a message into it.
func amqp(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartRabbitMQ(t)
	settings := at(s.Port)
	settings["username"] = "guest"
	on := func(t testing.TB, do func(*rabbit.Channel) error) {
		t.Helper()
		c, err := rabbit.Dial("amqp://guest:guest@" + servertest.Local(s.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		channel, err := c.Channel()
		if err == nil {
			err = do(channel)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	on(t, func(c *rabbit.Channel) error {
		_, err := c.QueueDeclare("jobs", true, false, false, false, nil)
		return err
	})
	return &far{kind: "amqp", settings: settings, secrets: map[string]string{"password": "guest"}, cause: func(t testing.TB, _ *Node, e *Event) {
		on(t, func(c *rabbit.Channel) error {
			return c.PublishWithContext(t.Context(), "", "jobs", true, false, rabbit.Publishing{
				ContentType: "application/json", DeliveryMode: rabbit.Persistent, MessageId: "job-1", Body: e.Body(),
			})
		})
	}}
}

// kafka is the stand-in for a broker that belongs to the client, and says so.
func kafka(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartKafka(t, kfake.SeedTopics(2, "clicks"))
	return &far{kind: "kafka", settings: at(s.Port), cause: func(t testing.TB, _ *Node, e *Event) {
		c, err := kgo.NewClient(kgo.SeedBrokers(servertest.Local(s.Port)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "clicks", Key: []byte(e.Name), Value: e.Body()}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}}
}

func mqtt(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartMosquitto(t)
	return &far{kind: "mqtt", settings: at(s.Port), cause: func(t testing.TB, _ *Node, e *Event) {
		c := mosquitto.NewClient(mosquitto.NewClientOptions().AddBroker("tcp://" + servertest.Local(s.Port)).SetClientID("door"))
		if k := c.Connect(); k.Wait() && k.Error() != nil {
			t.Fatal(k.Error())
		}
		defer c.Disconnect(100)
		if k := c.Publish(e.Name, 1, false, e.Body()); k.Wait() && k.Error() != nil {
			t.Fatal(k.Error())
		}
	}}
}

// redis appends an entry to a stream, the members of the data being its fields.
func redis(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartRedis(t)
	return &far{kind: "redis", settings: at(s.Port), cause: func(t testing.TB, _ *Node, e *Event) {
		var fields map[string]string
		if err := json.Unmarshal(e.Data, &fields); err != nil {
			t.Fatal(err)
		}
		words := []string{"XADD", "carts", "*"}
		for name, value := range fields {
			words = append(words, name, value)
		}
		s.Do(t, words...)
	}}
}

// sqs is moto, which speaks Amazon's protocol.
func sqs(t testing.TB, _ *Event) *far {
	t.Helper()
	s := servertest.StartMoto(t)
	queue, _ := s.SQS(t, "CreateQueue", map[string]any{"QueueName": "mails"})["QueueUrl"].(string)
	return &far{
		kind: "sqs", settings: map[string]any{"region": "us-east-1", "endpoint": "http://" + servertest.Local(s.Port)},
		secrets: map[string]string{"accessKeyId": "test", "secretAccessKey": "test"},
		cause: func(t testing.TB, _ *Node, e *Event) {
			s.SQS(t, "SendMessage", map[string]any{"QueueUrl": queue, "MessageBody": string(e.Body())})
		},
	}
}

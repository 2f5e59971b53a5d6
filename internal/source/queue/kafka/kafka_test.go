package kafka_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
	"github.com/casemate-dev/casemate/internal/source/queue/kafka"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

type object = map[string]any

func bind(t *testing.T, k *servertest.Kafka, trigger object) *servertest.Far {
	t.Helper()
	return servertest.Bind(t, "kafka", trigger, object{"servers": []string{servertest.Local(k.Port)}, "plaintext": true}, nil)
}

// produce writes records, by their own partition, and returns when the broker has them.
func produce(t *testing.T, k *servertest.Kafka, records ...*kgo.Record) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(servertest.Local(k.Port)), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// numbers makes records for three partitions, one after another.
func numbers(topic string, from, to int) []*kgo.Record {
	var all []*kgo.Record
	for i := from; i < to; i++ {
		all = append(all, &kgo.Record{
			Topic: topic, Partition: int32(i % 3), Key: fmt.Append(nil, "key ", i%7), Value: fmt.Append(nil, "message ", i),
		})
	}
	return all
}

// ordered says whether each partition's messages came in their order.
func ordered(t *testing.T, events []event.Message) {
	t.Helper()
	last := make(map[string]int)
	seen := make(map[string]bool)
	for _, m := range events {
		if seen[m.ID] {
			continue
		}
		seen[m.ID] = true
		n, err := strconv.Atoi(m.Detail["kafka.offset"])
		if err != nil {
			t.Fatal(err)
		}
		if at := m.Detail["kafka.partition"]; n != last[at] {
			t.Errorf("partition %s: offset %d, want %d", at, n, last[at])
		} else {
			last[at] = n + 1
		}
	}
}

// committed waits until the group has committed so many records in all.
func committed(t *testing.T, k *servertest.Kafka, topic string, want int64) {
	t.Helper()
	if err := servertest.Eventually(t.Context(), func(ctx context.Context) error {
		if n := offsets(ctx, t, k, topic); n != want {
			return fmt.Errorf("%d records are committed, want %d", n, want)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// offsets is how many records the group has committed in all, -1 when the broker did not say.
func offsets(ctx context.Context, t *testing.T, k *servertest.Kafka, topic string) int64 {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(servertest.Local(k.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrOffsetFetchRequest()
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = "casemate.shop.orders.incoming"
	of := kmsg.NewOffsetFetchRequestGroupTopic()
	of.Topic, of.Partitions = topic, []int32{0, 1, 2}
	group.Topics = append(group.Topics, of)
	req.Groups = append(req.Groups, group)
	reply, err := req.RequestWith(ctx, c)
	if err != nil {
		return -1
	}
	total := int64(0)
	for _, g := range reply.Groups {
		for _, topic := range g.Topics {
			for _, p := range topic.Partitions {
				total += max(0, p.Offset)
			}
		}
	}
	return total
}

func TestRecordsBecomeEventsInOrder(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "orders"))
	produce(t, k, numbers("orders", 0, 100)...)
	f := bind(t, k, object{"topics": []string{"orders"}})
	stop := f.Run(t, kafka.Kind{}, nil)
	produce(t, k, numbers("orders", 100, 300)...)
	f.Sink.Different(t, 300)
	ordered(t, f.Sink.Events())
	committed(t, k, "orders", 300)
	stop()
	produce(t, k, &kgo.Record{
		Topic: "orders", Partition: 1, Key: []byte{0xff}, Value: []byte("last"), Timestamp: time.UnixMilli(1700000000123),
		Headers: []kgo.RecordHeader{{Key: "customer", Value: []byte("zoë")}, {Key: "customer", Value: []byte{0xfe}}, {Key: "Content-Type", Value: []byte("text/plain")}},
	})
	f.Run(t, kafka.Kind{}, nil)
	f.Sink.Different(t, 301)
	all := f.Sink.Events()
	if len(all) != 301 {
		t.Errorf("%d events of 301 records", len(all))
	}
	if m := all[0]; m.Type != queue.Type || m.Subject != "orders" || m.Key[:4] != "key " {
		t.Errorf("got %+v", m)
	}
	m := all[300]
	if m.DataContentType != "text/plain" || m.Time.UnixMilli() != 1700000000123 || m.Key[:7] != "sha256-" {
		t.Errorf("got %+v", m)
	}
	for name, want := range map[string]string{
		"queue.kind": "kafka", "queue.name": "orders", "kafka.partition": "1", "kafka.key": "/w==",
		"kafka.timestamp": "1700000000123", "header.customer": "zoë", "header.customer.base64": "/g==",
	} {
		if m.Detail[name] != want {
			t.Errorf("%s: got %q, want %q", name, m.Detail[name], want)
		}
	}
}

func TestNothingIsCommittedBeforeItIsAccepted(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "held"))
	produce(t, k, numbers("held", 0, 60)...)
	f := bind(t, k, object{"topics": []string{"held"}, "prefetch": 4})
	asked := make(chan int, 1000)
	f.Sink.SetBefore(func(_ context.Context, ms []event.Message) error {
		asked <- len(ms)
		return errors.New("the disk is full")
	})
	stop := f.Run(t, kafka.Kind{}, nil)
	if n := max(<-asked, <-asked); n > 4 {
		t.Errorf("%d records at once with a prefetch of 4", n)
	}
	f.Health.Wait(t, 0, source.Failing)
	stop()
	if n := offsets(t.Context(), t, k, "held"); n != 0 {
		t.Errorf("%d records were committed", n)
	}
	f.Sink.SetBefore(nil)
	f.Run(t, kafka.Kind{}, nil)
	f.Sink.Different(t, 60)
	ordered(t, f.Sink.Events())
	committed(t, k, "held", 60)
}

// A slow function must not hold its group up, nor lose what it holds.
func TestRebalanceWhileTheFunctionIsSlow(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "slow"))
	produce(t, k, numbers("slow", 0, 60)...)
	first := bind(t, k, object{"topics": []string{"slow"}, "prefetch": 5})
	blocked, release := make(chan struct{}, 1000), make(chan struct{})
	first.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
		blocked <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	first.Run(t, kafka.Kind{}, nil)
	<-blocked
	second := bind(t, k, object{"topics": []string{"slow"}, "prefetch": 5})
	stop := second.Run(t, kafka.Kind{}, nil)
	// The second member gets a partition of the blocked one's, with all that is in it.
	second.Sink.Different(t, 20)
	close(release)
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		all := make(map[string]bool)
		for _, m := range append(first.Sink.Events(), second.Sink.Events()...) {
			all[m.ID] = true
		}
		if len(all) != 60 {
			return fmt.Errorf("%d of 60 records", len(all))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	committed(t, k, "slow", 60)
	// And gives it back when it goes.
	stop()
	produce(t, k, numbers("slow", 60, 90)...)
	if err := servertest.Eventually(t.Context(), func(context.Context) error {
		all := make(map[string]bool)
		for _, m := range append(first.Sink.Events(), second.Sink.Events()...) {
			all[m.ID] = true
		}
		if len(all) != 90 {
			return fmt.Errorf("%d of 90 records", len(all))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A commit that fails has the records come again, as the same events.
func TestFailedCommitsBringRecordsAgain(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "uncommitted"))
	var refused atomic.Int64
	k.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		if refused.Add(1) > 3 {
			return nil, nil, false
		}
		k.KeepControl()
		return nil, errors.New("cut"), true // the broker's end of the connection
	})
	produce(t, k, numbers("uncommitted", 0, 60)...)
	f := bind(t, k, object{"topics": []string{"uncommitted"}, "prefetch": 10})
	f.Run(t, kafka.Kind{}, nil)
	f.Sink.Different(t, 60)
	committed(t, k, "uncommitted", 60)
	ids := make(map[string]bool)
	for _, m := range f.Sink.Events() {
		ids[m.ID] = true
	}
	if len(ids) != 60 {
		t.Errorf("%d ids of 60 records", len(ids))
	}
	if refused.Load() < 3 {
		t.Errorf("only %d commits were refused", refused.Load())
	}
}

func TestBrokerRestartsMidStream(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "restart"))
	f := bind(t, k, object{"topics": []string{"restart"}, "prefetch": 5})
	f.Run(t, kafka.Kind{}, nil)
	produce(t, k, numbers("restart", 0, 100)...)
	f.Sink.Different(t, 30)
	k.Stop()
	k.Restart()
	produce(t, k, numbers("restart", 100, 200)...)
	f.Sink.Different(t, 200)
	ordered(t, f.Sink.Events())
	committed(t, k, "restart", 200)
}

func TestNewLeavesOutWhatWasThere(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(3, "news"))
	produce(t, k, &kgo.Record{Topic: "news", Value: []byte("old"), Timestamp: time.Now().Add(-time.Hour)})
	f := bind(t, k, object{"topics": []string{"news"}, "from": "new"})
	stop := f.Run(t, kafka.Kind{}, nil)
	f.Health.Wait(t, 0, source.Running)
	stop() // before anything was committed
	produce(t, k, &kgo.Record{Topic: "news", Value: []byte("meanwhile"), Timestamp: time.Now().Add(time.Second)})
	f.Run(t, kafka.Kind{}, nil)
	if got := f.Sink.Different(t, 1); got[0] != "meanwhile" {
		t.Errorf("got %q", got)
	}
}

func TestOversizedRecordsDoNotBlock(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(1, "big"), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "33554432"}))
	large := bytes.Repeat([]byte("x"), event.MaxData+1)
	produce(t, k, &kgo.Record{Topic: "big", Value: large}, &kgo.Record{Topic: "big", Value: []byte("after")})
	f := bind(t, k, object{"topics": []string{"big"}})
	f.Run(t, kafka.Kind{}, nil)
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) == 2 })
	m := f.Sink.Events()[0]
	if m.Type != queue.TypeOversized || len(m.Data) != 0 || m.Detail["queue.oversized"] != fmt.Sprint(len(large)) {
		t.Errorf("got type %q, %d bytes, oversized %q", m.Type, len(m.Data), m.Detail["queue.oversized"])
	}
}

// Times that no calendar has must not make an event that cannot be stored.
func TestStrangeTimesAreLeftOut(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t, kfake.SeedTopics(1, "times"))
	produce(t, k, &kgo.Record{Topic: "times", Value: []byte("a"), Timestamp: time.UnixMilli(1 << 60)})
	produce(t, k, &kgo.Record{Topic: "times", Value: []byte("b"), Timestamp: time.UnixMilli(-1)})
	f := bind(t, k, object{"topics": []string{"times"}})
	f.Run(t, kafka.Kind{}, nil)
	f.Sink.Different(t, 2)
	for _, m := range f.Sink.Events() {
		if !m.Time.IsZero() {
			t.Errorf("%s has the time %v", m.Data, m.Time)
		}
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	k := servertest.StartKafka(t)
	f := bind(t, k, object{"topics": []string{"nowhere"}})
	f.Run(t, kafka.Kind{}, nil)
	h, _ := f.Health.Wait(t, 0, source.Failing)
	if !bytes.Contains([]byte(h.Reason), []byte(`topic "nowhere", which must exist`)) {
		t.Errorf("got %q", h.Reason)
	}
}

func TestTLSAndCredentials(t *testing.T) {
	t.Parallel()
	certs, foreign := servertest.NewCertificates(t, "casemate"), servertest.NewCertificates(t, "casemate")
	k := servertest.StartKafka(t, kfake.SeedTopics(1, "t"), kfake.TLS(certs.Server(t, false)), kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-512", "shop", "secret-word"), kfake.Superuser("SCRAM-SHA-256", "shop256", "secret-word"), kfake.Superuser("PLAIN", "plain", "secret-word"))
	good := map[string]string{"ca": string(certs.CA), "password": "secret-word"}
	for name, tc := range map[string]struct {
		user, mechanism string
		secrets         map[string]string
		state           source.State
	}{
		"default":           {"shop", "", good, source.Running},
		"scram-sha-512":     {"shop", "scram-sha-512", good, source.Running},
		"scram-sha-256":     {"shop256", "scram-sha-256", good, source.Running},
		"plain":             {"plain", "plain", good, source.Running},
		"wrong password":    {"shop", "", map[string]string{"ca": good["ca"], "password": "secret-wrong"}, source.Failing},
		"foreign authority": {"shop", "", map[string]string{"ca": string(foreign.CA), "password": "secret-word"}, source.Failing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := servertest.Bind(t, "kafka", object{"topics": []string{"t"}}, object{
				"servers": []string{servertest.Local(k.Port)}, "username": tc.user, "mechanism": tc.mechanism,
			}, tc.secrets)
			f.Binding.Trigger.Name = "t-" + tc.user
			f.Run(t, kafka.Kind{}, tc.secrets)
			h, _ := f.Health.Wait(t, 0, tc.state)
			if bytes.Contains([]byte(h.Reason), []byte("secret-")) {
				t.Errorf("the reason holds a credential: %q", h.Reason)
			}
		})
	}
}

func TestSettingsNameTheField(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"topics":["a.b-c_d"],"group":"g","from":"new"}`: "",
		`{}`:                              "topics",
		`{"topics":["a b"]}`:              "topics",
		`{"topics":[".."]}`:               "topics",
		`{"topics":["a"],"group":"g/h"}`:  "group",
		`{"topics":["a"],"from":"first"}`: "from",
		`{"topics":"a"}`:                  "topics",
	} {
		check(t, raw, kafka.Kind{}.Check(&function.Trigger{Connection: "far", Settings: json.RawMessage(raw)}), want)
	}
	for raw, want := range map[string]string{
		`{"servers":["k:9092"],"username":"u"}`:                      "",
		`{"servers":["k:9092"],"mechanism":"plain"}`:                 "username",
		`{"servers":["k:9092"],"username":"u","mechanism":"gssapi"}`: "mechanism",
		`{"servers":["k:9092"],"password":"x"}`:                      "password",
		`{"servers":["SASL_SSL://k:9092"]}`:                          "servers",
	} {
		check(t, raw, kafka.Kind{}.CheckConnection(json.RawMessage(raw), []string{"ca", "password"}), want)
	}
}

func check(t *testing.T, what string, err error, field string) {
	t.Helper()
	var fe *source.FieldError
	switch {
	case field == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case field != "" && (!errors.As(err, &fe) || fe.Field != field):
		t.Errorf("%s: got %v, want field %s", what, err, field)
	}
}

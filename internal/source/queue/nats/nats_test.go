package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
	"github.com/casemate-dev/casemate/internal/source/queue/nats"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

type object = map[string]any

func bind(t *testing.T, port int, trigger object) *servertest.Far {
	t.Helper()
	return servertest.Bind(t, "nats", trigger, object{"servers": []string{servertest.Local(port)}, "plaintext": true}, nil)
}

func connect(t *testing.T, port int, options ...client.Option) *client.Conn {
	t.Helper()
	c, err := client.Connect("nats://"+servertest.Local(port), append(options, client.MaxReconnects(-1), client.ReconnectWait(50*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// stream makes one and gives what publishes to it.
func stream(t *testing.T, port int, name string) (js jetstream.JetStream, publish func(texts ...string)) {
	t.Helper()
	js, err := jetstream.New(connect(t, port))
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return js, func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			if _, err := js.Publish(t.Context(), name+".new", []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func numbers(from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("message %d", i))
	}
	return all
}

// unsettled waits until the stream's only consumer has no message that is not acknowledged.
func unsettled(t *testing.T, js jetstream.JetStream, name string, want func(*jetstream.ConsumerInfo) bool) {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := servertest.Eventually(t.Context(), func(ctx context.Context) error {
		for info := range s.ListConsumers(ctx).Info() {
			if !want(info) {
				return fmt.Errorf("%d unacknowledged, %d waiting", info.NumAckPending, info.NumPending)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func done(i *jetstream.ConsumerInfo) bool { return i.NumAckPending == 0 && i.NumPending == 0 }

func TestSubjectsBecomeEvents(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	f := bind(t, n.Port, object{"subject": "shop.*", "key": "header.Customer", "contentType": "text/plain"})
	f.Run(t, nats.Kind{}, nil)
	f.Health.Wait(t, 0, source.Running)
	c := connect(t, n.Port)
	for _, text := range numbers(0, 500) {
		if err := c.PublishMsg(&client.Msg{Subject: "shop.new", Data: []byte(text), Header: client.Header{"Customer": {"zoë", "b"}}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.Sink.Different(t, 500); !slices.Equal(got, numbers(0, 500)) {
		t.Errorf("out of order: %q", got)
	}
	m := f.Sink.Events()[0]
	if m.Type != queue.Type || m.Subject != "shop.new" || m.Key != "zoë" || m.DataContentType != "text/plain" {
		t.Errorf("got %+v", m)
	}
	for name, want := range map[string]string{"queue.kind": "nats", "queue.name": "shop.new", "header.Customer": "zoë", "header.Customer.2": "b"} {
		if m.Detail[name] != want {
			t.Errorf("%s: got %q, want %q", name, m.Detail[name], want)
		}
	}
}

// Of a queue group each message goes to one member: two nodes with the same trigger share.
func TestQueueGroupShares(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	f := bind(t, n.Port, object{"subject": "g"})
	g := bind(t, n.Port, object{"subject": "g"})
	g.Binding.Sink = f.Sink
	f.Run(t, nats.Kind{}, nil)
	g.Run(t, nats.Kind{}, nil)
	f.Health.Wait(t, 0, source.Running)
	g.Health.Wait(t, 0, source.Running)
	c := connect(t, n.Port)
	for _, text := range numbers(0, 200) {
		_ = c.Publish("g", []byte(text))
	}
	f.Sink.Different(t, 200)
	if n := len(f.Sink.Events()); n != 200 {
		t.Errorf("%d events of 200 messages", n)
	}
}

func TestStreamsBecomeEventsInOrder(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	js, publish := stream(t, n.Port, "ORDERS")
	publish(numbers(0, 100)...) // before there is a trigger: all is wanted
	f := bind(t, n.Port, object{"stream": "ORDERS", "subjects": []string{"ORDERS.new"}})
	stop := f.Run(t, nats.Kind{}, nil)
	if _, err := js.Publish(t.Context(), "ORDERS.other", []byte("not wanted")); err != nil {
		t.Fatal(err)
	}
	publish(numbers(100, 300)...)
	if got := f.Sink.Different(t, 300); !slices.Equal(got, numbers(0, 300)) {
		t.Errorf("out of order: %q", got)
	}
	unsettled(t, js, "ORDERS", done)
	m := f.Sink.Events()[4]
	if m.Subject != "ORDERS.new" || m.Time.IsZero() || m.Detail["queue.kind"] != "jetstream" || m.Detail["queue.name"] != "ORDERS" || m.Detail["queue.id"] != "5" {
		t.Errorf("got %+v", m)
	}
	// Another run goes on where this one ended.
	stop()
	f.Run(t, nats.Kind{}, nil)
	publish("last")
	f.Sink.Different(t, 301)
	if n := len(f.Sink.Events()); n != 301 {
		t.Errorf("%d events of 301 messages", n)
	}
}

func TestNewLeavesOutWhatWasThere(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	_, publish := stream(t, n.Port, "NEWS")
	publish("old")
	f := bind(t, n.Port, object{"stream": "NEWS", "from": "new"})
	stop := f.Run(t, nats.Kind{}, nil)
	f.Health.Wait(t, 0, source.Running)
	stop()
	publish("meanwhile")
	f.Run(t, nats.Kind{}, nil)
	if got := f.Sink.Different(t, 1); got[0] != "meanwhile" {
		t.Errorf("got %q", got)
	}
}

func TestNothingIsAcknowledgedBeforeItIsAccepted(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	js, publish := stream(t, n.Port, "HELD")
	publish(numbers(0, 30)...)
	f := bind(t, n.Port, object{"stream": "HELD", "prefetch": 4})
	asked := make(chan struct{}, 1000)
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		asked <- struct{}{}
		return errors.New("the disk is full")
	})
	stop := f.Run(t, nats.Kind{}, nil)
	<-asked
	<-asked
	f.Health.Wait(t, 0, source.Failing)
	unsettled(t, js, "HELD", func(i *jetstream.ConsumerInfo) bool {
		return i.AckFloor.Stream == 0 && i.NumAckPending <= 4 && i.NumPending >= 26
	})
	stop()
	f.Sink.SetBefore(nil)
	// The server gives up what was held after its time; a shorter one than ours spares waiting.
	s, err := js.Stream(t.Context(), "HELD")
	if err != nil {
		t.Fatal(err)
	}
	for info := range s.ListConsumers(t.Context()).Info() {
		if err := s.DeleteConsumer(t.Context(), info.Name); err != nil {
			t.Fatal(err)
		}
	}
	f.Run(t, nats.Kind{}, nil)
	if got := f.Sink.Different(t, 30); !slices.Equal(got, numbers(0, 30)) {
		t.Errorf("got %q", got)
	}
	unsettled(t, js, "HELD", done)
}

// While the function is slow the server must not take messages for lost.
func TestHeldMessagesAreReportedInProgress(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	js, publish := stream(t, n.Port, "SLOW")
	if _, err := js.CreateConsumer(t.Context(), "SLOW", jetstream.ConsumerConfig{
		Durable: "mine", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 12 * time.Second, // it is told thrice: a slow machine may be late
	}); err != nil {
		t.Fatal(err)
	}
	publish(numbers(0, 10)...)
	f := bind(t, n.Port, object{"stream": "SLOW", "consumer": "mine"})
	release := make(chan struct{})
	blocked := make(chan struct{}, 100)
	f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
		blocked <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	c := connect(t, n.Port)
	progress := make(chan *client.Msg, 1000)
	if _, err := c.ChanSubscribe("$JS.ACK.SLOW.mine.>", progress); err != nil {
		t.Fatal(err)
	}
	f.Run(t, nats.Kind{}, nil)
	<-blocked
	// Three intervals between rounds of reports are the time after which they would be lost.
	for range 4 * 10 {
		select {
		case m := <-progress:
			if string(m.Data) != "+WPI" {
				t.Fatalf("got %q before the sink took anything", m.Data)
			}
		case <-time.After(servertest.Patience):
			t.Fatal("the server was told nothing")
		}
	}
	close(release)
	f.Sink.Different(t, 10)
	for _, m := range f.Sink.Events() {
		if m.Detail["jetstream.delivered"] != "1" {
			t.Errorf("%s was delivered %s times", m.Data, m.Detail["jetstream.delivered"])
		}
	}
	unsettled(t, js, "SLOW", done)
}

func TestCutConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	proxy := servertest.NewProxy(t, n.Port)
	js, publish := stream(t, n.Port, "CUT")
	if _, err := js.CreateConsumer(t.Context(), "CUT", jetstream.ConsumerConfig{
		Durable: "mine", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	f := bind(t, proxy.Port, object{"stream": "CUT", "consumer": "mine", "prefetch": 7})
	var batches atomic.Int64
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if n := batches.Add(1); n%5 == 0 && n <= 20 {
			proxy.Cut()
		}
		return nil
	})
	f.Run(t, nats.Kind{}, nil)
	publish(numbers(0, 300)...)
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
		t.Errorf("%d ids of 300 messages: what comes again must be the same event", len(ids))
	}
	unsettled(t, js, "CUT", done)
}

func TestServerRestartsMidStream(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	_, publish := stream(t, n.Port, "RESTART")
	f := bind(t, n.Port, object{"stream": "RESTART", "prefetch": 5})
	stop := f.Run(t, nats.Kind{}, nil)
	publish(numbers(0, 100)...)
	f.Sink.Different(t, 50)
	_, seen := f.Health.Wait(t, 0, source.Running)
	n.Stop()
	_, seen = f.Health.Wait(t, seen, source.Failing)
	n.Restart()
	f.Health.Wait(t, seen, source.Running)
	if err := servertest.Eventually(t.Context(), func(ctx context.Context) error {
		js, err := jetstream.New(connect(t, n.Port))
		if err == nil {
			_, err = js.Publish(ctx, "RESTART.new", []byte("message 100"))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.Sink.Different(t, 101)
	stop()
}

func TestOversizedMessagesDoNotBlock(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	_, publish := stream(t, n.Port, "BIG")
	large := string(bytes.Repeat([]byte("x"), event.MaxData+1))
	publish(large, "after")
	f := bind(t, n.Port, object{"stream": "BIG"})
	f.Run(t, nats.Kind{}, nil)
	f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) == 2 })
	m := f.Sink.Events()[0]
	if m.Type != queue.TypeOversized || len(m.Data) != 0 || m.Detail["queue.oversized"] != fmt.Sprint(len(large)) {
		t.Errorf("got type %q, %d bytes, oversized %q", m.Type, len(m.Data), m.Detail["queue.oversized"])
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	n := servertest.StartNATS(t, nil)
	js, _ := stream(t, n.Port, "THERE")
	if _, err := js.CreateConsumer(t.Context(), "THERE", jetstream.ConsumerConfig{Durable: "careless", AckPolicy: jetstream.AckNonePolicy}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		trigger object
		want    string
	}{
		"stream":            {object{"stream": "NOWHERE"}, `stream "NOWHERE"`},
		"consumer":          {object{"stream": "THERE", "consumer": "nobody"}, `consumer "nobody"`},
		"careless consumer": {object{"stream": "THERE", "consumer": "careless"}, "explicit acknowledgement"},
	} {
		t.Run(name, func(t *testing.T) {
			f := bind(t, n.Port, tc.trigger)
			f.Run(t, nats.Kind{}, nil)
			h, _ := f.Health.Wait(t, 0, source.Failing)
			if !bytes.Contains([]byte(h.Reason), []byte(tc.want)) {
				t.Errorf("got %q", h.Reason)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	withUser := servertest.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "shop", "secret-word" })
	withToken := servertest.StartNATS(t, func(o *server.Options) { o.Authorization = "secret-token" })
	withKey := servertest.StartNATS(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	for name, tc := range map[string]struct {
		port    int
		user    string
		secrets map[string]string
		state   source.State
	}{
		"password":       {withUser.Port, "shop", map[string]string{"password": "secret-word"}, source.Running},
		"wrong password": {withUser.Port, "shop", map[string]string{"password": "secret-wrong"}, source.Failing},
		"token":          {withToken.Port, "", map[string]string{"token": "secret-token"}, source.Running},
		"no token":       {withToken.Port, "", nil, source.Failing},
		"nkey":           {withKey.Port, "", map[string]string{"nkey": string(seed)}, source.Running},
		"bad nkey":       {withKey.Port, "", map[string]string{"nkey": "secret-seed"}, source.Failing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := servertest.Bind(t, "nats", object{"subject": "s"}, object{
				"servers": []string{servertest.Local(tc.port)}, "plaintext": true, "username": tc.user,
			}, tc.secrets)
			f.Run(t, nats.Kind{}, tc.secrets)
			h, _ := f.Health.Wait(t, 0, tc.state)
			if bytes.Contains([]byte(h.Reason), []byte("secret-")) {
				t.Errorf("the reason holds a credential: %q", h.Reason)
			}
		})
	}
}

func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	certs, foreign := servertest.NewCertificates(t, "casemate"), servertest.NewCertificates(t, "casemate")
	secure := servertest.StartNATS(t, func(o *server.Options) { o.TLSConfig, o.TLSTimeout = certs.Server(t, true), 10 })
	open := servertest.StartNATS(t, nil)
	good := map[string]string{"ca": string(certs.CA), "cert": string(certs.ClientCert), "key": string(certs.ClientKey)}
	for name, tc := range map[string]struct {
		port    int
		secrets map[string]string
		state   source.State
	}{
		"good":              {secure.Port, good, source.Running},
		"foreign authority": {secure.Port, map[string]string{"ca": string(foreign.CA), "cert": good["cert"], "key": good["key"]}, source.Failing},
		"no certificate":    {secure.Port, map[string]string{"ca": good["ca"]}, source.Failing},
		"server without":    {open.Port, good, source.Failing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := servertest.Bind(t, "nats", object{"subject": "s"}, object{"servers": []string{servertest.Local(tc.port)}}, tc.secrets)
			f.Run(t, nats.Kind{}, tc.secrets)
			f.Health.Wait(t, 0, tc.state)
		})
	}
}

func TestSettingsNameTheField(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"subject":"a.*.>","group":"g"}`:                "",
		`{"stream":"S","subjects":["a.>"],"from":"new"}`: "",
		`{"stream":"S","consumer":"c"}`:                  "",
		`{}`:                                             "subject",
		`{"subject":"a","stream":"S"}`:                   "subject",
		`{"subject":"a..b"}`:                             "subject",
		`{"subject":"a b"}`:                              "subject",
		`{"subject":"a.>.b"}`:                            "subject",
		`{"subject":"a*"}`:                               "subject",
		`{"subject":"a","group":"g.h"}`:                  "group",
		`{"subject":"a","from":"all"}`:                   "from",
		`{"subject":"a","consumer":"c"}`:                 "consumer",
		`{"stream":"a.b"}`:                               "stream",
		`{"stream":"S","from":"yesterday"}`:              "from",
		`{"stream":"S","subjects":["a..b"]}`:             "subjects",
		`{"stream":"S","consumer":"c","from":"all"}`:     "consumer",
		`{"stream":"S","consumer":"../x"}`:               "consumer",
		`{"stream":"S","group":"g"}`:                     "group",
	} {
		check(t, raw, nats.Kind{}.Check(&function.Trigger{Connection: "far", Settings: json.RawMessage(raw)}), want)
	}
	good := json.RawMessage(`{"servers":["a:4222"]}`)
	check(t, "all secrets", nats.Kind{}.CheckConnection(good, []string{"creds", "nkey", "jwt", "token", "password", "ca"}), "")
	check(t, "unknown secret", nats.Kind{}.CheckConnection(good, []string{"seed"}), "secret seed")
	check(t, "inline", nats.Kind{}.CheckConnection(json.RawMessage(`{"servers":["a:1"],"creds":"x"}`), nil), "creds")
	check(t, "userinfo", nats.Kind{}.CheckConnection(json.RawMessage(`{"servers":["u:p@a:1"]}`), nil), "servers")
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

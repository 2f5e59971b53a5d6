package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	publisher "github.com/eclipse/paho.mqtt.golang"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
	"github.com/casemate-dev/casemate/internal/source/queue/mqtt"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

type object = map[string]any

// versions of the protocol, all of which must behave alike.
var versions = []string{"5", "3.1.1"}

func bind(t *testing.T, port int, version string, trigger object) *servertest.Far {
	t.Helper()
	return servertest.Bind(t, "mqtt", trigger, object{
		"servers": []string{servertest.Local(port)}, "plaintext": true, "version": version,
	}, nil)
}

// publish sends with another client than ours, and returns when the broker has it all.
func publish(t *testing.T, port int, topic string, qos byte, retain bool, payloads ...string) {
	t.Helper()
	c := publisher.NewClient(publisher.NewClientOptions().AddBroker("tcp://" + servertest.Local(port)).SetClientID("publisher"))
	if k := c.Connect(); k.Wait() && k.Error() != nil {
		t.Fatal(k.Error())
	}
	defer c.Disconnect(100)
	for _, p := range payloads {
		if k := c.Publish(topic, qos, retain, p); k.Wait() && k.Error() != nil {
			t.Fatal(k.Error())
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

func TestMessagesBecomeEventsInOrder(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprint(version, " QoS ", qos), func(t *testing.T) {
				topic := fmt.Sprintf("shop/%s/%d", version, qos)
				f := bind(t, broker.Port, version, object{"topics": []string{topic}, "qos": qos, "key": "mqtt.topic"})
				f.Binding.Trigger.Name = fmt.Sprintf("order-%c-%d", version[0], qos)
				stop := f.Run(t, mqtt.Kind{}, nil)
				f.Health.Wait(t, 0, source.Running)
				publish(t, broker.Port, topic, qos, false, numbers(0, 200)...)
				if got := f.Sink.Different(t, 200); !slices.Equal(got, numbers(0, 200)) {
					t.Errorf("out of order: %q", got)
				}
				stop()
				m := f.Sink.Events()[0]
				if m.Type != queue.Type || m.Subject != topic || m.Key != topic {
					t.Errorf("got type %q, subject %q, key %q", m.Type, m.Subject, m.Key)
				}
				for name, want := range map[string]string{
					"queue.kind": "mqtt", "queue.name": topic, "mqtt.topic": topic, "mqtt.qos": fmt.Sprint(qos), "mqtt.retain": "false",
				} {
					if m.Detail[name] != want {
						t.Errorf("%s: got %q, want %q", name, m.Detail[name], want)
					}
				}
			})
		}
	}
}

func TestPropertiesOfVersion5AreDetails(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	f := bind(t, broker.Port, "5", object{"topics": []string{"p"}})
	f.Run(t, mqtt.Kind{}, nil)
	f.Health.Wait(t, 0, source.Running)
	out, err := exec.Command(servertest.Program(t, "mosquitto_pub"), "-h", "127.0.0.1", "-p", fmt.Sprint(broker.Port), "-V", "5", "-q", "1", "-t", "p", "-m", "{}",
		"-D", "publish", "content-type", "application/json", "-D", "publish", "user-property", "customer", "zoë",
		"-D", "publish", "response-topic", "answers", "-D", "publish", "user-property", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.Sink.Different(t, 1)
	m := f.Sink.Events()[0]
	if m.DataContentType != "application/json" || m.Detail["header.customer"] != "zoë" || m.Detail["mqtt.responsetopic"] != "answers" || m.Extensions["traceparent"] == "" {
		t.Errorf("got %+v", m)
	}
}

// What the sink has not taken is the broker's: another run of the source gets it.
func TestNothingIsAcknowledgedBeforeItIsAccepted(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprint(version, " QoS ", qos), func(t *testing.T) {
				topic := fmt.Sprintf("held/%s/%d", version, qos)
				trigger := object{"topics": []string{topic}, "qos": qos, "prefetch": 5}
				f := bind(t, broker.Port, version, trigger)
				f.Binding.Trigger.Name = fmt.Sprintf("held-%c-%d", version[0], qos)
				asked := make(chan struct{}, 1000)
				f.Sink.SetBefore(func(context.Context, []event.Message) error {
					asked <- struct{}{}
					return errors.New("the disk is full")
				})
				stop := f.Run(t, mqtt.Kind{}, nil)
				f.Health.Wait(t, 0, source.Running)
				publish(t, broker.Port, topic, qos, false, numbers(0, 20)...)
				<-asked
				<-asked
				h, _ := f.Health.Wait(t, 0, source.Failing)
				if h.Reason != "handing in: the disk is full" {
					t.Errorf("got reason %q", h.Reason)
				}
				stop()
				if n := len(f.Sink.Events()); n != 0 {
					t.Fatalf("%d events were taken", n)
				}
				f.Sink.SetBefore(nil)
				again := f.Run(t, mqtt.Kind{}, nil)
				defer again()
				if got := f.Sink.Different(t, 20); !slices.Equal(got, numbers(0, 20)) {
					t.Errorf("got %q", got)
				}
			})
		}
	}
}

// Cut connections lose nothing; with QoS 2 they double nothing either.
func TestCutConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprint(version, " QoS ", qos), func(t *testing.T) {
				proxy := servertest.NewProxy(t, broker.Port)
				topic := fmt.Sprintf("cut/%s/%d", version, qos)
				f := bind(t, proxy.Port, version, object{"topics": []string{topic}, "qos": qos, "prefetch": 7})
				f.Binding.Trigger.Name = fmt.Sprintf("cut-%c-%d", version[0], qos)
				var batches atomic.Int64
				f.Sink.SetBefore(func(context.Context, []event.Message) error {
					if n := batches.Add(1); n%5 == 0 && n <= 20 {
						proxy.Cut() // with messages that are in our hands
					}
					return nil
				})
				f.Run(t, mqtt.Kind{}, nil)
				f.Health.Wait(t, 0, source.Running)
				publish(t, broker.Port, topic, qos, false, numbers(0, 300)...)
				f.Sink.Different(t, 300)
				if proxy.Made() < 3 {
					t.Errorf("the connection was made %d times only: nothing was cut", proxy.Made())
				}
				if n := len(f.Sink.Events()); qos == 2 && n != 300 {
					t.Errorf("%d events of 300 messages", n)
				}
			})
		}
	}
}

// The broker is stopped, not killed: Mosquitto itself loses what it has not written.
func TestBrokerRestartsMidStream(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			broker := servertest.StartMosquitto(t)
			f := bind(t, broker.Port, version, object{"topics": []string{"r/#"}, "prefetch": 3})
			blocked := make(chan struct{})
			release := make(chan struct{})
			var once atomic.Bool
			f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error {
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
			f.Run(t, mqtt.Kind{}, nil)
			_, seen := f.Health.Wait(t, 0, source.Running)
			publish(t, broker.Port, "r/1", 1, false, numbers(0, 50)...)
			<-blocked
			broker.Stop()
			_, seen = f.Health.Wait(t, seen, source.Failing)
			broker.Restart()
			f.Health.Wait(t, seen, source.Running)
			close(release)
			publish(t, broker.Port, "r/1", 1, false, numbers(50, 100)...)
			if got := f.Sink.Different(t, 100); !slices.Equal(got, numbers(0, 100)) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestKilledBrokerIsFoundAgain(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	f := bind(t, broker.Port, "5", object{"topics": []string{"k"}})
	f.Run(t, mqtt.Kind{}, nil)
	_, seen := f.Health.Wait(t, 0, source.Running)
	broker.Kill()
	_, seen = f.Health.Wait(t, seen, source.Failing)
	broker.Restart()
	f.Health.Wait(t, seen, source.Running)
	publish(t, broker.Port, "k", 1, false, "after")
	f.Sink.Different(t, 1)
}

// A retained message is sent for a subscription, not for each connection.
func TestRetainedMessagesComeOnce(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	proxy := servertest.NewProxy(t, broker.Port)
	publish(t, broker.Port, "retained", 0, true, "kept")
	f := bind(t, proxy.Port, "5", object{"topics": []string{"retained"}})
	f.Run(t, mqtt.Kind{}, nil)
	f.Sink.Different(t, 1)
	_, seen := f.Health.Wait(t, 0, source.Running)
	proxy.Cut()
	f.Health.Wait(t, seen, source.Running)
	publish(t, broker.Port, "retained", 1, false, "new")
	f.Sink.Different(t, 2)
	if n := len(f.Sink.Events()); n != 2 {
		t.Errorf("%d events of 2 messages", n)
	}
	if r := f.Sink.Events()[0].Detail["mqtt.retain"]; r != "true" {
		t.Errorf("retain is %q", r)
	}
}

// What a stopped source has handed in is acknowledged: a restart doubles nothing.
func TestStoppingAcknowledgesWhatIsAccepted(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			f := bind(t, broker.Port, version, object{"topics": []string{"stop/" + version}})
			f.Binding.Trigger.Name = "stop-" + version[:1]
			f.Run(t, mqtt.Kind{}, nil)()
			stop := f.Run(t, mqtt.Kind{}, nil)
			f.Health.Wait(t, 0, source.Running)
			for i := range 20 {
				publish(t, broker.Port, "stop/"+version, 1, false, fmt.Sprint(i))
				f.Sink.Different(t, i+1)
				stop()
				stop = f.Run(t, mqtt.Kind{}, nil)
			}
			if n := len(f.Sink.Events()); n != 20 {
				t.Errorf("%d events of 20 messages", n)
			}
		})
	}
}

// A session outlives its trigger's settings: topics that are gone must not go on.
func TestChangedTopicsReplaceOldOnes(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			f := bind(t, broker.Port, version, object{"topics": []string{"old", "both"}})
			f.Binding.Trigger.Name = "changed-" + version[:1]
			stop := f.Run(t, mqtt.Kind{}, nil)
			f.Health.Wait(t, 0, source.Running)
			stop()
			g := bind(t, broker.Port, version, object{"topics": []string{"both", "new"}})
			g.Binding.Trigger.Name, g.Binding.Store = f.Binding.Trigger.Name, f.Store
			g.Run(t, mqtt.Kind{}, nil)
			g.Health.Wait(t, 0, source.Running)
			publish(t, broker.Port, "old", 1, false, "not wanted")
			publish(t, broker.Port, "both", 1, false, "one")
			publish(t, broker.Port, "new", 1, false, "two")
			if got := g.Sink.Different(t, 2); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestOversizedMessagesDoNotBlock(t *testing.T) {
	t.Parallel()
	broker := servertest.StartMosquitto(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			topic := "big/" + version
			f := bind(t, broker.Port, version, object{"topics": []string{topic}})
			f.Binding.Trigger.Name = "big-" + version[:1]
			f.Run(t, mqtt.Kind{}, nil)
			f.Health.Wait(t, 0, source.Running)
			large := string(bytes.Repeat([]byte("x"), event.MaxData+1))
			huge := string(bytes.Repeat([]byte("x"), event.MaxData+1<<20))
			publish(t, broker.Port, topic, 1, false, large, huge, "after")
			f.Sink.Wait(t, func(s *servertest.Sink) bool { return len(s.Events()) == 3 })
			for i, want := range []int{len(large), len(huge)} {
				m := f.Sink.Events()[i]
				// Of what is not read at all, properties count as well.
				if m.Type != queue.TypeOversized || len(m.Data) != 0 || m.Detail["queue.oversized"] < fmt.Sprint(want) {
					t.Errorf("got type %q, %d bytes, oversized %q, want %d", m.Type, len(m.Data), m.Detail["queue.oversized"], want)
				}
			}
			if m := f.Sink.Events()[2]; string(m.Data) != "after" {
				t.Errorf("got %q", m.Data)
			}
		})
	}
}

func TestTLSAndCredentials(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCertificates(t, "casemate")
	foreign := servertest.NewCertificates(t, "casemate")
	passwords := filepath.Join(t.TempDir(), "passwords")
	if out, err := exec.Command(servertest.Program(t, "mosquitto_passwd"), "-b", "-c", passwords, "shop", "secret-word").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(passwords, 0o644); err != nil {
		t.Fatal(err)
	}
	broker := servertest.StartMosquitto(t, "allow_anonymous false", "password_file "+passwords, "listener %p 127.0.0.1",
		"cafile "+certs.Directory+"/ca.pem", "certfile "+certs.Directory+"/server.pem", "keyfile "+certs.Directory+"/server.key", "require_certificate true")
	good := map[string]string{"ca": string(certs.CA), "cert": string(certs.ClientCert), "key": string(certs.ClientKey), "password": "secret-word"}
	with := func(name, value string) map[string]string {
		changed := map[string]string{}
		for k, v := range good {
			changed[k] = v
		}
		if changed[name] = value; value == "" {
			delete(changed, name)
		}
		return changed
	}
	for name, tc := range map[string]struct {
		secrets map[string]string
		state   source.State
		server  string
	}{
		"good":              {good, source.Running, ""},
		"wrong password":    {with("password", "wrong"), source.Failing, ""},
		"no authority":      {with("ca", ""), source.Failing, ""},
		"foreign authority": {with("ca", string(foreign.CA)), source.Failing, ""},
		"another name":      {good, source.Failing, "elsewhere.example"},
	} {
		for _, version := range versions {
			t.Run(name+" "+version, func(t *testing.T) {
				t.Parallel()
				f := servertest.Bind(t, "mqtt", object{"topics": []string{"t"}}, object{
					"servers": []string{servertest.Local(broker.Port)}, "username": "shop", "version": version, "serverName": tc.server,
				}, tc.secrets)
				f.Binding.Trigger.Name = fmt.Sprintf("tls-%x", name+version)
				f.Run(t, mqtt.Kind{}, tc.secrets)
				h, _ := f.Health.Wait(t, 0, tc.state)
				if bytes.Contains([]byte(h.Reason), []byte("secret-word")) {
					t.Errorf("the reason holds the password: %q", h.Reason)
				}
			})
		}
	}
}

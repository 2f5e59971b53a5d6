package connector_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/connector"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

type object = map[string]any

func redisKind(t testing.TB) *connector.Kind {
	t.Helper()
	return kind(t, build(t, "../../../connectors/redis"), "redis", func(c *connector.Config) { c.Grace = 2 * time.Second })
}

// add adds entries with the numbers from first on, and gives their data.
func add(t testing.TB, r *servertest.Redis, first, n int) []string {
	t.Helper()
	var data []string
	for i := range n {
		d := fmt.Sprintf("order %d", first+i)
		r.Do(t, "XADD", "orders", "*", "body", d, "customer", fmt.Sprint(i%3))
		data = append(data, d)
	}
	return data
}

// settled waits until nothing of the group is pending.
func settled(t testing.TB, r *servertest.Redis, group string) {
	t.Helper()
	err := servertest.Eventually(t.Context(), func(ctx context.Context) error {
		if p := r.Do(t, "XPENDING", "orders", group); !strings.HasPrefix(p, "0 ") {
			return errors.New(p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRedisStream(t *testing.T) {
	t.Parallel()
	r := servertest.StartRedis(t)
	before := add(t, r, 0, 5)
	f := servertest.Bind(t, "redis", object{"stream": "orders", "from": "all", "body": "body", "key": "header.customer", "contentType": "text/plain"},
		object{"servers": []string{servertest.Local(r.Port)}, "plaintext": true}, nil)
	stop := f.Run(t, redisKind(t), nil)
	want := append(before, add(t, r, 5, 300)...)
	if got := f.Sink.Different(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	settled(t, r, "casemate:shop/orders/incoming")
	e := f.Sink.Events()[1]
	if e.Type != "casemate.queue.message" || e.Subject != "orders" || e.Key != "1" || e.DataContentType != "text/plain" || e.Time.IsZero() ||
		e.Detail["queue.kind"] != "redis" || e.Detail["queue.name"] != "orders" || e.Detail["queue.id"] != e.ID || e.Detail["header.customer"] != "1" {
		t.Errorf("%+v", e)
	}
	if h, _ := f.Health.Wait(t, 0, source.Running); h.Reason != "" {
		t.Error(h)
	}
	stop()
	// What came while nobody listened comes with the next start, and nothing again.
	seen := len(f.Sink.Events())
	more := add(t, r, 1000, 2)
	f.Run(t, redisKind(t), nil)
	f.Sink.Different(t, len(want)+2)
	if got := f.Sink.Events()[seen:]; len(got) != 2 || string(got[1].Data) != more[1] {
		t.Errorf("%d events after the second start", len(got))
	}
}

func TestRedisServerThatDies(t *testing.T) {
	t.Parallel()
	r := servertest.StartRedis(t)
	f := servertest.Bind(t, "redis", object{"stream": "orders", "from": "all", "body": "body"},
		object{"servers": []string{servertest.Local(r.Port)}, "plaintext": true}, nil)
	f.Run(t, redisKind(t), nil)
	want := add(t, r, 0, 50)
	f.Sink.Different(t, 50)
	seen := 0
	for i := range 3 {
		r.Kill()
		_, seen = f.Health.Wait(t, seen, source.Failing)
		r.Restart()
		want = append(want, add(t, r, 100*(i+1), 20)...)
		if got := f.Sink.Different(t, len(want)); !slices.Equal(got, want) {
			t.Fatalf("got %q", got)
		}
	}
	settled(t, r, "casemate:shop/orders/incoming")
}

func TestRedisNothingIsAcknowledgedThatWasNotKept(t *testing.T) {
	t.Parallel()
	r := servertest.StartRedis(t)
	f := servertest.Bind(t, "redis", object{"stream": "orders", "from": "all", "body": "body", "group": "g"},
		object{"servers": []string{servertest.Local(r.Port)}, "plaintext": true}, nil)
	var refuse atomic.Bool
	refuse.Store(true)
	tried := make(chan struct{}, 1000)
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		if refuse.Load() {
			return errors.New("disk full")
		}
		return nil
	})
	// Another consumer of the group got an entry and died.
	want := add(t, r, 0, 10)
	r.Do(t, "XGROUP", "CREATE", "orders", "g", "0")
	r.Do(t, "XREADGROUP", "GROUP", "g", "dead", "COUNT", "4", "STREAMS", "orders", ">")
	k := redisKind(t)
	f.Binding.Trigger.Settings = []byte(`{"stream":"orders","from":"all","body":"body","group":"g","claimAfter":"1s"}`)
	stop := f.Run(t, k, nil)
	<-tried
	<-tried
	stop()
	// What the group was given it still owes: all of it, whichever the connector asked for first.
	given, owed := r.Do(t, "XINFO", "GROUPS", "orders"), r.Do(t, "XPENDING", "orders", "g")
	if n, _, _ := strings.Cut(owed, " "); !strings.Contains(given+" ", " entries-read "+n+" ") || n == "0" || len(f.Sink.Events()) != 0 {
		t.Errorf("given %s, owed %s, %d events", given, owed, len(f.Sink.Events()))
	}
	refuse.Store(false)
	f.Run(t, k, nil)
	got := f.Sink.Different(t, len(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	settled(t, r, "g")
}

func TestRedisOverTLSWithAnAccount(t *testing.T) {
	t.Parallel()
	c := servertest.NewCertificates(t, "casemate")
	file := func(name string) string { return filepath.Join(c.Directory, name) }
	args := []string{
		"--tls-port", "%p", "--tls-cert-file", file("server.pem"), "--tls-key-file", file("server.key"),
		"--tls-ca-cert-file", file("ca.pem"), "--tls-auth-clients", "yes",
	}
	for _, account := range []string{
		"--user reader on >hunter22 ~orders +xgroup +xreadgroup +xack +xautoclaim +xinfo", "--user default off",
	} {
		args = append(args, strings.Fields(account)...)
	}
	r := servertest.StartRedis(t, args...)
	secrets := map[string]string{"password": "hunter22", "ca": string(c.CA), "cert": string(c.ClientCert), "key": string(c.ClientKey)}
	f := servertest.Bind(t, "redis", object{"stream": "orders"}, object{"servers": []string{servertest.Local(r.Port)}, "username": "reader"}, secrets)
	l := &logged{}
	f.Binding.Log = newLog(l)
	stop := f.Run(t, redisKind(t), secrets)
	f.Health.Wait(t, 0, source.Running)
	stop()

	secrets["password"] = "wrongpass99"
	f = servertest.Bind(t, "redis", object{"stream": "orders"}, object{"servers": []string{servertest.Local(r.Port)}, "username": "reader"}, secrets)
	f.Binding.Log = newLog(l)
	f.Run(t, redisKind(t), secrets)
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "WRONGPASS") {
		t.Error(h.Reason, r.Log())
	}
	delete(secrets, "ca")
	f = servertest.Bind(t, "redis", object{"stream": "orders"}, object{"servers": []string{servertest.Local(r.Port)}, "username": "reader"}, secrets)
	f.Run(t, redisKind(t), secrets)
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "certificate") {
		t.Error(h.Reason)
	}
	if s := l.String(); strings.Contains(s, "wrongpass99") || strings.Contains(s, "PRIVATE KEY") {
		t.Error(s)
	}
}

func TestRedisSettings(t *testing.T) {
	t.Parallel()
	k := redisKind(t)
	var fe *source.FieldError
	for raw, field := range map[string]string{
		`{}`: "stream", `{"stream":"s","colour":1}`: "colour", `{"stream":"s","from":"then"}`: "from",
		`{"stream":"s","claimAfter":"1ms"}`: "claimAfter", `{"stream":"s","prefetch":5000}`: "prefetch", `{"stream":1}`: "stream",
	} {
		if err := k.Check(&function.Trigger{Connection: "far", Settings: []byte(raw)}); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for raw, field := range map[string]string{
		`{"servers":["a:1"],"password":"x"}`: "password", `{"servers":["a:1","b:1"]}`: "servers", `{"servers":["a:1"],"plaintext":true}`: "plaintext",
		`{"servers":["a:1"],"username":"u"}`: "username", `{"servers":["a:1"],"database":-1}`: "database",
	} {
		if err := k.CheckConnection([]byte(raw), nil); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

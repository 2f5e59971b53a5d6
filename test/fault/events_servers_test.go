package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	client "github.com/rabbitmq/amqp091-go"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/queue/amqp"
	"github.com/casemate-dev/casemate/internal/source/servertest"
	"github.com/casemate-dev/casemate/test/fault/history"
)

// These histories have a real server on the far side, which is killed too, behind a proxy
// that cuts connections. An event counts as acknowledged when the server says that it
// keeps the message, or the transaction.

// everydayRounds is how many lives there are in the short form, for each server; a life
// is a worker that is killed, while the server is killed or its connections are cut.
const everydayRounds = 3

// runSource runs the source of the far side in a worker.
func (w *worker) runSource(ctx context.Context, running *sync.WaitGroup) error {
	var kind source.Kind = amqp.Kind{}
	if w.Source.Kind == postgres.Name {
		kind = postgres.New(postgres.Config{StatusEvery: 200 * time.Millisecond, WatchEvery: time.Second})
	}
	t := function.Trigger{Name: doorFar, Kind: w.Source.Kind, Connection: "far", Settings: w.Source.Trigger, NoSchema: "they are numbers"}
	c := &source.Connection{Namespace: fn.Namespace, Name: "far", Kind: w.Source.Kind, Settings: w.Source.Connection, Secret: func(name string) ([]byte, error) {
		if s, ok := w.Source.Secrets[name]; ok {
			return []byte(s), nil
		}
		return nil, errors.New("there is none")
	}}
	return w.listen(ctx, running, kind, t, c, func(source.Health) {})
}

// farID finds the id in what the far side was given: a message is the id alone, and a row
// has it as its first value of that form.
func farID(data []byte) string {
	_, rest, ok := bytes.Cut(data, []byte(doorFar+"."))
	if !ok {
		return ""
	}
	end := bytes.IndexFunc(rest, func(r rune) bool { return r == '"' || r == ' ' })
	if end < 0 {
		end = len(rest)
	}
	return doorFar + "." + string(rest[:end])
}

// missing counts the events that the far side has acknowledged and that are not on the
// bus yet.
func (w *worker) missing() int {
	there := map[string]bool{}
	_ = w.events.Read(context.Background(), bus.EventFilter{Namespace: fn.Namespace, Channel: channel(doorFar)}, func(r bus.EventRecord) bool {
		if m, err := event.Decode(r.Data); err == nil {
			there[farID(m.Data)] = true
		}
		return true
	}) // what cannot be read is missing
	n := 0
	for _, id := range w.Source.Acked {
		if !there[id] {
			n++
		}
	}
	return n
}

// server is a far side as these tests see it.
type server struct {
	source  farSide
	kill    func() // and start again
	cut     func()
	publish func(ctx context.Context, key string, n int) error // nil when the server has it for good
}

func TestEventsOfRabbitMQSurviveKills(t *testing.T) {
	serverHistory(t, func(t *testing.T) server {
		r := servertest.StartRabbitMQ(t)
		proxy := servertest.NewProxy(t, r.Port)
		declare := func(ctx context.Context) (*client.Connection, *client.Channel, error) {
			c, err := client.Dial("amqp://guest:guest@" + servertest.Local(r.Port))
			if err != nil {
				return nil, nil, err
			}
			ch, err := c.Channel()
			if err == nil {
				err = ch.Confirm(false)
			}
			if err == nil {
				_, err = ch.QueueDeclare("orders", true, false, false, false, nil)
			}
			if err != nil {
				_ = c.Close()
			}
			return c, ch, err
		}
		if c, _, err := declare(t.Context()); err != nil {
			t.Fatal(err)
		} else if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		var conn *client.Connection
		var ch *client.Channel
		return server{
			source: farSide{
				Kind: "amqp", Secrets: map[string]string{"password": "guest"}, Trigger: json.RawMessage(`{"queue":"orders"}`),
				Connection: json.RawMessage(fmt.Sprintf(`{"servers":[%q],"plaintext":true,"username":"guest"}`, servertest.Local(proxy.Port))),
			},
			kill: func() { r.Kill(); r.Restart() }, cut: proxy.Cut,
			publish: func(ctx context.Context, key string, n int) (err error) {
				if conn == nil || conn.IsClosed() {
					if conn, ch, err = declare(ctx); err != nil {
						return err
					}
				}
				id := history.ID(doorFar, key, n)
				done, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "orders", true, false,
					client.Publishing{Body: []byte(id), MessageId: id, DeliveryMode: client.Persistent, ContentType: "text/plain"})
				if err == nil {
					var ok bool
					if ok, err = done.WaitContext(ctx); err == nil && !ok {
						err = errors.New("the broker did not take it")
					}
				}
				if err != nil {
					_ = conn.Close()
				}
				return err
			},
		}
	})
}

func TestEventsOfPostgreSQLSurviveKills(t *testing.T) {
	serverHistory(t, func(t *testing.T) server {
		p := servertest.StartPostgres(t)
		proxy := servertest.NewProxy(t, p.Port)
		p.Do(t, "postgres", "CREATE DATABASE shop")
		p.Do(t, "shop", "CREATE TABLE orders (id text PRIMARY KEY, v text); INSERT INTO orders VALUES ('x', 'none'), ('y', 'none')")
		var conn *pgconn.PgConn
		return server{
			source: farSide{
				Kind: "postgres", Ordered: true, Trigger: json.RawMessage(`{"tables":["public.orders"],"operations":["update"]}`),
				Connection: json.RawMessage(fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"database":"shop","user":"postgres","tls":"off"}`, proxy.Port)),
			},
			kill: func() { p.Kill(); p.Restart() }, cut: proxy.Cut,
			publish: func(ctx context.Context, key string, n int) (err error) {
				if conn == nil || conn.IsClosed() {
					if conn, err = pgconn.Connect(ctx, p.URL("shop")); err != nil {
						return err
					}
				}
				_, err = conn.Exec(ctx, fmt.Sprintf("UPDATE orders SET v = '%s' WHERE id = '%s'", history.ID(doorFar, key, n), key)).ReadAll()
				if err != nil {
					_ = conn.Close(ctx)
				}
				return err
			},
		}
	})
}

// serverHistory makes one long history with a server and judges it.
func serverHistory(t *testing.T, start func(*testing.T) server) {
	t.Helper()
	if testing.Short() {
		t.Skip("kills take their time; make test and make fault run them")
	}
	rounds := everydayRounds
	if kills := number(t, "CASEMATE_KILLS", 0); kills > 0 {
		rounds = max(kills/8, everydayRounds)
	}
	rounds = number(t, "CASEMATE_ROUNDS", rounds)
	seed := seedOf(t)
	t.Logf("seed %d, %d rounds", seed, rounds)
	s := start(t)
	dir := t.TempDir()
	h := &making{dir: dir, seed: seed, kind: breakNothing, rnd: rand.New(rand.NewPCG(seed, 9))}
	f := &far{t: t, server: s, numbers: map[string]int{}}
	// The source's place at the far side is there before the first event is.
	if err := h.live(t.Context(), life{Events: 1, Settle: true, Linger: 2 * time.Second, Source: &s.source}); err != nil {
		t.Fatal(err)
	}
	servers, cuts := 0, 0
	for range rounds {
		ended := make(chan error, 1)
		l := life{Events: 4, Lines: 60 + h.rnd.IntN(150), Linger: 20 * time.Second, Source: &s.source}
		// The life is known before it begins, since the far side writes to the history too.
		f.life = h.life + 1
		go func() { ended <- h.live(t.Context(), l) }()
		stop := make(chan struct{})
		var publishing sync.WaitGroup
		publishing.Go(func() { f.publish(dir, stop) })
		pause(time.Duration(200+h.rnd.IntN(800)) * time.Millisecond)
		if h.rnd.IntN(2) == 0 {
			s.kill()
			servers++
		} else {
			s.cut()
			cuts++
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		close(stop)
		publishing.Wait()
	}
	last := s.source
	last.Acked = f.acked
	if err := h.live(t.Context(), life{Events: 1, Final: true, Patience: 2 * time.Minute, Source: &last}); err != nil {
		t.Fatal(err)
	}
	lines, err := history.Read(filepath.Join(dir, "history"))
	if err != nil {
		t.Fatal(err)
	}
	v := history.Judge(lines, history.Rules{
		Ordered: map[string]bool{doorSource: true, doorFar: s.source.Ordered}, Window: 2 * ackWait, Redelivery: ackWait - 100*time.Millisecond,
	})
	if len(v.Faults) > 0 {
		t.Errorf("seed %d: %s\n%s", seed, strings.Join(v.Faults, "\n"), h.keep())
	}
	t.Logf("%d lives, %d of them killed; the server killed %d times and its connections cut %d times; %d events acknowledged, %d of them by the server; %d done, %d dead letters, %d done again for a reason",
		v.Lives, v.Kills, servers, cuts, v.Acked, len(f.acked), v.Delivered, v.Dead, v.Again)
	if len(f.acked) < rounds || v.Kills == 0 {
		t.Errorf("there was no load: %d events of the server, %d kills", len(f.acked), v.Kills)
	}
}

// far hands events to a server, one after the other, under a new number each time: what
// was not acknowledged may be there or not.
type far struct {
	t       *testing.T
	server  server
	life    int
	numbers map[string]int
	acked   []string
}

func (f *far) publish(dir string, stop chan struct{}) {
	w, err := history.Append(filepath.Join(dir, "history"), f.life)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer w.Close()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		key := []string{"x", "y"}[i%2]
		f.numbers[key]++
		line := history.Line{What: history.Sent, Door: doorFar, Key: key, N: f.numbers[key]}
		w.Write(line)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := f.server.publish(ctx, key, line.N)
		cancel()
		if err != nil {
			continue
		}
		line.What = history.Acked
		w.Write(line)
		f.acked = append(f.acked, line.ID())
	}
}

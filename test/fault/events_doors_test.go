package fault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/webhook"
	"github.com/casemate-dev/casemate/test/fault/history"
)

// The doors of a worker: who hands events in, and by which way.

// sender hands in events of one key, one after the other.
type sender struct {
	door, key string
	send      func(ctx context.Context, m event.Message) (sequence uint64, duplicate bool, err error)
}

// senders are who hands events in, each by the way that its kind takes.
func (w *worker) senders(ctx context.Context, running *sync.WaitGroup) ([]sender, error) {
	var all []sender
	ordered, err := w.intake.For(fn, &function.Trigger{Name: doorSource, NoSchema: "they are numbers"})
	if err != nil {
		return nil, err
	}
	for _, k := range []string{"a", "b", "c"} {
		all = append(all, sender{doorSource, k, func(ctx context.Context, m event.Message) (uint64, bool, error) {
			stored, err := ordered.Offer(ctx, []event.Message{m})
			if err != nil {
				return 0, false, err
			}
			return stored[0].Sequence, stored[0].Duplicate, nil
		}})
	}
	for _, k := range []string{"d", "e"} {
		all = append(all, sender{doorTopic, k, func(ctx context.Context, m event.Message) (uint64, bool, error) {
			stored, err := w.intake.Publish(ctx, fn.Namespace, "news", "key:one", []event.Message{m})
			if err != nil {
				return 0, false, err
			}
			return stored[0].Sequence, stored[0].Duplicate, nil
		}})
	}
	all = append(all, sender{doorAsync, "f", func(ctx context.Context, m event.Message) (uint64, bool, error) {
		stored, err := w.intake.Async(ctx, fn, "key:one", m)
		return stored.Sequence, stored.Duplicate, err
	}})
	hooks, err := w.hooks(ctx, running)
	if err != nil {
		return nil, err
	}
	all = append(all, hooks...)
	if w.Source == nil {
		return all, nil
	}
	return all, w.runSource(ctx, running)
}

// hooks runs a webhook trigger, and gives who signs requests for it.
func (w *worker) hooks(ctx context.Context, running *sync.WaitGroup) ([]sender, error) {
	t := function.Trigger{
		Name: doorWebhook, Kind: "webhook", Connection: "hook", NoSchema: "they are numbers",
		Settings: json.RawMessage(`{"path":"/in","provider":"standard"}`),
	}
	secret := base64.StdEncoding.EncodeToString([]byte("a key that nobody else has, of 32"))
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, err
	}
	hooks, opened := &webhook.Hooks{}, make(chan struct{})
	var once sync.Once
	if err := w.listen(ctx, running, hooks, t, &source.Connection{
		Namespace: fn.Namespace, Name: "hook", Kind: "webhook", Secrets: []string{"key"},
		Secret: func(name string) ([]byte, error) {
			if name == "key" {
				return []byte(secret), nil
			}
			return nil, errors.New("there is none")
		},
	}, func(h source.Health) {
		if h.State == source.Running {
			once.Do(func() { close(opened) })
		}
	}); err != nil {
		return nil, err
	}
	select {
	case <-opened:
	case <-time.After(time.Minute):
		return nil, fmt.Errorf("the webhook does not open: %w", errFull)
	}
	send := func(ctx context.Context, m event.Message) (uint64, bool, error) {
		at := w.clock()
		signature, err := signer.Sign(m.ID, at, m.Data)
		if err != nil {
			return 0, false, err
		}
		a, err := hooks.Receive(ctx, fn.Namespace, "/in", webhook.Request{Method: "POST", Body: m.Data, Header: map[string][]string{
			"webhook-id": {m.ID}, "webhook-timestamp": {strconv.FormatInt(at.Unix(), 10)}, "webhook-signature": {signature}, "content-type": {"text/plain"},
		}})
		if err == nil && a.Status != 202 {
			err = fmt.Errorf("the webhook answered %d", a.Status)
		}
		return 0, false, err
	}
	// A full stop has a meaning in what is signed.
	dashed := func(ctx context.Context, m event.Message) (uint64, bool, error) {
		m.ID = strings.ReplaceAll(m.ID, ".", "-")
		return send(ctx, m)
	}
	return []sender{{doorWebhook, "g", dashed}, {doorWebhook, "h", dashed}}, nil
}

// listen runs a source as the node does.
func (w *worker) listen(ctx context.Context, running *sync.WaitGroup, kind source.Kind, t function.Trigger, c *source.Connection, report func(source.Health)) error {
	if err := kind.Check(&t); err != nil {
		return err
	}
	sink, err := w.intake.For(fn, &t)
	if err != nil {
		return err
	}
	kv, err := w.bus.KV(ctx, "sources")
	if err != nil {
		return refused(err)
	}
	running.Go(func() {
		source.Retry(ctx, 50*time.Millisecond, time.Second, time.Now, func(ctx context.Context) error {
			return kind.Run(ctx, source.Binding{
				Ref: fn, Trigger: t, Connection: c, Sink: sink, Store: positions{kv, "source." + t.Name + "."},
				Log: slog.New(slog.DiscardHandler), Clock: w.clock, Report: report,
			})
		}, func(err error, _ time.Duration) { fmt.Fprintln(os.Stderr, "source:", err) })
	})
	return nil
}

// body is what the event of that id carries.
func body(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return []byte(id + " " + hex.EncodeToString(sum[:]))
}

// publish has all senders hand in their events, those first that earlier lives were not
// told about, while others read the channels.
func (w *worker) publish(ctx context.Context, senders []sender, before []history.Line) error {
	type where struct {
		next  int
		acked bool
	}
	at := map[string]where{}
	for i := range before {
		l := &before[i]
		id := l.Door + "/" + l.Key
		switch p := at[id]; {
		case l.What == history.Sent:
			at[id] = where{max(p.next, l.N), p.acked && p.next >= l.N}
		case l.What == history.Acked && l.N == p.next:
			at[id] = where{p.next, true}
		}
	}
	var sending, looking sync.WaitGroup
	stop := make(chan struct{})
	for _, s := range senders {
		p := at[s.door+"/"+s.key]
		if p.next == 0 || p.acked {
			p.next++
		}
		sending.Go(func() { w.sendAll(ctx, s, p.next, p.next+w.Events-1) })
	}
	for i, door := range []string{doorSource, doorTopic} {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(20+w.random()*80) * time.Millisecond):
					w.look(ctx, i, door)
				}
			}
		})
	}
	sending.Wait()
	close(stop)
	looking.Wait()
	return ctx.Err()
}

// sendAll hands in events until one is refused too often: a sender whose event was not
// taken does not go on to the next.
func (w *worker) sendAll(ctx context.Context, s sender, from, to int) {
	const most = 4
	refusals := 0
	for n := from; n <= to && ctx.Err() == nil; {
		id := history.ID(s.door, s.key, n)
		m := event.Message{Event: event.Event{ID: id, Type: "test.number", DataContentType: "text/plain"}, Data: body(id)}
		if s.door == doorSource {
			m.Key = s.key
		}
		line := history.Line{What: history.Sent, Door: s.door, Key: s.key, N: n}
		w.log.Write(line)
		sequence, duplicate, err := s.send(ctx, m)
		if err != nil {
			line.What, line.Text = history.Refused, err.Error()
			w.log.Write(line)
			if refusals++; refusals == most {
				return
			}
			wait(ctx, time.Duration(w.random()*50)*time.Millisecond)
			continue
		}
		line.What, line.Sequence, line.Duplicate = history.Acked, sequence, duplicate
		w.log.Write(line)
		n++
	}
}

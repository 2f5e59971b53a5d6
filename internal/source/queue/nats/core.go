package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	client "github.com/nats-io/nats.go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// What may wait in memory; NATS itself has no way to slow its publishers down.
const (
	maxWaiting      = 64 << 10 // messages
	maxWaitingBytes = 64 << 20
)

// coreReader listens to a subject.
type coreReader struct {
	settings   *settings
	connection *connection
	run        string // drawn, begins the ids
	count      uint64
}

func (r *coreReader) listen(ctx context.Context, s *queue.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n, err := r.connection.connect(ctx, s, cancel, func(err error) {
		if errors.Is(err, client.ErrSlowConsumer) {
			s.Log.Warn("messages lost: the function does not keep up", "subject", r.settings.Subject)
			s.Alert("messages of the subject were lost, because the function does not keep up: a stream would hold them")
			return
		}
		cancel(err)
	})
	if err != nil {
		return err
	}
	defer n.Close()
	group := r.settings.Group
	if group == "" {
		group = ownName(s)
	}
	sub, err := n.QueueSubscribeSync(r.settings.Subject, group)
	if err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	if err := sub.SetPendingLimits(maxWaiting, maxWaitingBytes); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	// The server has the subscription, or has refused it, once it has answered this.
	if err := n.FlushTimeout(queue.DialTimeout); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	s.Running(-1)
	in := make(chan *client.Msg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := sub.NextMsgWithContext(ctx)
			if errors.Is(err, client.ErrSlowConsumer) {
				continue // reported already; the messages after it are there
			}
			if err != nil {
				cancel(err)
				return
			}
			select {
			case in <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	err = queue.Feed[*client.Msg]{
		In: in, Most: r.settings.Prefetch, Message: r.event,
		Settle: func([]*client.Msg) error { return nil },
	}.Run(ctx, s)
	if err == nil {
		err = context.Cause(ctx)
	}
	cancel(err)
	<-done
	return err
}

// ownName is the same whenever the trigger runs.
func ownName(s *queue.Session) string {
	return strings.Join([]string{"casemate", s.Ref.Namespace, s.Ref.Name, s.Trigger.Name}, "_")
}

func sorted(h client.Header) []string { return slices.Sorted(maps.Keys(h)) }

// event makes an event of m.
func (r *coreReader) event(m *client.Msg) event.Message {
	r.count++
	raw := queue.Raw{
		ID: r.run + "-" + strconv.FormatUint(r.count, 10), Subject: m.Subject,
		ContentType: m.Header.Get("Content-Type"), Data: m.Data,
	}
	raw.Detail = append([]queue.Entry{
		queue.Text("queue.kind", "nats"),
		queue.Text("queue.name", m.Subject),
		queue.Text("queue.id", raw.ID),
	}, headers(m.Header)...)
	return r.settings.Message(raw)
}

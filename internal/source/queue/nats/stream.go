package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

const (
	ackWait   = 30 * time.Second // of consumers that we make
	fetchWait = 20 * time.Second // of one request for messages
	heartbeat = 5 * time.Second  // of the server, during that
)

// streamReader is a durable consumer of a stream, over many connections, one at a time.
type streamReader struct {
	settings   *settings
	connection *connection
}

// arrived is a message with what the server says about it.
type arrived struct {
	jetstream.Msg
	meta *jetstream.MsgMetadata
}

func (r *streamReader) listen(ctx context.Context, s *queue.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n, err := r.connection.connect(ctx, s, cancel, cancel)
	if err != nil {
		return err
	}
	defer n.Close()
	js, err := jetstream.New(n)
	if err != nil {
		return fmt.Errorf("opening JetStream: %w", err)
	}
	consumer, wait, err := r.consumer(ctx, s, js)
	if err != nil {
		return err
	}
	s.Running(int64(consumer.CachedInfo().NumPending))
	f := &fetcher{
		in: make(chan arrived, r.settings.Prefetch), slots: make(chan struct{}, r.settings.Prefetch),
		held: make(map[uint64]jetstream.Msg),
	}
	var work sync.WaitGroup
	work.Go(func() { cancel(f.fetch(ctx, consumer)) })
	work.Go(func() { f.alive(ctx, wait/3) })
	err = queue.Feed[arrived]{In: f.in, Most: r.settings.Prefetch, Message: r.event, Settle: func(ms []arrived) error {
		s.Lagging(int64(ms[len(ms)-1].meta.NumPending))
		return f.settle(ms)
	}}.Run(ctx, s)
	if err == nil {
		err = context.Cause(ctx)
	}
	cancel(err)
	work.Wait()
	return err
}

// consumer finds the consumer, or makes the trigger's own. It gives the time after which
// the server takes an unacknowledged message for lost.
func (r *streamReader) consumer(ctx context.Context, s *queue.Session, js jetstream.JetStream) (jetstream.Consumer, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, queue.DialTimeout)
	defer cancel()
	if name := r.settings.Consumer; name != "" {
		c, err := js.Consumer(ctx, r.settings.Stream, name)
		if err != nil {
			return nil, 0, fmt.Errorf("looking for consumer %q of stream %q: %w", name, r.settings.Stream, err)
		}
		conf := c.CachedInfo().Config
		if conf.AckPolicy != jetstream.AckExplicitPolicy || conf.DeliverSubject != "" || conf.Durable == "" {
			return nil, 0, fmt.Errorf("consumer %q of stream %q must be a durable pull consumer with explicit acknowledgement", name, r.settings.Stream)
		}
		return c, conf.AckWait, nil
	}
	name := ownName(s)
	conf := jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
		MaxAckPending: r.settings.Prefetch, FilterSubjects: r.settings.Subjects,
		Description: "made by Casemate for a trigger",
	}
	if r.settings.From == "new" {
		conf.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	// Where it starts cannot be changed once it is there, and has no meaning any more.
	old, err := js.Consumer(ctx, r.settings.Stream, name)
	switch {
	case err == nil:
		was := old.CachedInfo().Config
		conf.DeliverPolicy, conf.OptStartSeq, conf.OptStartTime = was.DeliverPolicy, was.OptStartSeq, was.OptStartTime
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, 0, fmt.Errorf("looking for stream %q: %w", r.settings.Stream, err)
	}
	c, err := js.CreateOrUpdateConsumer(ctx, r.settings.Stream, conf)
	if err != nil {
		return nil, 0, fmt.Errorf("making a consumer of stream %q: %w", r.settings.Stream, err)
	}
	return c, ackWait, nil
}

// fetcher holds at most as many unacknowledged messages as there are slots.
type fetcher struct {
	in    chan arrived
	slots chan struct{} // one for each that is held or asked for

	mu   sync.Mutex
	held map[uint64]jetstream.Msg // by sequence in the stream
}

// fetch asks for messages until ctx or the connection ends.
func (f *fetcher) fetch(ctx context.Context, c jetstream.Consumer) error {
	for {
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		want := 1
		for more := true; more; {
			select {
			case f.slots <- struct{}{}:
				want++
			default:
				more = false
			}
		}
		batch, err := c.Fetch(want, jetstream.FetchMaxWait(fetchWait), jetstream.FetchHeartbeat(heartbeat))
		if err != nil {
			return fmt.Errorf("fetching: %w", err)
		}
		got, err := f.take(ctx, batch)
		for range want - got {
			<-f.slots
		}
		if err != nil {
			return err
		}
	}
}

// take passes a batch on and says how many messages it had.
func (f *fetcher) take(ctx context.Context, batch jetstream.MessageBatch) (int, error) {
	got := 0
	for {
		select {
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case m, open := <-batch.Messages():
			if !open {
				if err := batch.Error(); err != nil {
					return got, fmt.Errorf("fetching: %w", err)
				}
				return got, nil
			}
			meta, err := m.Metadata()
			if err != nil {
				return got, fmt.Errorf("reading a message's origin: %w", err)
			}
			got++
			f.mu.Lock()
			f.held[meta.Sequence.Stream] = m
			f.mu.Unlock()
			f.in <- arrived{m, meta} // there are as many places as slots
		}
	}
}

// alive tells the server that what is held is not lost.
func (f *fetcher) alive(ctx context.Context, every time.Duration) {
	t := time.NewTicker(max(every, 100*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		f.mu.Lock()
		for _, m := range f.held {
			_ = m.InProgress() // a lost connection ends everything anyway
		}
		f.mu.Unlock()
	}
}

// settle acknowledges messages that are on disk.
func (f *fetcher) settle(ms []arrived) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range ms {
		delete(f.held, m.meta.Sequence.Stream)
		<-f.slots
		if err := m.Ack(); err != nil {
			return err
		}
	}
	return nil
}

// event makes an event of m.
func (r *streamReader) event(m arrived) event.Message {
	seq := strconv.FormatUint(m.meta.Sequence.Stream, 10)
	raw := queue.Raw{
		// The time tells streams apart that had the same name one after another.
		ID:      m.meta.Stream + "-" + seq + "-" + strconv.FormatInt(m.meta.Timestamp.UnixNano(), 36),
		Subject: m.Subject(), Time: m.meta.Timestamp,
		ContentType: m.Headers().Get("Content-Type"), Data: m.Data(),
	}
	raw.Detail = append([]queue.Entry{
		queue.Text("queue.kind", "jetstream"),
		queue.Text("queue.name", m.meta.Stream),
		queue.Text("queue.id", seq),
		queue.Text("jetstream.subject", m.Subject()),
		queue.Text("jetstream.consumer", m.meta.Consumer),
		queue.Number("jetstream.delivered", m.meta.NumDelivered),
	}, headers(m.Headers())...)
	return r.settings.Message(raw)
}

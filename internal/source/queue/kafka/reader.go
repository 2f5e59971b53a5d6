package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// What the client may hold in its buffers: two answers of brokers.
const (
	fetchBytes      = 8 << 20
	fetchesAtOnce   = 2
	decompressBytes = 64 << 20 // of one batch; longer ones are an attack or a mistake
	sinceKey        = "kafka-since"
)

// reader is one member of a group, over many clients, one at a time.
type reader struct {
	settings   *settings
	connection *connection
}

type partition struct {
	topic  string
	number int32
}

// member is one client's time in the group.
type member struct {
	client  *kgo.Client
	session *queue.Session
	events  func(*kgo.Record) event.Message

	mu     sync.Mutex
	lag    map[partition]int64
	lost   map[partition]bool // taken from us, and not given back
	yield  context.CancelFunc // ends waiting for the sink, when there is any
	wanted bool               // a rebalance waits for us
}

func (r *reader) listen(ctx context.Context, s *queue.Session) error {
	m := &member{session: s, events: r.event, lag: make(map[partition]int64), lost: make(map[partition]bool)}
	options, err := r.options(ctx, s, m)
	if err != nil {
		return err
	}
	m.client, err = kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("preparing the client: %w", err)
	}
	defer m.client.CloseAllowingRebalance()
	if err := r.look(ctx, m.client); err != nil {
		return err
	}
	s.Running(-1)
	for ctx.Err() == nil {
		if err := m.round(ctx, r.settings.Prefetch); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *reader) options(ctx context.Context, s *queue.Session, m *member) ([]kgo.Opt, error) {
	dial, err := r.connection.Dialer(s.Connection)
	if err != nil {
		return nil, err
	}
	start, err := r.start(ctx, s)
	if err != nil {
		return nil, err
	}
	group := r.settings.Group
	if group == "" {
		group = strings.Join([]string{"casemate", s.Ref.Namespace, s.Ref.Name, s.Trigger.Name}, ".")
	}
	gone := func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { m.gone(ps) }
	options := []kgo.Opt{
		kgo.SeedBrokers(r.connection.Servers...), kgo.Dialer(dial), kgo.ClientID("casemate"), kgo.DisableClientMetrics(),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(r.settings.Topics...), kgo.ConsumeStartOffset(start),
		// What is gone is gone: what is left is read from its beginning, nothing is skipped.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(gone), kgo.OnPartitionsLost(gone),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { m.given(ps) }),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { m.giveWay() }),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(fetchBytes),
		kgo.MaxConcurrentFetches(fetchesAtOnce), kgo.MaxDecompressBatchBytes(decompressBytes),
	}
	return append(options, r.connection.sasl(s.Connection)...), nil
}

// start is where a partition begins that the group has no offset of. "New" is a time, kept
// from the first run on: with the log's end instead, a partition that is added later would
// lose what came before we heard of it.
func (r *reader) start(ctx context.Context, s *queue.Session) (kgo.Offset, error) {
	if r.settings.From != "new" {
		return kgo.NewOffset().AtStart(), nil
	}
	raw, err := s.Store.Get(ctx, sinceKey)
	if err != nil {
		return kgo.Offset{}, fmt.Errorf("reading where to begin: %v", err)
	}
	since, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		since = s.Clock().UnixMilli()
		if err := s.Store.Put(ctx, sinceKey, strconv.AppendInt(nil, since, 10)); err != nil {
			return kgo.Offset{}, fmt.Errorf("keeping where to begin: %v", err)
		}
	}
	return kgo.NewOffset().AfterMilli(since), nil
}

// look fails when there is no broker, it does not let us in, or a topic is not there: the
// consumer itself would try for ever without a word.
func (r *reader) look(ctx context.Context, c *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*queue.DialTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	for _, name := range r.settings.Topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	reply, err := req.RequestWith(ctx, c)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	for _, t := range reply.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !kerr.IsRetriable(err) || errors.Is(err, kerr.UnknownTopicOrPartition) {
			name := ""
			if t.Topic != nil {
				name = *t.Topic
			}
			return fmt.Errorf("looking for topic %q, which must exist: %w", name, err)
		}
	}
	return nil
}

// gone is called by the client when partitions are no longer ours.
func (m *member) gone(ps map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for topic, numbers := range ps {
		for _, n := range numbers {
			m.lost[partition{topic, n}] = true
			delete(m.lag, partition{topic, n})
		}
	}
}

// given is called by the client when partitions are ours, perhaps again.
func (m *member) given(ps map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for topic, numbers := range ps {
		for _, n := range numbers {
			delete(m.lost, partition{topic, n})
		}
	}
}

// giveWay is called by the client when a rebalance waits for us.
func (m *member) giveWay() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = true
	if m.yield != nil {
		m.yield()
	}
}

// round polls once, hands in what there was and commits it.
func (m *member) round(ctx context.Context, most int) error {
	// Between two rounds rebalances are allowed, so nobody can want one from us.
	m.mu.Lock()
	m.wanted = false
	m.mu.Unlock()
	fetches := m.client.PollRecords(ctx, most)
	defer m.client.AllowRebalance()
	if ctx.Err() != nil {
		return nil
	}
	if err := m.complaints(fetches); err != nil {
		return err
	}
	records := fetches.Records()
	for len(records) > 0 {
		err := m.handIn(ctx, records)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errYield) {
			return err
		}
		// The client has advanced beyond these records, so they must not be dropped: they
		// are tried again while the group rebalances, without the partitions that it takes.
		m.client.AllowRebalance()
		records = m.ours(records)
	}
	if err := m.commit(ctx, records); err != nil {
		return err
	}
	m.report(fetches, records)
	return nil
}

// commit commits the offsets of records that are on disk, as far as they are ours. The
// group refuses commits while it rebalances, which is soon over.
func (m *member) commit(ctx context.Context, records []*kgo.Record) error {
	for {
		records = m.ours(records)
		if len(records) == 0 {
			return nil
		}
		bound, cancel := context.WithTimeout(ctx, 2*queue.DialTimeout)
		err := m.client.CommitRecords(bound, records...)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, kerr.RebalanceInProgress) {
			return fmt.Errorf("committing offsets: %w", err)
		}
		m.client.AllowRebalance()
		t := time.NewTimer(commitPause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

var errYield = errors.New("the group rebalances")

const (
	// yieldPause is how long one attempt at the sink may take once a rebalance is allowed:
	// then it is looked which partitions are left.
	yieldPause = 2 * time.Second
	// commitPause is between two tries to commit while the group rebalances.
	commitPause = 200 * time.Millisecond
)

// handIn fails with errYield when a rebalance is wanted before the sink took the records.
func (m *member) handIn(ctx context.Context, records []*kgo.Record) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	m.mu.Lock()
	if m.wanted {
		var end context.CancelFunc
		waiting, end = context.WithTimeout(waiting, yieldPause)
		defer end()
	}
	m.yield = stop
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.yield = nil
		m.mu.Unlock()
	}()
	events := make([]event.Message, len(records))
	for i, r := range records {
		events[i] = m.events(r)
	}
	err := m.session.Accept(waiting, events)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return errYield
	}
	return err
}

// ours leaves out the records of partitions that were taken from us.
func (m *member) ours(records []*kgo.Record) []*kgo.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(records), func(r *kgo.Record) bool {
		return m.lost[partition{r.Topic, r.Partition}]
	})
}

// complaints fails with the first error that the client does not get over by itself.
func (m *member) complaints(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		var lost *kgo.ErrDataLoss
		if errors.As(e.Err, &lost) {
			m.session.Log.Warn("records lost by the broker", "topic", e.Topic, "partition", e.Partition, "reason", lost.Error())
			m.session.Alert("records were lost before they were read: " + lost.Error())
			continue
		}
		if kerr.IsRetriable(e.Err) {
			m.session.Log.Warn("partition cannot be read", "topic", e.Topic, "partition", e.Partition, "reason", e.Err.Error())
			continue
		}
		return fmt.Errorf("reading topic %q: %w", e.Topic, e.Err)
	}
	return nil
}

// report says how many records there are in our partitions that are not committed.
func (m *member) report(fetches kgo.Fetches, committed []*kgo.Record) {
	ends := make(map[partition]int64)
	fetches.EachPartition(func(p kgo.FetchTopicPartition) { ends[partition{p.Topic, p.Partition}] = p.HighWatermark })
	m.mu.Lock()
	for _, r := range committed {
		if at := (partition{r.Topic, r.Partition}); !m.lost[at] {
			m.lag[at] = max(0, ends[at]-r.Offset-1)
		}
	}
	total := int64(0)
	for _, n := range m.lag {
		total += n
	}
	m.mu.Unlock()
	m.session.Lagging(total)
}

// event makes an event of a record.
func (r *reader) event(rec *kgo.Record) event.Message {
	at, offset := strconv.Itoa(int(rec.Partition)), strconv.FormatInt(rec.Offset, 10)
	raw := queue.Raw{
		// The time tells topics apart that had the same name one after another.
		ID:      rec.Topic + "-" + at + "-" + offset + "-" + strconv.FormatInt(rec.Timestamp.UnixMilli(), 36),
		Subject: rec.Topic, Data: rec.Value, Key: rec.Key,
		Detail: []queue.Entry{
			queue.Text("queue.kind", "kafka"),
			queue.Text("queue.name", rec.Topic),
			queue.Text("queue.id", at+"-"+offset),
			queue.Text("kafka.partition", at),
			queue.Text("kafka.offset", offset),
			queue.Number("kafka.timestamp", rec.Timestamp.UnixMilli()),
		},
	}
	if rec.Timestamp.UnixMilli() > 0 { // -1 says that there is none
		raw.Time = rec.Timestamp
	}
	if rec.Key != nil {
		raw.Detail = append(raw.Detail, queue.Text("kafka.key", base64.StdEncoding.EncodeToString(rec.Key)))
	}
	for _, h := range rec.Headers {
		if strings.EqualFold(h.Key, "content-type") {
			raw.ContentType = string(h.Value)
		}
		raw.Detail = append(raw.Detail, queue.Entry{Name: "header." + h.Key, Value: h.Value})
	}
	return r.settings.Message(raw)
}

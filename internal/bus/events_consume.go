package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

const (
	maxConsumer  = 220              // characters of a consumer's name; the server makes a file name of it
	pullEvents   = 512              // asked for at once, at most
	pullBytes    = 16 << 20         // and of these many bytes
	pullTime     = time.Minute      // a request waits so long at the server
	pullLost     = 75 * time.Second // after which one counts as lost
	maxAckWindow = 100_000
)

// From says where a new consumer begins.
type From struct {
	Sequence uint64    // with this one, or the first later one
	Time     time.Time // with the first one stored at or after it
	New      bool      // with what is stored after the consumer was made
} // the zero value: with the oldest one

// ConsumerConfig describes a consumer of one channel. Window and AckWait may be
// changed from one Consume to the next, the others not.
type ConsumerConfig struct {
	Name      string // labels joined by dots, unique in these Events
	Namespace string
	Channel   string
	Window    int           // most events handed over and not settled
	AckWait   time.Duration // without a word for so long, an event is handed over again
	From      From          // when the consumer is made
}

// Delivered is an event handed to a consumer, to be settled by Ack. Its methods
// may be called from any goroutine, also after Consume has returned.
type Delivered struct {
	EventRecord
	Attempt int  // 1 for the first time; at least that after a crash
	Damaged bool // it is not what was stored, and only its place is told; Data is nil

	events *Events
	reply  string // empty for one that the consumer does not wait for
}

// Ack settles the event: it does not come again. It is lost when the node dies at
// once; then the event comes again.
func (d *Delivered) Ack() error { return d.events.say(d.reply, "+ACK") }

// Later has the event handed over again after a while.
func (d *Delivered) Later(after time.Duration) error {
	return d.events.say(d.reply, `-NAK {"delay":`+strconv.FormatInt(int64(max(after, 0)), 10)+`}`)
}

// Working lets ConsumerConfig.AckWait begin anew.
func (d *Delivered) Working() error { return d.events.say(d.reply, "+WPI") }

func (e *Events) say(reply, word string) error {
	if reply == "" {
		return nil
	}
	if err := e.bus.conn.Publish(reply, []byte(word)); err != nil {
		return fmt.Errorf("settling an event of %s: %v", e.cfg.Name, err)
	}
	return nil
}

// route leads what the server sends for one consumer to its Consume. It stays when
// that ends: what was still on its way waits here for the next one.
type route struct {
	running sync.Mutex    // held by Consume
	wake    chan struct{} // capacity 1

	mu   sync.Mutex
	msgs []*nats.Msg
}

func (r *route) put(m *nats.Msg) {
	r.mu.Lock()
	r.msgs = append(r.msgs, m)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *route) take(space []*nats.Msg) []*nats.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	msgs := r.msgs
	r.msgs = space[:0]
	return msgs
}

// back returns what was taken and not handed over.
func (r *route) back(msgs []*nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(append([]*nats.Msg(nil), msgs...), r.msgs...)
}

// routeOf finds or makes the route of a consumer.
func (e *Events) routeOf(name string) *route {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.routes[name]
	if r == nil {
		r = &route{wake: make(chan struct{}, 1)}
		e.routes[name] = r
	}
	return r
}

// acked is what the server tells in the subject for an acknowledgement.
type acked struct {
	consumer  string
	attempt   int
	sequence  uint64
	timestamp int64
}

// parseAck reads $JS.ACK.stream.consumer.attempt.sequence.number.time.pending, or
// the newer form with two more tokens (a domain and a hash) before the stream and
// perhaps more at the end.
func parseAck(reply string) (a acked, ok bool) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return a, false
	}
	t := strings.Split(rest, ".")
	if len(t) >= 9 {
		t = t[2:]
	}
	if len(t) < 7 {
		return a, false
	}
	a.consumer = t[1]
	attempt, err1 := strconv.Atoi(t[2])
	seq, err2 := strconv.ParseUint(t[3], 10, 64)
	at, err3 := strconv.ParseInt(t[5], 10, 64)
	a.attempt, a.sequence, a.timestamp = attempt, seq, at
	return a, err1 == nil && err2 == nil && err3 == nil
}

// consuming is one Consume under way.
type consuming struct {
	e       *Events
	route   *route
	name    string // of the consumer at the server
	subject string
	inbox   string // for what is asked for
	batch   int    // requested at once
	asked   int    // requested and not here yet
	last    uint64 // sequence of the last one handed over for the first time
	again   uint64 // up to there, events may have been handed over before, which nobody knows any more
	watch   *watch
}

// Consume makes the consumer when it is absent, and calls fn for each of its
// events, one after another, until ctx ends; then it returns nil. fn does not
// settle events by returning, and should return soon: who is to work on several
// events at once does so elsewhere, and settles each when it is done.
//
// Events come in the order of storing, but those that come again come in between.
// After a restart, those not settled come again. A damaged or missing event is
// reported (Bus.Check, Bus.Warnings) and handed over as such, but not always in its turn,
// and only if there is a trace of it. A consumer whose own files were damaged goes on
// behind what was settled for certain; what may come again then has an Attempt above 1.
// A consumer has one Consume at a time.
func (e *Events) Consume(ctx context.Context, cfg ConsumerConfig, fn func(*Delivered)) error {
	doing := "consuming events " + e.cfg.Name + " as " + cfg.Name
	subject, err := e.subject(cfg.Namespace, cfg.Channel)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %v", doing, err)
	case !validConsumer(cfg.Name):
		return fmt.Errorf("%s: the name is not made of labels, %d characters at most", doing, maxConsumer)
	case cfg.Window < 1 || cfg.Window > maxAckWindow:
		return fmt.Errorf("%s: ConsumerConfig.Window is %d: want 1 to %d", doing, cfg.Window, maxAckWindow)
	case cfg.AckWait < time.Millisecond:
		return fmt.Errorf("%s: ConsumerConfig.AckWait is %v: want a millisecond or more", doing, cfg.AckWait)
	}
	c := &consuming{e: e, name: consumerName(cfg.Name), subject: subject, inbox: nats.NewInbox(), batch: min(cfg.Window, pullEvents), watch: newWatch(cfg.AckWait)}
	defer c.watch.timer.Stop()
	c.route = e.routeOf(c.name)
	if !c.route.running.TryLock() {
		return fmt.Errorf("%s: it is being consumed already", doing)
	}
	defer c.route.running.Unlock()
	if err := c.open(ctx, cfg); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		// The server does not open one whose files are damaged, and knows nothing of it then.
		e.bus.warn(fmt.Sprintf("%s: the consumer %s cannot be opened, and may begin anew: %v", e.cfg.Name, cfg.Name, err))
		return e.bus.failure(doing, err)
	}
	err = c.run(ctx, fn)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, state.ErrNotFound), errors.Is(err, errEventsClosed):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return e.bus.failure(doing, err)
}

func validConsumer(name string) bool {
	if len(name) > maxConsumer {
		return false
	}
	for l := range strings.SplitSeq(name, ".") {
		if !function.ValidName(l) {
			return false
		}
	}
	return true
}

// open makes the consumer, or brings it up to date.
func (c *consuming) open(ctx context.Context, cfg ConsumerConfig) error {
	want := jetstream.ConsumerConfig{
		Durable: c.name, FilterSubject: c.subject, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1,
		AckWait: cfg.AckWait, MaxAckPending: cfg.Window, Replicas: 1,
	}
	switch {
	case cfg.From.Sequence > 0:
		want.DeliverPolicy, want.OptStartSeq = jetstream.DeliverByStartSequencePolicy, cfg.From.Sequence
	case !cfg.From.Time.IsZero():
		want.DeliverPolicy, want.OptStartTime = jetstream.DeliverByStartTimePolicy, &cfg.From.Time
	case cfg.From.New:
		want.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	has, err := c.e.stream.Consumer(ctx, c.name)
	var was lostPosition
	var lost bool
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		if was, lost = c.e.isLost(c.name); lost {
			c.again = c.e.began
		}
		if was.known {
			cfg.From = From{Sequence: was.Settled + 1}
			want.DeliverPolicy, want.OptStartSeq, want.OptStartTime = jetstream.DeliverByStartSequencePolicy, was.Settled+1, nil
		}
	case err != nil:
		return err
	default:
		now := has.CachedInfo()
		c.last = now.Delivered.Stream
		if now.NumAckPending > 0 {
			c.watch.floor = now.AckFloor.Stream
			c.watch.begin()
		}
		if now.Config.FilterSubject != c.subject {
			return fmt.Errorf("it is a consumer of %s", now.Config.FilterSubject)
		}
		if now.Config.AckWait == want.AckWait && now.Config.MaxAckPending == want.MaxAckPending {
			return nil
		}
		want.DeliverPolicy, want.OptStartSeq, want.OptStartTime = now.Config.DeliverPolicy, now.Config.OptStartSeq, now.Config.OptStartTime
	}
	made, err := c.e.stream.CreateOrUpdateConsumer(ctx, want)
	if err != nil {
		return err
	}
	c.last = made.CachedInfo().Delivered.Stream
	if lost {
		c.e.found(c.name, was)
	}
	if cfg.From.Sequence > 0 {
		c.last = max(c.last, cfg.From.Sequence-1)
	}
	if !cfg.From.Time.IsZero() && c.last == 0 {
		c.last = unknown
	}
	return nil
}

// unknown stands for the sequence before the first event of a consumer that begins
// at a time.
const unknown = ^uint64(0)

func (c *consuming) run(ctx context.Context, fn func(*Delivered)) error {
	sub, err := c.e.bus.conn.Subscribe(c.inbox, c.route.put)
	if err != nil {
		return err
	}
	// A request that nobody listens for any more is void. What is on its way still
	// comes, and waits for the next Consume.
	defer func() { _ = sub.Drain() }() // fails when the connection is closed, and then it is gone
	// Windows bound what is on its way; what was dropped would come late.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	lost := time.NewTimer(pullLost)
	defer lost.Stop()
	var msgs []*nats.Msg
	for {
		if err := c.ask(); err != nil {
			return err
		}
		msgs = c.route.take(msgs)
		for i, m := range msgs {
			if ctx.Err() != nil {
				c.route.back(msgs[i:])
				return nil
			}
			if err := c.message(ctx, m, fn); err != nil {
				c.route.back(msgs[i+1:])
				return err
			}
			if c.asked <= c.batch/2 {
				if err := c.ask(); err != nil {
					c.route.back(msgs[i+1:])
					return err
				}
			}
		}
		if len(msgs) > 0 {
			clear(msgs)
			lost.Reset(pullLost)
			continue
		}
		if c.asked <= c.batch/2 {
			continue
		}
		select {
		case <-c.route.wake:
		case <-lost.C:
			c.asked = 0
			lost.Reset(pullLost)
		case <-c.watch.timer.C:
			if err := c.look(ctx, fn); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-c.e.closing:
			return errEventsClosed
		}
	}
}

// ask keeps between half a batch and a whole one requested.
func (c *consuming) ask() error {
	if c.asked > c.batch/2 {
		return nil
	}
	b, err := json.Marshal(struct {
		Batch    int           `json:"batch"`
		MaxBytes int           `json:"max_bytes"`
		Expires  time.Duration `json:"expires"`
	}{c.batch - c.asked, pullBytes, pullTime})
	if err != nil {
		return err
	}
	c.asked = c.batch
	return c.e.bus.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.e.name+"."+c.name, c.inbox, b)
}

func (c *consuming) message(ctx context.Context, m *nats.Msg, fn func(*Delivered)) error {
	if p, ok := parseAck(m.Reply); ok {
		c.asked = max(c.asked-1, 0)
		c.event(ctx, m, p, fn)
		return nil
	}
	switch status := m.Header.Get("Status"); status {
	case "100": // a heartbeat
	case "404", "408", "409":
		text := m.Header.Get("Description")
		for _, end := range []string{"Consumer Deleted", "Server Shutdown", "Stream Deleted"} {
			if strings.EqualFold(text, end) {
				return fmt.Errorf("%s: %w", strings.ToLower(end), state.ErrNotFound)
			}
		}
		// A request has ended early; what it did not bring is asked for anew.
		n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			n = c.asked
		}
		c.asked = max(c.asked-n, 0)
	case "503":
		return fmt.Errorf("there is no such consumer: %w", state.ErrNotFound)
	default:
		return fmt.Errorf("the server answered %s %s", status, m.Header.Get("Description"))
	}
	return nil
}

func (c *consuming) event(ctx context.Context, m *nats.Msg, p acked, fn func(*Delivered)) {
	c.watch.begin()
	r, ok := c.e.unframe(m.Subject, p.sequence, m.Data)
	if c.e.isBuried(p.sequence) {
		c.last = max(c.last, p.sequence)
		_ = c.e.say(m.Reply, "+TERM") // if this is lost, it comes again
		return
	}
	if !ok {
		c.last = max(c.last, p.sequence)
		_ = c.e.damage(p.sequence, c.subject, c.e.called(p.sequence)) // on record
		delete(c.watch.told, p.sequence)                              // nobody has settled it since
		c.damaged(&Delivered{EventRecord: EventRecord{Sequence: p.sequence, Time: time.Unix(0, p.timestamp)}, Attempt: p.attempt, reply: m.Reply}, fn)
		return
	}
	if p.attempt == 1 {
		if r.prev > c.last {
			c.missing(ctx, r, fn)
		}
		if c.last == unknown || p.sequence > c.last {
			c.last = p.sequence
		}
	}
	r.Time = time.Unix(0, p.timestamp)
	if p.sequence <= c.again {
		p.attempt = max(p.attempt, 2)
	}
	fn(&Delivered{EventRecord: r, Attempt: p.attempt, events: c.e, reply: m.Reply})
}

// missing is for an event whose predecessor has not come before it.
func (c *consuming) missing(ctx context.Context, r EventRecord, fn func(*Delivered)) {
	if c.e.explained(ctx, c.subject, r.prev) {
		return
	}
	// It may have got lost on its way here, and will come again; else get reports it.
	if _, err := c.e.get(ctx, r.prev); errors.Is(err, ErrCorrupt) {
		_ = c.e.damage(r.prev, c.subject, c.e.called(r.prev)) // on record; now with its subject
		c.damaged(&Delivered{EventRecord: EventRecord{Sequence: r.prev}, Attempt: 1}, fn)
	}
}

// consumer describes a consumer, or fails with state.ErrNotFound.
func (e *Events) consumer(ctx context.Context, name string) (*jetstream.ConsumerInfo, error) {
	doing := "looking up consumer " + name
	if !validConsumer(name) {
		return nil, fmt.Errorf("%s: the name is not made of labels", doing)
	}
	c, err := e.stream.Consumer(ctx, consumerName(name))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("%s: %w", doing, state.ErrNotFound)
	}
	if err != nil {
		return nil, e.bus.failure(doing, err)
	}
	return c.CachedInfo(), nil
}

// DropConsumer forgets a consumer and its position. Its Consume ends with
// state.ErrNotFound. It does nothing when there is none.
func (e *Events) DropConsumer(ctx context.Context, name string) error {
	if !validConsumer(name) {
		return fmt.Errorf("dropping consumer %.80q: the name is not made of labels", name)
	}
	e.dropping.Lock()
	defer e.dropping.Unlock()
	if err := e.unnote(ctx, consumerName(name)); err != nil {
		return e.bus.failure("dropping consumer "+name, err)
	}
	err := e.stream.DeleteConsumer(ctx, consumerName(name))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return e.bus.failure("dropping consumer "+name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.routes[consumerName(name)]; r != nil && r.running.TryLock() {
		delete(e.routes, consumerName(name)) // nobody uses it
		r.running.Unlock()
	}
	return nil
}

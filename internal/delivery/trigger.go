package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds on what one trigger keeps.
const (
	// MaxParked is how many events of one trigger may wait for another attempt, or behind
	// one of their key that does. Beyond it the trigger begins no new ones.
	MaxParked = 10_000
	// AckWait is how long an event in hand stays ours without a word.
	AckWait = 30 * time.Second
	// triggerBytes of events in hand, for one trigger; it may always hold one event.
	triggerBytes = 8 << 20
	// recoverMost is how long an ordered trigger waits for what was unsettled when it
	// began. The consumer has redelivered all of it after AckWait.
	recoverMost   = 3 * AckWait
	recoverLook   = 500 * time.Millisecond
	consumePause  = time.Second // after Consume has failed
	consumeMost   = time.Minute
	maxLastDetail = 1 << 10 // bytes kept of an error
)

// trigger delivers the events of one binding, in sessions: from being wanted until it is
// paused, changed or stopped.
type trigger struct {
	e   *Engine
	key Key

	mu      sync.Mutex
	b       *Binding
	limiter *rate.Limiter // nil for no bound
	wanted  bool
	sess    *session // nil when it does not run
	queues
	over   over
	gate   time.Time // turned away until then
	turned int       // times in a row
	timer  *time.Timer
	armed  time.Time // when timer fires; zero when it does not
	beat   time.Time // when the events in hand are due for a word
	log    retryLog
	counts counts
	cached cachedBacklog
}

// session is one run of a trigger.
type session struct {
	ctx        context.Context // ends when the session is to
	cancel     context.CancelFunc
	feeds      []*feed
	stopping   bool           // guarded by trigger.mu
	loaded     bool           // the retry log was read; guarded by trigger.mu
	recovering bool           // guarded by trigger.mu
	done       []uint64       // events that ended, as the retry log says; of the session's goroutine
	workers    sync.WaitGroup // Add only under trigger.mu while not stopping
	ended      chan struct{}
}

// feed is one channel that a session consumes.
type feed struct {
	ConsumerConfig
	replays  bool
	expected int64 // redeliveries that an ordered trigger waits for
	again    int64 // redeliveries that came
	held     int64 // in hand
}

// adopt puts a binding in force and starts or ends what must. t.e.mu is held.
func (t *trigger) adopt(b *Binding, wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.b
	t.b, t.wanted = b, wanted
	if old == nil || old.Delivery.Rate != b.Delivery.Rate {
		t.limiter = nil
		if r := b.Delivery.Rate; r > 0 {
			t.limiter = rate.NewLimiter(rate.Limit(r), max(1, r/100))
		}
	}
	switch {
	case t.sess == nil:
		t.begin()
	case !wanted || !old.sameFeed(b) || t.e.marks.has(t.key.replaysMark()) != (len(t.sess.feeds) > 1):
		t.halt()
	default:
		t.pump()
	}
}

// want starts or ends the trigger; see adopt.
func (t *trigger) want(wanted bool) {
	t.mu.Lock()
	b := t.b
	t.mu.Unlock()
	if b != nil {
		t.adopt(b, wanted)
	}
}

// begin starts a session if there is to be one. t.mu is held.
func (t *trigger) begin() {
	if !t.wanted || t.sess != nil || t.b == nil {
		return
	}
	s := &session{ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(t.e.hard)
	window := t.b.window()
	s.feeds = []*feed{{ConsumerConfig: t.e.consumes(t.b)}}
	if t.e.marks.has(t.key.replaysMark()) {
		channel := t.key.side("replay")
		s.feeds = append(s.feeds, &feed{replays: true, ConsumerConfig: ConsumerConfig{
			Name: t.key.consumer(channel), Namespace: t.key.Namespace, Channel: channel, Window: window, AckWait: AckWait,
		}})
	}
	s.recovering = t.b.Delivery.Ordered
	t.queues = newQueues()
	t.gate, t.turned = time.Time{}, 0
	t.sess = s
	go t.run(s)
}

// halt ends the session: nothing more is begun. t.mu is held.
func (t *trigger) halt() {
	if t.sess != nil && !t.sess.stopping {
		t.sess.stopping = true
		t.sess.cancel()
	}
}

// run is a session's goroutine.
func (t *trigger) run(s *session) {
	if t.load(s) {
		t.recover(s) // before anything consumes: then a consumer that has lost its place is made anew
		var others sync.WaitGroup
		for _, f := range s.feeds[1:] {
			others.Go(func() { t.consume(s, f) })
		}
		t.consume(s, s.feeds[0])
		others.Wait()
	}
	t.mu.Lock()
	t.halt() // for the one case that the engine's own context has ended
	t.mu.Unlock()
	s.workers.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, it := range t.items {
		if it.settler != nil {
			t.letGo(it)
			t.said(it.settler.Later(0))
		}
	}
	t.queues = queues{}
	t.sess = nil
	if t.timer != nil {
		t.timer.Stop()
		t.armed = time.Time{}
	}
	close(s.ended)
	t.begin()
}

func (t *trigger) consume(s *session, f *feed) {
	for n := 0; s.ctx.Err() == nil; n++ {
		began := t.e.cfg.Clock()
		err := t.e.cfg.Consumers.Consume(s.ctx, f.ConsumerConfig, func(d Delivered) { t.arrive(s, f, d) })
		if s.ctx.Err() != nil {
			return
		}
		if t.e.cfg.Clock().Sub(began) > consumeMost {
			n = 0
		}
		t.e.cfg.Logger.Error("events cannot be consumed; trying again", slog.String("trigger", t.key.String()), slog.Any("error", err))
		t.counts.note(t.e.cfg.Clock(), "", "events cannot be read")
		pause(s.ctx, doubled(consumePause, consumeMost, n))
	}
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// recover looks where the consumers are. An ordered trigger waits until all that was
// unsettled when the session began is in hand: new events are delivered first, and would
// overtake it. A consumer that was never there has nothing unsettled. One that has lost its
// place gets everything anew in its order, and there is nothing to wait for either; but what
// is known to have ended must not be run again.
func (t *trigger) recover(s *session) {
	expected, lost := int64(0), false
	for _, f := range s.feeds {
		for n := 0; s.ctx.Err() == nil; n++ {
			_, underWay, err := t.e.cfg.Consumers.Backlog(s.ctx, f.Name)
			if lost = lost || errors.Is(err, state.ErrCorrupt); err == nil || errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrCorrupt) {
				t.mu.Lock()
				f.expected = underWay
				t.mu.Unlock()
				expected += underWay
				break
			}
			pause(s.ctx, doubled(consumePause, consumeMost, n))
		}
	}
	if lost {
		t.e.cfg.Logger.Error("what a trigger has settled is damaged; events that were done may be done again", slog.String("trigger", t.key.String()))
		t.counts.note(t.e.cfg.Clock(), "", "what it has settled is damaged; events that were done may be done again")
		t.endedBefore(s)
	}
	s.done = nil
	t.mu.Lock()
	ordered := s.recovering
	t.mu.Unlock()
	if !ordered {
		return
	}
	if expected == 0 {
		t.recovered(s)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.stopping {
		s.workers.Go(func() { t.watchRecovery(s) })
	}
}

// endedBefore remembers the events of which the retry log or a dead letter says that they
// have ended.
func (t *trigger) endedBefore(s *session) {
	ended := s.done
	err := t.e.cfg.Deads.Read(s.ctx, Filter{Namespace: t.key.Namespace, Channel: t.key.Channel()}, func(r Record) bool {
		if d, settles := dead(t.key, r); settles == 0 && d.Event != 0 {
			ended = append(ended, d.Event)
		}
		return true
	})
	if err != nil && s.ctx.Err() == nil {
		t.e.cfg.Logger.Warn("dead letters cannot be read; some of their events may be run again", slog.String("trigger", t.key.String()), slog.Any("error", err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range ended {
		t.over.keep(seq)
	}
}

func (t *trigger) watchRecovery(s *session) {
	deadline := t.e.cfg.Clock().Add(recoverMost)
	for s.ctx.Err() == nil {
		pause(s.ctx, recoverLook)
		all := true
		for _, f := range s.feeds {
			_, underWay, err := t.e.cfg.Consumers.Backlog(s.ctx, f.Name)
			t.mu.Lock()
			// Nothing is settled meanwhile, so what the consumer counts and we do not hold is
			// still on its way.
			all = all && (f.again >= f.expected || err == nil && underWay <= f.held)
			t.mu.Unlock()
		}
		if late := t.e.cfg.Clock().After(deadline); all || late {
			if late && !all {
				t.e.cfg.Logger.Warn("an ordered trigger goes on although not all unsettled events came back", slog.String("trigger", t.key.String()))
			}
			t.recovered(s)
			return
		}
	}
}

func (t *trigger) recovered(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.recovering = false
	t.pump()
}

// arrive takes a record from the consumer. It waits while there is no room.
func (t *trigger) arrive(s *session, f *feed, d Delivered) {
	it := &item{seq: d.Sequence, stored: d.Time, data: d.Data, size: int64(len(d.Data)), settler: d.Settler, feed: f}
	t.mu.Lock()
	b := t.b
	t.mu.Unlock()
	switch {
	case d.Data == nil:
		it.bad = ReasonCorrupt
	case f.replays:
		it.data, it.bad = it.rerun.cut(it.data)
	}
	// Only who is ordered or filtered is looked at here; workers decode the others, and
	// there are several of them.
	if filter := b.Filter; it.bad == "" && (b.Delivery.Ordered || filter != nil && !f.replays) {
		it.decode()
		if b.Delivery.Ordered && it.msg != nil {
			it.key = it.msg.Key
		}
		if filter != nil && !f.replays && it.msg != nil && !filter(it.msg) {
			t.said(d.Ack())
			t.counts.filtered.Add(1)
			return
		}
	}
	err := t.e.budget.wait(s.ctx, func(roomy bool) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.held == 0 || s.recovering && d.Attempt > 1 || roomy && t.bytes+it.size <= triggerBytes
	}, it.size)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || s.stopping {
		t.said(d.Later(0))
		return
	}
	if d.Attempt > 1 {
		f.again++
	}
	if known := t.items[it.seq]; known != nil {
		t.known(known, d)
		return
	}
	if t.over.has(it.seq) {
		t.said(d.Ack())
		return
	}
	now := t.e.cfg.Clock()
	t.hold(it, now)
	t.add(it, now)
	if l := t.lanes[it.key]; it.key != "" && t.stuck(l, now) {
		t.relieve(s, l)
	}
	t.pump()
}

// known handles a second delivery of what we have. t.mu is held.
func (t *trigger) known(it *item, d Delivered) {
	if it.settler == nil {
		// It was parked on disk, and the node ended before it could say so; or the word has
		// not arrived.
		t.said(d.Ack())
		return
	}
	it.settler = d.Settler
}

// hold counts an item as in hand. t.mu is held.
func (t *trigger) hold(it *item, now time.Time) {
	if t.held == 0 {
		t.beat = now.Add(AckWait / 3)
	}
	t.held++
	t.bytes += it.size
	it.feed.held++
	t.e.budget.take(it.size)
}

// letGo is hold's reverse. t.mu is held.
func (t *trigger) letGo(it *item) {
	t.held--
	t.bytes -= it.size
	it.feed.held--
	t.e.budget.give(it.size)
}

// decode reads the event if nobody has yet.
func (it *item) decode() {
	if it.msg != nil || it.bad != "" {
		return
	}
	m, err := event.Decode(it.data)
	if err != nil {
		it.bad = ReasonMalformed
		return
	}
	it.msg = m
}

// said is for words to the consumer: one that is lost means a redelivery, no more.
func (t *trigger) said(err error) {
	if err != nil {
		t.e.cfg.Logger.Warn("a word to the consumer was lost; the event will come again", slog.String("trigger", t.key.String()), slog.Any("error", err))
	}
}

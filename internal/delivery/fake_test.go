package delivery_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// disk is what outlives a crash: streams, consumers, keys and values. It behaves as the
// bus does: what was handed out and is not settled comes again after AckWait, and new
// records come before it.
type disk struct {
	mu        sync.Mutex
	changed   chan struct{}
	events    *tape
	deads     *tape
	consumers map[string]*consumer
	lost      map[string]bool // consumers that have lost their place and were not made anew
	kv        map[string]state.Entry
	rev       uint64
}

type tape struct {
	records []delivery.Record
	last    uint64
	ids     map[string]uint64
	gone    map[uint64]bool
}

type consumer struct {
	cfg     delivery.ConsumerConfig
	at      uint64 // highest sequence handed out
	pending map[uint64]*pending
	words   int // Working
}

type pending struct {
	due      time.Time
	attempts int
}

func newDisk() *disk {
	tape := func() *tape { return &tape{ids: map[string]uint64{}, gone: map[uint64]bool{}} }
	return &disk{changed: make(chan struct{}), events: tape(), deads: tape(), consumers: map[string]*consumer{}, lost: map[string]bool{}, kv: map[string]state.Entry{}}
}

// tell wakes whoever waits for a change. d.mu is held.
func (d *disk) tell() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// node is one life of a process on a disk. When it is dead, nothing of it has an effect.
type node struct {
	d    *disk
	mu   sync.Mutex
	dead bool
	// fault is asked before each write; true fails it, after it was done when late is true.
	fault func(what string) (fail, late bool)
	// hold is called after entries were stored, before anybody hears of it. It is set
	// before the node does anything.
	hold  func([]delivery.Entry)
	reads int // of the backlog
}

var errDead = errors.New("this node is dead")

func (n *node) alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.dead
}

func (n *node) kill() {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
}

func (n *node) faulty(what string) (fail, late bool) {
	n.mu.Lock()
	f := n.fault
	n.mu.Unlock()
	if f == nil {
		return false, false
	}
	return f(what)
}

type stream struct {
	n    *node
	tape *tape
	what string
}

var errFault = errors.New("no space left on this disk")

// Publish does not heed its context: what is under way may well get through.
func (s stream) Publish(_ context.Context, entries []delivery.Entry) ([]delivery.Stored, error) {
	if !s.n.alive() {
		return nil, errDead
	}
	fail, late := s.n.faulty(s.what)
	if fail && !late {
		return nil, errFault
	}
	if hold := s.n.hold; hold != nil {
		defer hold(entries)
	}
	s.n.d.mu.Lock()
	defer s.n.d.mu.Unlock()
	out := make([]delivery.Stored, 0, len(entries))
	for _, e := range entries {
		if e.ID == "" {
			panic("an entry without an id")
		}
		id := e.Namespace + "/" + e.Channel + "/" + e.ID
		if seq, there := s.tape.ids[id]; there {
			out = append(out, delivery.Stored{Sequence: seq, Duplicate: true})
			continue
		}
		s.tape.last++
		s.tape.ids[id] = s.tape.last
		s.tape.records = append(s.tape.records, delivery.Record{
			Namespace: e.Namespace, Channel: e.Channel, ID: e.ID, Sequence: s.tape.last, Time: time.Now(), Data: slices.Clone(e.Data),
		})
		out = append(out, delivery.Stored{Sequence: s.tape.last})
	}
	s.n.d.tell()
	if fail {
		return nil, errFault
	}
	return out, nil
}

func (s stream) Read(_ context.Context, f delivery.Filter, fn func(delivery.Record) bool) error {
	if !s.n.alive() {
		return errDead
	}
	s.n.d.mu.Lock()
	records := slices.Clone(s.tape.records)
	s.n.d.mu.Unlock()
	for _, r := range records {
		if r.Namespace == f.Namespace && r.Channel == f.Channel && r.Sequence > f.After &&
			(f.Since.IsZero() || !r.Time.Before(f.Since)) && (f.Until.IsZero() || r.Time.Before(f.Until)) && !fn(r) {
			return nil
		}
	}
	return nil
}

func (s stream) Get(_ context.Context, seq uint64) (delivery.Record, error) {
	if !s.n.alive() {
		return delivery.Record{}, errDead
	}
	s.n.d.mu.Lock()
	defer s.n.d.mu.Unlock()
	i, ok := slices.BinarySearchFunc(s.tape.records, seq, func(r delivery.Record, seq uint64) int { return cmp.Compare(r.Sequence, seq) })
	if !ok {
		return delivery.Record{}, state.ErrNotFound
	}
	if s.tape.records[i].Data == nil {
		return delivery.Record{}, state.ErrCorrupt
	}
	return s.tape.records[i], nil
}

func (s stream) Purge(_ context.Context, ns, channel string, upTo uint64) (int, error) {
	if !s.n.alive() {
		return 0, errDead
	}
	s.n.d.mu.Lock()
	defer s.n.d.mu.Unlock()
	before := len(s.tape.records)
	s.tape.records = slices.DeleteFunc(s.tape.records, func(r delivery.Record) bool {
		return r.Namespace == ns && r.Channel == channel && r.Sequence <= upTo
	})
	return before - len(s.tape.records), nil
}

func (n *node) Consume(ctx context.Context, cfg delivery.ConsumerConfig, fn func(delivery.Delivered)) error {
	for l := range strings.SplitSeq(cfg.Name, ".") {
		if !function.ValidName(l) || len(cfg.Name) > 220 {
			panic(cfg.Name + " cannot name a consumer")
		}
	}
	for ctx.Err() == nil && n.alive() {
		n.d.mu.Lock()
		c := n.d.consumers[cfg.Name]
		if c == nil {
			c = &consumer{cfg: cfg, pending: map[uint64]*pending{}}
			n.d.consumers[cfg.Name] = c
			delete(n.d.lost, cfg.Name)
		}
		r, attempt, next := c.next(n.d, cfg.Window)
		changed := n.d.changed
		n.d.mu.Unlock()
		if attempt > 0 {
			fn(delivery.Delivered{Record: r, Attempt: attempt, Settler: &word{n, c, r.Sequence}})
			continue
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer:
		}
	}
	return nil
}

// next hands out a record; otherwise it says when to look again. d.mu is held.
func (c *consumer) next(d *disk, window int) (r delivery.Record, attempt int, again time.Time) {
	now := time.Now()
	var due []uint64
	for seq, p := range c.pending {
		if !p.due.After(now) {
			due = append(due, seq)
		} else if again.IsZero() || p.due.Before(again) {
			again = p.due
		}
	}
	slices.Sort(due)
	for _, seq := range due {
		i, ok := slices.BinarySearchFunc(d.events.records, seq, func(r delivery.Record, seq uint64) int { return cmp.Compare(r.Sequence, seq) })
		if !ok {
			delete(c.pending, seq)
			continue
		}
		p := c.pending[seq]
		p.attempts++
		p.due = now.Add(c.cfg.AckWait)
		return d.events.records[i], p.attempts, time.Time{}
	}
	if len(c.pending) >= window {
		return r, 0, again
	}
	i, _ := slices.BinarySearchFunc(d.events.records, c.at+1, func(r delivery.Record, seq uint64) int { return cmp.Compare(r.Sequence, seq) })
	for _, r := range d.events.records[i:] {
		c.at = r.Sequence
		if r.Namespace == c.cfg.Namespace && r.Channel == c.cfg.Channel && !r.Time.Before(c.cfg.Since) {
			c.pending[r.Sequence] = &pending{due: now.Add(c.cfg.AckWait), attempts: 1}
			return r, 1, time.Time{}
		}
	}
	return delivery.Record{}, 0, again
}

type word struct {
	n   *node
	c   *consumer
	seq uint64
}

func (w *word) do(fn func(p *pending)) error {
	if !w.n.alive() {
		return errDead
	}
	w.n.d.mu.Lock()
	defer w.n.d.mu.Unlock()
	if p := w.c.pending[w.seq]; p != nil {
		fn(p)
		w.n.d.tell()
	}
	return nil
}

func (w *word) Ack() error {
	if fail, _ := w.n.faulty("ack"); fail {
		return errFault
	}
	return w.do(func(*pending) { delete(w.c.pending, w.seq) })
}

func (w *word) Later(d time.Duration) error {
	return w.do(func(p *pending) { p.due = time.Now().Add(d) })
}

func (w *word) Working() error {
	return w.do(func(p *pending) { p.due = time.Now().Add(w.c.cfg.AckWait); w.c.words++ })
}

func (n *node) Prepare(_ context.Context, cfg delivery.ConsumerConfig) error {
	if !n.alive() {
		return errDead
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.d.consumers[cfg.Name] == nil {
		n.d.consumers[cfg.Name] = &consumer{cfg: cfg, pending: map[uint64]*pending{}}
	}
	return nil
}

func (n *node) Backlog(_ context.Context, name string) (waiting, underWay int64, err error) {
	if !n.alive() {
		return 0, 0, errDead
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.reads++
	c := n.d.consumers[name]
	if n.d.lost[name] {
		return 0, 0, state.ErrCorrupt
	}
	if c == nil {
		return 0, 0, state.ErrNotFound
	}
	for _, r := range n.d.events.records {
		if r.Sequence > c.at && r.Namespace == c.cfg.Namespace && r.Channel == c.cfg.Channel && !r.Time.Before(c.cfg.Since) {
			waiting++
		}
	}
	return waiting, int64(len(c.pending)), nil
}

func (n *node) DropConsumer(_ context.Context, name string) error {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	delete(n.d.consumers, name)
	return nil
}

func (n *node) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return n.put(key, value, 0)
}

func (n *node) Update(_ context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return n.put(key, value, rev)
}

func (n *node) put(key string, value []byte, rev uint64) (uint64, error) {
	if !n.alive() {
		return 0, errDead
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.d.kv[key].Revision != rev {
		return 0, state.ErrConflict
	}
	n.d.rev++
	n.d.kv[key] = state.Entry{Key: key, Value: value, Revision: n.d.rev}
	return n.d.rev, nil
}

func (n *node) Delete(_ context.Context, key string, rev uint64) error {
	if !n.alive() {
		return errDead
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.d.kv[key].Revision != rev {
		return state.ErrConflict
	}
	delete(n.d.kv, key)
	return nil
}

func (n *node) List(_ context.Context, prefix string) ([]state.Entry, error) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	var out []state.Entry
	for k, e := range n.d.kv {
		if strings.HasPrefix(k, prefix) {
			out = append(out, e)
		}
	}
	return out, nil
}

// world is a disk, the node that runs on it, and a log of what its functions were called
// with.
type world struct {
	t      *testing.T
	disk   *disk
	node   *node
	engine *delivery.Engine
	change func(*delivery.Config)
	lives  int

	mu     sync.Mutex
	calls  []delivery.Call
	times  []time.Time
	answer func(ctx context.Context, c delivery.Call) (delivery.Outcome, error)
}

// newWorld starts a node whose functions answer so; nil answers 200.
func newWorld(t *testing.T, answer func(ctx context.Context, c delivery.Call) (delivery.Outcome, error), change func(*delivery.Config)) *world {
	w := &world{t: t, disk: newDisk(), answer: answer, change: change}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	w.lives++
	life, n := w.lives, &node{d: w.disk}
	ids := 0
	cfg := delivery.Config{
		Events: stream{n, w.disk.events, "events"}, Deads: stream{n, w.disk.deads, "deads"}, Consumers: n, State: n,
		Invoke: w.invoke, Clock: time.Now, Random: func() float64 { return 0.5 },
		NewID: func() string { ids++; return fmt.Sprintf("id-%d-%d", life, ids) },
	}
	if w.change != nil {
		w.change(&cfg)
	}
	e, err := delivery.Open(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.node, w.engine = n, e
}

func (w *world) invoke(ctx context.Context, c delivery.Call) (delivery.Outcome, error) {
	w.mu.Lock()
	w.calls = append(w.calls, c)
	w.times = append(w.times, time.Now())
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		return delivery.Outcome{Status: 200}, nil
	}
	return answer(ctx, c)
}

func (w *world) set(bindings ...delivery.Binding) {
	w.t.Helper()
	if err := w.engine.Set(w.t.Context(), bindings); err != nil {
		w.t.Fatal(err)
	}
}

// stop ends the node in order, crash without a word.
func (w *world) stop() {
	w.t.Helper()
	if err := w.engine.Stop(w.t.Context()); err != nil {
		w.t.Error(err)
	}
}

func (w *world) crash() {
	w.node.kill()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.engine.Stop(ctx)
}

// publish stores events with these ids on a channel of the namespace shop. An id a:b has
// the key a.
func (w *world) publish(channel string, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		m := event.Message{Event: event.Event{ID: id, Source: "/namespaces/shop", Type: "test"}, Data: []byte(`{"n":"` + id + `"}`)}
		if key, _, ok := strings.Cut(id, ":"); ok {
			m.Key = key
		}
		w.publishMessage(channel, &m)
	}
}

func (w *world) publishMessage(channel string, m *event.Message) {
	w.t.Helper()
	b, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	s := stream{&node{d: w.disk}, w.disk.events, "events"}
	if _, err := s.Publish(context.Background(), []delivery.Entry{{Namespace: "shop", Channel: channel, ID: m.ID, Data: b}}); err != nil {
		w.t.Fatal(err)
	}
}

// ran lists the ids that functions were called with, in order.
func (w *world) ran() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, c := range w.calls {
		for _, m := range c.Messages {
			out = append(out, m.ID)
		}
	}
	return out
}

func (w *world) dead(k delivery.Key) []delivery.Dead {
	w.t.Helper()
	var out []delivery.Dead
	err := w.engine.DeadLetters(w.t.Context(), k, delivery.DeadFilter{}, func(d *delivery.Dead) bool {
		out = append(out, *d)
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// on lists the messages of a channel.
func (w *world) on(channel string) []*event.Message {
	w.t.Helper()
	var out []*event.Message
	_ = stream{&node{d: w.disk}, w.disk.events, ""}.Read(context.Background(), delivery.Filter{Namespace: "shop", Channel: channel}, func(r delivery.Record) bool {
		m, err := event.Decode(r.Data)
		if err != nil {
			w.t.Errorf("%s: %v", channel, err)
			return true
		}
		out = append(out, m)
		return true
	})
	return out
}

// unsettled is how many events the consumers hold or have yet to hand out.
func (w *world) unsettled() (n int64) {
	for name := range w.disk.consumers {
		a, b, _ := (&node{d: w.disk}).Backlog(context.Background(), name)
		n += a + b
	}
	return n
}

// pass lets fake time go by.
func pass(d time.Duration) { <-time.After(d) }

// made lists the invocations, and when each began.
func (w *world) made() ([]delivery.Call, []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls), slices.Clone(w.times)
}

// losePlaces has all consumers forget what they have settled, as a damaged file does.
func (d *disk) losePlaces() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.consumers {
		delete(d.consumers, name)
		d.lost[name] = true
	}
}

// corrupt damages a stored event.
func (d *disk) corrupt(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.events.records {
		if d.events.records[i].ID == id {
			d.events.records[i].Data = nil
		}
	}
}

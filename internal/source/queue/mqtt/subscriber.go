package mqtt

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Times of a connection.
const (
	keepAliveSeconds = 30
	writeTimeout     = 10 * time.Second
	// storedKey is where the source keeps what its session is subscribed to, so that topics
	// which the trigger no longer names are given up.
	storedKey = "mqtt-subscription"
)

// Identifiers of our own packets; nothing else is ever under way.
const (
	subscribeID   = 1
	unsubscribeID = 2
)

// subscriber is one session with a broker, over many connections, one at a time.
type subscriber struct {
	settings   *settings
	connection *connection
	name       string // the client identifier
	run        string // drawn, begins the ids of events
	count      uint64 // of events; the reader's

	mu sync.Mutex
	// received are the identifiers of QoS 2 messages that are on disk and that the broker
	// has not released (MQTT 5.0, section 4.3.3).
	received map[uint16]bool
}

// stored is what the session is subscribed to.
type stored struct {
	Topics []string `json:"topics"`
	QoS    byte     `json:"qos"`
}

// listen runs one connection.
func (sub *subscriber) listen(ctx context.Context, s *queue.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, present, err := sub.dial(ctx, s)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	if !present {
		sub.mu.Lock()
		clear(sub.received)
		sub.mu.Unlock()
	}
	pending, err := sub.subscribe(ctx, s, l, present)
	if err != nil {
		return err
	}
	in := make(chan message, sub.settings.Prefetch)
	var work sync.WaitGroup
	work.Go(func() { cancel(l.pings(ctx)) })
	work.Go(func() { cancel(sub.read(ctx, s, l, pending, in)) })
	// The connection is closed after this and not before, so that what is on disk when the
	// source is stopped is still acknowledged.
	err = queue.Feed[message]{
		In: in, Most: sub.settings.Prefetch, Message: sub.event,
		Settle: func(ms []message) error { return sub.settle(l, ms) },
	}.Run(ctx, s)
	if ctx.Err() == nil && err != nil {
		cancel(err)
	} else {
		err = context.Cause(ctx)
	}
	_ = l.conn.Close()
	work.Wait()
	return err
}

// dial connects to the first server that takes us. present says whether it has our session.
func (sub *subscriber) dial(ctx context.Context, s *queue.Session) (l *line, present bool, err error) {
	dial, err := sub.connection.Dialer(s.Connection)
	if err != nil {
		return nil, false, err
	}
	for _, address := range sub.connection.Servers {
		l, present, err = sub.open(ctx, s, dial, address)
		if err == nil {
			return l, present, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, false, err
}

func (sub *subscriber) open(ctx context.Context, s *queue.Session, dial func(context.Context, string, string) (net.Conn, error), address string) (*line, bool, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, false, fmt.Errorf("connecting: %v", err)
	}
	opened, cancel := context.WithTimeout(ctx, queue.DialTimeout)
	defer cancel()
	stop := context.AfterFunc(opened, func() { _ = conn.Close() })
	l := &line{conn: conn}
	l.in = bufio.NewReaderSize(counting{conn, &l.got}, 64<<10)
	window := uint16(sub.settings.Prefetch)
	err = l.write(opening(sub.connection.Version, sub.name, sub.connection.Username, queue.Optional(s.Connection, "password"), window, sub.connection.SessionExpiry, keepAliveSeconds))
	var p *packet
	if err == nil {
		p, err = read(l.in, sub.connection.Version)
	}
	switch {
	case err != nil:
	case p.kind != connack:
		err = errMalformed
	case p.reasons[0] != 0:
		err = fmt.Errorf("the broker refused, code %d: %.100q", p.reasons[0], p.text)
	}
	if !stop() && err == nil {
		err = opened.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, false, fmt.Errorf("opening the session: %v", err)
	}
	return l, p.present, nil
}

// subscribe has the session hold the trigger's topics and no others. It returns what is to
// be stored once the broker has agreed. It subscribes also to what the session should have
// already: a broker that crashed may have kept the session and lost the subscription.
func (sub *subscriber) subscribe(ctx context.Context, s *queue.Session, l *line, present bool) (*stored, error) {
	want := stored{sub.settings.Topics, sub.settings.QoS}
	var have stored
	raw, err := s.Store.Get(ctx, storedKey)
	if err != nil {
		return nil, fmt.Errorf("reading the subscription: %v", err)
	}
	if raw != nil && json.Unmarshal(raw, &have) != nil {
		have = stored{}
	}
	if present && have.QoS == want.QoS && slices.Equal(have.Topics, want.Topics) {
		// Messages may come first, and have the answer wait behind them.
		s.Running(-1)
	}
	gone := slices.DeleteFunc(have.Topics, func(t string) bool { return slices.Contains(want.Topics, t) })
	if present && len(gone) > 0 {
		if err := l.write(unsubscribing(sub.connection.Version, unsubscribeID, gone)); err != nil {
			return nil, err
		}
	}
	return &want, l.write(subscribing(sub.connection.Version, subscribeID, want.Topics, want.QoS))
}

// read takes in packets until the connection ends. It waits while in is full.
func (sub *subscriber) read(ctx context.Context, s *queue.Session, l *line, pending *stored, in chan<- message) error {
	for {
		p, err := read(l.in, sub.connection.Version)
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		switch p.kind {
		case publish:
			err = sub.take(ctx, l, p, in)
		case pubrel:
			sub.mu.Lock()
			delete(sub.received, p.id)
			sub.mu.Unlock()
			err = l.write(answer(pubcomp, p.id))
		case suback:
			err = sub.subscribed(ctx, s, p, pending)
			pending = nil
		case disconnect:
			err = fmt.Errorf("the broker hung up, code %d: %.100q", p.reasons[0], p.text)
		case unsuback, pingresp:
		default:
			err = errMalformed
		}
		if err != nil {
			return err
		}
	}
}

func (sub *subscriber) subscribed(ctx context.Context, s *queue.Session, p *packet, pending *stored) error {
	if pending == nil || p.id != subscribeID || len(p.reasons) != len(pending.Topics) {
		return errMalformed
	}
	for i, code := range p.reasons {
		if code >= 0x80 {
			return fmt.Errorf("the broker refused topic %q, code %d: %.100q", pending.Topics[i], code, p.text)
		}
	}
	raw, err := json.Marshal(pending)
	if err != nil {
		return fmt.Errorf("encoding the subscription: %v", err)
	}
	if err := s.Store.Put(ctx, storedKey, raw); err != nil {
		return fmt.Errorf("storing the subscription: %v", err)
	}
	s.Running(-1)
	return nil
}

func (sub *subscriber) take(ctx context.Context, l *line, p *packet, in chan<- message) error {
	if p.qos == 2 {
		sub.mu.Lock()
		again := sub.received[p.id]
		sub.mu.Unlock()
		if again {
			return l.write(answer(pubrec, p.id))
		}
	}
	sub.count++
	m := message{p, sub.run + "-" + strconv.FormatUint(sub.count, 10)}
	l.waits.Store(true)
	defer l.waits.Store(false)
	select {
	case in <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle acknowledges messages that are on disk.
func (sub *subscriber) settle(l *line, ms []message) error {
	var answers []byte
	for _, m := range ms {
		switch m.qos {
		case 1:
			answers = append(answers, answer(puback, m.packet.id)...)
		case 2:
			sub.mu.Lock()
			sub.received[m.packet.id] = true
			sub.mu.Unlock()
			answers = append(answers, answer(pubrec, m.packet.id)...)
		}
	}
	return l.write(answers)
}

// line is a connection.
type line struct {
	conn  net.Conn
	in    *bufio.Reader
	got   atomic.Int64 // bytes read
	waits atomic.Bool  // the reader waits for us, not for the broker

	mu sync.Mutex // writes go one after another
}

func (l *line) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A broker that does not read any more is as good as gone.
	t := time.AfterFunc(writeTimeout, func() { _ = l.conn.Close() })
	defer t.Stop()
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// pings tells the broker that we live, and fails when it does not answer.
func (l *line) pings(ctx context.Context) error {
	t := time.NewTicker(keepAliveSeconds * time.Second / 2)
	defer t.Stop()
	before := int64(-1)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		got := l.got.Load()
		if got == before && !l.waits.Load() {
			return errors.New("the broker does not answer")
		}
		before = got
		if err := l.write(ping()); err != nil {
			return err
		}
	}
}

// counting counts what is read.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

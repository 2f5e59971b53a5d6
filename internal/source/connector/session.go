package connector

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// The pauses between two attempts to hand events in, in wall-clock time.
const (
	firstAgain = 100 * time.Millisecond
	mostAgain  = 30 * time.Second
)

// A connector may say so much beside events: per message of events, at once, per second.
const (
	wordsPerBatch = 2
	wordsAtOnce   = 500
	wordsPerSec   = 20
)

// positionKey is where the position lies in the trigger's store.
const positionKey = "position"

// session is one run of a connector.
type session struct {
	b       source.Binding
	p       *process
	lines   *bufio.Reader
	redact  *redactor
	answer  time.Duration
	work    *queue
	words   bucket
	last    uint64 // id of the last message of events
	health  *reporter
	pongs   chan uint64
	writing sync.Mutex // guards p.in
}

// once starts the program and serves it until it ends, or ctx does.
func (k *Kind) once(ctx context.Context, b source.Binding) error {
	p, err := k.host.start(k.name)
	if err != nil {
		return err
	}
	s := &session{
		b: b, p: p, lines: bufio.NewReaderSize(p.out, 64<<10), answer: k.host.cfg.Answer, work: newQueue(),
		words: bucket{left: wordsAtOnce, most: wordsAtOnce, perSecond: wordsPerSec, at: b.Clock()},
		pongs: make(chan uint64, 1), redact: &redactor{},
		// It runs when it says so, or when it brings events.
		health: &reporter{report: b.Report, own: source.Health{State: source.Starting, Lag: -1}},
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		s.redact.log(p.err, b.Log, k.name, b.Clock)
	}()
	began, err := s.begin(ctx, k.name)
	if err == nil {
		err = s.serve(ctx, k.host.cfg.Grace)
	}
	p.kill()
	<-p.done
	// What it started may hold the log open where it has no namespace of its own.
	_ = p.err.SetReadDeadline(time.Now().Add(time.Second)) //nolint:forbidigo // a deadline of the kernel is in wall-clock time
	<-logged
	p.closeAll()
	if !began {
		return err
	}
	return s.why(err)
}

// begin tells the connector to start. began is whether it was told something.
func (s *session) begin(ctx context.Context, name string) (began bool, err error) {
	defer context.AfterFunc(ctx, s.p.kill)()
	kind, version, err := s.hello(name)
	if err != nil {
		return false, err
	}
	m, err := s.start(ctx, kind, version)
	if err != nil {
		return false, err
	}
	s.redact.learn(m.Secrets)
	return true, s.send(m)
}

// why adds what is known about an end.
func (s *session) why(err error) error {
	if err == nil || errors.Is(err, source.ErrRefused) {
		return err
	}
	if errors.Is(err, io.EOF) {
		if reason := s.health.said(); reason != "" {
			return errors.New("the connector ended: " + reason)
		}
		if s.p.state != nil {
			return fmt.Errorf("the connector ended: %v", s.p.state)
		}
		return errors.New("the connector ended")
	}
	return fmt.Errorf("the connector was ended: %v", err)
}

// end ends a process with which there is no session.
func (p *process) end() {
	p.kill()
	<-p.done
	p.closeAll()
}

// hello reads the connector's first message.
func (s *session) hello(name string) (*offered, int, error) {
	if err := s.p.out.SetReadDeadline(time.Now().Add(s.answer)); err != nil { //nolint:forbidigo // a deadline of the kernel is in wall-clock time
		return nil, 0, err
	}
	line, err := readLine(s.lines, maxFirstLine)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, 0, fmt.Errorf("the connector did not say that it is ready within %v", s.answer)
	case errors.Is(err, io.EOF):
		return nil, 0, errors.New("the connector ended before it said that it is ready")
	case err != nil:
		return nil, 0, err
	}
	m, err := parse(line)
	if err != nil {
		return nil, 0, err
	}
	return choose(m, name)
}

// readLine reads a line without its end.
func readLine(in *bufio.Reader, most int) ([]byte, error) {
	var whole []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(whole)+len(part) > most+1 {
			return nil, &violation{fmt.Sprintf("a line is longer than %d bytes", most)}
		}
		whole = append(whole, part...)
		switch {
		case err == nil:
			return whole[:len(whole)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// start makes the message that starts the connector.
func (s *session) start(ctx context.Context, kind *offered, version int) (*message, error) {
	b := &s.b
	m := &message{
		Message: "start", Protocol: version, Kind: kind.Name,
		Trigger:  fmt.Sprintf("%s/%s/%s", b.Ref.Namespace, b.Ref.Name, b.Trigger.Name),
		Settings: object(b.Trigger.Settings),
		Credits:  &credits{Events: maxEvents, Bytes: maxBytes, Line: maxLine},
		Secrets:  map[string][]byte{},
	}
	if kind.Connection {
		if b.Connection == nil {
			return nil, errors.New("this kind needs a connection")
		}
		m.Connection = object(b.Connection.Settings)
		for _, name := range kind.Secrets {
			// There is no other way to ask which there are; the connector says what it misses.
			if secret, err := b.Connection.Secret(name); err == nil && len(secret) <= maxSecret {
				m.Secrets[name] = secret
			}
		}
	}
	position, err := b.Store.Get(ctx, positionKey)
	if err != nil {
		return nil, fmt.Errorf("reading the position: %w", err)
	}
	m.Position = string(position)
	return m, nil
}

// send writes one line.
func (s *session) send(m *message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(line) > maxOwnLine {
		return fmt.Errorf("message %s is longer than %d bytes", m.Message, maxOwnLine)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.p.in.SetWriteDeadline(time.Now().Add(s.answer)); err != nil { //nolint:forbidigo // a deadline of the kernel is in wall-clock time
		return err
	}
	if _, err := s.p.in.Write(append(line, '\n')); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("it did not read what it was told within %v", s.answer)
		}
		return io.EOF // it has ended, and why is known elsewhere
	}
	return nil
}

// serve runs the conversation. ctx's end has the connector stop.
func (s *session) serve(ctx context.Context, grace time.Duration) error {
	// What was begun is finished after ctx has ended, for as long as the grace lasts.
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var all sync.WaitGroup
	for _, part := range []func(context.Context) error{s.listen, s.take, s.watch} {
		all.Go(func() { cancel(part(inner)) })
	}
	select {
	case <-inner.Done():
	case <-ctx.Done():
		// When it cannot be told it is ended all the same.
		if s.send(&message{Message: "stop"}) == nil {
			t := time.NewTimer(grace)
			select {
			case <-inner.Done():
			case <-t.C:
			}
			t.Stop()
		}
		cancel(nil)
	}
	s.p.kill()
	// Reading ends with the process, or at once where one that it started lives on.
	<-s.p.done
	_ = s.p.out.SetReadDeadline(time.Unix(1, 0))
	all.Wait()
	err := context.Cause(inner)
	if ctx.Err() != nil && !errors.Is(err, source.ErrRefused) {
		return nil
	}
	return err
}

// listen reads what the connector says until it ends.
func (s *session) listen(context.Context) error {
	if err := s.p.out.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		line, err := readLine(s.lines, maxLine)
		if err != nil {
			return err
		}
		m, err := parse(line)
		if err != nil {
			return err
		}
		if err := s.handle(m, len(line)); err != nil {
			return err
		}
	}
}

func (s *session) handle(m *message, size int) error {
	if m.Message == "events" {
		if m.ID <= s.last {
			return &violation{"the ids of its messages do not rise"}
		}
		s.last = m.ID
		s.words.add(wordsPerBatch)
		events, bad, reason, err := batch(m)
		if err != nil {
			return err
		}
		return s.work.add(work{id: m.ID, events: events, bad: bad, reason: s.redact.text(reason), bytes: size})
	}
	if !s.words.take(s.b.Clock()) {
		return &violation{"it says too much"}
	}
	switch m.Message {
	case "position":
		if len(m.Position) > maxPosition {
			return &violation{fmt.Sprintf("its position is longer than %d bytes", maxPosition)}
		}
		return s.work.add(work{position: &m.Position})
	case "health":
		return s.said(m)
	case "pong":
		select {
		case s.pongs <- m.ID:
		default: // it answers what was not asked; that costs it words
		}
		return nil
	}
	return &violation{fmt.Sprintf("message %.20q is not expected", m.Message)}
}

// said reads what the connector says about itself.
func (s *session) said(m *message) error {
	h := source.Health{State: source.State(m.State), Reason: clean(s.redact.text(m.Reason), maxReason), Lag: -1}
	if h.State != source.Running && h.State != source.Failing && h.State != source.Alert {
		return &violation{fmt.Sprintf("%.20q is not a state", m.State)}
	}
	if m.Lag != nil {
		h.Lag = max(-1, *m.Lag)
	}
	s.health.connector(h)
	return nil
}

// watch asks again and again whether the connector is alive.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(s.answer)
	defer tick.Stop()
	for asked := uint64(0); ; {
		asked++
		if err := s.send(&message{Message: "ping", ID: asked}); err != nil {
			return err
		}
		for answered := uint64(0); answered != asked; {
			select {
			case <-ctx.Done():
				return nil
			case answered = <-s.pongs:
			case <-tick.C:
				return fmt.Errorf("it did not answer within %v", s.answer)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// take hands events to the sink and positions to the store, in their order.
func (s *session) take(ctx context.Context) error {
	for {
		next, err := s.work.next(ctx)
		if err != nil {
			return nil // the session ends
		}
		if err := s.do(ctx, next); err != nil {
			return err
		}
	}
}

func (s *session) do(ctx context.Context, ws []work) error {
	w := &ws[0]
	switch {
	case w.position != nil:
		return s.again(ctx, "keeping the position", func() error {
			return s.b.Store.Put(ctx, positionKey, []byte(*w.position))
		})
	case w.bad >= 0:
		s.work.done(ws)
		s.b.Log.Warn("event refused", "reason", w.reason)
		return s.send(&message{Message: "refused", ID: w.id, Index: &w.bad, Reason: w.reason})
	}
	events := w.events
	for _, more := range ws[1:] {
		events = append(events[:len(events):len(events)], more.events...)
	}
	if err := s.again(ctx, "keeping events", func() error { return s.b.Sink.Accept(ctx, events) }); err != nil {
		return err
	}
	s.health.works()
	s.work.done(ws)
	for _, w := range ws {
		if err := s.send(&message{Message: "accepted", ID: w.id}); err != nil {
			return err
		}
	}
	return nil
}

// again does something until it works, it is of no use, or ctx ends. What does not work
// shows in the health; the connector waits meanwhile.
func (s *session) again(ctx context.Context, doing string, f func() error) error {
	for pause := firstAgain; ; pause = min(2*pause, mostAgain) {
		err := f()
		var attribute *event.AttributeError
		switch {
		case err == nil:
			s.health.sink("")
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, source.ErrRefused), errors.As(err, &attribute):
			return fmt.Errorf("%s: %w", doing, err)
		}
		s.health.sink(doing + ": " + err.Error())
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

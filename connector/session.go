package connector

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Session is one run's line to the node.
type Session struct {
	kind  string
	limit credits
	turn  chan struct{} // holds a token while somebody may take credits: so they are taken in turn

	writing sync.Mutex // guards out; may be taken while state is not held only
	out     *bufio.Writer

	state    sync.Mutex // guards what follows
	left     credits    // Events and Bytes that may still be used
	freed    chan struct{}
	next     uint64
	waiting  map[uint64]*offer
	closed   bool
	closedCh chan struct{}
}

// offer is a line of events that has no answer yet.
type offer struct {
	events, bytes int
	answer        chan *message // gets one answer
}

func newSession(out io.Writer) *Session {
	return &Session{
		turn: make(chan struct{}, 1), out: bufio.NewWriterSize(out, 64<<10),
		freed: make(chan struct{}, 1), waiting: map[uint64]*offer{}, closedCh: make(chan struct{}),
	}
}

func (s *Session) grant(c credits) {
	s.state.Lock()
	defer s.state.Unlock()
	s.limit, s.left = c, c
}

// Emit hands events to the node and returns when it has answered for all of them: all but
// the refused ones are then on its disk, or were there before. An error means that it is
// not known which were taken: bring them again later, with the same ids. While the
// function cannot keep up, Emit waits.
func (s *Session) Emit(ctx context.Context, events []Event) ([]Refusal, error) {
	var refusals []Refusal
	var part []item
	size := 0
	for i := range events {
		it, err := s.item(i, &events[i])
		if err != nil {
			return refusals, err
		}
		if lineOverhead+it.size() > min(s.limit.Line, s.limit.Bytes) {
			refusals = append(refusals, Refusal{i, fmt.Sprintf("it is longer than a line of %d bytes", s.limit.Line)})
			continue
		}
		if len(part) == s.limit.Events || (len(part) > 0 && lineOverhead+size+it.size() > min(s.limit.Line, s.limit.Bytes)) {
			if refusals, err = s.offer(ctx, part, refusals); err != nil {
				return refusals, err
			}
			part, size = nil, 0
		}
		part = append(part, it)
		size += it.size()
	}
	return s.offer(ctx, part, refusals)
}

// lineOverhead is what a line of events has at most beside the events and their details.
const lineOverhead = 128

// item is an event, encoded, and where it stood.
type item struct {
	index         int
	event, detail json.RawMessage
}

func (it *item) size() int { return len(it.event) + len(it.detail) + 2 } // and their commas

func (s *Session) item(index int, e *Event) (item, error) {
	event, err := e.encode(s.kind)
	if err != nil {
		return item{}, err
	}
	detail := e.Detail
	if detail == nil {
		detail = map[string]string{}
	}
	d, err := json.Marshal(detail)
	return item{index, event, d}, err
}

// offer offers items until each was accepted or refused.
func (s *Session) offer(ctx context.Context, items []item, refusals []Refusal) ([]Refusal, error) {
	for len(items) > 0 {
		answer, err := s.ask(ctx, items)
		if err != nil {
			return refusals, err
		}
		if answer.Message == "accepted" {
			break
		}
		if answer.Index == nil {
			for _, it := range items {
				refusals = append(refusals, Refusal{it.index, answer.Reason})
			}
			break
		}
		i := *answer.Index
		if i < 0 || i >= len(items) {
			return refusals, fmt.Errorf("refusing event %d of %d: %w", i, len(items), ErrProtocol)
		}
		refusals = append(refusals, Refusal{items[i].index, answer.Reason})
		items = append(append([]item(nil), items[:i]...), items[i+1:]...)
	}
	return refusals, nil
}

// ask sends one line of events and waits for its answer.
func (s *Session) ask(ctx context.Context, items []item) (*message, error) {
	m := struct {
		Message string            `json:"message"`
		ID      uint64            `json:"id"`
		Events  []json.RawMessage `json:"events"`
		Detail  []json.RawMessage `json:"detail"`
	}{Message: "events"}
	for _, it := range items {
		m.Events, m.Detail = append(m.Events, it.event), append(m.Detail, it.detail)
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closedCh:
		return nil, ErrClosed
	}
	o, err := func() (*offer, error) {
		defer func() { <-s.turn }()
		s.state.Lock()
		s.next++
		m.ID = s.next
		s.state.Unlock()
		line, err := json.Marshal(&m)
		if err != nil {
			return nil, err
		}
		o := &offer{len(items), len(line), make(chan *message, 1)}
		if err := s.take(ctx, m.ID, o); err != nil {
			return nil, err
		}
		return o, s.write(line)
	}()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-o.answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closedCh:
		return nil, ErrClosed
	}
}

// take waits until there are credits for an offer, and takes them. The caller has the turn.
func (s *Session) take(ctx context.Context, id uint64, o *offer) error {
	for {
		s.state.Lock()
		if s.left.Events >= o.events && s.left.Bytes >= o.bytes {
			s.left.Events -= o.events
			s.left.Bytes -= o.bytes
			s.waiting[id] = o
			s.state.Unlock()
			return nil
		}
		s.state.Unlock()
		select {
		case <-s.freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closedCh:
			return ErrClosed
		}
	}
}

// answered gives an answer to who waits for it, and its credits back.
func (s *Session) answered(m *message) error {
	s.state.Lock()
	defer s.state.Unlock()
	o := s.waiting[m.ID]
	if o == nil {
		return fmt.Errorf("answering %d, which was not asked: %w", m.ID, ErrProtocol)
	}
	delete(s.waiting, m.ID)
	s.left.Events += o.events
	s.left.Bytes += o.bytes
	o.answer <- m
	select {
	case s.freed <- struct{}{}:
	default:
	}
	return nil
}

// Position has the node keep where to go on after a restart, at most 48 KiB of text. It
// counts once everything that was handed to Emit before has been answered, and then
// Start.Position has it. Call it when Emit has returned, or it may pass refused events.
func (s *Session) Position(position string) error {
	return s.send(&message{Message: "position", Position: position})
}

// Health tells the node how things are.
func (s *Session) Health(h Health) error {
	return s.send(&message{Message: "health", State: h.State, Reason: h.Reason, Lag: &h.Lag})
}

func (s *Session) send(m *message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.write(line)
}

func (s *Session) write(line []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, b := range [][]byte{line, {'\n'}} {
		if _, err := s.out.Write(b); err != nil {
			return ErrClosed
		}
	}
	if s.out.Flush() != nil {
		return ErrClosed
	}
	return nil
}

// listen reads what the node says until it says no more. The first message goes to begin.
func (s *Session) listen(in io.Reader, begin chan<- *message, cancel context.CancelCauseFunc) error {
	defer func() {
		s.state.Lock()
		defer s.state.Unlock()
		if !s.closed {
			s.closed = true
			close(s.closedCh)
		}
	}()
	begun := false
	err := readLines(in, maxNodeLine, func(line []byte) error {
		m := new(message)
		if err := json.Unmarshal(line, m); err != nil {
			return fmt.Errorf("a line is not a message: %w", ErrProtocol)
		}
		switch {
		case m.Message == "stop":
			cancel(errStop)
		case m.Message == "ping":
			return s.send(&message{Message: "pong", ID: m.ID})
		case (m.Message == "start" || m.Message == "check") && !begun:
			begun = true
			s.kind = m.Kind
			begin <- m
		case (m.Message == "accepted" || m.Message == "refused") && begun:
			return s.answered(m)
		default:
			return fmt.Errorf("message %.20q is not expected: %w", m.Message, ErrProtocol)
		}
		return nil
	})
	if err == nil {
		err = ErrClosed
	}
	return err
}

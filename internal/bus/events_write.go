package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of the server: an atomic batch (its ADR-50), and what must be last.
const (
	headerBatch    = "Nats-Batch-Id"
	headerBatchSeq = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
	headerLast     = "Nats-Expected-Last-Sequence"
)

// errNoAnswer means that a write may or may not have happened, errNotLast that
// the stream does not end where it should.
var (
	errNoAnswer = errors.New("it is not known to be stored")
	errNotLast  = errors.New("the stream was written by somebody else")
)

// countedLast reads from errNotLast what the server takes for the last sequence; 0
// when it does not say.
func countedLast(err error) (last uint64) {
	text := err.Error()
	last, _ = strconv.ParseUint(text[strings.LastIndexByte(text, ' ')+1:], 10, 64)
	return last
}

// ack is the server's answer to a write.
type ack struct {
	Error    *jetstream.APIError `json:"error"`
	Sequence uint64              `json:"seq"`
}

// answers is where the server's answers to writes arrive. It belongs to the committer.
type answers struct {
	inbox string
	came  chan *nats.Msg
	calls uint64
}

// maxAnswers that wait: those of one write, and late ones of others. One more is dropped,
// and the write is not known to be stored.
const maxAnswers = 256

// expect begins a call to the server, and gives the subject for its answers.
func (e *Events) expect() (reply string, err error) {
	a := &e.answers
	if a.came == nil {
		inbox, came := nats.NewInbox(), make(chan *nats.Msg, maxAnswers)
		// It stays for as long as the connection.
		if _, err := e.bus.conn.ChanSubscribe(inbox+".*", came); err != nil {
			return "", err
		}
		a.inbox, a.came = inbox, came
	}
	a.calls++
	return a.inbox + "." + strconv.FormatUint(a.calls, 36), nil
}

// answer waits for one to this call. Those to earlier calls, which gave up, are dropped.
func (e *Events) answer(ctx context.Context, reply string) (*nats.Msg, error) {
	for {
		select {
		case m := <-e.answers.came:
			if m.Subject == reply {
				return m, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %v", errNoAnswer, ctx.Err())
		}
	}
}

// writeBatch stores all messages after base, or none.
func (e *Events) writeBatch(ctx context.Context, base uint64, messages []pending) error {
	reply, err := e.expect()
	if err != nil {
		return err
	}
	e.batches++
	id := strconv.FormatUint(e.batches, 36) + "." + strconv.FormatUint(base, 36)
	number := []string{""}
	m := nats.Msg{Header: nats.Header{headerBatch: {id}, headerBatchSeq: number}} // the client copies it
	for i := range messages {
		m.Subject, m.Data = messages[i].subject, messages[i].framed
		number[0] = strconv.Itoa(i + 1)
		if i == 0 {
			m.Header[headerLast] = []string{strconv.FormatUint(max(base, e.counted), 10)}
		} else {
			delete(m.Header, headerLast)
		}
		last := i == len(messages)-1
		if last {
			m.Reply, m.Header[headerCommit] = reply, []string{"1"}
		}
		switch err := e.bus.conn.PublishMsg(&m); {
		case err != nil && last:
			return fmt.Errorf("%w: %v", errNoAnswer, err)
		case err != nil:
			return fmt.Errorf("%v", err) // without its end, the batch is nothing
		}
	}
	answer, err := e.answer(ctx, reply)
	if err != nil {
		return err
	}
	return e.answered(answer, base+uint64(len(messages)))
}

// writeApart stores messages after base one by one, without waiting in between,
// and returns how many are stored. Since each must follow the one before it, they
// are the first ones.
func (e *Events) writeApart(ctx context.Context, base uint64, messages []pending) (int, error) {
	reply, err := e.expect()
	if err != nil {
		return 0, err
	}
	for i := range messages {
		last := base + uint64(i)
		if i == 0 {
			last = max(last, e.counted)
		}
		err := e.bus.conn.PublishMsg(&nats.Msg{
			Subject: messages[i].subject, Reply: reply, Data: messages[i].framed,
			Header: nats.Header{headerLast: {strconv.FormatUint(last, 10)}},
		})
		if err != nil {
			return 0, fmt.Errorf("%w: %v", errNoAnswer, err)
		}
	}
	for i := range messages { // the server answers in order
		m, err := e.answer(ctx, reply)
		if err != nil {
			return 0, err
		}
		if err := e.answered(m, base+uint64(i)+1); err != nil {
			return i, err
		}
	}
	return len(messages), nil
}

func (e *Events) answered(reply *nats.Msg, last uint64) error {
	var a ack
	switch err := json.Unmarshal(reply.Data, &a); {
	case err != nil:
		return fmt.Errorf("%w: it said %.80q", errNoAnswer, reply.Data)
	case a.Error == nil && a.Sequence == last:
		return nil
	case a.Error == nil:
		return fmt.Errorf("%w: it stored up to %d, not %d", errNoAnswer, a.Sequence, last)
	case a.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence, a.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return fmt.Errorf("%w: %v", errNotLast, a.Error)
	case a.Error.ErrorCode == codeStoreFailed && strings.Contains(a.Error.Description, "maximum bytes"):
		return fmt.Errorf("%w: events %s have their %d MiB", ErrFull, e.cfg.Name, e.cfg.MaxBytes>>20)
	}
	// A write that failed half way is completed or undone when the server starts.
	err := e.bus.failure("storing", &refusal{a.Error})
	if errors.Is(err, ErrFull) {
		return err
	}
	if full := e.bus.room("storing"); errors.Is(full, ErrFull) {
		return full
	}
	return fmt.Errorf("%w: %v", errNoAnswer, err)
}

// refusal makes an answer an error of the client library.
type refusal struct{ api *jetstream.APIError }

func (r *refusal) Error() string                 { return r.api.Description }
func (r *refusal) APIError() *jetstream.APIError { return r.api }

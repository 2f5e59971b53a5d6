package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// Pauses between tries, and how often an unchanged state is reported.
const (
	firstPause    = 500 * time.Millisecond
	mostPause     = 30 * time.Second
	firstHandIn   = 100 * time.Millisecond
	mostHandIn    = 10 * time.Second
	reportEvery   = 5 * time.Second
	maxBatchBytes = 4 << 20 // of data in one call of the sink, and one message more
	maxReason     = 500     // bytes of a reported reason
)

// Session is one binding at work. It may be used from many goroutines.
type Session struct {
	source.Binding

	mu       sync.Mutex
	reported source.Health // last
	at       time.Time     // when
}

// Run calls listen until ctx ends, again after a growing pause whenever it fails. It ends
// early only when the sink refuses for good.
func Run(ctx context.Context, b source.Binding, listen func(context.Context, *Session) error) error {
	s := &Session{Binding: b}
	s.report(source.Health{State: source.Starting, Lag: -1})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var final error
	source.Retry(ctx, firstPause, mostPause, b.Clock, func(ctx context.Context) error {
		one, stop := context.WithCancel(ctx)
		defer stop()
		err := listen(one, s)
		if errors.Is(err, source.ErrRefused) {
			final = err
			cancel()
		}
		return err
	}, func(err error, pause time.Duration) {
		reason := s.scrub(err)
		s.report(source.Health{State: source.Failing, Reason: reason, Lag: -1})
		s.Log.Warn("queue lost", "reason", reason, "again", pause)
	})
	return final
}

// scrub makes a reason that may be shown: clients of queues quote what servers say.
func (s *Session) scrub(err error) string {
	reason := strings.ToValidUTF8(err.Error(), "?")
	if s.Connection != nil {
		for _, name := range []string{"password", "token", "nkey", "creds"} {
			if v := Optional(s.Connection, name); len(v) > 0 {
				reason = strings.ReplaceAll(reason, string(v), "…")
			}
		}
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return reason
}

// Running reports that all is well. lag is -1 when it is not known.
func (s *Session) Running(lag int64) { s.report(source.Health{State: source.Running, Lag: lag}) }

// Alert reports that somebody should look.
func (s *Session) Alert(reason string) {
	s.report(source.Health{State: source.Alert, Reason: reason, Lag: -1})
}

// Lagging reports a new lag in an unchanged state.
func (s *Session) Lagging(lag int64) {
	s.mu.Lock()
	h := s.reported
	s.mu.Unlock()
	h.Lag = lag
	s.report(h)
}

func (s *Session) report(h source.Health) {
	s.mu.Lock()
	now := s.Clock()
	same := h.State == s.reported.State && h.Reason == s.reported.Reason
	if same && (h.Lag == s.reported.Lag || now.Sub(s.at) < reportEvery) {
		s.mu.Unlock()
		return
	}
	s.reported, s.at = h, now
	s.mu.Unlock()
	s.Report(h)
}

// Accept hands events in, again and again until they are taken. It fails only when ctx
// ends or the sink refuses for good.
func (s *Session) Accept(ctx context.Context, events []event.Message) error {
	pause := firstHandIn
	for {
		err := s.Sink.Accept(ctx, events)
		switch {
		case err == nil:
			if pause > firstHandIn {
				s.Running(-1)
			}
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, source.ErrRefused):
			return fmt.Errorf("handing in: %w", err)
		}
		s.report(source.Health{State: source.Failing, Reason: "handing in: " + s.scrub(err), Lag: -1})
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		pause = min(2*pause, mostHandIn)
	}
}

// Feed hands in what arrives and has it acknowledged.
type Feed[T any] struct {
	In      <-chan T
	Most    int // events in one call of the sink
	Message func(T) event.Message
	Settle  func([]T) error // acknowledges: the events are on disk
}

// Run returns nil when In is closed, or when ctx ends, and otherwise fails with what the
// sink or Settle did.
func (f Feed[T]) Run(ctx context.Context, s *Session) error {
	for {
		var held []T
		var events []event.Message
		select {
		case <-ctx.Done():
			return nil
		case first, open := <-f.In:
			if !open {
				return nil
			}
			held, events = append(held, first), append(events, f.Message(first))
		}
		held, events = f.more(held, events)
		err := s.Accept(ctx, events)
		if err == nil {
			// Also when the connection has gone meanwhile: what is on disk is to be known.
			if err = f.Settle(held); err != nil {
				err = fmt.Errorf("acknowledging: %w", err)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// more takes what is there already, and does not wait.
func (f Feed[T]) more(held []T, events []event.Message) ([]T, []event.Message) {
	size := len(events[0].Data)
	for len(held) < f.Most && size < maxBatchBytes {
		select {
		case t, open := <-f.In:
			if !open {
				return held, events
			}
			m := f.Message(t)
			size += len(m.Data)
			held, events = append(held, t), append(events, m)
		default:
			return held, events
		}
	}
	return held, events
}

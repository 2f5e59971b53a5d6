package control

import (
	"context"
	"errors"
	"time"

	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/state"
)

// The windows of a search: the newest second, then eight times as much before that, and
// so on; from the widest on, the rest at once.
const (
	firstWindow = time.Second
	windowGrows = 8
	widest      = 3 * 24 * time.Hour
)

// search looks for the newest records that fit. A stream is read forward only, so it
// reads the last second, then the seconds before, and so on farther back, until it has
// found enough, or has looked at so much that the rest is not worth the caller's wait.
type search[T any] struct {
	stream       Stream
	ns, channel  string
	since, until time.Time
	limit        int
	match        func(*delivery.Record) (*T, bool)

	found    []T // newest first
	seen     int
	complete bool      // there are no more that fit and were not found
	reached  time.Time // how far back it was looked
	damaged  bool      // some were left out
}

// run fails only when the stream cannot be read at all.
func (s *search[T]) run(ctx context.Context, now time.Time) error {
	s.found = []T{}
	to, from := s.until, now
	if !to.IsZero() && to.Before(now) {
		from = to
	}
	for width := firstWindow; ; width *= windowGrows {
		from = from.Add(-width)
		last := width >= widest || !s.since.IsZero() && !from.After(s.since)
		if last {
			from = s.since
		}
		more, err := s.window(ctx, from, to)
		if err != nil {
			return err
		}
		s.reached = from.UTC()
		switch {
		case last:
			s.complete = !more
			return nil
		case len(s.found) >= s.limit || s.seen >= maxSearch:
			return nil
		}
		to = from
	}
}

// window adds the newest of what fits between two times; more says that there are others.
func (s *search[T]) window(ctx context.Context, from, to time.Time) (more bool, err error) {
	want := s.limit - len(s.found)
	var fits []T
	err = s.stream.Read(ctx, StreamFilter{Namespace: s.ns, Channel: s.channel, Since: from, Until: to}, func(r delivery.Record) bool {
		s.seen++
		t, ok := s.match(&r)
		if !ok {
			return ctx.Err() == nil
		}
		if len(fits) == 2*want { // only the newest are wanted, and there may be very many
			fits = append(fits[:0], fits[want:]...)
			more = true
		}
		fits = append(fits, *t)
		return ctx.Err() == nil
	})
	if errors.Is(err, state.ErrCorrupt) {
		s.damaged, err = true, nil
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return false, err
	}
	more = more || len(fits) > want
	for i := len(fits) - 1; i >= 0 && len(s.found) < s.limit; i-- {
		s.found = append(s.found, fits[i])
	}
	return more, nil
}

// notDamaged is err, unless it only says that damaged records were left out.
func notDamaged(err error) error {
	if errors.Is(err, state.ErrCorrupt) {
		return nil
	}
	return err
}

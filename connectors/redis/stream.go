package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/casemate-dev/casemate/connector"
	"github.com/casemate-dev/casemate/connector/queue"
)

// Times of the conversation with the server.
const (
	block      = time.Second // a read waits for entries; a stop waits for the read
	ackWithin  = 10 * time.Second
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
	lagEvery   = 15 * time.Second
	// autoIDs is in the milliseconds of every id that a server made: 2001.
	autoIDs = 1_000_000_000_000
)

func run(ctx context.Context) error { return serve(ctx, os.Stdin, os.Stdout) }

func serve(ctx context.Context, in io.Reader, out io.Writer) error {
	return connector.Serve(ctx, connector.Connector{
		Name: "redis", Version: release(),
		Kinds: []connector.Kind{{Name: "redis", Connection: true, Secrets: secretNames}},
		Check: check, Run: consume,
	}, in, out)
}

// stream is one stream, read as one consumer of a group.
type stream struct {
	*trigger
	client  *redis.Client
	session *connector.Session
	last    string // id of the last new entry that was accepted
	refused map[string]bool
	lost    int  // entries that were deleted before they were read
	healthy bool // told so, and nothing has gone wrong since
}

func consume(ctx context.Context, start connector.Start, session *connector.Session) error {
	t, err := readTrigger(start.Settings)
	if err != nil {
		return err
	}
	if t.Group == "" {
		t.Group = "casemate:" + start.Trigger
	}
	l, err := readLink(start.Connection)
	if err != nil {
		return err
	}
	client, err := l.client(start.Secrets)
	if err != nil {
		return err
	}
	defer client.Close()
	s := &stream{trigger: t, client: client, session: session, last: start.Position, refused: map[string]bool{}}
	return s.forever(ctx)
}

// forever reads until ctx ends, and fails only with what trying again does not mend.
func (s *stream) forever(ctx context.Context) error {
	pause := firstPause
	for {
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, connector.ErrClosed) || errors.Is(err, connector.ErrProtocol) || final(err) {
			return err
		}
		if s.healthy {
			pause = firstPause
		}
		s.healthy = false
		if err := s.session.Health(connector.Health{State: connector.Failing, Reason: err.Error(), Lag: connector.LagUnknown}); err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		pause = min(2*pause, mostPause)
	}
}

// final says whether the server's word stands until settings or credentials change.
func final(err error) bool {
	var server redis.Error
	if !errors.As(err, &server) {
		return false
	}
	word, _, _ := strings.Cut(server.Error(), " ")
	return slices.Contains([]string{"NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE"}, word)
}

// once reads from where things stand until something fails. Entries that were given to us
// before, and not acknowledged, come first: their events may have been kept, or not.
func (s *stream) once(ctx context.Context) error {
	if err := s.group(ctx); err != nil {
		return err
	}
	if err := s.pending(ctx); err != nil {
		return err
	}
	claim, lag := time.NewTicker(max(s.claim/2, minClaim)), time.NewTicker(lagEvery)
	defer claim.Stop()
	defer lag.Stop()
	if err := s.report(ctx); err != nil {
		return err
	}
	// What another consumer left behind is not older for our having waited.
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-claim.C:
			if err := s.takeOver(ctx); err != nil {
				return err
			}
		case <-lag.C:
			if err := s.report(ctx); err != nil {
				return err
			}
		default:
		}
		entries, err := s.read(ctx, ">", block)
		if err != nil {
			return err
		}
		if err := s.bring(ctx, entries, true); err != nil {
			return err
		}
	}
}

// group makes the group if it is not there. One that was lost, with the server's data
// perhaps, goes on behind the last entry that the node has.
func (s *stream) group(ctx context.Context) error {
	from := map[string]string{"new": "$", "all": "0"}[s.From]
	if s.last != "" {
		from = s.last
	}
	err := s.client.XGroupCreateMkStream(ctx, s.Stream, s.Group, from).Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return fmt.Errorf("making group %s of stream %s: %w", s.Group, s.Stream, err)
	}
	return nil
}

// read reads entries: new ones, or with an id those pending for us behind it. With wait 0
// it does not wait.
func (s *stream) read(ctx context.Context, id string, wait time.Duration) ([]redis.XMessage, error) {
	if wait == 0 {
		wait = -1
	}
	found, err := s.client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: s.Group, Consumer: s.Consumer, Streams: []string{s.Stream, id}, Count: int64(s.Prefetch), Block: wait,
	}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading stream %s: %w", s.Stream, err)
	case len(found) == 0:
		return nil, nil
	}
	return found[0].Messages, nil
}

// pending brings what was given to us before.
func (s *stream) pending(ctx context.Context) error {
	for id := "0"; ; {
		entries, err := s.read(ctx, id, 0)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := s.bring(ctx, entries, false); err != nil {
			return err
		}
		id = entries[len(entries)-1].ID
	}
}

// takeOver brings what other consumers of the group got and left.
func (s *stream) takeOver(ctx context.Context) error {
	for from := "0-0"; ; {
		entries, next, err := s.client.XAutoClaim(ctx, &redis.XAutoClaimArgs{
			Stream: s.Stream, Group: s.Group, Consumer: s.Consumer, MinIdle: s.claim, Start: from, Count: int64(s.Prefetch),
		}).Result()
		if err != nil {
			return fmt.Errorf("taking over entries of stream %s: %w", s.Stream, err)
		}
		if err := s.bring(ctx, entries, false); err != nil {
			return err
		}
		if next == "0-0" || next == "" {
			return nil
		}
		from = next
	}
}

// bring hands entries to the node and acknowledges those that it took. A stop does not
// cut it short: the node answers, or ends this program.
func (s *stream) bring(ctx context.Context, entries []redis.XMessage, news bool) error {
	ctx = context.WithoutCancel(ctx)
	var events []connector.Event
	var ids, done []string
	for i := range entries {
		m := &entries[i]
		switch {
		case s.refused[m.ID]:
		case m.Values == nil: // deleted or trimmed while it was pending
			s.lost++
			done = append(done, m.ID)
		default:
			events, ids = append(events, s.event(m)), append(ids, m.ID)
		}
	}
	if len(events) > 0 {
		refusals, err := s.session.Emit(ctx, events)
		if err != nil {
			return err
		}
		for _, r := range refusals {
			s.refused[ids[r.Index]] = true
			fmt.Fprintf(os.Stderr, "entry %s of %s was refused and stays pending: %s\n", ids[r.Index], s.Stream, r.Reason)
		}
	}
	for _, id := range ids {
		if !s.refused[id] {
			done = append(done, id)
		}
	}
	if len(done) > 0 {
		ctx, cancel := context.WithTimeout(ctx, ackWithin)
		defer cancel()
		if err := s.client.XAck(ctx, s.Stream, s.Group, done...).Err(); err != nil {
			return fmt.Errorf("acknowledging entries of stream %s: %w", s.Stream, err)
		}
	}
	if news && len(entries) > 0 {
		s.last = entries[len(entries)-1].ID
		return s.session.Position(s.last)
	}
	return nil
}

// event makes an event of an entry. Its id is the entry's, which the stream never gives
// twice.
func (s *stream) event(m *redis.XMessage) connector.Event {
	r := queue.Raw{
		ID: m.ID, Subject: s.Stream,
		Detail: []queue.Entry{
			{Name: "queue.kind", Value: "redis"},
			{Name: "queue.name", Value: s.Stream},
			{Name: "queue.id", Value: m.ID},
			{Name: "redis.group", Value: s.Group},
		},
	}
	milliseconds, _, _ := strings.Cut(m.ID, "-")
	if n, err := strconv.ParseInt(milliseconds, 10, 64); err == nil && n >= autoIDs {
		r.Time = time.UnixMilli(n)
	}
	fields := make(map[string]string, len(m.Values))
	for k, v := range m.Values {
		fields[k] = fmt.Sprint(v)
	}
	if s.Body == "" {
		r.Data, r.ContentType = object(fields), "application/json"
		return s.Event(r)
	}
	body, there := fields[s.Body]
	r.Data = []byte(body)
	if !there {
		r.Detail = append(r.Detail, queue.Entry{Name: "redis.nobody", Value: "true"})
	}
	delete(fields, s.Body)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		r.Detail = append(r.Detail, queue.Entry{Name: "header." + k, Value: fields[k]})
		if strings.EqualFold(k, "content-type") {
			r.ContentType = fields[k]
		}
	}
	return s.Event(r)
}

// object gives fields as JSON; one that is not text is in base64, under a name that says so.
func object(fields map[string]string) []byte {
	o := make(map[string]string, len(fields))
	for k, v := range fields {
		if !utf8.ValidString(k) {
			k = base64.StdEncoding.EncodeToString([]byte(k)) + ".name.base64"
		}
		if utf8.ValidString(v) {
			o[k] = v
		} else {
			o[k+".base64"] = base64.StdEncoding.EncodeToString([]byte(v))
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return []byte("{}") // texts always have a form
	}
	return b
}

// report tells how things are and how many entries wait.
func (s *stream) report(ctx context.Context) error {
	h := connector.Health{State: connector.Running, Lag: connector.LagUnknown}
	groups, err := s.client.XInfoGroups(ctx, s.Stream).Result()
	if err != nil && !final(err) { // an account may lack this right
		return fmt.Errorf("asking about stream %s: %w", s.Stream, err)
	}
	for _, g := range groups {
		if g.Name == s.Group {
			h.Lag = g.Lag + g.Pending
		}
	}
	switch {
	case len(s.refused) > 0:
		h.State, h.Reason = connector.Alert, fmt.Sprintf("%d entries were refused and stay pending in group %s", len(s.refused), s.Group)
	case s.lost > 0:
		h.State, h.Reason = connector.Alert, fmt.Sprintf("%d entries were deleted from the stream before they were read", s.lost)
	}
	s.healthy = true
	return s.session.Health(h)
}

package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds on replays.
const (
	MaxReplayIDs    = 500
	maxReplayFilter = 16 << 10 // bytes
	maxReplayIDText = 32 << 10 // bytes, of all ids
	// replayAhead is how many events a replay may be ahead of the function.
	replayAhead = 1000
	replayChunk = 100
	replayBytes = 4 << 20
	replayPause = 500 * time.Millisecond
	keptJobs    = 100 // that have ended
)

// Selector says which of a trigger's events are replayed: all, or those of a time, by
// their ids, and by a filter, whatever is set.
type Selector struct {
	Key
	IDs    []string        `json:"ids,omitempty"`
	Since  time.Time       `json:"since,omitzero"` // stored then or later
	Until  time.Time       `json:"until,omitzero"` // stored before
	Filter json.RawMessage `json:"filter,omitempty"`
}

// JobState is how far a replay is.
type JobState string

// States of a replay. One whose trigger is not in force waits.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is a replay: events are read from the stream and published to the trigger's replay
// channel, in their order, each under a new id. The trigger runs them among its others.
type Job struct {
	ID        string    `json:"id"`
	Selector  Selector  `json:"selector"`
	Qualifier string    `json:"qualifier,omitempty"` // what runs; empty for what triggers follow
	Channel   string    `json:"channel"`
	State     JobState  `json:"state"`
	Error     string    `json:"error,omitempty"`
	After     uint64    `json:"after"` // sequence of the last event looked at
	Read      int64     `json:"read"`
	Published int64     `json:"published"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended,omitzero"`
}

// jobs that run. Lock order: mu is taken last.
type jobs struct {
	mu      sync.Mutex
	known   map[string]*Job
	cancels map[string]context.CancelFunc
	running sync.WaitGroup
	closed  bool
}

func (e *Engine) loadJobs() error {
	e.jobs.known, e.jobs.cancels = map[string]*Job{}, map[string]context.CancelFunc{}
	for _, name := range e.marks.names(jobMark) {
		b, _ := e.marks.get(name)
		var j Job
		if err := json.Unmarshal(b, &j); err != nil {
			return fmt.Errorf("reading %s: %v", name, err)
		}
		e.jobs.known[j.ID] = &j
	}
	return nil
}

// Replay begins a replay of events that were stored before it, to run with that version or
// alias, or with what triggers follow. The trigger must be in force. It goes on after a
// restart where it was; a crash may have up to 100 events published twice, under the
// same new ids. It fails with a *problem.Error.
func (e *Engine) Replay(ctx context.Context, s Selector, qualifier string) (Job, error) {
	t, err := e.trigger(s.Key)
	if err != nil {
		return Job{}, err
	}
	size := 0
	for _, id := range s.IDs {
		size += len(id)
	}
	switch {
	case len(s.IDs) > MaxReplayIDs || size > maxReplayIDText:
		return Job{}, problem.New(problem.BadRequest, "at most %d ids can be replayed at once", MaxReplayIDs).At("ids")
	case len(s.Filter) > maxReplayFilter:
		return Job{}, problem.New(problem.BadRequest, "the filter has more than %d bytes", maxReplayFilter).At("filter")
	case !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until):
		return Job{}, problem.New(problem.BadRequest, "the time range ends before it begins").At("until")
	}
	if qualifier != "" && !function.ValidName(qualifier) {
		if _, err := function.ParseDigest(qualifier); err != nil {
			return Job{}, problem.New(problem.BadRequest, "the qualifier is neither an alias nor a version's id").At("qualifier")
		}
	}
	if _, err := e.compile(s.Filter); err != nil {
		return Job{}, err
	}
	t.mu.Lock()
	channel := t.b.Channel
	t.mu.Unlock()
	j := Job{ID: e.cfg.NewID(), Selector: s, Qualifier: qualifier, Channel: channel, State: JobRunning, Started: e.cfg.Clock().UTC()}
	if err := e.openReplays(ctx, s.Key); err != nil {
		return Job{}, problem.From(err)
	}
	if err := e.keep(ctx, &j); err != nil {
		return Job{}, problem.From(err)
	}
	e.jobs.mu.Lock()
	kept := j
	e.jobs.known[j.ID] = &kept
	e.jobs.mu.Unlock()
	e.mu.Lock()
	e.resumeJobs()
	e.mu.Unlock()
	e.pruneJobs(ctx)
	return j, nil
}

func (e *Engine) compile(filter json.RawMessage) (func(*event.Message) bool, error) {
	if len(filter) == 0 {
		return nil, nil
	}
	if e.cfg.Compile == nil {
		return nil, problem.New(problem.NotImplemented, "this node cannot filter replays").At("filter")
	}
	match, err := e.cfg.Compile(filter)
	if err != nil {
		return nil, problem.New(problem.BadRequest, "the filter is not valid: %v", err).At("filter")
	}
	return match, nil
}

func (e *Engine) keep(ctx context.Context, j *Job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encoding a replay: %v", err)
	}
	return e.marks.set(ctx, jobMark+j.ID, b)
}

// resumeJobs starts the jobs whose trigger is in force. e.mu is held.
func (e *Engine) resumeJobs() {
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	if e.jobs.closed || e.closed {
		return
	}
	for id, j := range e.jobs.known {
		t := e.triggers[j.Selector.Key]
		if t == nil || j.State != JobRunning || e.jobs.cancels[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(e.hard)
		e.jobs.cancels[id] = cancel
		run := *j
		e.jobs.running.Go(func() { e.replay(ctx, t, run) })
	}
}

// replay is a job's goroutine.
func (e *Engine) replay(ctx context.Context, t *trigger, j Job) {
	err := e.replayAll(ctx, t, &j)
	e.jobs.mu.Lock()
	cancelled := e.jobs.known[j.ID] == nil || e.jobs.known[j.ID].State == JobCancelled
	e.jobs.mu.Unlock()
	switch {
	case cancelled:
		j.State = JobCancelled
	case ctx.Err() != nil: // the node stops; it goes on after the restart
		e.progress(j)
		return
	case errors.Is(err, state.ErrCorrupt):
		j.State, j.Error = JobDone, "some events are damaged and were left out"
	case err != nil:
		e.cfg.Logger.Error("a replay failed", slog.String("job", j.ID), slog.String("trigger", t.key.String()), slog.Any("error", err))
		j.State, j.Error = JobFailed, "events could not be read or written"
	default:
		j.State = JobDone
	}
	j.Ended = e.cfg.Clock().UTC()
	e.progress(j)
	if err := e.keep(context.WithoutCancel(ctx), &j); err != nil {
		e.cfg.Logger.Error("the end of a replay was not recorded; it may run again", slog.String("job", j.ID), slog.Any("error", err))
	}
}

func (e *Engine) progress(j Job) {
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	if known := e.jobs.known[j.ID]; known != nil && (known.State != JobCancelled || j.State == JobCancelled) {
		*known = j
	}
}

// replayAll publishes chunk after chunk, never far ahead of the function.
func (e *Engine) replayAll(ctx context.Context, t *trigger, j *Job) error {
	match, err := e.compile(j.Selector.Filter)
	if err != nil {
		return err
	}
	until := j.Started
	if u := j.Selector.Until; !u.IsZero() && u.Before(until) {
		until = u
	}
	where := Filter{Namespace: j.Selector.Namespace, Channel: j.Channel, Since: j.Selector.Since, Until: until}
	var damaged error
	for {
		if err := e.notAhead(ctx, t); err != nil {
			return err
		}
		where.After = j.After
		chunk, size, more := []Entry(nil), 0, false
		var failed error
		err := e.cfg.Events.Read(ctx, where, func(r Record) bool {
			if len(chunk) >= replayChunk || size >= replayBytes {
				more = true
				return false
			}
			j.After = r.Sequence
			j.Read++
			entry, err := e.again(t, j, match, r)
			if err != nil {
				failed = err
				return false
			}
			if entry != nil {
				chunk = append(chunk, *entry)
				size += len(entry.Data)
			}
			return ctx.Err() == nil
		})
		if errors.Is(err, state.ErrCorrupt) {
			damaged, err = err, nil
		}
		if err = errors.Join(err, failed, ctx.Err()); err != nil {
			return err
		}
		if len(chunk) > 0 {
			if _, err := e.cfg.Events.Publish(ctx, chunk); err != nil {
				return err
			}
			j.Published += int64(len(chunk))
		}
		e.progress(*j)
		if !more {
			return damaged
		}
		if err := e.keep(ctx, j); err != nil {
			return err
		}
	}
}

// again makes a replayed event, or nil when it is not selected.
func (e *Engine) again(t *trigger, j *Job, match func(*event.Message) bool, r Record) (*Entry, error) {
	m, err := event.Decode(r.Data)
	if err != nil {
		return nil, nil // it is a dead letter already, for being malformed
	}
	t.mu.Lock()
	filter := t.b.Filter
	t.mu.Unlock()
	if len(j.Selector.IDs) > 0 && !slices.Contains(j.Selector.IDs, m.ID) || filter != nil && !filter(m) || match != nil && !match(m) {
		return nil, nil
	}
	m.Extensions = maps.Clone(m.Extensions)
	if m.Extensions == nil {
		m.Extensions = map[string]string{}
	}
	if len(m.Extensions) < event.MaxExtensions {
		m.Extensions["replayof"] = m.ID
	}
	m.ID = fmt.Sprintf("replay.%s.%d", j.ID, r.Sequence)
	b, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if b, err = (rerun{Qualifier: j.Qualifier, Replay: true}).wrap(b); err != nil {
		return nil, err
	}
	return &Entry{Namespace: t.key.Namespace, Channel: t.key.side("replay"), ID: m.ID, Data: b}, nil
}

// notAhead waits until the trigger has caught up with its replays.
func (e *Engine) notAhead(ctx context.Context, t *trigger) error {
	for {
		waiting, underWay, err := e.cfg.Consumers.Backlog(ctx, t.key.consumer(t.key.side("replay")))
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if err == nil && waiting+underWay < replayAhead {
			return nil
		}
		// Without a consumer the trigger is paused, or about to begin.
		pause(ctx, replayPause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Jobs lists the replays of a namespace, the newest first, those that ended too.
func (e *Engine) Jobs(namespace string) []Job {
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	var out []Job
	for _, j := range e.jobs.known {
		if namespace == "" || j.Selector.Namespace == namespace {
			out = append(out, *j)
		}
	}
	slices.SortFunc(out, func(a, b Job) int { return b.Started.Compare(a.Started) })
	return out
}

// CancelReplay ends a replay. What it has published already is run.
func (e *Engine) CancelReplay(ctx context.Context, id string) error {
	e.jobs.mu.Lock()
	j := e.jobs.known[id]
	if j == nil {
		e.jobs.mu.Unlock()
		return problem.New(problem.NotFound, "there is no replay %.80q", id)
	}
	if j.State == JobRunning {
		j.State, j.Ended = JobCancelled, e.cfg.Clock().UTC()
		if cancel := e.jobs.cancels[id]; cancel != nil {
			cancel()
		}
	}
	kept := *j
	e.jobs.mu.Unlock()
	return e.keep(ctx, &kept)
}

// dropJobs ends the replays of a trigger that is forgotten, and forgets them.
func (e *Engine) dropJobs(ctx context.Context, k Key) error {
	for _, j := range e.Jobs(k.Namespace) {
		if j.Selector.Key != k {
			continue
		}
		if err := e.CancelReplay(ctx, j.ID); err != nil {
			return err
		}
		e.forgetJob(j.ID)
		if err := e.marks.drop(ctx, jobMark+j.ID); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) forgetJob(id string) {
	e.jobs.mu.Lock()
	defer e.jobs.mu.Unlock()
	delete(e.jobs.known, id)
	delete(e.jobs.cancels, id)
}

// pruneJobs forgets the oldest of the jobs that ended.
func (e *Engine) pruneJobs(ctx context.Context) {
	ended := 0
	for _, j := range e.Jobs("") {
		if j.State == JobRunning {
			continue
		}
		if ended++; ended <= keptJobs {
			continue
		}
		e.forgetJob(j.ID)
		if err := e.marks.drop(ctx, jobMark+j.ID); err != nil {
			e.cfg.Logger.Warn("an old replay's record stays", slog.String("job", j.ID), slog.Any("error", err))
		}
	}
}

// endJobs has all jobs end; they go on after a restart. The channel is closed when they
// have.
func (e *Engine) endJobs() <-chan struct{} {
	e.jobs.mu.Lock()
	e.jobs.closed = true
	for _, cancel := range e.jobs.cancels {
		cancel()
	}
	e.jobs.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		e.jobs.running.Wait()
		close(ended)
	}()
	return ended
}

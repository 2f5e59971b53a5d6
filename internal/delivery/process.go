package delivery

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

// end is what becomes of an event after it was looked at.
type end int

const (
	endDone  end = iota // settle it
	endDead             // bury it
	endAgain            // park it until its next attempt
)

// verdict is the end of one item.
type verdict struct {
	it     *item
	end    end
	reason Reason
	field  string // of the event, when it is invalid
	tried  tried
}

// process runs a piece of work and sees it settled, or hands it back when the session
// ends or the trigger is turned away.
func (t *trigger) process(s *session, items []*item) {
	t.mu.Lock()
	b := t.b
	t.mu.Unlock()
	now := t.e.cfg.Clock()
	var run []*item
	var verdicts []verdict
	for _, it := range items {
		if err := t.fetch(t.e.hard, it); err != nil {
			t.failing("a parked event cannot be read", err)
			t.turnedAway(busy, 0, []*item{it})
			continue
		}
		it.decode()
		reason := it.bad
		switch {
		case reason != "":
		case it.msg.Chain.Depth > function.MaxChainDepth:
			reason = ReasonLoop
		case now.Sub(it.stored) >= b.Delivery.MaxAge:
			reason = ReasonAge
		}
		v := verdict{it: it, end: endDead, reason: reason, tried: it.tried}
		if reason == "" && b.Check != nil {
			if field, why := b.Check(it.msg); why != "" {
				v.reason, v.field, v.tried.Detail = ReasonInvalid, field, clip(why)
			}
		}
		if v.reason != "" {
			verdicts = append(verdicts, v)
			continue
		}
		run = append(run, it)
	}
	if len(verdicts) > 0 {
		t.settle(s, b, verdicts, nil)
	}
	if len(run) == 0 {
		return
	}
	began := t.e.cfg.Clock()
	out := t.invoke(t.e.hard, b, run)
	if t.e.hard.Err() != nil {
		t.handBack(run) // the node cut it short: that is nobody's failure
		return
	}
	c := classify(&out)
	if c == refused && run[0].rerun.Qualifier != "" {
		c = failed // others of this trigger do not ask for that version
		out.RetryAfter = max(out.RetryAfter, refusedFirst)
	}
	if c == busy || c == refused {
		t.counts.note(t.e.cfg.Clock(), string(out.Code), out.Detail)
		t.turnedAway(c, out.RetryAfter, run)
		return
	}
	t.mu.Lock()
	t.turned, t.gate = 0, time.Time{}
	t.mu.Unlock()
	t.settle(s, b, t.judge(b, run, c, &out, began), &out)
}

// invoke calls the function, or the webhook.
func (t *trigger) invoke(ctx context.Context, b *Binding, run []*item) Outcome {
	c := Call{
		Ref: function.Ref{Namespace: t.key.Namespace, Name: t.key.Function}, Trigger: t.key.Trigger,
		Qualifier: run[0].rerun.Qualifier, Replay: run[0].rerun.Replay,
	}
	for _, it := range run {
		n := it.tried.Attempts + 1
		c.Attempt = max(c.Attempt, n)
		c.Messages = append(c.Messages, numbered(it.msg, n))
	}
	var out Outcome
	var err error
	if t.key.Function == "" {
		out, err = t.e.cfg.Send(ctx, t.key.Namespace, t.key.Trigger, c.Messages[0])
	} else {
		out, err = t.e.cfg.Invoke(ctx, c)
	}
	if err != nil {
		p := problem.From(err)
		out.Code, out.Detail = p.Code, p.Detail
		out.RetryAfter = max(out.RetryAfter, p.RetryAfter)
		if p.Code == problem.Internal {
			t.e.cfg.Logger.Error("an event could not be run", slog.String("trigger", t.key.String()), slog.Any("error", err))
		}
	}
	out.Detail = clip(out.Detail)
	return out
}

// numbered is the event as the function sees it in its n-th attempt.
func numbered(m *event.Message, n int) *event.Message {
	if n < 2 {
		return m
	}
	c := *m
	c.Extensions = maps.Clone(m.Extensions)
	if c.Extensions == nil {
		c.Extensions = map[string]string{}
	}
	c.Extensions["attempt"] = strconv.Itoa(n)
	return &c
}

// judge gives each event its verdict. A batch that failed as a whole says nothing of its
// members, so they are tried alone next time: one bad event must not take the others with
// it for ever.
func (t *trigger) judge(b *Binding, run []*item, c class, out *Outcome, began time.Time) []verdict {
	now := t.e.cfg.Clock()
	whole := c != succeeded
	var bad map[string]bool
	if c == succeeded && len(out.Failed) > 0 {
		bad = map[string]bool{}
		ids := map[string]bool{}
		for _, it := range run {
			ids[it.msg.ID] = true
		}
		for _, id := range out.Failed {
			bad[id] = true
			// A name that nobody has means that the answer cannot be trusted; so does AWS see it.
			whole = whole || !ids[id]
		}
	}
	verdicts := make([]verdict, 0, len(run))
	for _, it := range run {
		v := verdict{it: it, end: endDone, tried: it.tried}
		tr := &v.tried
		tr.Attempts++
		tr.Last, tr.Due = now, time.Time{}
		if tr.First.IsZero() {
			tr.First = began
		}
		tr.Status, tr.Version, tr.Receipt = out.Status, out.Version, out.Receipt
		tr.Code, tr.Detail = string(out.Code), out.Detail
		if !whole && !bad[it.msg.ID] {
			verdicts = append(verdicts, v)
			continue
		}
		switch {
		case c == succeeded && bad[it.msg.ID]:
			tr.Detail = "the function's answer names the event as failed"
		case c == succeeded:
			tr.Detail = "the function's answer names an event as failed that it was not given"
		}
		tr.Alone = whole && len(run) > 1 || it.tried.Alone
		delay := b.backoff(tr.Attempts, out.RetryAfter, t.e.cfg.Random)
		switch {
		case c == permanent && len(run) == 1:
			v.end, v.reason = endDead, ReasonPermanent
		case tr.Attempts >= b.Delivery.Attempts:
			v.end, v.reason = endDead, ReasonAttempts
		case now.Add(delay).Sub(it.stored) >= b.Delivery.MaxAge:
			v.end, v.reason = endDead, ReasonAge
		default:
			v.end, tr.Due = endAgain, now.Add(delay)
		}
		verdicts = append(verdicts, v)
	}
	if slices.ContainsFunc(verdicts, func(v verdict) bool { return v.end != endDone }) {
		t.counts.note(now, string(out.Code), failureText(out))
	}
	return verdicts
}

// failureText says how a function failed.
func failureText(out *Outcome) string {
	switch {
	case out.Detail != "":
		return out.Detail
	case len(out.Failed) > 0:
		return strconv.Itoa(len(out.Failed)) + " events of a batch failed"
	default:
		return "the function answered with the status " + strconv.Itoa(out.Status)
	}
}

// turnedAway puts events back and has the trigger wait.
func (t *trigger) turnedAway(c class, asked time.Duration, items []*item) {
	t.mu.Lock()
	now := t.e.cfg.Clock()
	// Several were under way when the door closed; that is one time, not several.
	if !now.Before(t.gate) {
		t.turned++
		t.gate = now.Add(heldUp(c, t.turned-1, asked, t.e.cfg.Random))
	} else if at := now.Add(min(asked, maxAsked)); at.After(t.gate) {
		t.gate = at
	}
	t.mu.Unlock()
	t.handBack(items)
}

// handBack makes items ready again as if they had not been taken.
func (t *trigger) handBack(items []*item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.e.cfg.Clock()
	for _, it := range items {
		if it.settler == nil {
			it.data, it.msg = nil, nil
		}
		t.queues.end(it, now)
	}
}

// clip bounds a text that is kept.
func clip(s string) string {
	if len(s) <= maxLastDetail {
		return s
	}
	return s[:maxLastDetail]
}

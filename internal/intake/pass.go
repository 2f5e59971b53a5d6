package intake

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/filter"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/state"
)

// How often a full backlog is looked at while a source waits, and what a caller that does
// not wait is told.
const (
	firstLook  = 20 * time.Millisecond
	lastLook   = time.Second
	retryBusy  = 5 * time.Second
	retrySpace = 30 * time.Second // the disk is full: somebody has to do something
)

// The extensions that only the platform sets; see CloudEvents 1.0, section 3.2, for their
// names. sequence, partitionkey and traceparent may come from outside.
const (
	extPrincipal = "principal"
	extClaimed   = "claimedsource"
	extPartition = "partitionkey"
)

var platformOnly = []string{extPrincipal, extClaimed, "replayof", "attempt", "chainid", "chaindepth"}

func (a *arrival) count(f func(*counters)) {
	f(a.port.counts)
	f(&a.in.counts)
}

func (a *arrival) open() error {
	select {
	case <-a.port.gone: // nil blocks, so that default is taken
		return fmt.Errorf("taking events for %s: its trigger has gone: %w", a.port.source, source.ErrRefused)
	default:
		return nil
	}
}

func (a *arrival) stamp() error {
	for i := range a.items {
		m := &a.items[i].message
		claimed := m.Source
		if claimed == a.port.source {
			claimed = ""
		}
		m.Source = a.port.source
		if len(m.Extensions) > 0 || claimed != "" || a.principal != "" {
			a.extensions(m, claimed)
		}
		if m.Time.IsZero() {
			m.Time = a.now
		}
		m.Time = m.Time.UTC()
		if !a.port.keepChain {
			m.Chain = event.Chain{}
		}
	}
	return nil
}

// extensions takes out what only the platform may say, and adds what it does say.
func (a *arrival) extensions(m *event.Message, claimed string) {
	extensions := make(map[string]string, len(m.Extensions)+2)
	maps.Copy(extensions, m.Extensions)
	for _, name := range platformOnly {
		delete(extensions, name)
	}
	if claimed != "" {
		extensions[extClaimed] = claimed
	}
	if a.principal != "" {
		extensions[extPrincipal] = a.principal
	}
	if key, ok := extensions[extPartition]; ok {
		delete(extensions, extPartition) // it has one place, and that is Key
		if m.Key == "" {
			m.Key = key
		}
	}
	m.Extensions = extensions
}

func (a *arrival) envelope(it *item) *finding {
	if y := it.message.Time.Year(); y < 1 || y > 9999 {
		return &finding{"time", "has a year that RFC 3339 cannot write"}
	}
	return attribute(it.message.Validate())
}

// attribute turns what Validate fails with into a finding.
func attribute(err error) *finding {
	var wrong *event.AttributeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return &finding{wrong.Attribute, wrong.Reason}
	default:
		return &finding{"event", clip(err.Error())}
	}
}

func (a *arrival) content(it *item) *finding {
	if a.port.anyContent {
		return nil
	}
	m := &it.message
	switch form(m.DataContentType) {
	case isJSON:
		if len(m.Data) == 0 {
			return nil // no data at all, which a schema may still refuse
		}
		return checkJSON(m.Data)
	case isText:
		if !utf8.Valid(m.Data) {
			return &finding{"data", "is not valid UTF-8, as its content type says"}
		}
	}
	return nil
}

// What is known of data by its content type.
const (
	isOther = iota
	isJSON
	isText // in UTF-8
)

func form(contentType string) int {
	switch contentType { // what nearly all say, without taking it apart
	case "", "application/octet-stream":
		return isOther
	case "application/json":
		return isJSON
	}
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		kind = strings.TrimSpace(kind)
	}
	charset := strings.ToLower(parameters["charset"])
	switch {
	case kind == "application/json", kind == "text/json", strings.HasSuffix(kind, "+json"):
		return isJSON // RFC 8259, section 8.1: in UTF-8, whatever a charset says
	case strings.HasPrefix(kind, "text/") && (charset == "" || charset == "utf-8" || charset == "us-ascii"):
		return isText
	default:
		return isOther
	}
}

func (a *arrival) filter(it *item) *finding {
	if !a.port.rules.Wants(&it.message) {
		it.unwanted = true
		a.count(func(c *counters) { c.filtered.Add(1) })
	}
	return nil
}

func compileFilter(raw []byte) (filter.Func, error) {
	f, err := filter.Compile(raw)
	var wrong *filter.Error
	if errors.As(err, &wrong) {
		at := wrong.Field
		if !strings.HasPrefix(at, "filter") {
			at = "filter." + at
		}
		return nil, &source.FieldError{Field: at, Reason: wrong.Reason}
	}
	return f, err
}

func (a *arrival) schema(it *item) *finding {
	if s := a.port.rules.schema; s != nil {
		return s.check(it.message.Data)
	}
	return nil
}

func (a *arrival) encode(it *item) *finding {
	b, err := it.message.Encode()
	if err != nil {
		return &finding{"event", clip(err.Error())}
	}
	it.data = b
	return nil
}

func (a *arrival) refuse() error {
	if a.wait {
		return nil
	}
	for i := range a.items {
		if it := &a.items[i]; it.wrong != nil {
			return &InvalidError{Index: i, ID: it.message.ID, Field: it.wrong.field, Reason: it.wrong.reason}
		}
	}
	return nil
}

// room waits until few enough events wait for the trigger, or refuses.
func (a *arrival) room() error {
	if len(a.items) == 0 {
		return nil
	}
	pause := firstLook
	for first := true; ; first = false {
		waiting, err := a.in.backlog(a.port.namespace, a.port.channel)
		if err != nil {
			return fmt.Errorf("counting waiting events of %s: %v", a.port.source, err)
		}
		if waiting < a.port.limit {
			return nil
		}
		if !a.wait {
			return &BusyError{RetryAfter: retryBusy}
		}
		if first {
			a.count(func(c *counters) { c.waiting.Add(1) })
			defer a.count(func(c *counters) { c.waiting.Add(-1) })
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-a.port.gone:
			t.Stop()
			return a.open()
		case <-a.ctx.Done():
			t.Stop()
			return fmt.Errorf("waiting for room for events of %s: %w", a.port.source, a.ctx.Err())
		}
		pause = min(2*pause, lastLook)
	}
}

func (a *arrival) bury() error {
	var letters []DeadLetter
	for i := range a.items {
		it := &a.items[i]
		if it.wrong == nil {
			continue
		}
		letters = append(letters, DeadLetter{
			ID: deadID(&it.message), Namespace: a.port.namespace, Function: a.port.function, Trigger: a.port.trigger,
			Channel: a.port.channel, Reason: ReasonInvalid, Field: it.wrong.field, Detail: it.wrong.reason,
			Time: a.now, Message: storable(it.message, a.port.source),
		})
	}
	if letters == nil {
		return nil
	}
	if err := a.in.dead.Bury(a.ctx, letters); err != nil {
		return fmt.Errorf("keeping dead letters of %s: %w", a.port.source, err)
	}
	a.count(func(c *counters) { c.invalid.Add(int64(len(letters))) })
	a.in.logger.Warn("events are dead letters: they break the trigger's rules", slog.String("source", a.port.source),
		slog.Int("events", len(letters)), slog.String("field", letters[0].Field), slog.String("reason", letters[0].Detail))
	return nil
}

func (a *arrival) publish() error {
	entries := make([]Entry, 0, len(a.items))
	at := make([]int, 0, len(a.items))
	for i := range a.items {
		if it := &a.items[i]; it.live() {
			entries = append(entries, Entry{Namespace: a.port.namespace, Channel: a.port.channel, ID: a.storedID(&it.message), Data: it.data})
			at = append(at, i)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	stored, err := a.in.stream.Publish(a.ctx, entries)
	switch {
	case err != nil && errors.Is(err, state.ErrFull) && !a.wait:
		a.in.logger.Error("events are refused: no space is left for them", slog.String("source", a.port.source))
		return &BusyError{RetryAfter: retrySpace}
	case err != nil:
		return fmt.Errorf("storing events of %s: %w", a.port.source, err)
	case len(stored) != len(entries):
		return fmt.Errorf("storing events of %s: the stream answers for %d of %d", a.port.source, len(stored), len(entries))
	}
	again := int64(0)
	for i, s := range stored {
		a.stored[at[i]] = s
		if s.Duplicate {
			again++
		}
	}
	a.count(func(c *counters) {
		c.duplicate.Add(again)
		c.stored.Add(int64(len(stored)) - again)
	})
	return nil
}

// storedID is the id under which an event is known to the stream. Where several senders
// share a channel, each has ids of its own: otherwise one could have another's event
// taken for a duplicate by using its id first. CloudEvents 1.0, section 3.1.1, has ids
// unique within a source, too.
func (a *arrival) storedID(m *event.Message) string {
	claimed := m.Extensions[extClaimed]
	if !a.port.shared && claimed == "" {
		return m.ID
	}
	if len(m.ID) > maxSharedID {
		return "~" + digest(m.ID) + "~" + digest(a.principal, claimed)
	}
	return m.ID + "~" + digest(a.principal, claimed)
}

// maxSharedID is the longest id that stays readable in the stream, in bytes: with the
// digest it must not be longer than an id may be.
const maxSharedID = event.MaxAttribute - 64

// deadID is the same for the same event, also when it has no id that could be used.
func deadID(m *event.Message) string {
	if m.ID != "" && len(m.ID) <= event.MaxAttribute && utf8.ValidString(m.ID) {
		return m.ID + "~" + digest(m.ID, m.Extensions[extClaimed])
	}
	return "~" + digest(m.ID, m.Type, m.Subject, string(m.Data))
}

// digest of some texts, 132 bits of it; none can be taken for another by moving what
// separates them.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))[:22]
}

// clip bounds a reason, which may quote what somebody sent.
func clip(s string) string {
	const most = 300
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

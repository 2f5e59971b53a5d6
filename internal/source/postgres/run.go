package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
)

// run is one trigger's work, over all its connections to the server.
type run struct {
	kind        *Kind
	b           source.Binding
	s           *settings
	slot        string
	own         string // the name of what is made for this trigger
	publication string
	system      string // system identifier and timeline, known once connected
	health      *health
}

func (k *Kind) prepare(b source.Binding) (*run, error) {
	s, err := readSettings(b.Trigger.Settings)
	if err != nil {
		return nil, err
	}
	r := &run{kind: k, b: b, s: s, own: ownName(b.Ref, b.Trigger.Name), slot: s.Slot, publication: s.Publication}
	if r.slot == "" {
		r.slot = r.own
	}
	if r.publication == "" {
		r.publication = r.own
	}
	r.health = &health{report: b.Report, lag: -1}
	return r, nil
}

func (r *run) wants(o operation) bool { return slices.Contains(r.s.Operations, o) }

func (r *run) wantsTable(schema, name string) bool {
	return len(r.s.Tables) == 0 || slices.Contains(r.s.Tables, schema+"."+name)
}

func (r *run) only(schema, name string) []string { return r.s.Columns[schema+"."+name] }

// once connects, makes what is missing, tells what there is and then follows the log
// until something breaks or ctx ends.
func (r *run) once(ctx context.Context) error {
	r.health.starting()
	q, err := openSession(ctx, r.b.Connection, false)
	if err != nil {
		return err
	}
	defer q.close()
	repl, err := openSession(ctx, r.b.Connection, true)
	if err != nil {
		return err
	}
	defer repl.close()
	if r.system, err = repl.identify(ctx); err != nil {
		return err
	}
	if err := r.checkServer(ctx, q); err != nil {
		return err
	}
	// The publication comes before the slot: a change is published by what the catalogue
	// said at its place in the log, and without it the slot could not be read at all.
	if err := r.ensurePublication(ctx, q); err != nil {
		return err
	}
	at, snapshot, err := r.ensureSlot(ctx, q, repl)
	if err != nil {
		return err
	}
	if at.Phase == phaseSnapshot {
		if err := r.snapshot(ctx, q, at, snapshot); err != nil {
			return err
		}
	}
	q.close()
	return r.follow(ctx, repl)
}

func (r *run) checkServer(ctx context.Context, q *session) error {
	rows, err := q.query(ctx, "SELECT current_setting('wal_level'), current_setting('server_version_num')::int >= 130000")
	if err != nil {
		return explain("asking about the server", err)
	}
	if level := string(rows[0][0]); level != "logical" {
		return fmt.Errorf("the server's wal_level is %s, and changes can be read only with logical (%s)", level, walRemedy)
	}
	if string(rows[0][1]) != "t" {
		return errors.New("the server is older than PostgreSQL 13")
	}
	return nil
}

// accept hands events in until they are taken. Only ctx and a trigger that is refused
// end it.
func (r *run) accept(ctx context.Context, events []event.Message) error {
	if len(events) == 0 {
		return nil
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := r.b.Sink.Accept(ctx, events)
		switch {
		case err == nil:
			r.health.taken()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, source.ErrRefused):
			return err
		}
		r.health.failing("the events are not taken: " + err.Error())
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// health puts together what the parts know. Failing is worse than an alert.
type health struct {
	report func(source.Health)

	mu    sync.Mutex
	state source.State
	wrong string // why it fails
	alert string
	lag   int64
	last  source.Health
}

func (h *health) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	now := source.Health{State: h.state, Lag: h.lag}
	switch {
	case h.wrong != "":
		now.State, now.Reason = source.Failing, h.wrong
	case h.alert != "":
		now.State, now.Reason = source.Alert, h.alert
	}
	if now != h.last {
		h.last = now
		h.report(now) // under the lock: reports arrive in order
	}
}

func (h *health) starting() {
	h.change(func() {
		if h.state == "" {
			h.state = source.Starting
		}
	})
}

func (h *health) running()              { h.change(func() { h.state, h.wrong, h.alert = source.Running, "", "" }) }
func (h *health) taken()                { h.change(func() { h.wrong = "" }) }
func (h *health) failing(reason string) { h.change(func() { h.wrong = reason }) }
func (h *health) alerting(reason string) {
	h.change(func() { h.wrong, h.alert = "", reason })
}

func (h *health) watched(lag int64, alert string) {
	h.change(func() { h.lag, h.alert = lag, alert })
}

// Phases of a trigger's life, as they are stored.
const (
	phaseCreating = "creating" // a slot may have been made
	phaseSnapshot = "snapshot" // it has; tables in Done have been told
	phaseStream   = "stream"
)

// positionKey is where the position is stored.
const positionKey = "position"

// position is what must be known after a restart. How far the log has been read is the
// slot's business.
type position struct {
	Slot        string   `json:"slot"`
	System      string   `json:"system"` // identifier alone: a promoted replica has another timeline
	Phase       string   `json:"phase"`
	Made        bool     `json:"made,omitempty"`     // the slot was made for this trigger
	Snapshot    bool     `json:"snapshot,omitempty"` // one follows phaseCreating
	From        string   `json:"from,omitempty"`     // where the log begins that follows the snapshot
	Done        []string `json:"done,omitempty"`
	Publication string   `json:"publication,omitempty"` // that was made for this trigger
}

func (r *run) load(ctx context.Context) (*position, error) {
	b, err := r.b.Store.Get(ctx, positionKey)
	if err != nil {
		return nil, fmt.Errorf("reading the position: %w", err)
	}
	if b == nil {
		return nil, nil
	}
	var p position
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("reading the position: %v", err)
	}
	return &p, nil
}

func (r *run) save(ctx context.Context, p *position) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := r.b.Store.Put(ctx, positionKey, b); err != nil {
		return fmt.Errorf("storing the position: %w", err)
	}
	return nil
}

func (r *run) systemID() string {
	id, _, _ := strings.Cut(r.system, "-")
	return id
}

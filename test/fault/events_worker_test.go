package fault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/test/fault/history"
)

// lifeEnv holds what a life is to do; the test binary is a worker when it is set.
const lifeEnv = "CASEMATE_FAULT_LIFE"

// life is one run of the worker.
type life struct {
	Dir      string
	Life     int
	Seed     uint64
	Events   int           // of each sender
	Lines    int           // of the history, after which it kills itself; 0: never
	Final    bool          // it works until nothing is left, and says what became of it
	Settle   bool          // it works until nothing is left, and stops
	MinFree  int64         // of the disk; 0 for the default
	Disk     bool          // the disk may be full: what does not open then is not damaged
	Jumps    bool          // its clock jumps
	Patience time.Duration // for the end
	Linger   time.Duration // after all were sent, for the source
	Source   *farSide      // a source of its own beside the doors
}

// farSide is a real server, by which events come in.
type farSide struct {
	Kind                string
	Ordered             bool // by the keys that the source gives
	Trigger, Connection json.RawMessage
	Secrets             map[string]string
	Acked               []string // ids that the far side has acknowledged in all; the last life waits for them
}

// Doors by which events come in; each is a trigger of its own.
const (
	doorSource  = "source"  // ordered by key
	doorTopic   = "topic"   //
	doorWebhook = "webhook" //
	doorAsync   = "async"   //
	doorFar     = "far"     // ordered by key when the far side is
)

var fn = function.Ref{Namespace: "shop", Name: "orders"}

// key names the trigger of a door.
func key(door string) delivery.Key {
	k := delivery.Key{Namespace: fn.Namespace, Function: fn.Name, Trigger: door}
	if door == doorAsync {
		k.Trigger = ""
	}
	return k
}

// channel is where a door's events are.
func channel(door string) string {
	if door == doorTopic {
		return delivery.TopicChannel("news")
	}
	return key(door).Channel()
}

// worker is a life under way.
type worker struct {
	life
	log    *history.Writer
	bus    *bus.Bus
	events *bus.Events
	deads  *bus.Events
	engine *delivery.Engine
	intake *intake.Intake
	clock  func() time.Time
	jump   time.Duration // of the clock
	random func() float64
}

// TestEventsWorker is no test: it is what the others start and kill.
func TestEventsWorker(t *testing.T) {
	asked := os.Getenv(lifeEnv)
	if asked == "" {
		t.Skip("it is started by other tests")
	}
	var w worker
	if err := json.Unmarshal([]byte(asked), &w.life); err != nil {
		t.Fatal(err)
	}
	if err := w.run(t.Context()); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

// die ends the worker as kill -9 does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// errDamaged says that stored data were refused, which is a report.
var errDamaged = errors.New("stored data is damaged")

func (w *worker) run(ctx context.Context) (err error) {
	if w.log, err = history.Append(filepath.Join(w.Dir, "history"), w.Life); err != nil {
		return err
	}
	before, err := history.Read(filepath.Join(w.Dir, "history"))
	if err != nil {
		return err
	}
	if w.Lines > 0 {
		w.log.DieAfter(w.Lines, die)
	}
	rnd := rand.New(rand.NewPCG(w.Seed, uint64(w.Life)))
	var lock sync.Mutex
	w.random = func() float64 { lock.Lock(); defer lock.Unlock(); return rnd.Float64() }
	w.clock = func() time.Time { return time.Now().Add(w.jump) }
	if w.Jumps {
		w.leap()
	}
	defer func() {
		if errors.Is(err, errDamaged) { // that it does not go on is a report
			if w.Disk && !w.Final {
				err = fmt.Errorf("%w: %w", errFull, err)
				return
			}
			w.log.Write(history.Line{What: history.Told, Text: err.Error()})
			err = nil
		}
	}()
	if err := w.open(ctx); err != nil {
		return err
	}
	sources, end := context.WithCancel(ctx)
	defer end()
	var running sync.WaitGroup
	senders, err := w.senders(sources, &running)
	if err != nil {
		return err
	}
	if err := w.publish(ctx, senders, before); err != nil {
		return err
	}
	if w.Linger > 0 {
		wait(ctx, w.Linger)
	}
	if w.Settle || w.Final {
		w.settle(ctx)
	}
	end()
	running.Wait()
	w.troubles(ctx)
	if err := w.engine.Stop(ctx); err != nil {
		return err
	}
	if err := w.account(ctx); err != nil {
		return err
	}
	w.told(ctx)
	if err := w.bus.Close(ctx); err != nil {
		return err
	}
	w.log.Write(history.Line{What: history.Stopped})
	return w.log.Close()
}

// leap sets the clock up to 50 minutes before or behind the real one, for a whole life:
// within a process, times are compared by a clock that does not jump. The last life is the
// furthest ahead, so that nothing waits for a time that one before it has set.
func (w *worker) leap() {
	w.jump = time.Duration((w.random()*100 - 50) * float64(time.Minute))
	if w.Final {
		w.jump = 50 * time.Minute
	}
}

// open puts the path of events together.
func (w *worker) open(ctx context.Context) error {
	logs, err := os.OpenFile(filepath.Join(w.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(logs, nil)).With("life", w.Life)
	w.bus, err = bus.Start(ctx, bus.Config{
		Dir: filepath.Join(w.Dir, "bus"), Key: []byte(strings.Repeat("k", bus.KeySize)), Name: "worker", Logger: logger, Clock: w.clock, MinFree: w.MinFree,
	})
	if err != nil {
		return refused(err)
	}
	for _, s := range []struct {
		name, prefix string
		to           **bus.Events
	}{{"events", "event", &w.events}, {"deads", "dead", &w.deads}} {
		if *s.to, err = w.bus.Events(ctx, bus.EventsConfig{
			Name: s.name, SubjectPrefix: s.prefix, MaxAge: 8 * 24 * time.Hour, MaxBytes: 1 << 30, Dedup: 2 * time.Hour,
		}); err != nil {
			return refused(err)
		}
	}
	kept, err := w.bus.KV(ctx, "delivery")
	if err != nil {
		return refused(err)
	}
	ids := atomic.Uint64{}
	w.engine, err = delivery.Open(ctx, delivery.Config{
		Events: onBus{w.events}, Consumers: onBus{w.events}, Deads: onBus{w.deads}, State: kept, Invoke: w.invoke,
		Clock: w.clock, Random: w.random, NewID: func() string { return fmt.Sprintf("life%d-%d-%d", w.Life, w.Seed, ids.Add(1)) }, Logger: logger,
	})
	if err != nil {
		return refused(err)
	}
	w.intake, err = intake.New(intake.Config{
		Stream: arrivals{w.events}, DeadLetters: graves{w.engine}, Clock: w.clock, Logger: logger,
		Backlog: func(string, string) (int64, error) { return 0, nil },
	})
	if err != nil {
		return err
	}
	var bindings []delivery.Binding
	for _, door := range w.doors() {
		b := delivery.Binding{Key: key(door), Delivery: function.Delivery{
			Concurrency: 4, Attempts: 4, Backoff: 20 * time.Millisecond, BackoffMost: 200 * time.Millisecond, Ordered: door == doorSource || door == doorFar && w.Source.Ordered,
		}}
		if door == doorTopic {
			b.Channel = channel(door)
		}
		bindings = append(bindings, b)
	}
	if err := w.engine.Set(ctx, bindings); err != nil {
		return fmt.Errorf("setting triggers: %w", full(err))
	}
	return nil
}

func (w *worker) doors() []string {
	all := []string{doorSource, doorTopic, doorWebhook, doorAsync}
	if w.Source != nil {
		all = append(all, doorFar)
	}
	return all
}

// refused is for what does not open: that is a report, unless it is for want of space.
func refused(err error) error {
	if errors.Is(err, bus.ErrFull) {
		return full(err)
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// errFull ends a life that cannot even begin.
var errFull = errors.New("the disk is full")

func full(err error) error {
	if errors.Is(err, bus.ErrFull) {
		return fmt.Errorf("%w: %w", errFull, err)
	}
	return err
}

// look reads a whole channel.
func (w *worker) look(ctx context.Context, reader int, door string) {
	line := history.Line{What: history.Look, Door: door, Reader: reader}
	w.log.Write(line)
	err := w.events.Read(ctx, bus.EventFilter{Namespace: fn.Namespace, Channel: channel(door)}, func(r bus.EventRecord) bool {
		id, _, _ := strings.Cut(r.ID, "~")
		line.Found = append(line.Found, id)
		return true
	})
	if err == nil { // else somebody reports it
		line.What = history.Seen
		w.log.Write(line)
	}
}

// chance is a number in [0, 1) that belongs to an event.
func (w *worker) chance(id string) float64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", w.Seed, id))
	return float64(binary.LittleEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// invoke is the function: it does most events, some only when tried again, some never.
func (w *worker) invoke(ctx context.Context, c delivery.Call) (delivery.Outcome, error) {
	if w.random() < 0.02 {
		return delivery.Outcome{}, problem.New(problem.Overloaded, "there is no room")
	}
	m := c.Messages[0]
	id := m.ID
	if c.Trigger == doorWebhook {
		id = strings.ReplaceAll(id, "-", ".")
	}
	line := history.Line{What: history.Begin, Attempt: c.Attempt}
	if c.Trigger == doorFar {
		id = farID(m.Data)
	}
	parts := strings.Split(id, ".")
	if len(parts) != 3 {
		w.log.Write(history.Line{What: history.Bad, Text: fmt.Sprintf("%q with %q", m.ID, m.Data)})
		return delivery.Outcome{Status: 400}, nil
	}
	line.Door, line.Key = parts[0], parts[1]
	line.N, _ = strconv.Atoi(parts[2])
	w.log.Write(line)
	wait(ctx, time.Duration(w.random()*4)*time.Millisecond)
	if want := body(id); c.Trigger != doorFar && string(m.Data) != string(want) {
		w.log.Write(history.Line{What: history.Bad, Door: line.Door, Key: line.Key, N: line.N, Text: fmt.Sprintf("%q", m.Data)})
	}
	status := 200
	switch p := w.chance(id); {
	case p < 0.04:
		status = 422
	case p < 0.06, p < 0.20 && c.Attempt == 1, p < 0.24 && c.Attempt < 4:
		status = 500
	}
	line.What, line.OK = history.End, status == 200 && ctx.Err() == nil
	w.log.Write(line)
	return delivery.Outcome{Status: status}, nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// settle waits until nothing is left to do.
func (w *worker) settle(ctx context.Context) {
	patience := w.Patience
	if patience == 0 {
		patience = time.Minute
	}
	deadline := time.Now().Add(patience)
	for calm := 0; calm < 2; {
		left := []string{}
		for _, door := range w.doors() {
			n, err := w.engine.Backlog(ctx, key(door))
			if n > 0 || err != nil {
				left = append(left, fmt.Sprintf("%s: %d events, %v", door, n, err))
			}
		}
		if w.Source != nil && w.Final {
			if n := w.missing(); n > 0 {
				left = append(left, fmt.Sprintf("%d events of the far side have not come", n))
			}
		}
		calm++
		if n := w.unfinished(ctx); w.Final && len(left) == 0 && n > 0 && time.Now().Before(deadline) {
			calm = 0 // a consumer that does not open counts as one without events
		}
		if len(left) > 0 {
			calm = 0
			if time.Now().After(deadline) {
				w.log.Write(history.Line{What: history.Stuck, Text: "the work does not end: " + strings.Join(left, "; ")})
				return
			}
		}
		wait(ctx, 120*time.Millisecond) // answers about backlogs may be 100 ms old
	}
}

// unfinished counts the events that were acknowledged and are neither done nor dead.
func (w *worker) unfinished(ctx context.Context) int {
	lines, err := history.Read(filepath.Join(w.Dir, "history"))
	if err != nil {
		return 1
	}
	open := map[string]bool{}
	for i := range lines {
		if l := &lines[i]; l.What == history.Acked {
			open[l.ID()] = true
		}
	}
	for i := range lines {
		if l := &lines[i]; l.What == history.End && l.OK || l.What == history.Dead {
			delete(open, l.ID())
		}
	}
	if len(open) > 0 {
		w.deadLetters(ctx, func(id string, _ *delivery.Dead) { delete(open, id) })
	}
	return len(open)
}

// deadLetters gives all dead letters that can be read, with their events' ids.
func (w *worker) deadLetters(ctx context.Context, each func(id string, d *delivery.Dead)) {
	for _, door := range w.doors() {
		// Those that cannot be read are reported by the bus.
		_ = w.engine.DeadLetters(ctx, key(door), delivery.DeadFilter{}, func(d *delivery.Dead) bool {
			switch {
			case d.Message == nil: // of a damaged one nobody knows which it was
			case door == doorWebhook:
				each(strings.ReplaceAll(d.Message.ID, "-", "."), d)
			case door == doorFar:
				each(farID(d.Message.Data), d)
			default:
				each(d.Message.ID, d)
			}
			return true
		})
	}
}

// account says which events are dead letters, and has everything read.
func (w *worker) account(ctx context.Context) error {
	w.deadLetters(ctx, func(id string, d *delivery.Dead) {
		p := append(strings.Split(id, "."), "", "")
		n, _ := strconv.Atoi(p[2]) // one that is no event of ours was sent by nobody, and the judge says so
		w.log.Write(history.Line{What: history.Dead, Door: p[0], Key: p[1], N: n, Text: string(d.Reason), At: d.Died})
	})
	for _, e := range []*bus.Events{w.events, w.deads} {
		rep, err := e.Verify(ctx, nil)
		if err != nil {
			return err
		}
		if rep.Damaged {
			w.log.Write(history.Line{What: history.Told, Text: fmt.Sprintf("verify: %+v", rep)})
		}
	}
	return nil
}

// troubles writes down what triggers say of themselves, in their status, when the store does
// not do its work.
func (w *worker) troubles(ctx context.Context) {
	for _, door := range w.doors() {
		st, err := w.engine.Status(ctx, key(door))
		if err == nil && slices.Contains([]string{"events cannot be read", "dead letters cannot be written", "the end of events cannot be written"}, st.LastError.Detail) && !w.Disk {
			w.log.Write(history.Line{What: history.Told, Text: "trigger " + door + ": " + st.LastError.Detail})
		}
	}
}

// told writes down what the node would show its operator.
func (w *worker) told(ctx context.Context) {
	for _, text := range w.bus.Warnings() {
		w.log.Write(history.Line{What: history.Told, Text: text})
	}
	if err := w.bus.Check(ctx); errors.Is(err, bus.ErrCorrupt) {
		w.log.Write(history.Line{What: history.Told, Text: err.Error()})
	}
}

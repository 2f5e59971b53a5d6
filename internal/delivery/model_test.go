package delivery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
)

// plan is one random history: what is published when, how often everything crashes, and
// how often functions and disks fail.
type plan struct {
	seed    uint64
	events  int
	keys    int
	lives   int
	failing float64 // invocations
	busy    float64
	faults  float64 // writes and acknowledgements
	gentle  bool    // nobody is killed and no acknowledgement lost: then nothing succeeds twice
	d       function.Delivery
}

// judge watches what runs. A key's event may begin only when all earlier ones of the key
// have been done at some time, or are dead letters; and two never run at once in one life.
type judge struct {
	mu      sync.Mutex
	life    int
	once    bool
	key     map[string][]string // ids in the order of the stream
	place   map[string]int
	done    map[string]bool
	running map[string]int // life of the one that runs, by key
	faults  []string
}

func (j *judge) begin(w *world, id string, isDead func(string) bool) {
	key, _, ok := strings.Cut(id, ":")
	if !ok {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.running[key] == j.life {
		j.faults = append(j.faults, id+" began while another one of its key ran")
	}
	j.running[key] = j.life
	for _, earlier := range j.key[key][:j.place[id]] {
		if !j.done[earlier] && !isDead(earlier) {
			j.faults = append(j.faults, fmt.Sprintf("%s began before %s was done, in life %d", id, earlier, j.life))
		}
	}
}

func (j *judge) end(id string, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if key, _, keyed := strings.Cut(id, ":"); keyed && j.running[key] == j.life {
		delete(j.running, key)
	}
	if ok && j.done[id] && j.once {
		j.faults = append(j.faults, fmt.Sprintf("%s succeeded again in life %d", id, j.life))
	}
	if ok {
		j.done[id] = true
	}
}

// history carries out a plan and returns what was wrong with it.
func history(t *testing.T, p plan) (faults []string, crashes, redone int) {
	rnd := rand.New(rand.NewPCG(p.seed, 1))
	var lock sync.Mutex
	chance := func(f float64) bool { lock.Lock(); defer lock.Unlock(); return rnd.Float64() < f }
	between := func(n int) int { lock.Lock(); defer lock.Unlock(); return rnd.IntN(n) }
	j := &judge{once: p.gentle, key: map[string][]string{}, place: map[string]int{}, done: map[string]bool{}, running: map[string]int{}}
	var w *world
	deadIDs := func(id string) bool {
		found := false
		for _, r := range w.disk.deads.records {
			found = found || strings.Contains(string(r.Data), `"id":"`+id+`"`)
		}
		return found
	}
	w = newWorld(t, func(ctx context.Context, c delivery.Call) (delivery.Outcome, error) {
		if chance(p.busy) {
			return delivery.Outcome{}, problem.New(problem.Overloaded, "full")
		}
		node := w.node
		w.disk.mu.Lock()
		for _, m := range c.Messages {
			j.begin(w, m.ID, deadIDs)
		}
		w.disk.mu.Unlock()
		timer := time.NewTimer(time.Duration(between(3000)) * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		ok := ctx.Err() == nil && node.alive() && !chance(p.failing)
		out := delivery.Outcome{Status: 200}
		if !ok {
			out.Status = 500
		}
		for _, m := range c.Messages {
			bad := ok && len(c.Messages) > 1 && chance(p.failing)
			if bad {
				out.Failed = append(out.Failed, m.ID)
			}
			j.end(m.ID, ok && !bad)
		}
		return out, nil
	}, func(c *delivery.Config) {
		c.Random = func() float64 { lock.Lock(); defer lock.Unlock(); return rnd.Float64() }
	})
	w.engine.CompactAt(3)
	fault := func(what string) (bool, bool) {
		return chance(p.faults) && !(p.gentle && what == "ack"), chance(0.5)
	}
	faultless := func() {
		w.node.mu.Lock()
		w.node.fault = nil
		w.node.mu.Unlock()
	}
	var ids []string
	for i := range p.events {
		id := fmt.Sprint("free", i)
		if k := between(p.keys + 1); k > 0 {
			key := fmt.Sprint("k", k)
			id = fmt.Sprintf("%s:%d", key, i)
			j.place[id] = len(j.key[key])
			j.key[key] = append(j.key[key], id)
		}
		ids = append(ids, id)
	}
	b := delivery.Binding{Key: orders, Delivery: p.d}
	published := 0
	for life := range p.lives {
		j.mu.Lock()
		j.life++
		clear(j.running)
		j.mu.Unlock()
		w.node.fault = fault
		w.set(b)
		for range 4 {
			n := min(between(p.events/p.lives+1), len(ids)-published)
			w.publish(ordersChannel, ids[published:published+n]...)
			published += n
			pass(time.Duration(between(20_000)) * time.Millisecond)
			if between(6) == 0 {
				paused := b
				paused.Paused = true
				w.set(paused)
				pass(time.Duration(between(5000)) * time.Millisecond)
				w.set(b)
			}
		}
		if life == p.lives-1 {
			break
		}
		if p.gentle {
			faultless()
		}
		if p.gentle || chance(0.3) {
			w.stop()
		} else {
			w.crash()
			crashes++
		}
		w.start()
		w.engine.CompactAt(3)
	}
	w.publish(ordersChannel, ids[published:]...)
	faultless()
	pass(6 * time.Hour)
	synctest.Wait()
	w.disk.mu.Lock()
	for _, id := range ids {
		if !j.done[id] && !deadIDs(id) {
			j.faults = append(j.faults, id+" is lost")
		}
	}
	w.disk.mu.Unlock()
	if n := w.unsettled(); n > 0 {
		j.faults = append(j.faults, fmt.Sprintf("%d are unsettled in the end", n))
	}
	if st, err := w.engine.Status(t.Context(), orders); err != nil || st.Retrying > 0 || st.UnderWay > 0 {
		j.faults = append(j.faults, fmt.Sprintf("in the end %+v, %v", st, err))
	}
	w.stop()
	return j.faults, crashes, len(w.ran()) - len(ids)
}

func TestEveryEventIsDeliveredAndKeysKeepTheirOrder(t *testing.T) {
	t.Parallel()
	crashes, redone, histories := 0, 0, 0
	rapid.Check(t, func(r *rapid.T) {
		p := plan{
			seed:    rapid.Uint64().Draw(r, "seed"),
			events:  rapid.IntRange(1, 120).Draw(r, "events"),
			keys:    rapid.IntRange(0, 6).Draw(r, "keys"),
			lives:   rapid.IntRange(1, 5).Draw(r, "lives"),
			failing: rapid.SampledFrom([]float64{0, 0.2, 0.6}).Draw(r, "failing"),
			busy:    rapid.SampledFrom([]float64{0, 0.2}).Draw(r, "busy"),
			gentle:  rapid.Bool().Draw(r, "gentle"),
			faults:  rapid.SampledFrom([]float64{0, 0.1, 0.3}).Draw(r, "faults"),
			d: function.Delivery{
				Ordered:     true,
				Concurrency: rapid.IntRange(1, 5).Draw(r, "concurrency"),
				Attempts:    rapid.IntRange(1, 4).Draw(r, "attempts"),
				Batch:       rapid.SampledFrom([]int{1, 1, 4}).Draw(r, "batch"),
				BatchWindow: time.Duration(rapid.IntRange(0, 3).Draw(r, "window")) * time.Second,
				Backoff:     time.Duration(rapid.IntRange(1, 60).Draw(r, "backoff")) * time.Second,
				MaxAge:      24 * time.Hour,
			},
		}
		var faults []string
		synctest.Test(t, func(t *testing.T) {
			f, c, n := history(t, p)
			faults = f
			crashes, redone, histories = crashes+c, redone+n, histories+1
		})
		if len(faults) > 0 {
			r.Fatalf("%d faults, the first: %s", len(faults), faults[0])
		}
	})
	t.Logf("%d histories with %d crashes; %d invocations beyond one for each event", histories, crashes, redone)
}

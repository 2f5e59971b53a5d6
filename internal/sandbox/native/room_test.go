package native

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// runnerWithRoom is a Runner without sandboxes, for what it decides about memory.
func runnerWithRoom(budget int64) *Runner {
	return &Runner{
		cfg:  Config{Memory: budget, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)},
		gate: newGate(1), claims: newClaims(budget), versions: map[key]*version{},
	}
}

// hold makes a version with idle instances, each of which holds a claim.
func hold(t *testing.T, r *Runner, namespace, name string, count int, each int64) *pool {
	t.Helper()
	p := &pool{clock: time.Now, tasks: &r.tasks}
	v := &function.Version{Ref: function.Ref{Namespace: namespace, Name: name}}
	ver := &version{runner: r, v: v, loaded: make(chan struct{}), pool: p}
	close(ver.loaded)
	r.versions[keyOf(v, "")] = ver
	for range count {
		if r.claims.claim(namespace, each) != granted {
			t.Fatal("no room to begin with")
		}
		i, _ := newInstance(t, time.Now())
		i.ending = r.claims.announce
		i.onEnd = func() { r.claims.release(namespace, each, true) }
		p.alive++
		p.put(i)
	}
	return p
}

func TestTheOneWhoHoldsMostGivesWayFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runnerWithRoom(100)
		few, many := hold(t, r, "few", "f", 1, 20), hold(t, r, "many", "f", 4, 15)
		<-time.After(time.Second) // few's rests longer then many's last ones, which does not matter
		if err := r.claim(t.Context(), "third", 35, true); err != nil {
			t.Fatal(err)
		}
		_, a := few.count()
		_, b := many.count()
		if a != 1 || b != 3 {
			t.Errorf("few has %d left and many %d, want 1 and 3", a, b)
		}
		few.close()
		many.close()
		r.tasks.Wait()
	})
}

// What nobody waits for must not end what somebody may need.
func TestStartingAheadTakesNothingFromOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runnerWithRoom(100)
		p := hold(t, r, "a", "f", 5, 20)
		var e *sandbox.Error
		if err := r.claim(t.Context(), "b", 20, false); !errors.As(err, &e) || e.Kind != sandbox.Unavailable {
			t.Errorf("got %v", err)
		}
		if _, idle := p.count(); idle != 5 {
			t.Errorf("%d are left of 5", idle)
		}
		p.close()
		r.tasks.Wait()
	})
}

func TestWhatIsEndingIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runnerWithRoom(100)
		if r.claims.claim("a", 100) != granted {
			t.Fatal("no room to begin with")
		}
		r.claims.announce()
		go func() {
			<-time.After(time.Second)
			r.claims.release("a", 100, true)
		}()
		if err := r.claim(t.Context(), "b", 100, true); err != nil {
			t.Errorf("it did not wait: %v", err)
		}
		// Nothing ends any more, and nothing is idle: told at once.
		begun := time.Now()
		if err := r.claim(t.Context(), "a", 1, true); err == nil || time.Since(begun) > 0 {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
	})
}

func TestWhoWaitsForRoomMayLeave(t *testing.T) {
	t.Parallel()
	r := runnerWithRoom(100)
	r.claims.claim("a", 100)
	r.claims.announce() // and never released
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.claim(ctx, "b", 1, true); err == nil {
		t.Error("there was no room")
	}
}

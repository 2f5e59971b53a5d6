package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
)

// brokers opens real ones and remembers them.
type brokers struct {
	stub   string
	opened chan *box.Broker
	fail   chan error // what to fail with first
}

func (b *brokers) open(ctx context.Context) (*box.Broker, error) {
	select {
	case err := <-b.fail:
		return nil, err
	default:
	}
	one, err := box.Open(ctx, box.Config{Program: b.stub})
	if err == nil {
		b.opened <- one
	}
	return one, err
}

func kept(t *testing.T) (*keeper, *brokers) {
	t.Helper()
	b := &brokers{stub: nativetest.Stub(t), opened: make(chan *box.Broker, 8), fail: make(chan error, 8)}
	k, err := keepBroker(t.Context(), slog.New(slog.DiscardHandler), time.Now, b.open)
	if err != nil {
		t.Skipf("there is no broker on this machine: %v", err)
	}
	t.Cleanup(func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
	return k, b
}

// spec is of a box that runs the small program for a moment.
func (b *brokers) spec(t *testing.T) box.Spec {
	t.Helper()
	f, err := os.Open(b.stub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return box.Spec{Executable: f, Args: []string{"casemate-box-probe"}, Proc: true}
}

// TestStartsWaitForTheNextBroker ends the broker, and has the first attempts at another
// one fail: who starts a box meanwhile gets it from the one that works.
func TestStartsWaitForTheNextBroker(t *testing.T) {
	t.Parallel()
	k, b := kept(t)
	first := <-b.opened
	b.fail <- errors.New("not now")
	b.fail <- errors.New("not yet")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := k.Start(t.Context(), b.spec(t))
	if err != nil {
		t.Fatal(err)
	}
	<-x.Done()
	if second := <-b.opened; second == first {
		t.Error("it is the same broker")
	} else if now, err := k.Broker(t.Context()); err != nil || now != second {
		t.Errorf("the keeper gives %p, %v, want %p", now, err, second)
	}
}

func TestWaitingForABrokerEnds(t *testing.T) {
	t.Parallel()
	k, b := kept(t)
	for range cap(b.fail) {
		b.fail <- errors.New("never")
	}
	if err := (<-b.opened).Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Start(ctx, b.spec(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller has gone: %v", err)
	}
	waiting := make(chan error)
	go func() {
		_, err := k.Start(t.Context(), b.spec(t))
		waiting <- err
	}()
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, box.ErrEnded) {
		t.Errorf("the node stops: %v", err)
	}
}

// TestNextBrokerMustEnforceAsMuch: code that was deployed behind some walls does not
// run behind fewer.
func TestNextBrokerMustEnforceAsMuch(t *testing.T) {
	t.Parallel()
	full := box.Posture{Enforced: []string{box.MeasureLandlock, box.MeasureMemory}}
	less := box.Posture{Enforced: []string{box.MeasureLandlock}, Missing: map[string]string{box.MeasureMemory: "somebody unmounted it"}}
	if err := noWeaker(full, less); err == nil || !strings.Contains(err.Error(), "memory-cgroup") || !strings.Contains(err.Error(), "unmounted") {
		t.Errorf("less than before: %v", err)
	}
	for name, next := range map[string]box.Posture{"the same": full, "more": {Enforced: []string{box.MeasureCPU, box.MeasureLandlock, box.MeasureMemory}}} {
		if err := noWeaker(full, next); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := noWeaker(less, full); err != nil {
		t.Errorf("more than before: %v", err)
	}
}

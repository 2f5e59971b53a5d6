package boxed_test

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/boxed"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
)

// Guests must not inherit how late the node lets its own timers be. With the race
// detector the process cannot be changed as the node changes itself, and the guest's own
// value is the usual one in any case.
func TestMain(m *testing.M) {
	const late = 400_000
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, late, 0)
	os.Exit(m.Run())
}

func launcher(t *testing.T, stub string) native.Launcher {
	t.Helper()
	b, err := box.Open(context.Background(), box.Config{Program: stub, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("opening the broker: %v", err)
	}
	l, err := boxed.New(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestVersionsInBoxes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start boxes with users and control groups of their own")
	}
	stub := nativetest.Stub(t)
	nativetest.Run(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, stub) }, Confined: true})
}

// The peak of memory is an invocation's own, although it begins anew only where that
// makes a difference.
func TestThePeakOfOneInvocationIsNotTheNextOnes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start boxes with users and control groups of their own")
	}
	stub := nativetest.Stub(t)
	b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, stub) }})
	v := b.Version()
	const files = 10 << 20
	large := b.Invoke(v, `{"do":"fill","n":10}`)
	b.Want(large, `10`)
	small := b.Invoke(v, `1`)
	b.Want(small, `1`)
	if large.Usage.MemoryPeak < files || small.Usage.MemoryPeak > large.Usage.MemoryPeak-files/2 {
		t.Errorf("peaks of %d and then %d bytes", large.Usage.MemoryPeak, small.Usage.MemoryPeak)
	}
}

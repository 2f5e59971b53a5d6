package box

import (
	"syscall"
	"testing"
)

// TestUsageNeedsNoBroker stops the broker: what a box uses is asked for by each
// invocation, and the way there and back takes longer than many of them.
func TestUsageNeedsNoBroker(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureMemory)
	x, out := start(t, b, Spec{Memory: 64 << 20}, "alloc", "8")
	line(t, out)
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	u, err := x.Usage()
	reset := x.ResetPeak()
	again, err2 := x.Usage()
	if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err != nil || reset != nil || err2 != nil || u.CPU <= 0 || u.Memory < 8<<20 || u.MemoryPeak < u.Memory {
		t.Errorf("%+v, %v, %v, %v", u, err, reset, err2)
	}
	if again.MemoryPeak > again.Memory+4<<20 {
		t.Errorf("the peak is %d of %d bytes after it was reset", again.MemoryPeak, again.Memory)
	}
	x.Kill()
	<-x.Done()
	if _, err := x.Usage(); err == nil {
		t.Error("a box that has ended has a usage")
	}
}

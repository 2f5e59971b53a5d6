package box

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExit(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	for _, c := range []struct {
		args   []string
		code   int
		signal syscall.Signal
	}{
		{[]string{"exit", "0"}, 0, 0},
		{[]string{"exit", "7"}, 7, 0},
		// A first process would not die of these.
		{[]string{"die", strconv.Itoa(int(syscall.SIGKILL))}, -1, syscall.SIGKILL},
	} {
		x, _ := start(t, b, Spec{}, c.args...)
		if e := x.Exit(); e.Code != c.code || e.Signal != c.signal || e.OOM {
			t.Errorf("%v: %+v", c.args, e)
		}
	}
}

func TestSignal(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	x, out := start(t, b, Spec{}, "term")
	line(t, out)
	if err := x.Signal(context.Background(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := x.Exit(); e.Code == 0 && e.Signal == 0 {
		t.Errorf("after SIGTERM: %+v", e)
	}
	if err := x.Signal(context.Background(), syscall.SIGTERM); !errors.Is(err, ErrEnded) {
		t.Errorf("a signal to a box that has ended: %v", err)
	}
}

func TestMemoryBomb(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureMemory)
	x, _ := start(t, b, Spec{Memory: 32 << 20}, "alloc", "200")
	if e := x.Exit(); !e.OOM || e.Signal != syscall.SIGKILL || e.MemoryPeak < 16<<20 || e.MemoryPeak > 33<<20 {
		t.Errorf("%+v", e)
	}
	x, out := start(t, b, Spec{Memory: 64 << 20}, "alloc", "20")
	line(t, out)
	u, err := x.Usage()
	if err != nil || u.Memory < 20<<20 || u.MemoryPeak < u.Memory/2 || u.CPU <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

func needMeasure(t *testing.T, b *Broker, m string) {
	t.Helper()
	if why, lacking := b.Posture().Missing[m]; lacking {
		t.Skip(m + ": " + why)
	}
}

// TestTmpCountsAsMemory fills a /tmp that is larger than the memory.
func TestTmpCountsAsMemory(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureMemory)
	x, _ := start(t, b, Spec{Memory: 32 << 20, Tmp: 1 << 30}, "fill")
	if e := x.Exit(); !e.OOM {
		t.Errorf("%+v", e)
	}
}

func TestForkBomb(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	x, out := start(t, b, Spec{Processes: 64, Proc: true}, "processes")
	n, err := strconv.Atoi(line(t, out))
	if err != nil || n < 1 || n > 64 {
		t.Errorf("the guest started %d processes, %v", n, err)
	}
	x.Kill()
	<-x.Done()
}

func TestZombieFlood(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	// Each round leaves an orphan: uncollected, they would be more than the limit.
	_, out := start(t, b, Spec{Processes: 100, Proc: true}, "orphan")
	if got := line(t, out); got != "done" {
		t.Error(got)
	}
}

func TestTmpIsBounded(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	_, out := start(t, b, Spec{Tmp: 1 << 20}, "fill")
	if got := line(t, out); got != "1048576 write /tmp/fill: no space left on device" {
		t.Error(got)
	}
	_, out = start(t, b, Spec{Tmp: 1 << 20, TmpInodes: 64}, "inodes")
	if got := line(t, out); !strings.Contains(got, "no space left") || len(strings.Fields(got)[0]) > 2 {
		t.Error(got)
	}
	_, out = start(t, b, Spec{Tmp: 1 << 20, FileSize: 4096}, "fill")
	if got := line(t, out); !strings.HasPrefix(got, "4096 ") {
		t.Error(got)
	}
	_, out = start(t, b, Spec{Tmp: 16 << 20, Proc: true}, "self")
	if got := line(t, out); got != "permission denied" {
		t.Errorf("executing from /tmp: %s", got)
	}
}

func TestKillTakesTheWholeTree(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	x, out := start(t, b, Spec{Proc: true}, "tree", "5")
	line(t, out)
	x.Kill()
	<-x.Done()
	// The end of the pipe comes when the last process that holds it is gone.
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if e := x.Exit(); e.Signal != syscall.SIGKILL {
		t.Errorf("%+v", e)
	}
}

func TestCPUIsLimited(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureCPU)
	x, out := start(t, b, Spec{CPUPercent: 10}, "spin")
	line(t, out)
	// Until it has used 300 ms of processor time, ten times that must pass, less a period.
	began := time.Now()
	first, err := x.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for {
		u, err := x.Usage()
		if err != nil {
			t.Fatal(err)
		}
		if used := u.CPU - first.CPU; used > 300*time.Millisecond {
			if took := time.Since(began); took < 5*used {
				t.Errorf("used %v within %v", used, took)
			}
			return
		}
	}
}

func TestFreeze(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureFreezer)
	x, out := start(t, b, Spec{}, "spin")
	line(t, out)
	if err := x.Freeze(); err != nil {
		t.Fatal(err)
	}
	before, err := x.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		now, err := x.Usage()
		if err != nil || now.CPU != before.CPU {
			t.Fatalf("frozen at %v, used %v, %v", before.CPU, now.CPU, err)
		}
	}
	if err := x.Thaw(); err != nil {
		t.Fatal(err)
	}
	for now := before; now.CPU == before.CPU; {
		if now, err = x.Usage(); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Freeze(); err != nil {
		t.Fatal(err)
	}
	x.Kill() // a frozen box dies too
	<-x.Done()
}

func TestYield(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureCPU)
	x, out := start(t, b, Spec{CPUPercent: 100}, "spin")
	line(t, out)
	if err := x.Yield(); errors.Is(err, ErrUnsupported) {
		t.Skip("this kernel has no groups that make way")
	} else if err != nil {
		t.Fatal(err)
	}
	before, err := x.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for now := before; now.CPU == before.CPU; { // it goes on with what is left over
		if now, err = x.Usage(); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Compete(); err != nil {
		t.Fatal(err)
	}
	x.Kill()
	<-x.Done()
	if err := x.Yield(); err == nil {
		t.Error("a box that has ended makes way")
	}
}

func TestResetPeak(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	needMeasure(t, b, MeasureMemory)
	x, out := start(t, b, Spec{Memory: 64 << 20}, "alloc", "8")
	line(t, out)
	if err := x.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	if u, err := x.Usage(); err != nil || u.MemoryPeak > u.Memory+4<<20 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestStartIsCanceled(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	exe := guest(t)
	defer exe.Close()
	for range 20 {
		x, err := b.Start(ctx, Spec{Executable: exe, Args: []string{"guest", "block"}})
		if err == nil { // it was quicker
			x.Kill()
			<-x.Done()
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

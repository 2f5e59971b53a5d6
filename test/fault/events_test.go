package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/test/fault/history"
)

// everydayHistories is how many the short form makes; CASEMATE_KILLS makes three times as
// many as it says, and CASEMATE_HISTORIES says it by itself.
const everydayHistories = 16

// What is done to a history besides kills.
const (
	breakNothing = "kills"  // and nothing else
	breakStart   = "starts" // kills while it starts
	breakDisk    = "disk"   // the disk is full for a time, or for a life
	breakFiles   = "files"  // bits of the stream's files are changed, or their ends cut off
	breakClock   = "clock"  // the clock of bus, intake and delivery jumps, up to 50 minutes either way
	breakStops   = "stops"  // nothing but orderly ends: nothing may be done twice
)

var breaks = []string{breakNothing, breakStart, breakDisk, breakFiles, breakClock, breakNothing, breakFiles, breakStops}

// counted is what came of many histories.
type counted struct {
	mu                                             sync.Mutex
	histories, lives, kills, early, damages, told  int
	acked, refused, delivered, dead, again, filled int
	linear, operations                             int
}

// TestEventsSurviveFaults makes histories with faults, each from a seed of its own, and
// has them judged.
func TestEventsSurviveFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("kills take their time; make test and make fault run them")
	}
	t.Parallel()
	histories := number(t, "CASEMATE_HISTORIES", number(t, "CASEMATE_KILLS", 0)*3)
	if histories == 0 {
		histories = everydayHistories
	}
	seed := seedOf(t)
	t.Logf("seed %d, %d histories; CASEMATE_SEED=%d CASEMATE_HISTORIES=1 repeats the first, the next has the next number", seed, histories, seed)
	var c counted
	next := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range next {
				one(t, seed+uint64(i), breaks[(seed+uint64(i))%uint64(len(breaks))], &c)
			}
		})
	}
	for i := range histories {
		if t.Failed() {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	t.Logf("%d histories of %d lives: %d kills at work and %d while starting, %d files damaged (%d reported), the disk full %d times; "+
		"%d events acknowledged, %d attempts refused, %d done, %d dead letters, %d done again for a reason; %d channels with %d operations linear",
		c.histories, c.lives, c.kills, c.early, c.damages, c.told, c.filled, c.acked, c.refused, c.delivered, c.dead, c.again, c.linear, c.operations)
	// How many there are is the machine's; that a busy one does few proves nothing.
	if c.acked < 2*c.histories || c.kills+c.early == 0 || c.delivered == 0 || c.dead == 0 {
		t.Error("there was no load, or nothing was killed")
	}
}

// number reads a variable; other is what it is when it is not set.
func number(t *testing.T, name string, other int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return other
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("CASEMATE_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("CASEMATE_SEED: %v", err)
	}
	return n
}

// one makes a history and judges it.
func one(t *testing.T, seed uint64, kind string, c *counted) {
	dir, err := os.MkdirTemp("", "casemate-fault-events-")
	if err != nil {
		t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	h := &making{dir: dir, seed: seed, kind: kind, rnd: rand.New(rand.NewPCG(seed, 7))}
	defer h.unmount()
	if err := h.make(t.Context()); err != nil {
		t.Errorf("seed %d (%s): %v\n%s", seed, kind, err, h.keep())
		return
	}
	lines, err := history.Read(filepath.Join(dir, "history"))
	if err != nil {
		t.Errorf("seed %d (%s): %v", seed, kind, err)
		return
	}
	v := history.Judge(lines, history.Rules{Ordered: map[string]bool{doorSource: true}, Window: 2 * ackWait, Redelivery: ackWait - 100*time.Millisecond})
	linear, operations := 0, 0
	if v.Damages == 0 {
		wrong, decided, n := history.Linear(lines, 10*time.Second)
		for _, door := range wrong {
			v.Faults = append(v.Faults, "what senders and readers of "+door+" saw is no log")
		}
		linear, operations = decided, n
	}
	if len(v.Faults) > 0 {
		t.Errorf("seed %d (%s): %d faults\n%s\n%s", seed, kind, len(v.Faults), strings.Join(v.Faults, "\n"), h.keep())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.histories++
	c.lives += v.Lives
	c.kills += v.Kills - h.early
	c.early += h.early
	c.filled += h.filled
	c.damages += v.Damages
	if v.Told {
		c.told++
	}
	c.acked += v.Acked
	c.refused += v.Refused
	c.delivered += v.Delivered
	c.dead += v.Dead
	c.again += v.Again
	c.linear += linear
	c.operations += operations
}

// making is a history that is being made.
type making struct {
	dir     string
	seed    uint64
	kind    string
	rnd     *rand.Rand
	life    int
	early   int
	filled  int
	mounted bool
	hurt    bool // files were changed
}

// keep leaves what there is for whoever looks into a fault.
func (h *making) keep() string {
	dir, err := os.MkdirTemp("", "casemate-fault-kept-")
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(h.dir))
	}
	if err != nil {
		return "nothing could be kept: " + err.Error()
	}
	return "its files are in " + dir
}

// make runs the lives of a history, and what is done between them.
func (h *making) make(ctx context.Context) error {
	if h.kind == breakDisk {
		h.mount()
	}
	lives := 2 + h.rnd.IntN(2)
	for i := range lives {
		l := life{Events: 2 + h.rnd.IntN(6), Jumps: h.kind == breakClock}
		switch {
		case h.kind == breakStops, h.kind == breakFiles && i == lives-1:
			// Orderly, some with work left and some without. Files are changed only after
			// such an end: what was written after the last note of the marks before a kill
			// is not guarded against cutting (package bus says so).
			l.Settle = h.rnd.IntN(2) == 0
		default:
			l.Lines = 1 + h.rnd.IntN(150)
		}
		if err := h.live(ctx, l); err != nil {
			return err
		}
		if h.kind == breakStart {
			if err := h.killStart(ctx); err != nil {
				return err
			}
		}
	}
	if h.kind == breakFiles {
		h.hurt = true
		if err := h.damage(); err != nil {
			return err
		}
	}
	h.empty()
	last := life{Events: 1, Final: true, Jumps: h.kind == breakClock}
	if h.hurt {
		last.Patience = 10 * time.Second // a damaged event may never come
	}
	return h.live(ctx, last)
}

// command prepares a life.
func (h *making) command(ctx context.Context, l life) (*exec.Cmd, *bytes.Buffer, error) {
	h.life++
	l.Dir, l.Life, l.Seed = h.dir, h.life, h.seed
	b, err := json.Marshal(l)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestEventsWorker$")
	cmd.Env = append(os.Environ(), lifeEnv+"="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out, nil
}

// live runs a life to its end, whichever that is.
func (h *making) live(ctx context.Context, l life) error {
	l.Disk = h.kind == breakDisk
	if l.Disk && !l.Final && !h.mounted && h.rnd.IntN(2) == 0 {
		l.MinFree = 1 << 60 // nothing can be written in this life
		h.filled++
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd, out, err := h.command(ctx, l)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if h.kind == breakDisk && h.mounted && !l.Final {
		h.fill(ended)
	}
	err = <-ended
	if ctx.Err() != nil {
		return fmt.Errorf("life %d does not end\n%s", h.life, out)
	}
	if l.Disk {
		if err := h.write(history.Line{What: history.Full}); err != nil {
			return err
		}
	}
	return h.ended(cmd, err, out)
}

// ended writes down how a life ended.
func (h *making) ended(cmd *exec.Cmd, err error, out *bytes.Buffer) error {
	var exit *exec.ExitError
	if err == nil {
		return nil
	}
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return h.write(history.Line{What: history.Killed})
	}
	if strings.Contains(out.String(), errFull.Error()) {
		return h.write(history.Line{What: history.Killed, Text: "it could not begin"})
	}
	return fmt.Errorf("life %d ended with %v\n%s", h.life, cmd.ProcessState, out)
}

func (h *making) write(l history.Line) error {
	w, err := history.Append(filepath.Join(h.dir, "history"), h.life)
	if err != nil {
		return err
	}
	w.Write(l)
	return w.Close()
}

// killStart starts a life and kills it before it is likely to be ready.
func (h *making) killStart(ctx context.Context) error {
	cmd, out, err := h.command(ctx, life{Events: 3})
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pause(time.Duration(h.rnd.IntN(300)) * time.Millisecond)
	_ = cmd.Process.Kill() // it may have ended
	h.early++
	return h.ended(cmd, cmd.Wait(), out)
}

// damage changes one bit of one of the bus's files, or cuts its end off.
func (h *making) damage() error {
	var files []string
	err := filepath.WalkDir(filepath.Join(h.dir, "bus"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
			switch { // what matters most
			case !strings.Contains(path, "EVENTS_"):
			case strings.HasSuffix(path, ".blk"):
				files = append(files, path, path, path, path)
			case strings.HasSuffix(path, "o.dat"), strings.HasSuffix(path, ".key"):
				files = append(files, path)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for range 20 {
		file := files[h.rnd.IntN(len(files))]
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if len(b) == 0 {
			continue
		}
		name, _ := filepath.Rel(h.dir, file)
		if h.rnd.IntN(2) == 0 {
			left := h.rnd.IntN(len(b))
			if err := os.Truncate(file, int64(left)); err != nil {
				return err
			}
			return h.write(history.Line{What: history.Damaged, Text: fmt.Sprintf("%s cut from %d to %d bytes", name, len(b), left)})
		}
		at := h.rnd.IntN(len(b) * 8)
		b[at/8] ^= 1 << (at % 8)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		return h.write(history.Line{What: history.Damaged, Text: fmt.Sprintf("bit %d of %d of %s turned over", at, len(b)*8, name)})
	}
	return errors.New("there is nothing to damage")
}

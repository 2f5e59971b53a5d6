package cli

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// slowLog is a log's end that counts writes.
type slowLog struct {
	mu     sync.Mutex
	all    bytes.Buffer
	writes int
}

func (l *slowLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	return l.all.Write(b)
}

func (l *slowLog) seen() (text string, writes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String(), l.writes
}

func TestLogLinesWaitForEachOther(t *testing.T) {
	t.Parallel()
	var dst slowLog
	var due []func()
	g := &gatherer{dst: &dst, later: func(f func()) { due = append(due, f) }}
	for round := range 3 {
		for i := range 3 {
			_, _ = fmt.Fprintf(g, "line %d\n", i)
		}
		if _, writes := dst.seen(); writes != round || len(due) != round+1 {
			t.Fatalf("%d writes and %d timers before round %d is due", writes, len(due), round)
		}
		due[round]()
	}
	if text, writes := dst.seen(); writes != 3 || text != strings.Repeat("line 0\nline 1\nline 2\n", 3) {
		t.Errorf("%d writes brought %q", writes, text)
	}
	due[0]()
	if _, writes := dst.seen(); writes != 3 {
		t.Error("nothing was written, as a write of its own")
	}
}

func TestLogLinesDoNotPileUp(t *testing.T) {
	t.Parallel()
	var dst slowLog
	g := &gatherer{dst: &dst, later: func(func()) {}}
	line := bytes.Repeat([]byte("x"), gatherMost/4)
	for range 8 {
		_, _ = g.Write(line)
		if len(g.pending) >= gatherMost {
			t.Fatalf("%d bytes wait", len(g.pending))
		}
	}
	if text, writes := dst.seen(); writes != 2 || len(text) != 8*len(line) {
		t.Errorf("%d writes brought %d bytes", writes, len(text))
	}
}

func TestWarningsLeaveAtOnce(t *testing.T) {
	t.Parallel()
	for _, level := range []slog.Level{slog.LevelWarn, slog.LevelError} {
		var dst slowLog
		g := &gatherer{dst: &dst, later: func(func()) {}}
		log := slog.New(promptHandler{slog.NewTextHandler(g, nil), g.flush}).With("door", "gateway").WithGroup("g")
		log.Info("first")
		if text, _ := dst.seen(); text != "" {
			t.Fatalf("%q did not wait", text)
		}
		log.Log(t.Context(), level, "second", "k", 1)
		text, _ := dst.seen()
		if lines := strings.Split(text, "\n"); len(lines) != 3 || !strings.Contains(lines[0], "msg=first door=gateway") ||
			!strings.Contains(lines[1], "msg=second door=gateway g.k=1") {
			t.Errorf("%v: %q", level, text)
		}
	}
}

// TestNoLogLineIsLost writes from many goroutines, with timers that fire whenever.
func TestNoLogLineIsLost(t *testing.T) {
	t.Parallel()
	var dst slowLog
	var timers sync.WaitGroup
	g := &gatherer{dst: &dst, later: func(f func()) { timers.Go(f) }}
	var all sync.WaitGroup
	const each = 2000
	for i := range 8 {
		all.Go(func() {
			for n := range each {
				_, _ = fmt.Fprintf(g, "%d %d\n", i, n)
			}
		})
	}
	all.Wait()
	timers.Wait()
	g.flush()
	text, _ := dst.seen()
	next := map[int]int{}
	for line := range strings.Lines(text) {
		var i, n int
		if _, err := fmt.Sscanf(line, "%d %d", &i, &n); err != nil || next[i] != n {
			t.Fatalf("%q: want line %d of it (%v)", line, next[i], err)
		}
		next[i]++
	}
	for i := range 8 {
		if next[i] != each {
			t.Errorf("goroutine %d: %d of %d lines", i, next[i], each)
		}
	}
}

func TestTerminalGetsLinesAsTheyCome(t *testing.T) {
	t.Parallel()
	var dst slowLog
	a := &app{env: Env{IsTerminal: func(any) bool { return true }}}
	h, flush, err := a.nodeLog(&dst, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	slog.New(h).Info("now")
	if text, _ := dst.seen(); !strings.Contains(text, "msg=now") {
		t.Errorf("%q", text)
	}
	flush()
}

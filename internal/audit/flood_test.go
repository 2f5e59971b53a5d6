package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// A function that logs without end keeps what a second allows it and no more, and takes
// nothing from another.
func TestAFloodOfLogLinesIsCutForItsFunctionAlone(t *testing.T) {
	t.Parallel()
	q := newLogQueue(1 << 30)
	loud, quiet := function.Ref{Namespace: "a", Name: "loud"}, function.Ref{Namespace: "a", Name: "quiet"}
	now := time.Unix(1000, 0)
	const line = 1000
	kept := func(ref function.Ref, lines int) (n int) {
		for range lines {
			if q.mayLog(ref, line, now) {
				n++
			}
		}
		return n
	}
	if n := kept(loud, 100_000); n != LogBurst/line {
		t.Errorf("%d lines kept at once, want %d", n, LogBurst/line)
	}
	if n := kept(quiet, 100); n != 100 {
		t.Errorf("another function kept %d of 100 lines", n)
	}
	if q.dropped[loud] != 100_000-LogBurst/line || q.dropped[quiet] != 0 {
		t.Errorf("counted as dropped: %v", q.dropped)
	}
	now = now.Add(time.Second)
	if n := kept(loud, 100_000); n < LogRate/line || n > LogRate/line+1 {
		t.Errorf("%d lines kept a second later, want %d", n, LogRate/line)
	}
	q.forget(now)
	if len(q.rates) != 1 {
		t.Errorf("%d allowances are kept, want the one that is not full", len(q.rates))
	}
	now = now.Add(time.Minute)
	if q.forget(now); len(q.rates) != 0 {
		t.Errorf("%d allowances are kept of functions that are silent", len(q.rates))
	}
}

// A clock that is set back gives nobody more, and takes nothing away.
func TestAnAllowanceSurvivesAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	q := newLogQueue(1 << 30)
	ref := function.Ref{Namespace: "a", Name: "f"}
	now := time.Unix(1000, 0)
	q.mayLog(ref, LogBurst, now)
	if q.mayLog(ref, 1, now.Add(-time.Hour)) {
		t.Error("it may log although its allowance is spent")
	}
	if !q.mayLog(ref, LogRate/2, now.Add(time.Second)) {
		t.Error("it may not log a second later")
	}
}

func TestDroppedLinesAreSaidInTheLog(t *testing.T) {
	t.Parallel()
	l := newMemory()
	now := time.Now()
	r := open(t, t.TempDir(), newMemory(), l, func(c *Config) { c.Clock = func() time.Time { return now } })
	text := strings.Repeat("x", 8<<10)
	for range 300 {
		r.Log(LogLine{Time: now, Namespace: "default", Function: "loud", Text: text})
	}
	ok(t, r.Flush(t.Context()))
	var last string
	lines := 0
	ok(t, r.Stream(t.Context(), Query{}, func(rec Record) bool { last = rec.Line.Text; lines++; return true }))
	if lines > LogBurst/len(text)+1 || !strings.Contains(last, "log lines were dropped here") {
		t.Errorf("%d lines, the last one %.80q", lines, last)
	}
}

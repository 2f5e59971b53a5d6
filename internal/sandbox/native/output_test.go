package native

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

func pipe(t *testing.T) (*output, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(r, time.Now)
	t.Cleanup(func() {
		_ = w.Close()
		o.close()
	})
	return o, w
}

func say(t *testing.T, w *os.File, text string) {
	t.Helper()
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// What was printed before the answer belongs to the invocation, however late it is read.
func TestLinesBelongToTheInvocationThatPrintedThem(t *testing.T) {
	t.Parallel()
	o, w := pipe(t)
	say(t, w, "module scope\n")
	o.drain()
	for n := range 200 {
		var lines []string
		o.begin(1000, func(l sandbox.LogLine) { lines = append(lines, l.Text) })
		want := strings.Repeat("x", n)
		say(t, w, want+"\nhalf a line")
		o.end()
		all := want + "|half a line"
		if n == 0 {
			all = "module scope|" + all
		}
		if got := strings.Join(lines, "|"); got != all {
			t.Fatalf("invocation %d got %q, want %q", n, got, all)
		}
	}
}

func TestALogFloodIsCutAndCounted(t *testing.T) {
	t.Parallel()
	o, w := pipe(t)
	var kept int
	o.begin(100, func(l sandbox.LogLine) { kept += len(l.Text) + 1 })
	for range 1000 {
		say(t, w, "123456789\n")
	}
	k, d := o.end()
	if k != 100 || d != 9900 || kept != 100 {
		t.Errorf("kept %d (%d given), dropped %d", k, kept, d)
	}
}

// Whoever prints more than is kept waits for the pipe, and does not keep a processor busy
// with lines that nobody gets.
func TestWhoFloodsTheLogWaits(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var pauses atomic.Int32
	o := &output{clock: time.Now, pipe: r, pause: func(time.Duration) { pauses.Add(1) }, done: make(chan struct{}), limit: 100, buffer: make([]byte, readAtOnce)}
	go o.run()
	const size = 16 * readsInARow * readAtOnce
	say(t, w, strings.Repeat("123456789\n", size/10))
	_ = w.Close()
	<-o.done
	o.close()
	if n := pauses.Load(); n < 15 { // the last read sees the end
		t.Errorf("%d pauses in %d bytes, want one for each %d at the least", n, size, readsInARow*readAtOnce)
	}
}

func TestLongLinesAreSplitAndBrokenTextIsMended(t *testing.T) {
	t.Parallel()
	o, w := pipe(t)
	var lines []string
	o.begin(1<<20, func(l sandbox.LogLine) { lines = append(lines, l.Text) })
	say(t, w, strings.Repeat("a", sandbox.MaxLogLine+5)+"\n\xff\r\n\n")
	o.end()
	if len(lines) != 4 || len(lines[0]) != sandbox.MaxLogLine || lines[1] != "aaaaa" || lines[2] != "\uFFFD" || lines[3] != "" {
		t.Errorf("got %d lines: %.40q", len(lines), lines)
	}
}

func TestNothingIsGivenAfterTheEnd(t *testing.T) {
	t.Parallel()
	o, w := pipe(t)
	var late bool
	over := false
	o.begin(1000, func(sandbox.LogLine) { late = late || over })
	o.end()
	over = true
	say(t, w, "late\n")
	o.drain()
	if late {
		t.Error("a line came after the end")
	}
	var lines []string
	o.begin(1000, func(l sandbox.LogLine) { lines = append(lines, l.Text) })
	o.end()
	if len(lines) != 1 || lines[0] != "late" {
		t.Errorf("the next one got %q", lines)
	}
}

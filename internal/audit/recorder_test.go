package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/state"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CASEMATE_AUDIT_TEST_RECORD"); dir != "" {
		recordUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// memory is a Stream in memory. It fails while fail is set.
type memory struct {
	mu      sync.Mutex
	records []state.LogRecord
	ids     map[string]bool
	fail    error
	after   error // returned although the record was added, once
	added   chan struct{}
	before  func() // called at the beginning of Append, when set
}

func newMemory() *memory { return &memory{ids: map[string]bool{}, added: make(chan struct{})} }

func (m *memory) Append(_ context.Context, ns, fn, id string, data []byte) error {
	if m.before != nil {
		m.before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if !m.ids[id] {
		m.ids[id] = true
		m.records = append(m.records, state.LogRecord{
			Namespace: ns, Function: fn, Sequence: uint64(len(m.records) + 1), Time: time.Now(), Data: bytes.Clone(data),
		})
		close(m.added)
		m.added = make(chan struct{})
	}
	err := m.after
	m.after = nil
	return err
}

func (m *memory) set(fail error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

func (m *memory) Read(ctx context.Context, f state.LogFilter, fn func(state.LogRecord) bool) error {
	for at := int(f.After); ; {
		m.mu.Lock()
		records, added := m.records, m.added
		m.mu.Unlock()
		for ; at < len(records); at++ {
			r := records[at]
			if (f.Namespace != "" && f.Namespace != r.Namespace) || (f.Function != "" && f.Function != r.Function) || r.Time.Before(f.Since) {
				continue
			}
			if !fn(r) {
				return nil
			}
		}
		if !f.Follow {
			return nil
		}
		select {
		case <-added:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records)
}

// ids returns how often each receipt is in the stream.
func receiptIDs(t testing.TB, s Stream) map[string]int {
	t.Helper()
	out := map[string]int{}
	ok(t, (&packed{Stream: s}).Read(t.Context(), state.LogFilter{}, func(r state.LogRecord) bool {
		for line := range lines(r.Data) {
			var rc Receipt
			ok(t, json.Unmarshal(line, &rc))
			out[rc.ID]++
		}
		return true
	}))
	return out
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testKey() []byte { return bytes.Repeat([]byte{9}, KeySize) }

func config(dir string, receipts, logs Stream) Config {
	return Config{Dir: dir, Key: testKey(), Receipts: receipts, Logs: logs, Clock: time.Now}
}

// open starts a Recorder whose background flush does not run by itself.
func open(t testing.TB, dir string, receipts, logs Stream, change ...func(*Config)) *Recorder {
	t.Helper()
	cfg := config(dir, receipts, logs)
	cfg.Interval, cfg.Batch = time.Hour, 1<<20
	for _, f := range change {
		f(&cfg)
	}
	r, err := Open(cfg)
	ok(t, err)
	t.Cleanup(func() { abandon(r) })
	return r
}

// abandon ends a Recorder as a crash would: nothing is flushed.
func abandon(r *Recorder) {
	r.stop()
	<-r.ended
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.journal.end()
}

func receipt(fn string) *Receipt {
	return &Receipt{
		ID: uuid.Must(uuid.NewV7()).String(), RequestID: "req-" + fn, Namespace: "default", Function: fn,
		Version: "sha256:" + strings.Repeat("ab", 32), Artifact: "sha256:" + strings.Repeat("cd", 32), Alias: "live",
		Trigger: "http", Route: "/orders/{id}", Principal: "key:0123456789abcdef", Sandbox: "sb-1", Isolation: "invocation",
		Start: time.Now().UTC(), Wall: 1234567, CPU: 234567, Memory: 12345678, BytesIn: 345, BytesOut: 4567, LogBytes: 12,
		Status: 200, Outcome: "ok",
	}
}

func TestBadConfigurationNamesTheField(t *testing.T) {
	t.Parallel()
	for field, spoil := range map[string]func(*Config){
		"Dir":        func(c *Config) { c.Dir = "" },
		"Key":        func(c *Config) { c.Key = nil },
		"Receipts":   func(c *Config) { c.Receipts = nil },
		"Logs":       func(c *Config) { c.Logs = nil },
		"Clock":      func(c *Config) { c.Clock = nil },
		"MaxJournal": func(c *Config) { c.MaxJournal = -1 },
	} {
		cfg := config(t.TempDir(), newMemory(), newMemory())
		spoil(&cfg)
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestReceiptsReachTheStreamInBatches(t *testing.T) {
	t.Parallel()
	s := newMemory()
	dir := t.TempDir()
	r := open(t, dir, s, newMemory(), func(c *Config) { c.Batch = 10 })
	want := map[string]bool{}
	for i := range 25 {
		rc := receipt(fmt.Sprint("f", i%2))
		want[rc.ID] = true
		ok(t, r.Record(t.Context(), rc))
	}
	ok(t, r.Flush(t.Context()))
	got := receiptIDs(t, s)
	for id := range want {
		if got[id] != 1 {
			t.Errorf("receipt %s is there %d times", id, got[id])
		}
	}
	if n := s.count(); n < 4 || n > 12 {
		t.Errorf("%d appends for 25 receipts of 2 functions", n)
	}
	ok(t, r.Close(t.Context()))
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("%d files left after a clean end", len(files))
	}
	if err := r.Record(t.Context(), receipt("x")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	ok(t, r.Close(t.Context()))
}

func TestBackgroundFlushNeedsNoCall(t *testing.T) {
	t.Parallel()
	s, l := newMemory(), newMemory()
	r := open(t, t.TempDir(), s, l, func(c *Config) { c.Interval = time.Millisecond })
	ok(t, r.Record(t.Context(), receipt("x")))
	r.Log(LogLine{Namespace: "default", Function: "x", Text: "hello"})
	for _, m := range []*memory{s, l} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		seen := false
		ok(t, m.Read(ctx, state.LogFilter{Follow: true}, func(state.LogRecord) bool { seen = true; return false }))
		cancel()
		if !seen {
			t.Fatal("nothing came")
		}
	}
}

// The stream fails: receipts wait, then Record says that there are too many, and
// once the stream works again each accepted one is there once.
func TestFailingStreamLosesNothingAndPushesBack(t *testing.T) {
	t.Parallel()
	s := newMemory()
	s.fail = errors.New("no disk")
	r := open(t, t.TempDir(), s, newMemory(), func(c *Config) { c.MaxJournal = 20_000 })
	accepted := map[string]bool{}
	var err error
	for range 1000 {
		rc := receipt("x")
		if err = r.Record(t.Context(), rc); err != nil {
			break
		}
		accepted[rc.ID] = true
		if len(accepted)%7 == 0 {
			if r.Flush(t.Context()) == nil {
				t.Fatal("Flush succeeded on a failing stream")
			}
		}
	}
	if !errors.Is(err, ErrJournalFull) || !errors.Is(err, state.ErrFull) || len(accepted) < 20 {
		t.Fatalf("after %d: %v", len(accepted), err)
	}
	s.mu.Lock()
	s.fail, s.after = nil, context.DeadlineExceeded // the first append happens, its acknowledgement is lost
	s.mu.Unlock()
	if r.Flush(t.Context()) == nil {
		t.Fatal("the lost acknowledgement went unnoticed")
	}
	ok(t, r.Flush(t.Context()))
	ok(t, r.Record(t.Context(), receipt("x"))) // there is room again
	got := receiptIDs(t, s)
	if len(got) != len(accepted) {
		t.Fatalf("%d in the stream, %d accepted", len(got), len(accepted))
	}
	for id, n := range got {
		if n != 1 || !accepted[id] {
			t.Errorf("%s: %d times", id, n)
		}
	}
}

func TestCloseOnAFailingStreamKeepsTheJournal(t *testing.T) {
	t.Parallel()
	s := newMemory()
	s.fail = errors.New("no disk")
	dir := t.TempDir()
	r := open(t, dir, s, newMemory())
	rc := receipt("x")
	ok(t, r.Record(t.Context(), rc))
	if err := r.Close(t.Context()); err == nil {
		t.Fatal("Close hid that a receipt is not in the stream")
	}
	s.set(nil)
	r = open(t, dir, s, newMemory())
	ok(t, r.Close(t.Context()))
	if got := receiptIDs(t, s); got[rc.ID] != 1 {
		t.Fatal(got)
	}
}

// A crash comes after the stream took a batch and before the journal noted it,
// and the stream has forgotten the ids of its records since.
func TestReplayAddsOnlyWhatTheStreamLacks(t *testing.T) {
	t.Parallel()
	s := newMemory()
	dir := t.TempDir()
	r := open(t, dir, s, newMemory())
	first, second := receipt("x"), receipt("x")
	ok(t, r.Record(t.Context(), first))
	journal := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	ok(t, err)
	for _, f := range files {
		journal[f], _ = os.ReadFile(f)
	}
	ok(t, r.Flush(t.Context()))
	abandon(r)
	for f, content := range journal { // as it was before the flush
		ok(t, os.WriteFile(f, content, 0o600))
	}
	s.ids = map[string]bool{}
	r = open(t, dir, s, newMemory())
	ok(t, r.Record(t.Context(), second))
	ok(t, r.Flush(t.Context()))
	if got := receiptIDs(t, s); got[first.ID] != 1 || got[second.ID] != 1 || len(got) != 2 {
		t.Fatal(got)
	}
}

// faulty fails writes and truncations as told.
type faulty struct {
	segmentFile
	writeErr error
	partial  int
	cutErr   error
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.writeErr != nil {
		n, _ := f.segmentFile.Write(p[:min(f.partial, len(p))])
		return n, f.writeErr
	}
	return f.segmentFile.Write(p)
}

func (f *faulty) Truncate(n int64) error {
	if f.cutErr != nil {
		return f.cutErr
	}
	return f.segmentFile.Truncate(n)
}

func TestFullDiskUnderTheJournalIsTypedAndHealsItself(t *testing.T) {
	t.Parallel()
	for _, cutErr := range []error{nil, errors.New("no truncate either")} {
		s := newMemory()
		dir := t.TempDir()
		r := open(t, dir, s, newMemory())
		current := &faulty{}
		r.journal.create = func(name string) (segmentFile, error) {
			f, err := createSegment(name)
			current.segmentFile = f
			return current, err
		}
		before, after := receipt("x"), receipt("x")
		ok(t, r.Record(t.Context(), before))
		current.writeErr, current.partial, current.cutErr = syscall.ENOSPC, 30, cutErr
		refused := receipt("x")
		if err := r.Record(t.Context(), refused); !errors.Is(err, state.ErrFull) {
			t.Fatal(err)
		}
		current.writeErr, current.cutErr = nil, nil
		ok(t, r.Record(t.Context(), after))
		abandon(r)
		r = open(t, dir, s, newMemory())
		ok(t, r.Flush(t.Context()))
		got := receiptIDs(t, s)
		if got[before.ID] != 1 || got[after.ID] != 1 || len(got) != 2 {
			t.Fatalf("cut fails: %v: %v", cutErr, got)
		}
		if cutErr == nil && len(r.Warnings()) != 0 {
			t.Error(r.Warnings())
		}
	}
}

func TestSegmentsRotateAndGo(t *testing.T) {
	t.Parallel()
	s := newMemory()
	dir := t.TempDir()
	r := open(t, dir, s, newMemory())
	rc := receipt("x")
	rc.Route = strings.Repeat("/x", 100_000)
	for range 50 { // some 10 MB
		rc.ID = uuid.Must(uuid.NewV7()).String()
		ok(t, r.Record(t.Context(), rc))
	}
	files, _ := os.ReadDir(dir)
	if len(files) < 3 {
		t.Fatalf("%d segments", len(files))
	}
	ok(t, r.Flush(t.Context()))
	ok(t, r.Record(t.Context(), receipt("x")))
	if files, _ = os.ReadDir(dir); len(files) > 2 {
		t.Fatalf("%d segments after the flush", len(files))
	}
	abandon(r)
	r = open(t, dir, s, newMemory())
	ok(t, r.Flush(t.Context()))
	if got := receiptIDs(t, s); len(got) != 51 || len(r.Warnings()) > 0 {
		t.Fatal(len(got), r.Warnings())
	}
}

func TestLogLinesBeyondTheBoundAreCounted(t *testing.T) {
	t.Parallel()
	l := newMemory()
	r := open(t, t.TempDir(), newMemory(), l, func(c *Config) { c.MaxLog = 2000 })
	for i := range 50 {
		r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: "x", Text: fmt.Sprint("line ", i)})
	}
	r.Log(LogLine{Namespace: "Not a name", Function: "x"})
	ok(t, r.Flush(t.Context()))
	var texts []string
	ok(t, r.Stream(t.Context(), Query{}, func(rec Record) bool { texts = append(texts, rec.Line.Text); return true }))
	kept := len(texts) - 1
	if kept < 5 || texts[kept] != fmt.Sprintf("%d log lines were dropped here: they came faster than they are stored", 50-kept) {
		t.Fatal(texts)
	}
	r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: "x", Text: strings.Repeat("x", 3*MaxLine)})
	if r.logs.bytes != 0 { // cut, and yet above this small bound
		t.Fatal("the bound does not hold")
	}
}

func TestQueuesAreEmptyAfterAFlush(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory())
	for i := range 10 {
		ok(t, r.Record(t.Context(), receipt(fmt.Sprint("f", i%3))))
		r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: fmt.Sprint("f", i%3), Text: "x"})
	}
	ok(t, r.Flush(t.Context()))
	if r.waiting != 0 || r.logs.bytes != 0 {
		t.Fatalf("%d bytes of receipts and %d of lines still counted", r.waiting, r.logs.bytes)
	}
}

// Whoever sees a receipt in its stream finds the lines of its invocation in
// theirs, also those of an invocation that ends while a flush is under way.
func TestReceiptIsNeverInItsStreamBeforeItsLines(t *testing.T) {
	t.Parallel()
	receipts, logs := newMemory(), newMemory()
	r := open(t, t.TempDir(), receipts, logs)
	invocation := func() {
		r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: "x", Text: "line"})
		ok(t, r.Record(t.Context(), receipt("x")))
	}
	var once sync.Once
	logs.before = func() { once.Do(invocation) }
	lineCount := func() (n int) {
		ok(t, (&packed{Stream: logs}).Read(t.Context(), state.LogFilter{}, func(rec state.LogRecord) bool { n += bytes.Count(rec.Data, []byte{'\n'}); return true }))
		return n
	}
	receipts.before = func() {
		if done := len(receiptIDs(t, receipts)); lineCount() < done+1 {
			t.Errorf("receipt %d comes when %d lines are there", done+1, lineCount())
		}
	}
	invocation()
	ok(t, r.Flush(t.Context()))
	if n := len(receiptIDs(t, receipts)); n != 1 {
		t.Errorf("%d receipts after the first flush, but %d lines", n, lineCount())
	}
	ok(t, r.Flush(t.Context()))
	if n := len(receiptIDs(t, receipts)); n != 2 || lineCount() != 2 {
		t.Errorf("%d receipts, %d lines", n, lineCount())
	}
}

func TestManyRecordAndFlushAtOnce(t *testing.T) {
	t.Parallel()
	s := newMemory()
	r := open(t, t.TempDir(), s, newMemory(), func(c *Config) { c.Interval, c.Batch = time.Millisecond, 16 })
	var wg sync.WaitGroup
	const workers, each = 8, 100
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := r.Record(t.Context(), receipt(fmt.Sprint("f", w%3))); err != nil {
					t.Error(err)
				}
				r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: "x", Text: "line"})
				if i%20 == 0 {
					if err := r.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	ok(t, r.Close(t.Context()))
	if got := receiptIDs(t, s); len(got) != workers*each {
		t.Fatalf("%d of %d", len(got), workers*each)
	}
}

func BenchmarkRecord(b *testing.B) {
	s := newMemory()
	r := open(b, b.TempDir(), s, newMemory(), func(c *Config) { c.MaxJournal = 1 << 40 })
	rc := receipt("x")
	b.ReportAllocs()
	for b.Loop() {
		ok(b, r.Record(b.Context(), rc))
	}
}

package audit

import (
	"encoding/json"
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/internal/state"
)

// gather puts receipts down for one write, as goroutines that come together do.
func gather(t *testing.T, r *Recorder, receipts ...*Receipt) *commit {
	t.Helper()
	var c *commit
	for i, rc := range receipts {
		body, err := json.Marshal(rc)
		ok(t, err)
		joined, place, err := r.join(entry{namespace: rc.Namespace, function: rc.Function, body: body})
		ok(t, err)
		if place != i || (c != nil && joined != c) {
			t.Fatalf("receipt %d got place %d", i, place)
		}
		c = joined
	}
	return c
}

// counting counts the writes to a segment.
type counting struct {
	segmentFile
	writes int
}

// Write implements segmentFile.
func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	return c.segmentFile.Write(p)
}

func TestReceiptsThatComeTogetherAreOneWrite(t *testing.T) {
	t.Parallel()
	s := newMemory()
	dir := t.TempDir()
	r := open(t, dir, s, newMemory())
	file := &counting{}
	r.journal.create = func(name string) (segmentFile, error) {
		f, err := createSegment(name)
		file.segmentFile = f
		return file, err
	}
	ok(t, r.Record(t.Context(), receipt("x")))
	before := file.writes
	three := []*Receipt{receipt("x"), receipt("y"), receipt("x")}
	c := gather(t, r, three...)
	r.commit(c)
	if file.writes != before+1 || c.whole != 3 || c.err != nil {
		t.Fatalf("%d writes, %d of 3 receipts, %v", file.writes-before, c.whole, c.err)
	}
	<-c.written // those who wait are woken
	abandon(r)  // killed: nothing was flushed
	r = open(t, dir, s, newMemory())
	ok(t, r.Flush(t.Context()))
	got := receiptIDs(t, s)
	for _, rc := range three {
		if got[rc.ID] != 1 {
			t.Errorf("receipt %s is there %d times", rc.ID, got[rc.ID])
		}
	}
	if len(r.Warnings()) > 0 {
		t.Error(r.Warnings())
	}
}

// When the disk fills up within a write, what is told of each receipt is true.
func TestWriteCutWithinAGroupKeepsWhatWasWritten(t *testing.T) {
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
		ok(t, r.Record(t.Context(), receipt("x")))
		three := []*Receipt{receipt("x"), receipt("x"), receipt("x")}
		c := gather(t, r, three...)
		waited := r.waiting
		frame := frameHead + 1 + len(c.entries[0].body) + tagSize
		current.writeErr, current.partial, current.cutErr = syscall.ENOSPC, frame+10, cutErr
		r.commit(c)
		if c.whole != 1 || !errors.Is(c.err, state.ErrFull) {
			t.Fatalf("%d of 3 receipts, %v", c.whole, c.err)
		}
		if more := r.waiting - waited; more != int64(len(c.entries[0].body)) {
			t.Errorf("%d more bytes wait, for one receipt of %d", more, len(c.entries[0].body))
		}
		current.writeErr, current.cutErr = nil, nil
		after := receipt("x")
		ok(t, r.Record(t.Context(), after))
		abandon(r)
		r = open(t, dir, s, newMemory())
		ok(t, r.Flush(t.Context()))
		got := receiptIDs(t, s)
		if len(got) != 3 || got[three[0].ID] != 1 || got[after.ID] != 1 {
			t.Errorf("cut fails: %v: %v", cutErr, got)
		}
		if cutErr == nil && len(r.Warnings()) > 0 {
			t.Error(r.Warnings())
		}
	}
}

func TestReceiptsThatMeetTheEndAreRefused(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory())
	c := gather(t, r, receipt("x"), receipt("x"))
	ok(t, r.Close(t.Context()))
	r.commit(c)
	<-c.written
	if c.whole != 0 || !errors.Is(c.err, ErrClosed) {
		t.Errorf("%d of them were taken, %v", c.whole, c.err)
	}
}

func TestReceiptsThatGatherCountAgainstTheBound(t *testing.T) {
	t.Parallel()
	rc := receipt("x")
	body, err := json.Marshal(rc)
	ok(t, err)
	r := open(t, t.TempDir(), newMemory(), newMemory(), func(c *Config) { c.MaxJournal = 2 * int64(len(body)) })
	c := gather(t, r, rc, rc)
	if _, _, err := r.join(entry{body: body}); !errors.Is(err, ErrJournalFull) {
		t.Errorf("a third receipt: %v", err)
	}
	r.commit(c)
	if _, _, err := r.join(entry{body: body}); !errors.Is(err, ErrJournalFull) {
		t.Errorf("a third receipt, later: %v", err)
	}
}

func TestReceiptTooLargeForTheJournalHarmsNoOther(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rc := receipt("x")
			if i%2 == 1 {
				rc.Route = string(make([]byte, maxBody))
			}
			if err := r.Record(t.Context(), rc); (err != nil) != (i%2 == 1) {
				t.Errorf("receipt %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkRecordTogether(b *testing.B) {
	r := open(b, b.TempDir(), newMemory(), newMemory(), func(c *Config) { c.MaxJournal = 1 << 40 })
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		rc := receipt("x")
		for pb.Next() {
			if err := r.Record(b.Context(), rc); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/casemate-dev/casemate/internal/state"
)

func TestReceiptIsFoundAtOnceAndLater(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory())
	for range 5 {
		ok(t, r.Record(t.Context(), receipt("y")))
	}
	rc := receipt("x")
	ok(t, r.Record(t.Context(), rc))
	for range 2 {
		got, err := r.Receipt(t.Context(), rc.ID)
		ok(t, err)
		if got != *rc {
			t.Fatalf("got %+v, want %+v", got, *rc)
		}
	}
	for _, id := range []string{"", "x", uuid.NewString(), uuid.Must(uuid.NewV7()).String(), strings.ToUpper(rc.ID), "{" + rc.ID + "}"} {
		if _, err := r.Receipt(t.Context(), id); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

// seed puts records of the past into the streams, at the given ages.
func seed(t *testing.T, receipts, logs *memory, ages ...time.Duration) {
	t.Helper()
	for i, age := range ages {
		at := time.Now().Add(-age).UTC()
		rc := receipt("x")
		rc.RequestID, rc.Start, rc.Wall = fmt.Sprint("r", i), at.Add(-time.Millisecond), time.Millisecond
		for _, put := range []struct {
			m *memory
			v any
		}{{receipts, rc}, {logs, LogLine{Time: at.Add(-time.Microsecond), Namespace: "default", Function: "x", RequestID: rc.RequestID, Text: fmt.Sprint("l", i)}}} {
			ok(t, put.m.Append(t.Context(), "default", "x", fmt.Sprint(i), encode(t, put.v)))
			put.m.records[len(put.m.records)-1].Time = at
		}
	}
}

func names(recs []Record) string {
	var out []string
	for _, r := range recs {
		if r.Receipt != nil {
			out = append(out, r.Receipt.RequestID)
		} else {
			out = append(out, r.Line.Text)
		}
	}
	return strings.Join(out, " ")
}

func TestReceiptsAreNewestFirstHoweverLongAgo(t *testing.T) {
	t.Parallel()
	receipts, logs := newMemory(), newMemory()
	seed(t, receipts, logs, 400*24*time.Hour, 40*24*time.Hour, 5*time.Hour, 4*time.Hour, 3*time.Minute, 10*time.Second, time.Second)
	r := open(t, t.TempDir(), receipts, logs)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "r6 r5 r4 r3 r2 r1 r0"},
		{Query{Limit: 1}, "r6"},
		{Query{Limit: 3}, "r6 r5 r4"},
		{Query{Limit: 6, Namespace: "default", Function: "x"}, "r6 r5 r4 r3 r2 r1"},
		{Query{Since: time.Now().Add(-6 * time.Hour)}, "r6 r5 r4 r3 r2"},
		{Query{Function: "y"}, ""},
	} {
		got, err := r.Receipts(t.Context(), c.q)
		ok(t, err)
		var ids []string
		for _, rc := range got {
			ids = append(ids, rc.RequestID)
		}
		if s := strings.Join(ids, " "); s != c.want {
			t.Errorf("%+v: got %s, want %s", c.q, s, c.want)
		}
	}
}

func TestStreamMergesLinesAndReceiptsInOrderOfTime(t *testing.T) {
	t.Parallel()
	receipts, logs := newMemory(), newMemory()
	seed(t, receipts, logs, 30*time.Hour, 5*time.Minute, time.Second)
	r := open(t, t.TempDir(), receipts, logs)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "l0 r0 l1 r1 l2 r2"},
		{Query{Tail: 3}, "r1 l2 r2"},
		{Query{Tail: -1}, ""},
		{Query{RequestID: "r1"}, "l1 r1"},
		{Query{Since: time.Now().Add(-time.Hour)}, "l1 r1 l2 r2"},
		{Query{Namespace: "other"}, ""},
	} {
		var got []Record
		ok(t, r.Stream(t.Context(), c.q, func(rec Record) bool { got = append(got, rec); return true }))
		if s := names(got); s != c.want {
			t.Errorf("%+v: got %s, want %s", c.q, s, c.want)
		}
	}
	n := 0
	ok(t, r.Stream(t.Context(), Query{}, func(Record) bool { n++; return n < 2 }))
	if n != 2 {
		t.Fatal(n)
	}
}

// Lines and receipts come all the while: past and live together hold each once,
// and a receipt comes after its line.
func TestStreamFollowHasNoGapAndNoDuplicate(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory(), func(c *Config) { c.Interval = time.Millisecond })
	followNoGap(t, r, 300)
}

func followNoGap(t *testing.T, r *Recorder, n int) {
	t.Helper()
	half := make(chan struct{})
	go func() {
		for i := range n {
			rc := receipt("x")
			rc.RequestID = fmt.Sprint(i)
			r.Log(LogLine{Time: time.Now().UTC(), Namespace: "default", Function: "x", RequestID: rc.RequestID, Text: "line"})
			rc.Start = time.Now()
			if err := r.Record(context.Background(), rc); err != nil {
				t.Error(err)
			}
			if i == n/2 {
				close(half)
			}
		}
	}()
	<-half
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	lines, receipts := map[string]int{}, map[string]int{}
	ok(t, r.Stream(ctx, Query{Namespace: "default", Function: "x", Tail: 10 * n, Follow: true}, func(rec Record) bool {
		if rec.Line != nil {
			lines[rec.Line.RequestID]++
		} else {
			receipts[rec.Receipt.RequestID]++
			if lines[rec.Receipt.RequestID] == 0 {
				t.Errorf("receipt %s came before its line", rec.Receipt.RequestID)
			}
		}
		return len(receipts) < n
	}))
	if len(lines) != n || len(receipts) != n {
		t.Fatalf("%d lines and %d receipts of %d", len(lines), len(receipts), n)
	}
	for id, k := range receipts {
		if k != 1 || lines[id] != 1 {
			t.Errorf("%s: line %d times, receipt %d times", id, lines[id], k)
		}
	}
}

// What a function said last is logged after its end was measured, so the clock alone
// would put it behind the receipt.
func TestAReceiptComesAfterAllLinesOfItsInvocation(t *testing.T) {
	t.Parallel()
	for _, follow := range []bool{false, true} {
		r := open(t, t.TempDir(), newMemory(), newMemory(), func(c *Config) { c.Interval = time.Millisecond })
		begun := time.Now()
		put := func() {
			var rcs []*Receipt
			for i := range 3 {
				rc := receipt("x")
				rc.RequestID, rc.Start, rc.Wall = fmt.Sprint("r", i), begun, time.Millisecond
				for k := range 2 {
					r.Log(LogLine{
						Time: begun.Add(time.Duration(10*(k+1)) * time.Millisecond), Namespace: "default", Function: "x",
						RequestID: rc.RequestID, Receipt: rc.ID, Text: fmt.Sprint("l", i),
					})
				}
				rcs = append(rcs, rc)
			}
			for _, rc := range rcs {
				if err := r.Record(context.Background(), rc); err != nil {
					t.Error(err)
				}
			}
		}
		if follow {
			go put()
		} else {
			put()
		}
		lines, receipts := map[string]int{}, 0
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		ok(t, r.Stream(ctx, Query{Follow: follow}, func(rec Record) bool {
			if rec.Line != nil {
				lines[rec.Line.RequestID]++
				return true
			}
			if n := lines[rec.Receipt.RequestID]; n != 2 {
				t.Errorf("follow %t: the receipt of %s came after %d of its 2 lines", follow, rec.Receipt.RequestID, n)
			}
			receipts++
			return receipts < 3
		}))
		if receipts != 3 {
			t.Errorf("follow %t: %d receipts", follow, receipts)
		}
	}
}

func TestReceiptsOfAnEventAreFoundForEveryMemberOfABatch(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir(), newMemory(), newMemory())
	long, odd := strings.Repeat("long", 200), "two\nlines"
	put := func(request, event string, members ...string) {
		rc := receipt("x")
		rc.RequestID, rc.Event, rc.Members = request, event, Members(members)
		ok(t, r.Record(t.Context(), rc))
	}
	put("none", "")
	put("one", "a")
	put("batch", "a", "a", "b<&>\"", long, odd)
	put("again", "replay.j.7")
	put("both", "replay.j.6", "replay.j.6", "replay.j.7")
	put("alone", long)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Event: "a"}, "batch one"},
		{Query{Event: "b<&>\""}, "batch"},
		{Query{Event: "b"}, ""},
		{Query{Event: long}, "alone batch"},
		{Query{Event: odd}, "batch"},
		{Query{Event: "two"}, ""},
		{Query{Event: "a", EventSuffix: ".7"}, "both again batch one"},
		{Query{Event: "a", Limit: 1}, "one"},
		{Query{Event: "a", Function: "y"}, ""},
		{Query{Event: "a", Since: time.Now().Add(time.Hour)}, ""},
	} {
		got, err := r.Receipts(t.Context(), c.q)
		ok(t, err)
		var ids []string
		for _, rc := range got {
			ids = append(ids, rc.RequestID)
		}
		if s := strings.Join(ids, " "); s != c.want {
			t.Errorf("%.60v: got %q, want %q", c.q, s, c.want)
		}
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = long + fmt.Sprint(i)
	}
	put("many", many[0], many...)
	if got, err := r.Receipts(t.Context(), Query{Event: many[999]}); err != nil || len(got) != 1 {
		t.Errorf("of the largest batch: %d, %v", len(got), err)
	}
}

func TestStreamFollowWithoutTailBeginsNow(t *testing.T) {
	t.Parallel()
	receipts, logs := newMemory(), newMemory()
	seed(t, receipts, logs, 30*time.Hour, 5*time.Minute)
	r := open(t, t.TempDir(), receipts, logs, func(c *Config) { c.Interval = time.Millisecond })
	go func() {
		rc := receipt("x")
		rc.RequestID = "new"
		if err := r.Record(context.Background(), rc); err != nil {
			t.Error(err)
		}
	}()
	var got []Record
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for len(got) == 0 && ctx.Err() == nil {
		// The receipt may be in the past already when Stream begins.
		ok(t, r.Stream(ctx, Query{Tail: 1, Follow: true}, func(rec Record) bool {
			if rec.Receipt != nil && rec.Receipt.RequestID == "new" {
				got = append(got, rec)
			}
			return len(got) == 0
		}))
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	ok(t, r.follow(ctx, Query{}, 2, 2, func(Record) bool { t.Error("an old record"); return false }))
}

// A record of the stream is corrupt: the others come, and the caller hears of it.
func TestCorruptRecordsAreReportedWithTheOthers(t *testing.T) {
	t.Parallel()
	receipts, logs := newMemory(), newMemory()
	seed(t, receipts, logs, time.Minute, time.Second)
	receipts.records[0].Data = []byte("{not json\n")
	r := open(t, t.TempDir(), receipts, logs)
	got, err := r.Receipts(t.Context(), Query{})
	if len(got) != 1 || !errors.Is(err, state.ErrCorrupt) {
		t.Fatal(got, err)
	}
	var recs []Record
	err = r.Stream(t.Context(), Query{}, func(rec Record) bool { recs = append(recs, rec); return true })
	if names(recs) != "l0 l1 r1" || !errors.Is(err, state.ErrCorrupt) {
		t.Fatal(names(recs), err)
	}
}

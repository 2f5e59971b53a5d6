package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casemate-dev/casemate/internal/state"
)

func readAll(t testing.TB, l *Log, f Filter) []string {
	t.Helper()
	var out []string
	ok(t, l.Read(t.Context(), f, func(r Record) bool {
		out = append(out, r.Namespace+"/"+r.Function+"="+string(r.Data))
		return true
	}))
	return out
}

func TestLogFiltersInOrder(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := openLog(t, start(t, t.TempDir()))
	if got := readAll(t, l, Filter{}); got != nil {
		t.Fatal(got)
	}
	for i, fn := range []string{"a/x", "a/y", "b/x", "a/x"} {
		ns, name, _ := strings.Cut(fn, "/")
		ok(t, l.Append(ctx, ns, name, fmt.Sprint("id", i), []byte(fmt.Sprint(i))))
	}
	for want, f := range map[string]Filter{
		"[a/x=0 a/y=1 b/x=2 a/x=3]": {},
		"[a/x=0 a/y=1 a/x=3]":       {Namespace: "a"},
		"[a/x=0 a/x=3]":             {Namespace: "a", Function: "x"},
		"[a/x=0 b/x=2 a/x=3]":       {Function: "x"},
		"[b/x=2 a/x=3]":             {After: 2},
		"[a/x=3]":                   {After: 2, Namespace: "a"},
		"[]":                        {Namespace: "c"},
	} {
		if got := fmt.Sprint(readAll(t, l, f)); got != want {
			t.Errorf("%+v: got %s, want %s", f, got, want)
		}
	}
	if got := readAll(t, l, Filter{After: 99}); got != nil {
		t.Error(got)
	}
	if got := readAll(t, l, Filter{Since: time.Now().Add(time.Hour)}); got != nil {
		t.Error(got)
	}
	var third time.Time
	ok(t, l.Read(ctx, Filter{}, func(r Record) bool { third = r.Time; return string(r.Data) != "2" }))
	if got := fmt.Sprint(readAll(t, l, Filter{Since: third})); got != "[b/x=2 a/x=3]" {
		t.Error(got)
	}
	for _, bad := range []string{"", "*", ">", "a.b", "A", "a b"} {
		if err := l.Append(ctx, bad, "x", "1", nil); err == nil {
			t.Errorf("namespace %q was taken", bad)
		}
		if err := l.Append(ctx, "x", bad, "1", nil); err == nil {
			t.Errorf("function %q was taken", bad)
		}
		if bad != "" && l.Read(ctx, Filter{Namespace: bad}, nil) == nil {
			t.Errorf("filter %q was taken", bad)
		}
	}
}

func TestLogTakesAnIDOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	l := openLog(t, b)
	ok(t, l.Append(t.Context(), "a", "x", "same", []byte("1")))
	ok(t, l.Append(t.Context(), "a", "x", "same", []byte("1")))
	stop(t, b)
	l = openLog(t, start(t, dir)) // the ids survive a restart
	ok(t, l.Append(t.Context(), "a", "x", "same", []byte("1")))
	if got := readAll(t, l, Filter{}); len(got) != 1 {
		t.Fatal(got)
	}
}

func TestLogReadsMoreThanOneBatch(t *testing.T) {
	t.Parallel()
	l := openLog(t, start(t, t.TempDir()))
	const n = 5*readBatch + 3
	for i := range n {
		ok(t, l.Append(t.Context(), "a", fmt.Sprint("f", i%3), fmt.Sprint(i), []byte(fmt.Sprint(i))))
	}
	if got := readAll(t, l, Filter{}); len(got) != n {
		t.Fatalf("read %d of %d", len(got), n)
	}
	count := 0
	ok(t, l.Read(t.Context(), Filter{}, func(Record) bool { count++; return count < 20 }))
	if count != 20 {
		t.Fatalf("stopped after %d", count)
	}
}

// Records are appended all the while: a follower sees each of them once.
func TestLogFollowHasNoGapAndNoDuplicate(t *testing.T) {
	t.Parallel()
	l := openLog(t, start(t, t.TempDir()))
	const n = 200
	appended := make(chan error, 1)
	go func() {
		for i := range n {
			if err := l.Append(context.Background(), "a", "x", fmt.Sprint(i), []byte(fmt.Sprint(i))); err != nil {
				appended <- err
				return
			}
		}
		appended <- nil
	}()
	next := 0
	ok(t, l.Read(t.Context(), Filter{Follow: true}, func(r Record) bool {
		if string(r.Data) != fmt.Sprint(next) {
			t.Errorf("got %s, want %d", r.Data, next)
			return false
		}
		next++
		return next < n
	}))
	ok(t, <-appended)
}

func TestLogFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := openLog(t, start(t, t.TempDir()))
	ok(t, l.Append(t.Context(), "a", "x", "1", []byte("1")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ok(t, l.Read(ctx, Filter{Follow: true}, func(Record) bool { cancel(); return true }))
	if err := l.Read(ctx, Filter{}, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestLogDropsTheOldestBeyondItsBound(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	l, err := b.Log(t.Context(), LogConfig{Name: "small", SubjectPrefix: "small", MaxAge: time.Hour, MaxBytes: 64 << 10})
	ok(t, err)
	for i := range 100 {
		ok(t, l.Append(t.Context(), "a", "x", fmt.Sprint(i), []byte(fmt.Sprintf("%d %s", i, strings.Repeat("x", 4000)))))
	}
	got := readAll(t, l, Filter{})
	if len(got) < 5 || len(got) > 16 || !strings.HasPrefix(got[len(got)-1], "a/x=99 ") {
		t.Fatalf("kept %d records", len(got))
	}
	if w := b.Warnings(); len(w) != 0 {
		t.Fatal(w)
	}
}

// The attack: a record is put under another function, or its bytes are changed.
// The others still come, and the reader hears of it.
func TestLogChangedRecordIsReportedAndTheOthersCome(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := start(t, t.TempDir())
	l := openLog(t, b)
	ok(t, l.Append(ctx, "a", "x", "1", []byte("first")))
	moved := nats.NewMsg("receipt.b.x")
	moved.Data = l.bus.seal.frame(l.place("receipt.a.x"), []byte("moved"))
	_, err := b.js.PublishMsg(ctx, moved)
	ok(t, err)
	ok(t, l.Append(ctx, "a", "x", "3", []byte("third")))
	var got []string
	err = l.Read(ctx, Filter{}, func(r Record) bool { got = append(got, string(r.Data)); return true })
	if !errors.Is(err, state.ErrCorrupt) || fmt.Sprint(got) != "[first third]" {
		t.Fatalf("%v, %v", got, err)
	}
	wantErr(t, b.Check(ctx), ErrCorrupt)
}

// Bits flip in the server's files while it is down. Whatever the server makes of
// it, a reader gets what was written, or hears of the damage: from the read or
// from Warnings.
func TestBitsFlippedOnDiskAreNeverSilent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	l := openLog(t, b)
	const n = 20
	for i := range n {
		ok(t, l.Append(t.Context(), "a", "x", fmt.Sprintf("%02d", i), []byte(fmt.Sprintf("record %02d", i))))
	}
	stop(t, b)
	flipEverywhere(t, dir, "LOG_receipts", n, 12, func(at string, damaged *Bus) {
		l := openLog(t, damaged)
		for _, f := range []Filter{{}, {Namespace: "a", Function: "x"}} {
			got := map[string]bool{}
			err := l.Read(t.Context(), f, func(r Record) bool { got[string(r.Data)] = true; return true })
			count := len(got)
			for i := range n {
				delete(got, fmt.Sprintf("record %02d", i))
			}
			if len(got) > 0 {
				t.Errorf("%s: read %v, which nobody wrote", at, got)
			}
			if count < n && err == nil && len(damaged.Warnings()) == 0 {
				t.Errorf("%s: %d of %d records, and silence", at, count, n)
			}
		}
		ok(t, l.Append(t.Context(), "a", "x", "more", []byte("more"))) // it goes on
	})
}

// flipEverywhere starts a Bus on copies of dir in which one bit of the stream's
// message file is flipped: at some offsets, with and without the server's index.
// The file holds messages of one length. Their sequence number is left alone: a
// changed one makes the server fill the memory with a list of what is missing
// before it (nats-server 2.15.2, msgBlock.indexCacheBuf).
func flipEverywhere(t *testing.T, dir, stream string, messages, offsets int, check func(at string, damaged *Bus)) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	whole, err := os.ReadFile(blocks[0])
	ok(t, err)
	block, err := filepath.Rel(dir, blocks[0])
	ok(t, err)
	length := len(whole) / messages
	if len(whole)%messages != 0 {
		t.Fatalf("%d bytes for %d messages of one length", len(whole), messages)
	}
	for at := 1; at < len(whole); at += 1 + len(whole)/offsets {
		if in := at % length; in >= 4 && in < 12 {
			at += 12 - in
		}
		for _, keepIndex := range []bool{true, false} {
			copied := t.TempDir()
			ok(t, os.CopyFS(copied, os.DirFS(dir)))
			bad := append([]byte(nil), whole...)
			bad[at] ^= 0x10
			ok(t, os.WriteFile(filepath.Join(copied, block), bad, 0o600))
			if !keepIndex {
				ok(t, os.Remove(filepath.Join(copied, filepath.Dir(block), "index.db")))
			}
			damaged := start(t, copied)
			check(fmt.Sprintf("bit flipped at %d, index kept: %v", at, keepIndex), damaged)
			stop(t, damaged)
		}
	}
}

func BenchmarkLogAppend(b *testing.B) {
	l := openLog(b, start(b, b.TempDir()))
	data := make([]byte, 4096)
	n := 0
	for b.Loop() {
		n++
		ok(b, l.Append(b.Context(), "a", "x", fmt.Sprint(n), data))
	}
}

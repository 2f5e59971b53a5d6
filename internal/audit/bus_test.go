package audit

import (
	"bufio"
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
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
)

// The tests of this file run on the real streams.

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	ok(t, err)
	return b
}

func openOnBus(ctx context.Context, dir string) (*Recorder, *bus.Bus, error) {
	b, err := bus.Start(ctx, bus.Config{Dir: filepath.Join(dir, "bus"), Key: testKey(), Name: "test", Clock: time.Now})
	if err != nil {
		return nil, nil, err
	}
	receipts, err1 := b.Log(ctx, bus.LogConfig{Name: "receipts", SubjectPrefix: "receipt", MaxAge: time.Hour, MaxBytes: 1 << 30})
	logs, err2 := b.Log(ctx, bus.LogConfig{Name: "logs", SubjectPrefix: "log", MaxAge: time.Hour, MaxBytes: 1 << 30})
	if err := errors.Join(err1, err2); err != nil {
		return nil, b, err
	}
	cfg := config(filepath.Join(dir, "journal"), receipts, logs)
	cfg.Interval = 5 * time.Millisecond
	r, err := Open(cfg)
	return r, b, err
}

func start(t testing.TB, dir string) (*Recorder, func()) {
	t.Helper()
	r, b, err := openOnBus(t.Context(), dir)
	ok(t, err)
	stop := func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	return r, stop
}

func TestQueriesOnTheBus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, stop := start(t, dir)
	defer func() { stop() }()
	var last *Receipt
	for i := range 30 {
		last = receipt(fmt.Sprint("f", i%3))
		last.RequestID = fmt.Sprint(i)
		ok(t, r.Record(t.Context(), last))
	}
	if got, err := r.Receipt(t.Context(), last.ID); err != nil || got != *last {
		t.Fatal(got, err)
	}
	stop()
	r, stop = start(t, dir)
	if got, err := r.Receipt(t.Context(), last.ID); err != nil || got != *last {
		t.Fatal(got, err)
	}
	got, err := r.Receipts(t.Context(), Query{Namespace: "default", Function: "f2", Limit: 5})
	ok(t, err)
	if len(got) != 5 || got[0].RequestID != "29" || got[4].RequestID != "17" {
		t.Fatal(got)
	}
	followNoGap(t, r, 200)
}

func TestNothingIsWrittenInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, stop := start(t, dir)
	const secret = "planted-plaintext-marker"
	grep := func() {
		ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // segments come and go
			}
			content, _ := os.ReadFile(path)
			if bytes.Contains(content, []byte(secret)) || strings.Contains(path, secret) {
				t.Errorf("%s holds plaintext", path)
			}
			return nil
		}))
	}
	for range 200 {
		rc := receipt(secret)
		ok(t, r.Record(t.Context(), rc))
		r.Log(LogLine{Time: time.Now(), Namespace: "default", Function: secret, Text: secret})
	}
	grep()
	ok(t, r.Flush(t.Context()))
	grep()
	stop()
	grep()
}

// recordUntilKilled is the other process of the test below. It writes the id of
// each receipt whose Record returned nil.
func recordUntilKilled(dir string) {
	ctx := context.Background()
	r, _, err := openOnBus(ctx, dir)
	if err != nil {
		panic(err)
	}
	out := make(chan string, 100)
	for range 4 {
		go func() {
			for {
				rc := receipt("x")
				if err := r.Record(ctx, rc); err != nil {
					panic(err)
				}
				out <- rc.ID + "\n"
			}
		}()
	}
	for id := range out {
		if _, err := os.Stdout.WriteString(id); err != nil {
			panic(err)
		}
	}
}

// The node is killed while it records. Set CASEMATE_KILLS for more rounds.
func TestKilledWhileRecordingLosesNoReceipt(t *testing.T) {
	t.Parallel()
	kills := 4
	if s := os.Getenv("CASEMATE_KILLS"); s != "" {
		kills, _ = strconv.Atoi(s)
	}
	dir := t.TempDir()
	recorded := map[string]bool{}
	for range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "CASEMATE_AUDIT_TEST_RECORD="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		lines := bufio.NewReader(out)
		for left := 1 + rand.IntN(2000); ; left-- {
			if left == 0 {
				ok(t, cmd.Process.Kill())
			}
			id, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			recorded[strings.TrimSpace(id)] = true
		}
		_ = cmd.Wait()
	}
	r, stop := start(t, dir)
	defer stop()
	if w := r.Warnings(); len(w) != 0 {
		t.Error(w)
	}
	ok(t, r.Flush(t.Context()))
	got := receiptIDs(t, r.cfg.Receipts)
	for id := range recorded {
		if got[id] != 1 {
			t.Errorf("receipt %s was recorded and is there %d times", id, got[id])
		}
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("receipt %s is there %d times", id, n)
		}
	}
	t.Logf("%d receipts over %d kills", len(recorded), kills)
}

func BenchmarkRecordOnTheBus(b *testing.B) {
	r, stop := start(b, b.TempDir())
	defer stop()
	r.cfg.MaxJournal = 1 << 40
	rc := receipt("x")
	for b.Loop() {
		ok(b, r.Record(b.Context(), rc))
	}
}

package bus

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// publishUntilKilled is the child process of the test below. It prints the id of
// each event that was acknowledged.
func publishUntilKilled(dir string) {
	b, err := Start(context.Background(), Config{Dir: dir, Key: testKey(), Name: "test", Clock: time.Now})
	if err != nil {
		panic(err)
	}
	e, err := b.Events(context.Background(), eventsConfig())
	if err != nil {
		panic(err)
	}
	var printing sync.Mutex
	var wg sync.WaitGroup
	run := fmt.Sprint(os.Getpid())
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				var in []Entry
				for j := range 1 + (c+i)%4 {
					in = append(in, entry(fmt.Sprintf("a/topic.x%d/%s-%d-%d-%d", c%3, run, c, i, j)))
				}
				if _, err := e.Publish(context.Background(), in); err != nil {
					panic(err)
				}
				printing.Lock()
				_, _ = fmt.Fprintln(os.Stdout, in[0].Channel, in[0].ID, len(in)) // nobody reads: then it is killed
				printing.Unlock()
			}
		})
	}
	wg.Wait()
}

// Killed at any moment, what was acknowledged is there, once, whole and in order,
// and an entry of a call that was cut off is there with all others of it or not at
// all. The third run finds what the two before it left.
func TestEventsAcknowledgedSurviveAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := map[string]int{} // channel and id of the first entry: how many
	for run := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CASEMATE_BUS_TEST_PUBLISH="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var channel, id string
			var count int
			if _, err := fmt.Sscan(lines.Text(), &channel, &id, &count); err != nil {
				break // cut off by the kill
			}
			acked[channel+" "+id] = count
			if n == 40+17*run {
				ok(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait() // killed
		b := start(t, dir)
		e := openEvents(t, b)
		got := map[string]int{}
		calls := map[string]int{}
		ok(t, e.Read(t.Context(), EventFilter{}, func(r EventRecord) bool {
			got[r.Channel+" "+r.ID]++
			calls[r.Channel+" "+r.ID[:strings.LastIndexByte(r.ID, '-')]]++
			return true
		}))
		for first, count := range acked {
			call := first[:strings.LastIndexByte(first, '-')]
			if got[first] != 1 || calls[call] != count {
				t.Errorf("run %d: %s: %d times, %d of %d entries of its call", run, first, got[first], calls[call], count)
			}
		}
		for call, count := range calls {
			var pid, c, i int
			_, err := fmt.Sscanf(call[strings.IndexByte(call, ' ')+1:], "%d-%d-%d", &pid, &c, &i)
			if ok(t, err); count != 1+(c+i)%4 {
				t.Errorf("run %d: %s: %d of its %d entries", run, call, count, 1+(c+i)%4)
			}
		}
		if rep, err := e.Verify(t.Context(), nil); err != nil || rep.Damaged || len(b.Warnings()) != 0 {
			t.Fatalf("%+v, %v, %v", rep, err, b.Warnings())
		}
		stop(t, b)
	}
	if len(acked) < 100 {
		t.Fatalf("only %d calls were acknowledged", len(acked))
	}
}

// told reports whether the bus says that something is wrong.
func told(b *Bus, err error) bool { return err != nil || len(b.Warnings()) > 0 }

// judge reads everything in every way: nothing that was not written comes, and
// what does not come is reported.
func judge(t *testing.T, at string, b *Bus, n int) {
	t.Helper()
	e, err := b.Events(t.Context(), eventsConfig())
	if err != nil {
		return // it says so
	}
	for _, f := range []EventFilter{{}, {Namespace: "a", Channel: "topic.x"}} {
		got := map[string]bool{}
		err := e.Read(t.Context(), f, func(r EventRecord) bool {
			if strings.TrimSpace(string(r.Data)) != "data of "+r.ID {
				t.Errorf("%s: %s holds %q", at, r.ID, r.Data)
			}
			got[r.ID] = true
			return true
		})
		for i := range n {
			delete(got, fmt.Sprintf("%02d", i))
		}
		if len(got) > 0 {
			t.Errorf("%s: read %v, which nobody wrote", at, got)
		}
		count := 0
		_ = e.Read(t.Context(), f, func(EventRecord) bool { count++; return true })
		if count < n && !told(b, err) {
			t.Errorf("%s: %d of %d events, and silence", at, count, n)
		}
	}
	rep, err := e.Verify(t.Context(), nil)
	if rep.Events < uint64(n) && !told(b, err) {
		t.Errorf("%s: verified %d of %d, and silence", at, rep.Events, n)
	}
	// It goes on, and a consumer gets past the damage.
	publishAll(t, e, "a/topic.x/last")
	seen := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := e.Consume(ctx, consumer(), func(d *Delivered) {
		_ = d.Ack()
		if d.ID != "last" {
			seen++
		} else {
			cancel()
		}
	}); err != nil {
		t.Errorf("%s: %v", at, err)
	}
	if seen < n && !told(b, b.Check(t.Context())) {
		t.Errorf("%s: a consumer got %d of %d, and silence", at, seen, n)
	}
}

func TestEventsBitsFlippedOnDiskAreNeverSilent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	const n = 20
	for i := range n {
		in := entry(fmt.Sprintf("a/topic.x/%02d", i))
		if i < 10 { // all of one length: the sequence in a header has a digit less
			in.Data = append(in.Data, ' ')
		}
		_, err := e.Publish(t.Context(), []Entry{in})
		ok(t, err)
	}
	stop(t, b)
	flipEverywhere(t, dir, "EVENTS_main", n, 12, func(at string, damaged *Bus) { judge(t, at, damaged, n) })
}

func TestEventsCutOnDiskAreNeverSilent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	const n = 20
	for i := range n {
		publishAll(t, e, fmt.Sprintf("a/topic.x/%02d", i))
	}
	stop(t, b)
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "EVENTS_main", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	block, err := filepath.Rel(dir, blocks[0])
	ok(t, err)
	whole, err := os.ReadFile(blocks[0])
	ok(t, err)
	for _, left := range []int{0, 1, len(whole) / 3, len(whole) - 1} {
		for _, keepIndex := range []bool{true, false} {
			copied := t.TempDir()
			ok(t, os.CopyFS(copied, os.DirFS(dir)))
			ok(t, os.WriteFile(filepath.Join(copied, block), whole[:left], 0o600))
			if !keepIndex {
				ok(t, os.Remove(filepath.Join(copied, filepath.Dir(block), "index.db")))
			}
			damaged := start(t, copied)
			judge(t, fmt.Sprintf("cut to %d of %d bytes, index kept: %v", left, len(whole), keepIndex), damaged, n)
			stop(t, damaged)
		}
	}
}

// After messages were cut away at the end, what is published next must not stand
// where a consumer has been already: it would not come.
func TestEventsPublishedAfterACutReachTheirConsumers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	publishAll(t, e, "a/topic.x/0", "a/topic.x/1", "a/topic.x/2", "a/topic.x/3")
	if got := consume(t, e, consumer(), 4, (*Delivered).Ack); got != "0 1 2 3" {
		t.Fatal(got)
	}
	untilSettled(t, e, "trigger.a.fn.t", 0, 0)
	stop(t, b)
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "EVENTS_main", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	info, err := os.Stat(blocks[0])
	ok(t, err)
	ok(t, os.Truncate(blocks[0], info.Size()/2))
	ok(t, os.Remove(filepath.Join(filepath.Dir(blocks[0]), "index.db")))
	b = start(t, dir)
	e = openEvents(t, b)
	if len(b.Warnings()) == 0 {
		t.Error("no warning")
	}
	if s := publishAll(t, e, "a/topic.x/4"); s[0].Sequence <= 4 {
		t.Fatal(s)
	}
	if got := consume(t, e, consumer(), 1, (*Delivered).Ack); got != "4" {
		t.Fatal(got)
	}
}

func TestEventsRefuseWritesOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	publishAll(t, openEvents(t, b), "a/topic.x/0")
	stop(t, b)
	b = start(t, dir, func(c *Config) { c.MinFree = 1 << 60 })
	e := openEvents(t, b)
	_, err := e.Publish(t.Context(), []Entry{entry("a/topic.x/1")})
	wantErr(t, err, state.ErrFull)
	if got := consume(t, e, consumer(), 1, (*Delivered).Ack); got != "0" {
		t.Fatal(got)
	}
}

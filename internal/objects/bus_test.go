package objects_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/objects"
)

// TestOnTheBus stores records where the node does, and opens both again.
func TestOnTheBus(t *testing.T) {
	t.Parallel()
	dir, busDir := t.TempDir(), t.TempDir()
	start := func() (*objects.Store, func()) {
		t.Helper()
		b, err := bus.Start(t.Context(), bus.Config{Dir: busDir, Key: make([]byte, 32), Name: "n", Logger: slog.New(slog.DiscardHandler), Clock: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		kv, err := b.KV(t.Context(), "objects")
		if err != nil {
			t.Fatal(err)
		}
		return open(t, dir, kv), func() {
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	s, stop := start()
	if err := s.CreateBucket(t.Context(), ns, bkt, "me"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	const n = 100
	for i := range n {
		if _, err := put(s, fmt.Sprintf("dir/ü %d", i), bytes.Repeat([]byte{byte(i)}, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d objects of 1000 bytes, one after another, in %v", n, time.Since(began))
	if _, err := s.Delete(t.Context(), ns, bkt, "dir/ü 7", "", objects.Condition{}, "me"); err != nil {
		t.Fatal(err)
	}
	mark := s.Settled()
	put(s, "last", []byte("x"))
	stop()
	began = time.Now()
	s, stop = start()
	t.Logf("opened in %v", time.Since(began))
	defer stop()
	for i := range n {
		got, err := get(s, fmt.Sprintf("dir/ü %d", i), "")
		if (err == nil) != (i != 7) || err == nil && !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 1000)) {
			t.Fatalf("object %d: %d bytes, %v", i, len(got), err)
		}
	}
	// Revisions grow over all keys, so what came after the mark is found.
	var after []string
	if err := s.Changes(t.Context(), ns, bkt, mark, func(c objects.Change) error { after = append(after, c.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(after) != 1 || after[0] != "last" {
		t.Errorf("after the mark came %v, want last alone", after)
	}
	page, err := s.Objects(t.Context(), objects.List{Namespace: ns, Bucket: bkt, Delimiter: "/", Limit: 10}, objects.Position{})
	if err != nil || len(page.Groups) != 1 || len(page.Objects) != 1 {
		t.Errorf("listing: %+v, %v", page, err)
	}
}

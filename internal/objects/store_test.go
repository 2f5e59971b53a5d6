package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/objectstest"
	"github.com/casemate-dev/casemate/internal/state"
)

const ns, bkt = "default", "photos"

type notifier struct {
	mu   sync.Mutex
	list []objects.Change
	err  error
}

func (n *notifier) Changed(_ context.Context, c objects.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.list = append(n.list, c)
	}
	return n.err
}

func open(t testing.TB, dir string, kv objects.KV, change ...func(*objects.Config)) *objects.Store {
	t.Helper()
	c := objects.Config{Dir: dir, KV: kv, Key: bytes.Repeat([]byte{1}, 32), Notifier: &notifier{}, Clock: time.Now, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	s, err := objects.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fresh(t testing.TB, change ...func(*objects.Config)) (*objects.Store, *objectstest.KV, string) {
	t.Helper()
	kv, dir := objectstest.NewKV(), t.TempDir()
	s := open(t, dir, kv, change...)
	if err := s.CreateBucket(t.Context(), ns, bkt, "me"); err != nil {
		t.Fatal(err)
	}
	return s, kv, dir
}

func put(s *objects.Store, key string, body []byte) (objects.Object, error) {
	return s.Put(context.Background(), &objects.Put{
		Namespace: ns, Bucket: bkt, Key: key, Body: bytes.NewReader(body), Size: int64(len(body)), Operation: objects.OpPut,
	})
}

func get(s *objects.Store, key, version string) ([]byte, error) {
	r, err := s.Get(context.Background(), ns, bkt, key, version)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := r.Range(0, r.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func files(t testing.TB, dir string) (n int) {
	t.Helper()
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, _ error) error {
		if d != nil && d.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}

// TestACrashAtAnyWriteLosesNothing stops the process before and after each write of a
// record, opens what is on disk then, and looks whether every object that was answered
// is whole, and whether nothing else is left.
func TestACrashAtAnyWriteLosesNothing(t *testing.T) {
	t.Parallel()
	part := bytes.Repeat([]byte("p"), objects.MinPart)
	for stop := 0; ; stop++ {
		kv, dir := objectstest.NewKV(), t.TempDir()
		s := open(t, dir, kv)
		count, crashed := 0, false
		died := errors.New("the process died")
		kv.Fail = func(string, string, bool) error {
			if count++; count > stop {
				crashed = true
				return died
			}
			return nil
		}
		sure := map[string]string{} // answered
		may := map[string]string{}  // begun
		step := func(key, body string, do func() error) {
			if crashed {
				return
			}
			may[key] = body
			if do() == nil {
				sure[key] = body
				delete(may, key)
			}
		}
		ctx := context.Background()
		s.CreateBucket(ctx, ns, bkt, "me")
		for i, key := range []string{"a", "b", "a"} {
			body := fmt.Sprint(key, i)
			step(key, body, func() error { _, err := put(s, key, []byte(body)); return err })
		}
		step("b", "", func() error { _, err := s.Delete(ctx, ns, bkt, "b", "", objects.Condition{}, "me"); return err })
		step("m", string(part)+"end", func() error {
			u, err := s.BeginUpload(ctx, ns, bkt, objects.Upload{Key: "m"}, objects.Attributes{})
			if err != nil {
				return err
			}
			var parts []objects.Part
			for i, body := range [][]byte{part, []byte("old"), []byte("end"), []byte("left out")} {
				number := []int{1, 2, 2, 3}[i]
				p, err := s.PutPart(ctx, &objects.Put{Namespace: ns, Bucket: bkt, Key: "m", Body: bytes.NewReader(body), Size: -1}, u.ID, number)
				if err != nil {
					return err
				}
				if i != 1 && i != 3 {
					parts = append(parts, p)
				}
			}
			_, err = s.CompleteUpload(ctx, &objects.Complete{Namespace: ns, Bucket: bkt, Key: "m", UploadID: u.ID, Parts: parts})
			return err
		})
		s = open(t, dir, kv.Clone())
		for key, want := range sure {
			if _, changed := may[key]; changed {
				continue
			}
			if got, err := get(s, key, ""); want == "" && !errors.Is(err, objects.ErrNoKey) || want != "" && string(got) != want {
				t.Fatalf("write %d: %s was answered and is lost: %.20q, %v", stop, key, got, err)
			}
		}
		for key, body := range may {
			got, err := get(s, key, "")
			if string(got) != body && string(got) != sure[key] && !errors.Is(err, objects.ErrNoKey) && !errors.Is(err, objects.ErrNoBucket) {
				t.Fatalf("write %d: %s is neither old nor new: %.20q, %v", stop, key, got, err)
			}
		}
		if err := s.Verify(ctx, func(_, _, key, _ string, err error) { t.Errorf("write %d: %s: %v", stop, key, err) }); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bucket(ns, bkt); err == nil { // and all can be removed, to the last file
			for _, key := range []string{"a", "b", "m"} {
				if _, err := s.Delete(ctx, ns, bkt, key, "", objects.Condition{}, "me"); err != nil {
					t.Fatal(err)
				}
			}
			uploads, err := s.Uploads(ctx, ns, bkt)
			for _, u := range uploads {
				err = errors.Join(err, s.AbortUpload(ctx, ns, bkt, u.Key, u.ID))
			}
			if err = errors.Join(err, s.DeleteBucket(ctx, ns, bkt)); err != nil {
				t.Fatalf("write %d: %v", stop, err)
			}
		}
		if n := files(t, dir); n != 0 || s.Used("") != 0 {
			t.Fatalf("write %d: %d files and %d counted bytes are left of nothing", stop, n, s.Used(""))
		}
		if !crashed {
			if stop < 15 {
				t.Fatalf("there were %d writes only", stop)
			}
			return
		}
	}
}

func TestWhatIsOnDiskIsNoObject(t *testing.T) {
	t.Parallel()
	s, kv, dir := fresh(t)
	secret := []byte("the secret of the chamber")
	if _, err := put(s, "k", secret); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "-rlF", string(secret), dir).CombinedOutput()
	if len(out) > 0 {
		t.Fatalf("the content is readable in %s (%v)", out, err)
	}
	// Bits flip.
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if d.Type().IsRegular() {
			raw, _ := os.ReadFile(p)
			raw[3] ^= 4
			os.WriteFile(p, raw, 0o600)
		}
		return nil
	})
	if _, err := get(s, "k", ""); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("got %v, want state.ErrCorrupt", err)
	}
	found := 0
	s.Verify(t.Context(), func(_, _, _, _ string, err error) { found++ })
	if found != 1 {
		t.Errorf("verify found %d", found)
	}
	// Under another key nothing opens.
	s = open(t, dir, kv, func(c *objects.Config) { c.Key = make([]byte, 32) })
	if _, err := get(s, "k", ""); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("under another key: %v", err)
	}
}

// TestARecordOfAnotherPlaceIsRefused moves a record, as somebody who can write the KV but
// has no key could.
func TestARecordOfAnotherPlaceIsRefused(t *testing.T) {
	t.Parallel()
	s, kv, dir := fresh(t)
	s.CreateBucket(t.Context(), "other", bkt, "me")
	put(s, "k", []byte("mine"))
	list, _ := kv.List(t.Context(), "o.")
	if len(list) != 1 {
		t.Fatal("want one record")
	}
	moved := strings.Replace(list[0].Key, "o."+ns, "o.other", 1)
	if _, err := kv.Create(t.Context(), moved, list[0].Value); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, kv)
	if _, err := s.Get(t.Context(), "other", bkt, "k", ""); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("got %v, want state.ErrCorrupt", err)
	}
}

// TestACompletionWhoseOutcomeIsNotKnown fails after the object's record was written: the
// parts are the object's by then, whatever the client does next.
func TestACompletionWhoseOutcomeIsNotKnown(t *testing.T) {
	t.Parallel()
	s, kv, _ := fresh(t)
	ctx := t.Context()
	u, err := s.BeginUpload(ctx, ns, bkt, objects.Upload{Key: "k"}, objects.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	part := func() (objects.Part, error) {
		return s.PutPart(ctx, &objects.Put{Namespace: ns, Bucket: bkt, Key: "k", Body: strings.NewReader("whole"), Size: 5}, u.ID, 1)
	}
	p, err := part()
	if err != nil {
		t.Fatal(err)
	}
	kv.Fail = func(_, key string, after bool) error {
		if after && strings.HasPrefix(key, "o.") {
			return errors.New("the answer was lost")
		}
		return nil
	}
	c := &objects.Complete{Namespace: ns, Bucket: bkt, Key: "k", UploadID: u.ID, Parts: []objects.Part{p}}
	if _, err := s.CompleteUpload(ctx, c); err == nil {
		t.Fatal("want an error")
	}
	kv.Fail = nil
	if _, err := part(); !errors.Is(err, objects.ErrNoUpload) {
		t.Errorf("replacing a part: %v", err)
	}
	if err := s.AbortUpload(ctx, ns, bkt, "k", u.ID); !errors.Is(err, objects.ErrNoUpload) {
		t.Errorf("aborting: %v", err)
	}
	if _, err := s.CompleteUpload(ctx, c); err != nil {
		t.Errorf("completing again: %v", err)
	}
	if got, err := get(s, "k", ""); string(got) != "whole" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBoundsAndRoom(t *testing.T) {
	t.Parallel()
	s, _, dir := fresh(t, func(c *objects.Config) { c.MaxObject, c.MaxNamespace = 1000, 1500 })
	if _, err := put(s, "k", make([]byte, 1001)); !errors.Is(err, objects.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	_, err := s.Put(t.Context(), &objects.Put{Namespace: ns, Bucket: bkt, Key: "k", Body: bytes.NewReader(make([]byte, 5000)), Size: -1})
	if !errors.Is(err, objects.ErrTooLarge) {
		t.Errorf("too large, not announced: %v", err)
	}
	if _, err := put(s, "a", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := put(s, "b", make([]byte, 501)); !errors.Is(err, state.ErrFull) {
		t.Errorf("no room: %v", err)
	}
	if _, err := put(s, "b", make([]byte, 500)); err != nil {
		t.Errorf("room: %v", err)
	}
	if n := files(t, dir); n != 2 {
		t.Errorf("%d files for 2 objects", n)
	}
	_, err = s.Put(t.Context(), &objects.Put{Namespace: ns, Bucket: bkt, Key: "c", Body: io.LimitReader(bytes.NewReader(nil), 0), Size: 7})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short body: %v", err)
	}
	for _, key := range []string{"", "/etc/passwd", "../x", "a/../b", "a/.", "..", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 1025), "\x7f"} {
		if _, err := put(s, key, nil); !errors.Is(err, objects.ErrKey) {
			t.Errorf("key %.20q: %v", key, err)
		}
	}
	for _, name := range []string{"", "ab", "-ab", "ab-", "a.b.c", "ABC", "a/b", "..", "a_b", strings.Repeat("x", 64)} {
		if err := s.CreateBucket(t.Context(), ns, name, ""); !errors.Is(err, objects.ErrName) {
			t.Errorf("bucket %.20q: %v", name, err)
		}
	}
}

// TestReadersKeepWhatTheyRead replaces and removes an object while it is read.
func TestReadersKeepWhatTheyRead(t *testing.T) {
	t.Parallel()
	s, _, dir := fresh(t)
	u, _ := s.BeginUpload(t.Context(), ns, bkt, objects.Upload{Key: "k"}, objects.Attributes{})
	one, two := bytes.Repeat([]byte("1"), objects.MinPart), []byte("two")
	var parts []objects.Part
	for i, b := range [][]byte{one, two} {
		p, err := s.PutPart(t.Context(), &objects.Put{Namespace: ns, Bucket: bkt, Key: "k", Body: bytes.NewReader(b), Size: -1}, u.ID, i+1)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	if _, err := s.CompleteUpload(t.Context(), &objects.Complete{Namespace: ns, Bucket: bkt, Key: "k", UploadID: u.ID, Parts: parts}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), ns, bkt, "k", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(s, "k", []byte("new")); err != nil {
		t.Fatal(err)
	}
	body, err := r.Range(int64(len(one)-2), 5)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); string(got) != "11two" {
		t.Errorf("got %q, %v", got, err)
	}
	body.Close()
	r.Close()
	if n := files(t, dir); n != 1 {
		t.Errorf("%d files for 1 object, after the last reader has gone", n)
	}
}

// TestChangesAgreesWithWhatWasTold does random work, and compares what the notifier was
// told with what Changes tells of the same time.
func TestChangesAgreesWithWhatWasTold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n := &notifier{}
		s, _, _ := fresh(t, func(c *objects.Config) { c.Notifier = n })
		versioned := rng.IntN(2) == 0
		if versioned {
			s.SetVersioning(t.Context(), ns, bkt, "Enabled")
		}
		cut, from := 0, uint64(0)
		for i := range 40 {
			if i == 20 {
				cut, from = len(n.list), s.Settled()
			}
			key := string(rune('a' + rng.IntN(4)))
			switch rng.IntN(4) {
			case 0:
				s.Delete(t.Context(), ns, bkt, key, "", objects.Condition{}, "me")
			case 1:
				s.SetTags(t.Context(), ns, bkt, key, "", map[string]string{"k": "v"})
			default:
				if _, err := put(s, key, []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var ids []string
		if err := s.Changes(t.Context(), ns, bkt, from, func(c objects.Change) error { ids = append(ids, c.ID); return nil }); err != nil {
			t.Fatal(err)
		}
		last := map[string]objects.Change{}
		for _, c := range n.list[cut:] {
			last[c.Key] = c
			if (versioned || c.Removed()) && !slices.Contains(ids, c.ID) {
				t.Errorf("seed %d: %s of %s is not told again", seed, c.Operation, c.Key)
			}
		}
		for key, c := range last {
			if !slices.Contains(ids, c.ID) {
				t.Errorf("seed %d: the last change of %s is not told again", seed, key)
			}
		}
		for _, c := range n.list[:cut] {
			if slices.Contains(ids, c.ID) && !c.Removed() {
				t.Errorf("seed %d: %s of %s was before and is told again", seed, c.Operation, c.Key)
			}
		}
	}
}

// TestHammer changes, reads and lists a few keys at once.
func TestHammer(t *testing.T) {
	t.Parallel()
	s, _, dir := fresh(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 60 {
				key := fmt.Sprint("k", rng.IntN(3))
				switch rng.IntN(5) {
				case 0:
					s.Delete(context.Background(), ns, bkt, key, "", objects.Condition{}, "me")
				case 1:
					s.Objects(context.Background(), objects.List{Namespace: ns, Bucket: bkt, Limit: 2}, objects.Position{})
				case 2, 3:
					if got, err := get(s, key, ""); err == nil && (len(got) < 3 || string(got[:2]) != key) || err != nil && !errors.Is(err, objects.ErrNoKey) {
						t.Errorf("%s: %q, %v", key, got, err)
					}
				default:
					if _, err := put(s, key, []byte(fmt.Sprint(key, " of ", g, i))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	b, _ := s.Bucket(ns, bkt)
	if n := files(t, dir); n != b.Objects {
		t.Errorf("%d files for %d objects", n, b.Objects)
	}
}

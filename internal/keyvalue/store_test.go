package keyvalue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/keyvalue/keyvaluetest"
	"github.com/casemate-dev/casemate/internal/state"
)

// clock is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type world struct {
	testing.TB
	disk  *keyvaluetest.Disk
	clock *clock
	store *keyvalue.Store
}

func newWorld(t testing.TB, change ...func(*keyvalue.Config)) *world {
	w := &world{t, keyvaluetest.NewDisk(), newClock(), nil}
	w.open(change...)
	return w
}

func (w *world) open(change ...func(*keyvalue.Config)) {
	w.Helper()
	c := keyvalue.Config{KV: keyvaluetest.KV{Disk: w.disk}, Log: keyvaluetest.Log{Disk: w.disk}, Clock: w.clock.now, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	s, err := keyvalue.Open(context.Background(), c)
	if err != nil {
		w.Fatal(err)
	}
	w.store = s
}

// crash starts anew with what is on disk.
func (w *world) crash() {
	w.Helper()
	w.disk = w.disk.Clone()
	w.open()
}

// at splits "bucket/key", with the namespace ns.
func at(path string) (bucket, key string) {
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

func (w *world) tryPut(path, value string, change ...func(*keyvalue.Put)) (keyvalue.Done, error) {
	bucket, key := at(path)
	p := &keyvalue.Put{Namespace: "ns", Bucket: bucket, Key: key, Data: []byte(value), ContentType: "text/plain", By: "key:me"}
	for _, f := range change {
		f(p)
	}
	return w.store.Put(context.Background(), p)
}

func (w *world) put(path, value string, change ...func(*keyvalue.Put)) keyvalue.Done {
	w.Helper()
	d, err := w.tryPut(path, value, change...)
	if err != nil {
		w.Fatalf("putting %s: %v", path, err)
	}
	return d
}

func (w *world) tryDelete(path string, c keyvalue.Condition) (keyvalue.Done, error) {
	bucket, key := at(path)
	return w.store.Delete(context.Background(), "ns", bucket, key, c, "key:me")
}

// get gives the value and its revision, or the error.
func (w *world) get(path string) string {
	bucket, key := at(path)
	v, err := w.store.Get(context.Background(), "ns", bucket, key)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s@%d", v.Data, v.Revision)
}

func (w *world) is(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %s, want %s", what, got, want)
	}
}

// changes lists all of a bucket, one a line.
func (w *world) changes(bucket string, after uint64) string {
	w.Helper()
	var out []string
	_, err := w.store.Changes(context.Background(), "ns", bucket, after, func(c keyvalue.Change) error {
		line := fmt.Sprintf("%s %s %d", c.Operation, c.Key, c.Revision)
		if c.New != nil {
			line += fmt.Sprintf(" %s", c.New.Data)
		}
		if c.Old != nil {
			line += fmt.Sprintf(" was %s@%d", c.Old.Data, c.Previous)
		}
		if c.Expired {
			line += " expired"
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		w.Error(err)
	}
	return strings.Join(out, "\n")
}

func (w *world) list(bucket, prefix, after string, limit int) string {
	w.Helper()
	p, err := w.store.List("ns", bucket, prefix, after, limit)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, k := range p.Keys {
		out = append(out, k.Key)
	}
	if p.More {
		out = append(out, "…")
	}
	return strings.Join(out, " ")
}

func wants(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestValuesChangesAndRevisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if d := w.put("b/k", "one"); !d.Created || d.Revision != 1 {
		t.Errorf("%+v", d)
	}
	if d := w.put("b/k", "two"); d.Created || d.Revision != 2 {
		t.Errorf("%+v", d)
	}
	w.put("other/k", "elsewhere")
	d, err := w.tryDelete("b/k", keyvalue.Condition{})
	if err != nil || d.Revision != 4 {
		t.Errorf("%+v %v", d, err)
	}
	_, err = w.tryDelete("b/k", keyvalue.Condition{})
	wants(t, err, keyvalue.ErrNoKey)
	w.put("b/k", "")
	look := func(when string) {
		w.is(when, w.get("b/k"), "@5")
		w.is(when, w.get("other/k"), "elsewhere@3")
		w.is(when, w.get("b/none"), keyvalue.ErrNoKey.Error())
		w.is(when, w.changes("b", 0), "put k 1 one\nput k 2 two was one@1\ndelete k 4 was two@2\nput k 5 ")
		w.is(when, w.changes("b", 2), "delete k 4 was two@2\nput k 5 ")
	}
	look("before")
	w.crash()
	look("after a crash")
	if w.disk.Records() != 2 {
		t.Errorf("%d records for 2 keys", w.disk.Records())
	}
	v, err := w.store.Get(t.Context(), "ns", "other", "k")
	if err != nil || v.ContentType != "text/plain" || v.By != "key:me" || !v.Modified.Equal(w.clock.now()) || !v.Expires.IsZero() {
		t.Errorf("%+v %v", v, err)
	}
}

func TestCompareAndSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	on := func(c keyvalue.Condition) func(*keyvalue.Put) { return func(p *keyvalue.Put) { p.Condition = c } }
	absent, present, never := keyvalue.Condition{Absent: true}, keyvalue.Condition{Present: true}, keyvalue.Condition{OneOf: []uint64{}}
	try := func(c keyvalue.Condition, want error) {
		t.Helper()
		_, err := w.tryPut("b/k", "x", on(c))
		wants(t, err, want)
	}
	try(present, keyvalue.ErrCondition)
	try(keyvalue.Condition{OneOf: []uint64{0}}, keyvalue.ErrCondition)
	try(absent, nil)
	try(absent, keyvalue.ErrCondition)
	try(present, nil) // 2
	try(never, keyvalue.ErrCondition)
	try(keyvalue.Condition{OneOf: []uint64{1, 3}}, keyvalue.ErrCondition)
	try(keyvalue.Condition{OneOf: []uint64{1, 2}}, nil) // 3
	_, err := w.tryDelete("b/k", keyvalue.Condition{OneOf: []uint64{2}})
	wants(t, err, keyvalue.ErrCondition)
	_, err = w.tryDelete("b/k", keyvalue.Condition{OneOf: []uint64{3}})
	wants(t, err, nil)
	_, err = w.tryDelete("b/k", present)
	wants(t, err, keyvalue.ErrCondition)
	try(absent, nil)
	w.is("refused changes are none", w.changes("b", 3), "delete k 4 was x@3\nput k 5 x")
}

func TestListsByPrefixInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, k := range []string{"b", "a/2", "a/1", "a/10", "a", "ab", "c", "é"} {
		w.put("l/"+k, "x")
	}
	w.put("m/a/3", "x")
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 100, "a a/1 a/10 a/2 ab b c é"},
		{"a/", "", 100, "a/1 a/10 a/2"},
		{"a/", "", 2, "a/1 a/10 …"},
		{"a/", "a/10", 2, "a/2"},
		{"a/", "a", 1, "a/1 …"},
		{"a/", "b", 10, ""},
		{"", "b", 2, "c é"},
		{"", "zz", 2, "é"},
		{"\xc3", "", 2, "it must be UTF-8: " + keyvalue.ErrKey.Error()},
		{"x", "", 10, ""},
	} {
		w.is(fmt.Sprintf("%q after %q", c.prefix, c.after), w.list("l", c.prefix, c.after, c.limit), c.want)
	}
	w.is("another bucket", w.list("none", "", "", 3), "")
}

func TestTimeToLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lasting := func(d time.Duration) func(*keyvalue.Put) { return func(p *keyvalue.Put) { p.TTL = d } }
	w.put("b/short", "s", lasting(time.Minute))
	w.put("b/long", "l", lasting(time.Hour))
	w.put("b/again", "1", lasting(time.Minute))
	w.put("b/again", "2") // now it stays
	w.put("b/new", "1", lasting(time.Minute))
	w.clock.pass(time.Minute)
	w.crash()
	w.is("expired", w.get("b/short"), keyvalue.ErrNoKey.Error())
	w.is("not yet", w.get("b/long"), "l@2")
	w.is("kept", w.get("b/again"), "2@4")
	w.is("a list", w.list("b", "", "", 10), "again long")
	// Whoever stores anew before the sweep stores a new key; that the old one ended is told.
	if d := w.put("b/new", "2", func(p *keyvalue.Put) { p.Condition.Absent = true }); !d.Created {
		t.Error("an expired key counts as there")
	}
	_, err := w.tryDelete("b/short", keyvalue.Condition{})
	wants(t, err, keyvalue.ErrNoKey)
	if err := w.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.is("changes", w.changes("b", 5), "delete new 6 was 1@5 expired\nput new 7 2\ndelete short 8 was s@1 expired")
	w.clock.pass(time.Hour)
	if err := w.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.is("changes", w.changes("b", 8), "delete long 9 was l@2 expired")
	if u := w.store.Used("ns"); u.Keys != 2 || w.disk.Records() != 2 {
		t.Errorf("%+v, %d records", u, w.disk.Records())
	}
	_, err = w.tryPut("b/x", "", lasting(keyvalue.MaxTTL+1))
	wants(t, err, keyvalue.ErrValue)
	_, err = w.tryPut("b/x", "", lasting(-1))
	wants(t, err, keyvalue.ErrValue)
}

// TestChangesAreToldWithBoundedValues: a large value is named by its size.
func TestChangesAreToldWithBoundedValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small, large := strings.Repeat("s", keyvalue.MaxTold), strings.Repeat("l", keyvalue.MaxTold+1)
	w.put("b/k", large)
	w.put("b/k", small)
	w.put("b/k", "x")
	var got []keyvalue.Change
	_, err := w.store.Changes(t.Context(), "ns", "b", 0, func(c keyvalue.Change) error { got = append(got, c); return nil })
	if err != nil || len(got) != 3 {
		t.Fatal(err, len(got))
	}
	if n := got[0].New; n.Data != nil || n.Size != len(large) {
		t.Error("a large value was told")
	}
	if c := got[1]; c.Old.Data != nil || c.Old.Size != len(large) || string(c.New.Data) != small {
		t.Error("a large old value was told, or the new one was not")
	}
	if c := got[2]; string(c.Old.Data) != small || c.Old.ContentType != "text/plain" {
		t.Error("an old value was not told")
	}
	w.is("the value itself", w.get("b/k"), "x@3")
	_, err = w.tryPut("b/k", strings.Repeat("x", keyvalue.MaxValue+1))
	wants(t, err, keyvalue.ErrTooLarge)
	w.put("b/k", strings.Repeat("x", keyvalue.MaxValue))
}

func TestNamespacesAndBucketsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("b/k", "mine")
	w.put("b/x/k", "mine") // not key k of the bucket b/x
	for _, c := range []struct {
		ns, bucket, key string
		want            error
	}{
		{"other", "b", "k", keyvalue.ErrNoKey},
		{"ns", "bb", "k", keyvalue.ErrNoKey},
		{"ns", "b", "../b/k", keyvalue.ErrKey},
		{"ns", "b", "k/../k", keyvalue.ErrKey},
		{"ns", "b/x", "k", keyvalue.ErrBucket},
		{"ns", "b.x", "k", keyvalue.ErrBucket},
		{"ns", ">", "k", keyvalue.ErrBucket},
		{"*", "b", "k", keyvalue.ErrBucket},
		{"", "b", "k", keyvalue.ErrBucket},
	} {
		_, err := w.store.Get(t.Context(), c.ns, c.bucket, c.key)
		wants(t, err, c.want)
		if errors.Is(c.want, keyvalue.ErrNoKey) {
			continue
		}
		_, err = w.store.Put(t.Context(), &keyvalue.Put{Namespace: c.ns, Bucket: c.bucket, Key: c.key})
		wants(t, err, c.want)
		_, err = w.store.Delete(t.Context(), c.ns, c.bucket, c.key, keyvalue.Condition{}, "")
		wants(t, err, c.want)
	}
	if _, err := w.store.List("ns", "b.x", "", "", 1); !errors.Is(err, keyvalue.ErrBucket) {
		t.Error(err)
	}
	told := 0
	if _, err := w.store.Changes(t.Context(), "other", "b", 0, func(keyvalue.Change) error { told++; return nil }); err != nil || told > 0 {
		t.Errorf("%d changes of another namespace were told, %v", told, err)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *keyvalue.Config) { c.NamespaceKeys, c.NamespaceBytes, c.StoreBytes = 2, 100, 150 })
	w.put("b/1", strings.Repeat("x", 49)) // 50 with its key
	w.put("b/2", strings.Repeat("x", 49))
	_, err := w.tryPut("b/3", "")
	wants(t, err, keyvalue.ErrTooMany)
	_, err = w.tryPut("b/2", strings.Repeat("x", 50))
	wants(t, err, state.ErrFull)
	other := func(p *keyvalue.Put) { p.Namespace = "other" }
	w.put("b/1", strings.Repeat("x", 49), other)
	_, err = w.tryPut("b/2", "", other)
	wants(t, err, state.ErrFull)
	w.put("b/2", "x") // less is always possible
	if u := w.store.Used("ns"); u != (keyvalue.Usage{Buckets: 1, Keys: 2, Bytes: 52}) {
		t.Errorf("%+v", u)
	}
	w.put("b/2", "", other)
	for _, k := range []string{"b/1", "b/2"} {
		if _, err := w.tryDelete(k, keyvalue.Condition{}); err != nil {
			t.Error(err)
		}
	}
	if u := w.store.Used("ns"); u != (keyvalue.Usage{}) {
		t.Errorf("%+v", u)
	}
	w.crash()
	if u := w.store.Used("other"); u != (keyvalue.Usage{Buckets: 1, Keys: 2, Bytes: 51}) {
		t.Errorf("%+v", u)
	}
}

// TestNoNamespacePushesOutTheChangesOfOthers: what one changes is bounded over time.
func TestNoNamespacePushesOutTheChangesOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *keyvalue.Config) { c.Rate, c.Burst = 1<<20, 4<<20 })
	big := strings.Repeat("x", 1<<20-1000)
	for range 4 {
		w.put("b/k", big)
	}
	_, err := w.tryPut("b/k", big)
	wants(t, err, keyvalue.ErrBusy)
	w.put("b/k", big, func(p *keyvalue.Put) { p.Namespace = "other" })
	w.clock.pass(2 * time.Second)
	w.put("b/k", big)
	if _, err := keyvalue.Open(t.Context(), keyvalue.Config{
		KV: keyvaluetest.KV{Disk: w.disk}, Log: keyvaluetest.Log{Disk: w.disk}, Clock: w.clock.now, Logger: slog.New(slog.DiscardHandler), Burst: 1,
	}); err == nil {
		t.Error("a store that can take nothing opens")
	}
}

// TestManyWritersOfOneKey adds up by compare-and-set from many goroutines: none may be
// lost, and what is told must be a chain.
func TestManyWritersOfOneKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const writers, each = 8, 40
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for n := 0; n < each; {
				c, value := keyvalue.Condition{Absent: true}, []byte(nil)
				v, err := w.store.Get(context.Background(), "ns", "b", "sum")
				switch {
				case err == nil:
					c, value = keyvalue.Condition{OneOf: []uint64{v.Revision}}, v.Data
				case !errors.Is(err, keyvalue.ErrNoKey):
					t.Error(err)
					return
				}
				_, err = w.tryPut("b/sum", string(value)+"x", func(p *keyvalue.Put) { p.Condition = c })
				if err == nil {
					n++
				} else if !errors.Is(err, keyvalue.ErrCondition) {
					t.Error(err)
					return
				}
				if _, err := w.tryPut("b/sum-"+string(bytes.Repeat([]byte("y"), n)), "z"); err != nil { // others meanwhile
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	w.is("the sum", w.get("b/sum")[:writers*each], strings.Repeat("x", writers*each))
	length, last := 0, uint64(0)
	if _, err := w.store.Changes(t.Context(), "ns", "b", 0, func(c keyvalue.Change) error {
		if c.Key == "sum" {
			if length++; len(c.New.Data) != length || c.Previous != last {
				t.Fatalf("change %d has %d bytes and follows %d, not %d", c.Revision, len(c.New.Data), c.Previous, last)
			}
			last = c.Revision
		}
		return nil
	}); err != nil || length != writers*each {
		t.Errorf("%d changes were told, %v", length, err)
	}
}

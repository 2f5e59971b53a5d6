package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// write makes a journal of records in a new folder and returns the bytes of its
// one segment and the offsets at which the frames end.
func write(t testing.TB, bodies [][]byte) (dir, file string, data []byte, ends []int) {
	t.Helper()
	dir = t.TempDir()
	j := &journal{dir: dir, key: testKey(), create: createSegment}
	ends = []int{headerSize}
	for _, b := range bodies {
		if _, err := j.append(kindReceipt, b); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(j.size))
	}
	j.end()
	file = j.path(0)
	data, err := os.ReadFile(file)
	ok(t, err)
	return dir, file, data, ends
}

func bodies(n int) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, []byte(fmt.Sprintf(`{"id":"%d"}`, i)))
	}
	return out
}

// A crash can cut the last write anywhere: exactly the complete records come
// back, and it is no damage.
func TestJournalCutAnywhereGivesTheCompleteRecords(t *testing.T) {
	t.Parallel()
	want := bodies(4)
	dir, file, data, ends := write(t, want)
	for cut := range data {
		for _, zeros := range []int{0, 100} { // some file systems leave zeros
			ok(t, os.WriteFile(file, append(bytes.Clone(data[:cut]), make([]byte, zeros)...), 0o600))
			r, err := replay(dir, testKey())
			ok(t, err)
			complete := 0
			for complete+1 < len(ends) && ends[complete+1] <= cut {
				complete++
			}
			if cut < headerSize && zeros > 0 {
				continue // a header of zeros is damage, and holds no records
			}
			if zeros > 0 && len(r.damage) > 0 {
				if cut == ends[complete] {
					t.Fatalf("cut at %d, zeros: %v", cut, r.damage)
				}
				continue // a frame completed with zeros cannot be told from a changed one
			}
			if len(r.damage) > 0 || len(r.bodies) != complete || !equal(r.bodies, want[:complete]) {
				t.Fatalf("cut at %d: %d records of %d, %v", cut, len(r.bodies), complete, r.damage)
			}
			ok(t, r.cutTail())
			if again, err := replay(dir, testKey()); err != nil || len(again.bodies) != complete || again.torn != "" {
				t.Fatalf("cut at %d, after the tail was cut: %d records, %v", cut, len(again.bodies), err)
			}
		}
	}
}

func equal(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func TestJournalPropertyCutAnywhere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 8).Draw(rt, "records")
		dir, file, data, ends := write(t, want)
		cut := rapid.IntRange(ends[len(ends)-2], len(data)).Draw(rt, "cut")
		ok(t, os.WriteFile(file, data[:cut], 0o600))
		r, err := replay(dir, testKey())
		complete := len(want) - 1
		if cut == len(data) {
			complete++
		}
		if err != nil || len(r.damage) > 0 || !equal(r.bodies, want[:complete]) {
			rt.Fatalf("%d records of %d, %v, %v", len(r.bodies), complete, r.damage, err)
		}
		_ = os.RemoveAll(dir)
	})
}

// One bit flips anywhere: it is reported, and no record comes back changed.
func TestJournalReportsEveryFlippedBit(t *testing.T) {
	t.Parallel()
	want := bodies(3)
	dir, file, data, _ := write(t, want)
	known := map[string]bool{}
	for _, b := range want {
		known[string(b)] = true
	}
	for at := range data {
		bad := bytes.Clone(data)
		bad[at] ^= 1 << (at % 8)
		ok(t, os.WriteFile(file, bad, 0o600))
		r, err := replay(dir, testKey())
		ok(t, err)
		var ce *CorruptError
		if len(r.damage) == 0 || !errors.As(r.damage[0], &ce) || len(r.corrupt) != 1 {
			t.Fatalf("bit at %d: silence", at)
		}
		for _, b := range r.bodies {
			if !known[string(b)] {
				t.Fatalf("bit at %d: %q came back", at, b)
			}
		}
	}
}

// One record is changed: the ones before and after it are used all the same.
func TestJournalDamageInTheMiddleLosesOneRecordAndKeepsTheEvidence(t *testing.T) {
	t.Parallel()
	s := newMemory()
	dir := t.TempDir()
	r := open(t, dir, s, newMemory())
	rcs := []*Receipt{receipt("x"), receipt("x"), receipt("x")}
	var ends []int64
	for _, rc := range rcs {
		ok(t, r.Record(t.Context(), rc))
		ends = append(ends, r.journal.size)
	}
	file := r.journal.path(0)
	abandon(r)
	data, err := os.ReadFile(file)
	ok(t, err)
	data[ends[0]+frameHead+20] ^= 4
	ok(t, os.WriteFile(file, data, 0o600))
	r = open(t, dir, s, newMemory())
	if len(r.Warnings()) != 1 {
		t.Fatal(r.Warnings())
	}
	ok(t, r.Close(t.Context()))
	got := receiptIDs(t, s)
	if got[rcs[0].ID] != 1 || got[rcs[2].ID] != 1 || len(got) != 2 {
		t.Fatal(got)
	}
	if _, err := os.Stat(file + corruptSuffix); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir, s, newMemory()) // the evidence disturbs no later start
	if len(r.Warnings()) != 0 {
		t.Fatal(r.Warnings())
	}
}

// The attacks: records change places, one is played again, one is left out, one
// comes from another segment, a segment is cut back at a record's end or removed
// between two others.
func TestJournalReorderedOrReplayedRecordsAreReported(t *testing.T) {
	t.Parallel()
	want := bodies(3)
	dir, file, data, ends := write(t, want)
	_, _, other, _ := write(t, want)
	f := func(i int) []byte { return data[ends[i]:ends[i+1]] }
	for attack, content := range map[string][]byte{
		"swapped":   bytes.Join([][]byte{data[:headerSize], f(1), f(0), f(2)}, nil),
		"replayed":  bytes.Join([][]byte{data, f(0)}, nil),
		"left out":  bytes.Join([][]byte{data[:headerSize], f(0), f(2)}, nil),
		"foreign":   bytes.Join([][]byte{data[:ends[1]], other[ends[1]:]}, nil),
		"other key": append(append([]byte{}, other[:headerSize]...), data[headerSize:]...),
	} {
		ok(t, os.WriteFile(file, content, 0o600))
		r, err := replay(dir, testKey())
		ok(t, err)
		if len(r.damage) == 0 {
			t.Errorf("%s: silence", attack)
		}
	}
}

func TestJournalSegmentCutOrRemovedBetweenOthersIsReported(t *testing.T) {
	t.Parallel()
	make3 := func() (string, *journal, []int64) {
		dir := t.TempDir()
		j := &journal{dir: dir, key: testKey(), create: createSegment}
		var last []int64
		for range 3 {
			for _, b := range bodies(3) {
				last = append(last, j.size)
				_, err := j.append(kindReceipt, b)
				ok(t, err)
			}
			j.end()
		}
		return dir, j, last
	}
	dir, _, _ := make3()
	if r, err := replay(dir, testKey()); err != nil || len(r.damage) != 0 || len(r.bodies) != 9 {
		t.Fatal(r, err)
	}
	dir, j, last := make3()
	ok(t, os.Truncate(j.path(1), last[5]))
	if r, err := replay(dir, testKey()); err != nil || len(r.damage) == 0 {
		t.Fatal("cut back: silence", err)
	}
	dir, j, _ = make3()
	ok(t, os.Truncate(j.path(1), 20))
	if r, err := replay(dir, testKey()); err != nil || len(r.damage) == 0 {
		t.Fatal("cut into its header: silence", err)
	}
	dir, j, _ = make3()
	ok(t, os.Remove(j.path(1)))
	if r, err := replay(dir, testKey()); err != nil || len(r.damage) == 0 {
		t.Fatal("removed: silence", err)
	}
	dir, j, _ = make3()
	ok(t, os.Rename(j.path(2), j.path(1)))
	if r, err := replay(dir, testKey()); err != nil || len(r.damage) == 0 {
		t.Fatal("renamed: silence", err)
	}
	if r, err := replay(filepath.Join(dir, "absent"), testKey()); err == nil {
		t.Fatal(r)
	}
}

func TestJournalUnderAnotherKeyIsReported(t *testing.T) {
	t.Parallel()
	dir, _, _, _ := write(t, bodies(2))
	r, err := replay(dir, bytes.Repeat([]byte{1}, KeySize))
	if err != nil || len(r.damage) == 0 || len(r.bodies) != 0 {
		t.Fatal(r, err)
	}
}

func FuzzJournalScan(f *testing.F) {
	_, _, data, _ := write(f, bodies(3))
	c, _, err := openCodec(testKey(), data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[headerSize:])
	f.Add([]byte{})
	f.Add(make([]byte, 40))
	f.Add(data[headerSize+3:])
	known := map[string]bool{}
	for _, b := range bodies(3) {
		known[string(b)] = true
	}
	f.Fuzz(func(t *testing.T, frames []byte) {
		_, _, _ = openCodec(testKey(), frames)
		in := append(bytes.Clone(data[:headerSize]), frames...)
		_, whole := c.scan(in, func(fr frame) {
			if fr.kind != kindReceipt || !known[string(fr.body)] {
				t.Fatalf("%q came out, which nobody sealed", fr.body)
			}
		}, func(at int, _ string) {
			if at < headerSize || at > len(in) {
				t.Fatal(at)
			}
		})
		if whole < headerSize || whole > len(in) {
			t.Fatal(whole)
		}
	})
}

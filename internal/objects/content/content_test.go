package content_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate-dev/casemate/internal/objects/content"
	"github.com/casemate-dev/casemate/internal/state"
)

const chunk = 64 << 10

var key = bytes.Repeat([]byte{7}, content.KeySize)

func write(t testing.TB, d *content.Dir, data []byte) string {
	t.Helper()
	w, err := d.Create(key)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for rest := data; len(rest) > 0; { // in steps that fit no chunk
		n := min(len(rest), 10_007)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return w.ID()
}

func read(d *content.Dir, id string, k []byte, size, offset, length int) ([]byte, error) {
	r, err := d.Read(id, k, int64(size), int64(offset), int64(length))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func open(t testing.TB) (*content.Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := content.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d, path
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestWhatWasWrittenIsReadInWholeAndInParts(t *testing.T) {
	t.Parallel()
	d, path := open(t)
	for _, size := range []int{0, 1, 15, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 17} {
		data := random(size)
		id := write(t, d, data)
		if raw, _ := os.ReadFile(filepath.Join(path, id[:2], id)); size >= 15 && bytes.Contains(raw, data[:15]) {
			t.Fatalf("size %d: the file holds the plain content", size)
		}
		for _, r := range [][2]int{{0, size}, {0, size / 2}, {size / 3, size / 2}, {size, 0}, {max(0, size-1), min(1, size)}, {min(size, chunk), max(0, size-chunk)}} {
			got, err := read(d, id, key, size, r[0], r[1])
			if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
				t.Fatalf("size %d, range %v: %d bytes, %v", size, r, len(got), err)
			}
		}
	}
}

// TestEveryChangeOfAFileIsNoticed changes the file of a content in every way that the
// construction promises to notice.
func TestEveryChangeOfAFileIsNoticed(t *testing.T) {
	t.Parallel()
	const sealed = chunk + 16
	data := random(3*chunk + 100)
	for name, change := range map[string]func(raw, other []byte) []byte{
		"bit of the first chunk": func(raw, _ []byte) []byte { raw[100] ^= 1; return raw },
		"bit of a tag":           func(raw, _ []byte) []byte { raw[sealed-1] ^= 0x80; return raw },
		"bit of the last chunk":  func(raw, _ []byte) []byte { raw[len(raw)-50] ^= 1; return raw },
		"cut by a byte":          func(raw, _ []byte) []byte { return raw[:len(raw)-1] },
		"cut at a chunk":         func(raw, _ []byte) []byte { return raw[:3*sealed] },
		"longer":                 func(raw, _ []byte) []byte { return append(raw, 0) },
		"chunks exchanged": func(raw, _ []byte) []byte {
			a := bytes.Clone(raw[:sealed])
			copy(raw, raw[sealed:2*sealed])
			copy(raw[sealed:], a)
			return raw
		},
		"chunk of another content": func(raw, other []byte) []byte { copy(raw[sealed:2*sealed], other[sealed:]); return raw },
		"another content":          func(_, other []byte) []byte { return other },
		"empty":                    func(_, _ []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, path := open(t)
			id, id2 := write(t, d, data), write(t, d, data)
			file := filepath.Join(path, id[:2], id)
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			other, err := os.ReadFile(filepath.Join(path, id2[:2], id2))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, change(raw, other), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := read(d, id, key, len(data), 0, len(data))
			if !errors.Is(err, state.ErrCorrupt) {
				t.Fatalf("got %v, want state.ErrCorrupt", err)
			}
			if !bytes.HasPrefix(data, got) {
				t.Fatal("wrong bytes were handed out before the error")
			}
		})
	}
}

func TestCutSizeOrOtherKeyDoesNotOpen(t *testing.T) {
	t.Parallel()
	d, path := open(t)
	data := random(2 * chunk)
	id := write(t, d, data)
	if _, err := read(d, id, random(content.KeySize), len(data), 0, len(data)); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("another key: %v", err)
	}
	// A file that was cut at a chunk, together with a size that was cut too: what is
	// last now was not when it was sealed.
	if err := os.Truncate(filepath.Join(path, id[:2], id), chunk+16); err != nil {
		t.Fatal(err)
	}
	if _, err := read(d, id, key, chunk, 0, chunk); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("cut file and size: %v", err)
	}
	empty := write(t, d, nil)
	if err := os.WriteFile(filepath.Join(path, empty[:2], empty), make([]byte, 16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(d, empty, key, 0, 0, 0); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("forged empty content: %v", err)
	}
}

func TestOnlyCommittedContentsAreThere(t *testing.T) {
	t.Parallel()
	d, path := open(t)
	w, err := d.Create(key)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("half"))
	if _, err := read(d, w.ID(), key, 4, 0, 4); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("uncommitted content: %v", err)
	}
	kept := write(t, d, []byte("whole"))
	// The process ends here; the next one opens the folder.
	if d, err = content.Open(path); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(path, "new")); len(left) != 0 {
		t.Errorf("%d files under way were left", len(left))
	}
	var ids []string
	d.Each(func(id string) error { ids = append(ids, id); return nil })
	if len(ids) != 1 || ids[0] != kept {
		t.Errorf("got %v, want %s", ids, kept)
	}
	if err := d.Remove("../../etc/passwd"); err == nil {
		t.Error("a malformed name was accepted")
	}
}

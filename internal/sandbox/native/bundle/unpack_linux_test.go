package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// directory opens a new directory, which can be removed although what lies in it
// is read-only.
func directory(t testing.TB) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		filepath.WalkDir(path, func(p string, e fs.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return d
}

// unpackAndCompare unpacks an archive that Check accepts; all that appears must lie
// inside and be of the kinds that we make.
func unpackAndCompare(t *testing.T, archive []byte, l Limits) {
	t.Helper()
	into := directory(t)
	want, err := Unpack(archive, into, l)
	if err != nil {
		// Names that this file system cannot hold.
		if errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EILSEQ) {
			return
		}
		t.Fatal(err)
	}
	var got Summary
	got.Packed = want.Packed
	err = filepath.WalkDir(into.Name(), func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch m := info.Mode(); {
		case m.IsDir() && m.Perm() == 0o555:
			if p != into.Name() {
				got.Directories++
			}
		case m.IsRegular() && (m.Perm() == 0o444 || m.Perm() == 0o555):
			got.Files++
			got.Unpacked += info.Size()
		case m.Type() == fs.ModeSymlink:
			got.Links++
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			got.Unpacked += int64(len(target))
			real, err := filepath.EvalSymlinks(p)
			if err == nil && real != into.Name() && !strings.HasPrefix(real, into.Name()+"/") {
				t.Errorf("%s leads to %s", p, real)
			}
		default:
			t.Errorf("%s has the mode %v", p, m)
		}
		return nil
	})
	if err != nil || got != want {
		t.Errorf("unpacked %+v, %v; want %+v", got, err, want)
	}
}

func TestUnpack(t *testing.T) {
	archive := pack(t,
		item{name: "z/bootstrap", mode: 0o700, content: "#!/bin/sh\n"},
		item{name: "z/one", mode: 0o666, content: "1"},
		item{name: "empty/", mode: fs.ModeDir | 0o777},
		item{name: "a/b/c", content: strings.Repeat("0123456789", 20_000)},
		item{name: "l", mode: fs.ModeSymlink | 0o777, content: "a/b/c"},
		item{name: "a/m", mode: fs.ModeSymlink | 0o777, content: "../l"},
	)
	unpackAndCompare(t, archive, Limits{})
	into := directory(t)
	if _, err := Unpack(archive, into, Limits{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"z/bootstrap": 0o555, "z/one": 0o444, "empty": 0o555 | fs.ModeDir} {
		if info, err := os.Lstat(filepath.Join(into.Name(), name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(into.Name(), "a/m")); err != nil || len(b) != 200_000 {
		t.Errorf("through two links: %d bytes, %v", len(b), err)
	}
}

// TestUnpackNeverFollowsLinks puts links where the archive's own names go, as an
// attacker would who shares the directory.
func TestUnpackNeverFollowsLinks(t *testing.T) {
	outside := t.TempDir()
	for what, c := range map[string]struct {
		link, target string
		item         item
	}{
		"file":      {"a", filepath.Join(outside, "file"), item{name: "a", content: "x"}},
		"directory": {"d", outside, item{name: "d/evil", content: "x"}},
		"link":      {"l", filepath.Join(outside, "other"), item{name: "l", mode: fs.ModeSymlink | 0o777, content: "x"}},
	} {
		t.Run(what, func(t *testing.T) {
			into := directory(t)
			if err := os.Symlink(c.target, filepath.Join(into.Name(), c.link)); err != nil {
				t.Fatal(err)
			}
			if _, err := Unpack(pack(t, c.item), into, Limits{}); !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v, want that it exists", err)
			}
		})
	}
	// A directory that becomes a link between being made and being entered.
	into := directory(t)
	w := writer{root: into, parent: -1}
	defer w.leave()
	if err := w.directory("d"); err != nil {
		t.Fatal(err)
	}
	os.Rename(filepath.Join(into.Name(), "d"), filepath.Join(into.Name(), "moved"))
	os.Symlink(outside, filepath.Join(into.Name(), "d"))
	if err := w.enter("d"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("entering a link: %v, want ENOTDIR", err)
	}
	if err := w.enter("d/."); !errors.Is(err, unix.ELOOP) {
		t.Errorf("entering through a link: %v, want ELOOP", err)
	}
	if err := w.enter("../" + filepath.Base(outside)); !errors.Is(err, unix.EXDEV) {
		t.Errorf("entering what lies outside: %v, want EXDEV", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside there is now %v, %v", entries, err)
	}
}

func TestUnpackRefusesBeforeItWrites(t *testing.T) {
	into := directory(t)
	_, err := Unpack(pack(t, item{name: "a", content: "x"}, item{name: "../b"}), into, Limits{})
	var refused *Error
	if !errors.As(err, &refused) || refused.Entry != "../b" {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(into.Name()); err != nil || len(entries) != 0 {
		t.Errorf("there is %v, %v", entries, err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(pack(f, item{name: "a", content: "hello"}, item{name: "d/l", mode: fs.ModeSymlink | 0o777, content: "../a"}))
	f.Add(pack(f, item{name: "a/b/c", content: "x", store: true}, item{name: "a/", mode: fs.ModeDir | 0o755}))
	f.Add(pack(f))
	f.Add([]byte("PK\x05\x06"))
	limits := Limits{Unpacked: 1 << 20, Packed: 1 << 20, Entries: 100}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Check(b, limits)
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) || refused.Reason == "" || refused.Detail == "" {
				t.Fatalf("a refusal that is not typed: %v", err)
			}
			return
		}
		if s.Unpacked > limits.Unpacked || s.Files+s.Links > limits.Entries {
			t.Fatalf("over the limits: %+v", s)
		}
		unpackAndCompare(t, b, limits)
	})
}

func BenchmarkUnpack(b *testing.B) {
	items := make([]item, 0, 1000)
	for i := range 1000 {
		items = append(items, item{name: "node_modules/" + string(rune('a'+i%26)) + "/f" + strings.Repeat("x", i/26), content: strings.Repeat("const x = 1;\n", 200)})
	}
	archive := pack(b, items...)
	for b.Loop() {
		into := directory(b)
		if _, err := Unpack(archive, into, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

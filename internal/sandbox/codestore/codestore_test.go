package codestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/codestore"
)

// bench is a store in a directory, with a clock that moves a second with each look.
type bench struct {
	*codestore.Store
	dir string
	log *bytes.Buffer
}

func open(t *testing.T, dir string, change ...func(*codestore.Config)) *bench {
	t.Helper()
	b := &bench{dir: dir, log: &bytes.Buffer{}}
	var mu sync.Mutex
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := codestore.Config{
		Dir: dir, Key: bytes.Repeat([]byte{7}, codestore.KeySize), Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		Clock: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(time.Second)
			return now
		},
	}
	for _, f := range change {
		f(&c)
	}
	s, err := codestore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	b.Store = s
	return b
}

func key(n int) function.Digest { return function.DigestOf([]byte{byte(n)}) }

func (b *bench) file(k function.Digest) string { return filepath.Join(b.dir, k.Hex()) }

func (b *bench) put(t *testing.T, k function.Digest, code string) {
	t.Helper()
	if err := b.Put(k, []byte(code)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) want(t *testing.T, k function.Digest, code string) {
	t.Helper()
	if got, ok := b.Get(k); !ok || string(got) != code {
		t.Errorf("got %.40q, %v, want %.40q", got, ok, code)
	}
}

func (b *bench) gone(t *testing.T, k function.Digest) {
	t.Helper()
	if got, ok := b.Get(k); ok {
		t.Errorf("got %.40q, want nothing", got)
	}
	if _, err := os.Lstat(b.file(k)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestCodeComesBackAfterARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "code")
	b := open(t, dir)
	b.gone(t, key(1))
	b.put(t, key(1), "one")
	b.put(t, key(2), strings.Repeat("two", 1<<20))
	b.put(t, key(1), "one, again")
	b = open(t, dir)
	b.want(t, key(1), "one, again")
	b.want(t, key(2), strings.Repeat("two", 1<<20))
	b.Delete(key(1))
	b.Delete(key(1))
	b.gone(t, key(1))
	if w := b.Warnings(); len(w) > 0 || b.log.Len() > 0 {
		t.Errorf("complaints about nothing: %q, %s", w, b.log)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, b.file(key(2)): 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
}

func TestChangedCodeIsNeverGiven(t *testing.T) {
	t.Parallel()
	change := func(at int) func(*testing.T, *bench) {
		return func(t *testing.T, b *bench) {
			c := read(t, b.file(key(1)))
			if at < 0 {
				at += len(c)
			}
			c[at] ^= 1
			write(t, b.file(key(1)), c)
		}
	}
	for name, attack := range map[string]func(*testing.T, *bench){
		"two pieces swapped":  rearranged(1, 0, 2),
		"the end left out":    rearranged(0, 1),
		"the middle left out": rearranged(0, 2),
		"a piece twice":       rearranged(0, 1, 1, 2),
		"the end twice":       rearranged(0, 1, 2, 2),
		"a byte of the form":  change(3),
		"a byte of the seal":  change(20),
		"a byte of the code":  change(-5),
		"the last byte":       change(-1),
		"cut by a byte":       func(t *testing.T, b *bench) { c := read(t, b.file(key(1))); write(t, b.file(key(1)), c[:len(c)-1]) },
		"cut to the seal":     func(t *testing.T, b *bench) { write(t, b.file(key(1)), read(t, b.file(key(1)))[:40]) },
		"empty":               func(t *testing.T, b *bench) { write(t, b.file(key(1)), nil) },
		"longer":              func(t *testing.T, b *bench) { write(t, b.file(key(1)), append(read(t, b.file(key(1))), 0)) },
		"without a seal":      func(t *testing.T, b *bench) { write(t, b.file(key(1)), []byte("the code of module one")) },
		"of another module":   func(t *testing.T, b *bench) { write(t, b.file(key(1)), read(t, b.file(key(2)))) },
		"of another node":     foreign,
		"a link to itself":    link(func(b *bench, copied string) string { return copied }),
		"a link to another":   link(func(b *bench, _ string) string { return b.file(key(2)) }),
		"a link to nowhere":   link(func(*bench, string) string { return "nowhere" }),
		"a link to a device":  link(func(*bench, string) string { return "/dev/zero" }),
		"a pipe":              replace(func(path string) error { return syscall.Mkfifo(path, 0o600) }),
		"a directory":         replace(func(path string) error { return os.Mkdir(path, 0o700) }),
		"a directory of more": replace(func(path string) error { return os.MkdirAll(filepath.Join(path, "below"), 0o700) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, filepath.Join(t.TempDir(), "code"))
			b.put(t, key(1), "the code of module one")
			b.put(t, key(2), "the code of module two")
			attack(t, b)
			b.gone(t, key(1))
			if w := b.Warnings(); len(w) != 1 || !strings.Contains(b.log.String(), "level=ERROR") || !strings.Contains(b.log.String(), key(1).Hex()) {
				t.Errorf("nobody was told: %q, %s", w, b.log)
			}
			b.want(t, key(2), "the code of module two")
			b.put(t, key(1), "made anew")
			b.want(t, key(1), "made anew")
		})
	}
}

func TestSwappedFilesAreRefused(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "code"))
	b.put(t, key(1), "code of the same length: 1")
	b.put(t, key(2), "code of the same length: 2")
	one, two := read(t, b.file(key(1))), read(t, b.file(key(2)))
	write(t, b.file(key(1)), two)
	write(t, b.file(key(2)), one)
	b.gone(t, key(1))
	b.gone(t, key(2))
}

// foreign seals with the key of another node.
func foreign(t *testing.T, b *bench) {
	other := open(t, filepath.Join(t.TempDir(), "code"), func(c *codestore.Config) { c.Key = bytes.Repeat([]byte{8}, codestore.KeySize) })
	other.put(t, key(1), "the code of module one")
	write(t, b.file(key(1)), read(t, other.file(key(1))))
}

func link(to func(b *bench, copied string) string) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.Rename(b.file(key(1)), copied); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to(b, copied), b.file(key(1))); err != nil {
			t.Fatal(err)
		}
	}
}

func replace(by func(path string) error) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		if err := errors.Join(os.Remove(b.file(key(1))), by(b.file(key(1)))); err != nil {
			t.Fatal(err)
		}
	}
}

// rearranged puts the sealed pieces of a file in another order, leaves some out, or takes
// them twice. Each holds by itself.
func rearranged(order ...int) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		const header, piece = 48, 128<<10 + 16
		content := bytes.Repeat([]byte("x"), 3*(128<<10))
		b.put(t, key(1), string(content))
		sealed := read(t, b.file(key(1)))
		if len(sealed) != header+3*piece {
			t.Fatalf("the file has %d bytes; this test knows another form", len(sealed))
		}
		changed := bytes.Clone(sealed[:header])
		for _, n := range order {
			changed = append(changed, sealed[header+n*piece:][:piece]...)
		}
		write(t, b.file(key(1)), changed)
	}
}

// TestFetchHandsOnWhatWasChecked looks at each piece as it comes.
func TestFetchHandsOnWhatWasChecked(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "code"))
	content := make([]byte, 5*(128<<10)+77)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	b.put(t, key(1), string(content))
	for _, size := range []int{0, 1, 128 << 10, 128<<10 + 1} {
		b.put(t, key(2), string(content[:size]))
		b.want(t, key(2), string(content[:size]))
	}
	into := &taker{got: make([]byte, len(content))}
	fetch := func() (bool, error) {
		return b.Fetch(key(1), func(size int64) (io.WriterAt, error) {
			if int(size) != len(content) {
				t.Errorf("room for %d bytes is asked for", size)
			}
			return into, into.refuses
		})
	}
	if found, err := fetch(); !found || err != nil || !bytes.Equal(into.got, content) {
		t.Errorf("found %v, %v", found, err)
	}
	// Who has no room learns that, and the file is none the worse.
	into.refuses = errors.New("no room")
	if _, err := fetch(); !errors.Is(err, into.refuses) {
		t.Errorf("no room: %v", err)
	}
	into.refuses, into.fails = nil, errors.New("full")
	if _, err := fetch(); !errors.Is(err, into.fails) {
		t.Errorf("nowhere to write: %v", err)
	}
	b.want(t, key(1), string(content))
	// A changed piece is not handed on, whatever was before it.
	sealed := read(t, b.file(key(1)))
	sealed[len(sealed)-20] ^= 1
	write(t, b.file(key(1)), sealed)
	into.fails, into.got = nil, make([]byte, len(content))
	if found, err := fetch(); found || err != nil {
		t.Errorf("changed: found %v, %v", found, err)
	}
	if last := into.got[5*(128<<10):]; !bytes.Equal(last, make([]byte, 77)) {
		t.Errorf("a piece was handed on whose seal does not hold: %q", last)
	}
	b.gone(t, key(1))
}

// taker takes code, or does not.
type taker struct {
	mu             sync.Mutex
	got            []byte
	refuses, fails error
}

// WriteAt implements io.WriterAt.
func (k *taker) WriteAt(p []byte, at int64) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails != nil {
		return 0, k.fails
	}
	return copy(k.got[at:], p), nil
}

func TestRemovingALinkLeavesWhatItPointsTo(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "code"))
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	write(t, elsewhere, []byte("precious"))
	if err := os.Symlink(elsewhere, b.file(key(1))); err != nil {
		t.Fatal(err)
	}
	b.gone(t, key(1))
	b.put(t, key(1), "code")
	if got := read(t, elsewhere); string(got) != "precious" {
		t.Errorf("the store wrote through a link: %q", got)
	}
}

func TestLeastUsedMakeWay(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "code")
	code := strings.Repeat("x", 1000)
	small := func(c *codestore.Config) { c.MaxBytes = 3500 } // three files
	b := open(t, dir, small)
	for n := range 3 {
		b.put(t, key(n), code)
	}
	b.want(t, key(0), code)
	b.put(t, key(3), code)
	b.gone(t, key(1))
	for _, n := range []int{0, 2, 3} {
		b.want(t, key(n), code)
	}
	// What is put again does not count twice.
	for range 5 {
		b.put(t, key(3), code)
	}
	b.want(t, key(0), code)
	b.want(t, key(2), code)
	if err := b.Put(key(4), bytes.Repeat([]byte("x"), 4000)); err == nil {
		t.Error("a file larger than the store was taken")
	}
	// The order outlives a restart, and so does the bound.
	b.want(t, key(2), code)
	b = open(t, dir, func(c *codestore.Config) { c.MaxBytes = 1500 })
	b.gone(t, key(0))
	b.gone(t, key(3))
	b.want(t, key(2), code)
}

func TestLeftoversOfACrashAreClearedAway(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "code")
	b := open(t, dir)
	b.put(t, key(1), "one")
	leftover := filepath.Join(dir, "."+key(2).Hex()+".new")
	write(t, leftover, []byte("half of a fi"))
	write(t, filepath.Join(dir, "README"), []byte("not ours"))
	b = open(t, dir)
	if _, err := os.Lstat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "README")); err != nil {
		t.Errorf("what is not the store's was removed: %v", err)
	}
	b.want(t, key(1), "one")
}

func TestKeysNameNoOtherFiles(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "code"))
	for _, k := range []function.Digest{
		"", "sha256:", "sha256:../../../../etc/passwd", "md5:" + function.Digest(key(1).Hex()),
		"sha256:" + function.Digest(strings.ToUpper(key(1).Hex())), key(1) + "0", "sha256:." + function.Digest(key(1).Hex()[1:]),
	} {
		if err := b.Put(k, []byte("x")); err == nil {
			t.Errorf("%q was taken for a key", k)
		}
		if _, ok := b.Get(k); ok {
			t.Errorf("%q gave something", k)
		}
		b.Delete(k)
	}
}

func TestBadConfigurationNamesFieldAndRemedy(t *testing.T) {
	t.Parallel()
	for field, spoil := range map[string]func(*codestore.Config){
		"Dir": func(c *codestore.Config) { c.Dir = "" }, "Key": func(c *codestore.Config) { c.Key = c.Key[1:] },
		"MaxBytes": func(c *codestore.Config) { c.MaxBytes = -1 }, "Clock": func(c *codestore.Config) { c.Clock = nil },
		"Logger": func(c *codestore.Config) { c.Logger = nil },
	} {
		c := codestore.Config{Dir: t.TempDir(), Key: make([]byte, codestore.KeySize), Clock: time.Now, Logger: slog.New(slog.DiscardHandler)}
		spoil(&c)
		if _, err := codestore.Open(c); err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "give") {
			t.Errorf("%s: %v", field, err)
		}
	}
	reachable := t.TempDir()
	if err := os.Chmod(reachable, 0o755); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), linked); err != nil {
		t.Fatal(err)
	}
	for dir, says := range map[string]string{reachable: "chmod 700", linked: "not a directory"} {
		c := codestore.Config{Dir: dir, Key: make([]byte, codestore.KeySize), Clock: time.Now, Logger: slog.New(slog.DiscardHandler)}
		if _, err := codestore.Open(c); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestHammer has many goroutines put, get, delete and spoil the same few files. What a
// Get gives is always what some Put was given under that key.
func TestHammer(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "code"), func(c *codestore.Config) { c.MaxBytes = 1 << 20; c.Logger = slog.New(slog.DiscardHandler) })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				n := (g + i) % 4
				code := strings.Repeat(fmt.Sprint(n), 1000+i)
				switch i % 5 {
				case 0, 1:
					b.put(t, key(n), code)
				case 2:
					b.Delete(key(n))
				case 3:
					_ = os.WriteFile(b.file(key(n)), []byte(code), 0o600)
				}
				got, ok := b.Get(key(n))
				if ok && strings.Trim(string(got), fmt.Sprint(n)) != "" {
					t.Errorf("key %d gave %.40q", n, got)
				}
			}
		})
	}
	wg.Wait()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/internal/state"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CASEMATE_BUS_TEST_PUT"); dir != "" {
		putUntilKilled(dir)
		return
	}
	if dir := os.Getenv("CASEMATE_BUS_TEST_PUBLISH"); dir != "" {
		publishUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func testKey() []byte { return bytes.Repeat([]byte{7}, KeySize) }

func start(t testing.TB, dir string, change ...func(*Config)) *Bus {
	t.Helper()
	cfg := Config{Dir: dir, Key: testKey(), Name: "test", Clock: time.Now}
	for _, f := range change {
		f(&cfg)
	}
	b, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, b) })
	return b
}

func stop(t testing.TB, b *Bus) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func openKV(t testing.TB, b *Bus, bucket string) *KV {
	t.Helper()
	kv, err := b.KV(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func openLog(t testing.TB, b *Bus) *Log {
	t.Helper()
	l, err := b.Log(t.Context(), LogConfig{Name: "receipts", SubjectPrefix: "receipt", MaxAge: time.Hour, MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func openBlobs(t testing.TB, b *Bus) *Blobs {
	t.Helper()
	o, err := b.Blobs(t.Context(), "artifacts")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestBadConfigurationNamesTheFieldAndTheRemedy(t *testing.T) {
	t.Parallel()
	good := Config{Dir: t.TempDir(), Key: testKey(), Name: "n", Clock: time.Now}
	for field, spoil := range map[string]func(*Config){
		"Dir":     func(c *Config) { c.Dir = "" },
		"Key":     func(c *Config) { c.Key = c.Key[:31] },
		"Name":    func(c *Config) { c.Name = "" },
		"Clock":   func(c *Config) { c.Clock = nil },
		"MinFree": func(c *Config) { c.MinFree = -1 },
	} {
		cfg := good
		spoil(&cfg)
		b, err := Start(t.Context(), cfg)
		if err == nil {
			stop(t, b)
			t.Errorf("%s: no error", field)
		} else if !strings.Contains(err.Error(), "Config."+field) || strings.Count(err.Error(), ": ") < 2 {
			t.Errorf("%s: %v", field, err)
		}
	}
	b := start(t, t.TempDir())
	for _, cfg := range []LogConfig{
		{Name: "UPPER", SubjectPrefix: "a", MaxAge: time.Hour, MaxBytes: 1},
		{Name: "a", SubjectPrefix: "a.b", MaxAge: time.Hour, MaxBytes: 1},
		{Name: "a", SubjectPrefix: "blob", MaxAge: time.Hour, MaxBytes: 1},
		{Name: "a", SubjectPrefix: "a", MaxBytes: 1},
		{Name: "a", SubjectPrefix: "a", MaxAge: time.Hour},
	} {
		if _, err := b.Log(t.Context(), cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

// sockets lists the sockets among this process's descriptors.
func sockets(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	var out []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			out = append(out, target)
		}
	}
	return out
}

// Not parallel: it looks at the whole process.
func TestBusOpensNoSocket(t *testing.T) {
	before := sockets(t)
	b := start(t, t.TempDir())
	ok(t, openLog(t, b).Append(t.Context(), "default", "hello", "1", []byte("x")))
	if after := sockets(t); len(after) != len(before) {
		t.Fatalf("sockets before: %v, with the bus: %v", before, after)
	}
	if b.srv.Addr() != nil || b.srv.MonitorAddr() != nil {
		t.Fatal("the server listens")
	}
}

func TestNothingIsWrittenInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	const secret = "planted-plaintext-marker"
	_, err := openKV(t, b, "registry").Create(t.Context(), "function.default."+secret, []byte(secret))
	ok(t, err)
	ok(t, openBlobs(t, b).Put(t.Context(), secret, strings.NewReader(strings.Repeat(secret, 50_000))))
	l := openLog(t, b)
	for i := range 100 { // past a message block, so that compaction runs too
		ok(t, l.Append(t.Context(), secret, secret, fmt.Sprint(i), []byte(strings.Repeat(secret, 5000))))
	}
	grep := func() {
		files := 0
		ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			files++
			if bytes.Contains(content, []byte(secret)) || bytes.Contains(content, []byte(secret[:16])) || strings.Contains(path, secret) {
				t.Errorf("%s holds plaintext", path)
			}
			return err
		}))
		if files < 6 {
			t.Errorf("looked at %d files only", files)
		}
	}
	grep()
	stop(t, b)
	grep()
	b = start(t, dir)
	if e, err := openKV(t, b, "registry").Get(t.Context(), "function.default."+secret); err != nil || string(e.Value) != secret {
		t.Fatalf("%q, %v", e.Value, err)
	}
}

// The server boots with a wrong key. The vault's canary is what refuses it; here
// we make sure that no value comes out.
func TestWrongKeyYieldsNoValue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	_, err := openKV(t, b, "registry").Create(t.Context(), "a", []byte("value"))
	ok(t, err)
	stop(t, b)
	other, err := Start(t.Context(), Config{Dir: dir, Key: bytes.Repeat([]byte{8}, KeySize), Name: "test", Clock: time.Now})
	if err != nil {
		return
	}
	defer stop(t, other)
	kv, err := other.KV(t.Context(), "registry")
	if err != nil {
		return
	}
	if e, err := kv.Get(t.Context(), "a"); err == nil {
		t.Fatalf("read %q under another key", e.Value)
	}
}

func TestFullDiskIsATypedErrorAndReadsGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	kv := openKV(t, b, "registry")
	rev, err := kv.Create(t.Context(), "a", []byte("value"))
	ok(t, err)
	openLog(t, b)
	stop(t, b)

	b = start(t, dir, func(c *Config) { c.MinFree = 1 << 60 })
	kv = openKV(t, b, "registry")
	if e, err := kv.Get(t.Context(), "a"); err != nil || string(e.Value) != "value" {
		t.Fatalf("%q, %v", e.Value, err)
	}
	_, err = kv.Update(t.Context(), "a", []byte("b"), rev)
	wantErr(t, err, ErrFull)
	_, err = kv.Create(t.Context(), "b", nil)
	wantErr(t, err, ErrFull)
	wantErr(t, openBlobs(t, b).Put(t.Context(), "a", strings.NewReader("x")), ErrFull)
	wantErr(t, openLog(t, b).Append(t.Context(), "default", "hello", "1", nil), ErrFull)
	wantErr(t, b.Check(t.Context()), state.ErrFull)
}

// A log's bound is no reservation: a small disk does not keep the node from
// starting.
func TestLogMayBeBoundedBeyondTheDisk(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	l, err := b.Log(t.Context(), LogConfig{Name: "large", SubjectPrefix: "large", MaxAge: time.Hour, MaxBytes: 1 << 50})
	ok(t, err)
	ok(t, l.Append(t.Context(), "a", "x", "1", []byte("x")))
}

func TestCheckAndVersion(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	ok(t, b.Check(t.Context()))
	if v := b.Version(); !strings.HasPrefix(v, "nats-server 2.") {
		t.Fatal(v)
	}
	stop(t, b)
	stop(t, b) // twice is harmless
	if b.Check(t.Context()) == nil {
		t.Fatal("a stopped bus is healthy")
	}
}

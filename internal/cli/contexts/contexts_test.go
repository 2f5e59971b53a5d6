package contexts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const secret = "cm_0123456789abcdef_c2VjcmV0c2VjcmV0"

func TestWrittenPrivately(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "casemate", "config.json")
	err := Update(path, func(f *File) error {
		return f.Put(Context{Name: "local", ControlURL: "https://127.0.0.1:8444", Key: secret})
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s: %04o, want %04o", p, got, want)
		}
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Get("")
	if err != nil || c.Key != secret {
		t.Fatalf("got %v, %v: the first context is not the current one", c, err)
	}
}

func TestRefusesFileOthersCanRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := Update(path, func(*File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		var pe *PermissionError
		if !errors.As(err, &pe) {
			t.Fatalf("mode %04o: got %v, want a PermissionError", mode, err)
		}
		if pe.Fix != "chmod 600 "+path {
			t.Errorf("mode %04o: remedy %q", mode, pe.Fix)
		}
	}
	if err := Update(path, func(*File) error { return nil }); err == nil {
		t.Error("Update accepted a file that others can write")
	}
}

func TestRefusesFolderOthersCanWrite(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "open")
	path := filepath.Join(dir, "config.json")
	if err := Update(path, func(*File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var pe *PermissionError
	if !errors.As(err, &pe) || pe.Path != dir {
		t.Fatalf("got %v, want a PermissionError about the folder", err)
	}
}

// A reader that looks while the file is being replaced, many times over, never
// sees a part of it, and no temporary file stays behind.
func TestReplacedAtomically(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	put := func(i int) error {
		return Update(path, func(f *File) error {
			return f.Put(Context{Name: "local", CA: strings.Repeat("x", 1+i%7*10_000)})
		})
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 {
			if err := put(i); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		f, err := Load(path)
		if err != nil || len(f.Contexts) != 1 {
			t.Fatalf("read a part: %v", err)
		}
		select {
		case <-done:
			left, err := filepath.Glob(filepath.Join(dir, ".config-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
			return
		default:
		}
	}
}

// Without the lock, two of these would read the same file and one context would
// be lost.
func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			err := Update(path, func(f *File) error { return f.Put(Context{Name: fmt.Sprintf("c%d", i)}) })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Contexts) != 24 {
		t.Errorf("%d contexts of 24 survived", len(f.Contexts))
	}
}

func TestAChangeThatFailsWritesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := Update(path, func(f *File) error { return f.Put(Context{Name: "a"}) }); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	err = Update(path, func(f *File) error { f.Contexts = nil; return errors.New("no") })
	if err == nil {
		t.Fatal("the error was lost")
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v", err)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	c := Context{Name: "local", ControlURL: "https://h:1", Key: secret}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprint([]Context{c})} {
		if strings.Contains(s, secret) {
			t.Errorf("printed: %s", s)
		}
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"contexts":[{"key":"`+secret+`"}], `+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error for a broken file: %v", err)
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"CASEMATE_CONFIG": "/x/c.json", "HOME": "/h"}, "/x/c.json"},
		{map[string]string{"XDG_CONFIG_HOME": "/xdg", "HOME": "/h"}, "/xdg/casemate/config.json"},
		{map[string]string{"XDG_CONFIG_HOME": "rel", "HOME": "/h"}, "/h/.config/casemate/config.json"},
		{map[string]string{"HOME": "/h"}, "/h/.config/casemate/config.json"},
	} {
		got, err := Path(func(k string) string { return tc.env[k] })
		if err != nil || got != tc.want {
			t.Errorf("%v: got %s, %v", tc.env, got, err)
		}
	}
	if _, err := Path(func(string) string { return "" }); err == nil {
		t.Error("no error without any variable")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	f := new(File)
	for _, bad := range []string{"", "A", "a b", "../x", "-a", "a/", strings.Repeat("a", 70)} {
		if f.Put(Context{Name: bad}) == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	if err := f.Put(Context{Name: "prod.eu-1"}); err != nil {
		t.Error(err)
	}
	if err := f.Use("other"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if err := f.Remove("prod.eu-1"); err != nil || f.Current != "" {
		t.Errorf("got %v, current %q", err, f.Current)
	}
}

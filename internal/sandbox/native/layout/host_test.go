package layout

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatIsMissingIsSaid(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"node", "python3"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says := func(s string, err error) Run {
		return func(context.Context, string, ...string) ([]byte, error) { return []byte(s), err }
	}
	for what, c := range map[string]struct {
		path         string
		run          Run
		node, python string
	}{
		"not there":        {t.TempDir(), nil, "is not on the PATH", "is not on the PATH"},
		"relative":         {".::", nil, "is not on the PATH", "is not on the PATH"},
		"broken":           {dir, says("", errors.New("exit status 127")), "does not run", "does not run"},
		"talks":            {dir, says("Welcome!\n", nil), "gives no account", "gives no account"},
		"old":              {dir, says(`{"version":"3.8.1","short":"3.8"}`, nil), "is too old", "is too old"},
		"python 2":         {dir, says(`{"version":"2.7.18","short":"2.7"}`, nil), "is too old", "is too old"},
		"elsewhere":        {dir, says(`{"version":"30.1.0","short":"3.11","program":"/nonexistent/x"}`, nil), "where it is not", "where it is not"},
		"relative program": {dir, says(`{"version":"30.1.0","short":"3.11","program":"node"}`, nil), "where it is not", "where it is not"},
		"no library":       {dir, says(`{"version":"30.1.0","short":"3.11","program":"/bin/sh","stdlib":"/nonexistent"}`, nil), "", "no standard library"},
	} {
		t.Run(what, func(t *testing.T) {
			h := Discover(t.Context(), Options{Path: c.path, Run: c.run})
			for p, want := range map[Program]string{Node: c.node, Python: c.python} {
				_, err := h.Version(p)
				var missing *MissingError
				if want == "" {
					if err != nil {
						t.Errorf("%s: %v", p, err)
					}
					continue
				}
				if !errors.As(err, &missing) || !strings.Contains(missing.Reason, want) || !strings.Contains(missing.Remedy, "install") {
					t.Errorf("%s: %v, want %q", p, err, want)
				}
				if _, err := h.Layout(p); !errors.As(err, &missing) {
					t.Errorf("layout of %s: %v", p, err)
				}
			}
		})
	}
	if _, err := (&Host{finder: &finder{}}).Layout("ruby"); err == nil {
		t.Error("there is a layout for ruby")
	}
}

// TestHostWithoutLinker: static programs need nothing.
func TestHostWithoutLinker(t *testing.T) {
	l, err := (&Host{finder: newFinder(nil, filepath.Join(t.TempDir(), "sh"))}).Layout(NoProgram)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range l.Binds {
		if strings.HasPrefix(b.To, "/usr/lib") {
			t.Errorf("%s is inside", b.From)
		}
	}
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct{ path, prefix, want string }{
		{"/root/.pyenv/versions/3.11.7/lib/python3.11", "/root/.pyenv/versions/3.11.7", "/usr/lib/python3.11"},
		{"/usr/lib64/python3.12", "/usr", "/usr/lib64/python3.12"},
		{"/lib/python3", "/usr", "/usr/lib/python3"},
		{"/opt/x", "/usr", "/opt/x"},
		{"/usrx", "/usr", "/usrx"},
	} {
		if got := moved(c.path, c.prefix); got != c.want {
			t.Errorf("moved(%s, %s) = %s, want %s", c.path, c.prefix, got, c.want)
		}
	}
	f := &finder{loader: "/lib/ld-musl-x86_64.so.1", libDir: "/usr/lib"}
	if got := f.place("ld-musl-x86_64.so.1"); got != "/usr/lib/ld-musl-x86_64.so.1" {
		t.Error(got)
	}
	if got := f.place("../../etc/evil"); got != "/usr/lib/evil" {
		t.Error(got)
	}
}

// cacheOf writes what ldconfig does.
func cacheOf(entries ...[2]string) []byte {
	b := make([]byte, cacheHeader+len(entries)*cacheEntry)
	copy(b, cacheMagic)
	binary.LittleEndian.PutUint32(b[len(cacheMagic):], uint32(len(entries)))
	for i, e := range entries {
		at := cacheHeader + i*cacheEntry
		binary.LittleEndian.PutUint32(b[at+4:], uint32(len(b)))
		b = append(append(b, e[0]...), 0)
		binary.LittleEndian.PutUint32(b[at+8:], uint32(len(b)))
		b = append(append(b, e[1]...), 0)
	}
	return b
}

func TestCacheOfTheLinker(t *testing.T) {
	b := cacheOf([2]string{"liba.so.1", "/a/liba.so.1"}, [2]string{"liba.so.1", "/b/liba.so.1"}, [2]string{"libb.so", "relative"}, [2]string{"libc.so", "/hw/libc.so"})
	binary.LittleEndian.PutUint64(b[cacheHeader+3*cacheEntry+16:], 1<<62) // for special processors
	for _, in := range [][]byte{b, append([]byte("ld.so-1.7.0 and an older form"), b...)} {
		got := readCache(in)
		if len(got) != 1 || !slices.Equal(got["liba.so.1"], []string{"/a/liba.so.1", "/b/liba.so.1"}) {
			t.Errorf("got %v", got)
		}
	}
	if real, err := os.ReadFile("/etc/ld.so.cache"); err == nil && len(readCache(real)["libc.so.6"]) == 0 {
		t.Error("the host's cache has no C library")
	}
}

func FuzzReadCache(f *testing.F) {
	f.Add(cacheOf([2]string{"liba.so.1", "/a/liba.so.1"}))
	f.Add([]byte(cacheMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, paths := range readCache(b) {
			if name == "" || len(paths) == 0 {
				t.Fatal("an entry without a name or a path")
			}
		}
	})
}

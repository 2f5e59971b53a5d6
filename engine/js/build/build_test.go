package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEditIsExact(t *testing.T) {
	if _, err := edit("quickjs.c", []byte("int unlike(void);\n")); err == nil || !strings.Contains(err.Error(), "occurs 0 times") {
		t.Errorf("editing a file that has changed: %v", err)
	}
	const other = "--JS_REF_COUNT(p)"
	if out, err := edit("dtoa.c", []byte(other)); err != nil || string(out) != other {
		t.Errorf("a file without edits became %q, %v", out, err)
	}
}

func TestArchive(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Write([]byte("archive"))
	}))
	defer server.Close()
	s := &source{Name: "x", Version: "1", URL: server.URL, SHA256: digest([]byte("archive"))}
	for range 2 {
		if data, err := s.archive(t.Context()); err != nil || string(data) != "archive" {
			t.Fatalf("archive: %q, %v", data, err)
		}
	}
	if asked != 1 {
		t.Errorf("the registry was asked %d times", asked)
	}
	s.SHA256 = digest([]byte("another"))
	if _, err := s.archive(t.Context()); err == nil || !strings.Contains(err.Error(), "as locked") {
		t.Errorf("a changed archive: %v", err)
	}
}

func TestUnpack(t *testing.T) {
	var archive bytes.Buffer
	zip := gzip.NewWriter(&archive)
	w := tar.NewWriter(zip)
	for _, name := range []string{"f/a.c", "f/../../b.c", "f/c.c", "g/d.c"} {
		w.WriteHeader(&tar.Header{Name: name, Size: 1, Mode: 0o777, Typeflag: tar.TypeReg})
		w.Write([]byte("x"))
	}
	w.Close()
	zip.Close()
	dir := t.TempDir()
	s := &source{Name: "x", Folder: "f/", Files: []string{"a.c"}}
	if err := s.unpack(archive.Bytes(), dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "a.c" {
		t.Errorf("unpacked %v, %v", entries, err)
	}
	s.Files = []string{"a.c", "d.c"}
	if err := s.unpack(archive.Bytes(), dir); err == nil || !strings.Contains(err.Error(), "lacks d.c") {
		t.Errorf("unpacking what is not there: %v", err)
	}
}

func TestFresh(t *testing.T) {
	dir := t.TempDir()
	mark, out := filepath.Join(dir, "stamp"), filepath.Join(dir, "out")
	write := func(path, text string) {
		t.Helper()
		if err := replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(out, "code")
	if fresh(mark, out, "in") {
		t.Error("fresh without a stamp")
	}
	write(mark, `{"inputs":"in","output":"`+digest([]byte("code"))+`"}`)
	if !fresh(mark, out, "in") {
		t.Error("not fresh although nothing changed")
	}
	if fresh(mark, out, "other") {
		t.Error("fresh with other inputs")
	}
	write(out, "changed")
	if fresh(mark, out, "in") {
		t.Error("fresh with a changed output")
	}
}

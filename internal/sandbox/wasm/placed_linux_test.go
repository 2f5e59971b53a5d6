package wasm

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// executable says how many mappings of a file this process may execute, and whether it
// may write to any.
func executable(t *testing.T, file string) (count int, writable bool) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, "/memfd:"+file+" ") {
			continue
		}
		mode := strings.Fields(line)[1]
		if strings.Contains(mode, "x") {
			count++
		}
		writable = writable || strings.Contains(mode, "w")
	}
	return count, writable
}

// TestPlacedCode has code in a file, as the node puts it there: at the beginning of a page
// it is executed from there, and elsewhere it is copied.
func TestPlacedCode(t *testing.T) {
	t.Parallel()
	source := st.Log(slices.Repeat([]string{"a line\n"}, 100)...) // more machine code than a page holds
	good := compiled(t, source)
	page := int64(os.Getpagesize())
	for name, padding := range map[string]int64{"mapped": 0, "copied": 7} {
		file := "test-" + name
		fd, err := unix.MemfdCreate(file, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), file)
		defer func() { _ = f.Close() }()
		b := good
		if padding > 0 {
			// The same code with its parts moved, as if it came from a machine of other pages.
			b = moved(t, good, padding)
		}
		if _, err := f.WriteAt(b, 3*page); err != nil {
			t.Fatal(err)
		}
		e := newEngine(t, "")
		e.srv.placedCode = f
		spec := wire.LoadSpec{Name: "guest", Digest: function.DigestOf(source), Entry: function.EntryCommand, Limits: generous, At: 3 * page, Placed: int64(len(b))}
		v, failure := e.srv.load(spec, nil)
		if failure != nil {
			t.Fatalf("%s: %v", name, failure)
		}
		if out, failure := e.call(v, ""); failure != nil || !strings.HasPrefix(out, `{"status":200`) {
			t.Errorf("%s: got %q, %v", name, out, failure)
		}
		count, writable := executable(t, file)
		if want := name == "mapped"; (count == 1) != want || writable {
			t.Errorf("%s: %d mappings to execute, writable %v", name, count, writable)
		}
		v.unload()
		// Code of something else is refused here as well.
		spec.Digest = function.DigestOf([]byte("another"))
		if _, failure := e.srv.load(spec, nil); failure == nil || failure.kind != sandbox.Tampered {
			t.Errorf("%s: code of another module gave %v", name, failure)
		}
		e.srv.placedCode = nil
		if _, failure := e.srv.load(spec, nil); failure == nil || failure.kind != sandbox.Unavailable {
			t.Errorf("%s: without a file: %v", name, failure)
		}
	}
}

// moved gives an encoded form with more padding.
func moved(t *testing.T, good []byte, more int64) []byte {
	t.Helper()
	c, err := decodeCode(bytes.Clone(good))
	if err != nil {
		t.Fatal(err)
	}
	at := len(good) - c.Native - c.Data
	b := append(bytes.Clone(good[:at]), make([]byte, more)...)
	b = append(b, good[at:]...)
	b[len(codeMagic)+4] += byte(more) // the length of the padding, below 256 - more or not: then it wraps
	if _, err := decodeCode(b); err != nil {
		// It wrapped.
		b[len(codeMagic)+5]++
		if _, err := decodeCode(b); err != nil {
			t.Fatal(fmt.Errorf("moving the parts: %w", err))
		}
	}
	return b
}

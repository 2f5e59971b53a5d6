package lambdas

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/native/bundle"
)

// packedTwice are the functions that stand for a way to pack: npm, pip, Go, the
// bundler, plain files. The others are packed once, for the time it takes.
func packedTwice() []string {
	return []string{"aws-node-npm", "aws-python-pip", "aws-go", "aws-node-ts", "azure-queue", "gcp-node-http"}
}

// The same source gives the same archive from any folder, it holds what it must and
// nothing that only this machine has, and a node takes it.
func TestFunctionsPackTheSameFromAnyFolder(t *testing.T) {
	t.Parallel()
	for _, f := range functions(t) {
		t.Run(f.Function.Name, func(t *testing.T) {
			t.Parallel()
			available(t, &f)
			first := pack(t.Context(), t, &f, f.Dir)
			if slices.Contains(packedTwice(), f.Function.Name) {
				elsewhere := filepath.Join(t.TempDir(), "another folder")
				if err := os.CopyFS(elsewhere, os.DirFS(f.Dir)); err != nil {
					t.Fatal(err)
				}
				if second := pack(t.Context(), t, &f, elsewhere); first.Digest != second.Digest {
					t.Errorf("two folders, two archives: %v", differences(t, first.Bytes, second.Bytes))
				}
			}
			a, err := bundle.Open(first.Bytes, bundle.Limits{})
			if err != nil {
				t.Fatalf("a node would refuse it: %v", err)
			}
			t.Logf("%d KiB: %+v", len(first.Bytes)>>10, a.Summary())
			for name := range contents(t, first.Bytes) {
				if slices.Contains([]string{"casemate.yaml", ".npmrc", "go.mod", "Cargo.toml", "bin/flask"}, name) {
					t.Errorf("%s went along", name)
				}
			}
			here, err := filepath.Abs(".")
			if err != nil {
				t.Fatal(err)
			}
			for name, b := range contents(t, first.Bytes) {
				if bytes.Contains(b, []byte(here)) || bytes.Contains(b, []byte("casemate-build-")) {
					t.Errorf("%s tells a path of this machine", name)
				}
			}
		})
	}
}

func contents(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range r.File {
		c, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(c); err != nil {
			t.Fatal(err)
		}
		out[f.Name] = b.Bytes()
	}
	return out
}

// differences names the files in which two archives differ.
func differences(t *testing.T, a, b []byte) []string {
	t.Helper()
	x, y := contents(t, a), contents(t, b)
	var names []string
	for name := range x {
		if !bytes.Equal(x[name], y[name]) {
			names = append(names, name)
		}
	}
	for name := range y {
		if _, ok := x[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// update rewrites the wanted output: read the difference before committing it.
func update() bool { f := flag.Lookup("update"); return f != nil && f.Value.String() == "true" }

var _ = flag.Bool("update", false, "rewrite testdata/issues.txtar")

// TestIssuesReadAsWritten compares the whole text of every error with what is
// kept in testdata. Each input is wrong; none of the outputs shows a secret.
func TestIssuesReadAsWritten(t *testing.T) {
	t.Parallel()
	const file = "testdata/issues.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(ar.Files); i += 2 {
		in, want := ar.Files[i], &ar.Files[i+1]
		name := strings.TrimSuffix(in.Name, ".yaml")
		if want.Name != name+".want" {
			t.Fatalf("%s is followed by %s", in.Name, want.Name)
		}
		_, err := Parse("casemate.yaml", in.Data)
		var issues Issues
		if !errors.As(err, &issues) || len(issues) == 0 {
			t.Errorf("%s: want issues, got %v", name, err)
			continue
		}
		got := issues.Error() + "\n"
		if update() {
			want.Data = []byte(got)
		} else if got != string(want.Data) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want.Data)
		}
		text, err := issues.JSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{
			"hunter2", "IOSFODNN7", "0123456789abcdefghij", "c2lnbmF0dXJl", "abcdefGHIJKL", "AAAAAAAAAA", "abcdefghijklmnop",
			"9f86d081884c", "q7Xk2mVb", "12345678\n", "githubToken: abc", "\x1b",
		} {
			if strings.Contains(got, secret) || bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s shows %q:\n%s", name, secret, got)
			}
		}
		var back []Issue
		if err := json.Unmarshal(text, &back); err != nil || len(back) != len(issues) {
			t.Errorf("%s: JSON form: %v", name, err)
		}
		last := Issue{}
		for _, is := range issues {
			if is.Line < last.Line || (is.Line == last.Line && is.Column < last.Column) {
				t.Errorf("%s: %d:%d after %d:%d", name, is.Line, is.Column, last.Line, last.Column)
			}
			if is.Remedy == "" || is.Message == "" || is.Line < 1 || is.Column < 1 || is.Length < 1 {
				t.Errorf("%s: incomplete issue %+v", name, is)
			}
			last = is
		}
	}
	if update() {
		if err := os.WriteFile(file, txtar.Format(ar), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

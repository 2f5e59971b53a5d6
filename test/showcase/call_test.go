package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// What is printed for pasting means the same to a shell.
func TestQuotedWordsSurviveAShell(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"plain", "", "it's", "$(touch x) `y` $HOME", "a b", `"\`, "é!*?", "/a/b=c"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q came back as %q, %v", word, out, err)
		}
	}
}

// An answer cannot steer the terminal it is shown on.
func TestTableShowsNoControlCharacters(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &show{out: &out}
	s.table([]row{{function: "a", answer: "x\x1b[2J\u009b2J\ry" + strings.Repeat("z", 200)}})
	if strings.ContainsAny(out.String(), "\x1b\u009b\r") {
		t.Errorf("got %q", out.String())
	}
	if !strings.Contains(out.String(), "…") {
		t.Error("a long answer was not cut")
	}
}

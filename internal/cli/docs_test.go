package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/cli"
)

// Every command explains itself: what it is for, at length, with an example that
// names it, and no flag without a meaning.
func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := cli.Docs(&b); err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## `).Split(b.String(), -1)[1:]
	if len(sections) < 30 {
		t.Fatalf("only %d commands are documented", len(sections))
	}
	for _, s := range sections {
		name, body, _ := strings.Cut(s, "\n")
		_, long, ok := strings.Cut(body, "```text\n")
		long, _, _ = strings.Cut(long, "\n```")
		if !ok || len(long) < 60 {
			t.Errorf("%s: its help says too little: %q", name, long)
		}
		_, example, ok := strings.Cut(body, "```sh\n")
		example, _, _ = strings.Cut(example, "\n```")
		if !ok || !strings.Contains(example, name) {
			t.Errorf("%s: no example names it: %q", name, example)
		}
		for _, line := range strings.Split(long+"\n"+example, "\n") {
			if len([]rune(line)) > 110 || strings.HasPrefix(line, "\t") {
				t.Errorf("%s: line too long, or with a tab: %q", name, line)
			}
		}
		if regexp.MustCompile("(?m)^\\| `[^`]+` \\|  \\|").MatchString(body) {
			t.Errorf("%s: a flag has no meaning", name)
		}
	}
}

// help of each command can be asked for, exits 0 and goes to standard output.
func TestHelpOfEveryCommand(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := cli.Docs(&b); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^## casemate ?(.*)$`).FindAllStringSubmatch(b.String(), -1) {
		var out, errs bytes.Buffer
		env := quietEnv(append(strings.Fields(m[1]), "--help")...)
		env.Stdout, env.Stderr = &out, &errs
		if code := cli.Main(context.Background(), env); code != 0 || errs.Len() > 0 {
			t.Errorf("casemate %s --help: exit code %d, errors %q", m[1], code, &errs)
		}
		for _, want := range []string{"USAGE", "EXAMPLES", "--context", "--no-color", "--output"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("casemate %s --help does not mention %s", m[1], want)
			}
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("casemate %s --help is coloured in a pipe", m[1])
		}
	}
}

func TestDocsAreStable(t *testing.T) {
	t.Parallel()
	var a, b bytes.Buffer
	if err := cli.Docs(&a); err != nil {
		t.Fatal(err)
	}
	if err := cli.Docs(&b); err != nil {
		t.Fatal(err)
	}
	if a.String() != b.String() {
		t.Error("two runs differ")
	}
	for code := range []int{0, 1, 2, 3, 4, 5, 6, 7} {
		if !strings.Contains(a.String(), fmt.Sprintf("\n  %d    ", code)) {
			t.Errorf("exit code %d is not documented", code)
		}
	}
}

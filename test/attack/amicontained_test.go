//go:build linux

package attack

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// A stranger's opinion: amicontained reports what a process may do.
func TestAmicontained(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("testdata/amicontained", f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "amicontained")
	c := exec.CommandContext(t.Context(), "go", "build", "-mod=readonly", "-o", program, "github.com/genuinetools/amicontained")
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Skipf("amicontained cannot be had: %v: %s", err, out)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	m := fortress(t, box.Config{}, box.File{Path: "/bin/amicontained", Mode: 0o755, Content: text})
	x := m.start(t, m.spec(t, "amicontained"))
	out, err := io.ReadAll(x.out)
	if err != nil {
		t.Fatal(err)
	}
	said := string(out)
	t.Log(said)
	if e := x.Exit(); e.Code != 0 {
		t.Errorf("it ended with %v", e)
	}
	if !strings.Contains(said, "Seccomp: filtering") {
		t.Error("it sees no filter")
	}
	if regexp.MustCompile(`(?s)Capabilities:.*(BOUNDING|EFFECTIVE|PERMITTED|INHERITABLE|AMBIENT) -> \S`).MatchString(said) {
		t.Error("it sees capabilities")
	}
	if !strings.Contains(said, "Capabilities:") {
		t.Error("it says nothing of capabilities")
	}
	// Of the process namespace it cannot tell: /proc hides the init that it would ask about.
	if !strings.Contains(said, "user: true") {
		t.Error("it sees no user namespace")
	}
	for _, call := range []string{"MOUNT", "PTRACE", "BPF", "KEYCTL", "UNSHARE", "SETNS", "KEXEC_LOAD", "INIT_MODULE", "USERFAULTFD"} {
		if !strings.Contains(said, call) {
			t.Errorf("it does not count %s as blocked", call)
		}
	}
}

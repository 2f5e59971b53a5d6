package e2e

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/harness"
)

// TestNewcomersPath follows the README with the real client and compiler: init,
// deploy, invoke, logs, a change, rollback, delete.
func TestNewcomersPath(t *testing.T) {
	if testing.Short() {
		t.Skip("compiling a guest takes seconds")
	}
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	h.Run("init", "hello", "--runtime", "go")
	h.Dir = filepath.Join(h.Dir, "hello")
	h.Run("config", "validate")
	h.Run("deploy")
	if got := h.Run("invoke", "hello", `{"name":"Ada"}`); !strings.Contains(got, "Ada") {
		t.Errorf("invoke: %q", got)
	}
	if got := h.Run("logs", "hello"); !strings.Contains(got, "greeting Ada") {
		t.Errorf("logs: %q", got)
	}
	var key struct{ Secret string }
	if err := json.Unmarshal([]byte(h.Run("key", "create", "first", "--scope", "invoke:default/hello", "-o", "json")), &key); err != nil {
		t.Fatal(err)
	}
	if a, err := n.Call(t.Context(), n.HTTP(), key.Secret, "/hello", `{"name":"Grace"}`); err != nil || !strings.Contains(a.Body, "Grace") {
		t.Errorf("over HTTPS: %+v, %v", a, err)
	}

	source := filepath.Join(h.Dir, "main.go")
	code, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, []byte(strings.ReplaceAll(string(code), "Hello", "Goodbye")), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Run("deploy", "--yes")
	if got := h.Run("invoke", "hello", "{}"); !strings.Contains(got, "Goodbye") {
		t.Errorf("after the change: %q", got)
	}
	h.Run("rollback", "hello")
	if got := h.Run("invoke", "hello", "{}"); !strings.Contains(got, "Hello") {
		t.Errorf("after the rollback: %q", got)
	}
	h.Run("delete", "hello", "--yes")
	if a, err := n.Call(t.Context(), n.HTTP(), key.Secret, "/hello", "{}"); err != nil || a.Status != 404 {
		t.Errorf("after the deletion: %+v, %v", a, err)
	}
}

// TestReservationsOfOneDeploymentAreAddedUp: each function alone would fit, both
// together would leave nobody else a place.
func TestReservationsOfOneDeploymentAreAddedUp(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	reserve := func(places int) func(*apiSpec) {
		return func(s *apiSpec) { s.Config.Concurrency = api.Concurrency{Max: places, Reserved: places} }
	}
	greedy := map[string]harness.Guest{"one": {Body: "1"}, "two": {Body: "2"}}
	if _, err := n.Deploy(t.Context(), greedy, reserve(200)); err == nil || !strings.Contains(err.Error(), "concurrency.reserved") {
		t.Errorf("got %v", err)
	}
	n.MustDeploy(greedy, reserve(100))
	n.MustDeploy(map[string]harness.Guest{"other": {Body: "fine"}}, nil)
	if a, err := n.Call(t.Context(), n.HTTP(), n.InvokeKey(), "/other", ""); err != nil || a.Body != "fine" {
		t.Errorf("a function without a reservation: %+v, %v", a, err)
	}
}

// TestTamperedArtifactIsRefusedAndReported flips bytes of the stored code while
// the node is down. Whatever the node then does, it must not run that code, and
// it must say so.
func TestTamperedArtifactIsRefusedAndReported(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	n.MustDeploy(map[string]harness.Guest{"app": {Body: strings.Repeat("genuine ", 20_000)}}, nil)
	key := n.InvokeKey()
	n.Stop()

	// What runs is compiled code, which has a seal of its own; here it was lost, so the
	// code that was deployed is needed again.
	if err := os.RemoveAll(filepath.Join(h.Data, "code")); err != nil {
		t.Fatal(err)
	}
	// The code is by far the largest thing stored.
	var largest string
	var size int64
	err := filepath.WalkDir(filepath.Join(h.Data, "bus"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".blk" {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil || size < 160_000 {
		t.Fatalf("the stored code was not found: %q, %d bytes, %v", largest, size, err)
	}
	b, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		b[len(b)/2+i] ^= 0xff
	}
	if err := os.WriteFile(largest, b, 0o600); err != nil {
		t.Fatal(err)
	}

	m, err := h.TryUp()
	if err != nil { // refusing to start is an answer too, if it says why
		if !strings.Contains(err.Error(), "corrupt") && !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "lost") {
			t.Errorf("the node does not start and does not say why: %v", err)
		}
		return
	}
	a, err := m.Call(context.Background(), m.HTTP(), key, "/app", "")
	if err != nil {
		t.Fatal(err)
	}
	if a.Status < 500 || strings.Contains(a.Body, "genuine") {
		t.Errorf("changed code was run: %d %.80q", a.Status, a.Body)
	}
	// The log comes by a pipe of its own, and may be a moment behind the answer.
	harness.Eventually(t, "the operator is told", func() bool { return strings.Contains(m.Output(), "level=ERROR") })
}

// TestChangedCompiledCodeIsMadeAnew changes the machine code that a node keeps.
func TestChangedCompiledCodeIsMadeAnew(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	n.MustDeploy(map[string]harness.Guest{"app": {Body: "genuine"}}, nil)
	key := n.InvokeKey()
	n.Stop()
	changed := 0
	err := filepath.WalkDir(filepath.Join(h.Data, "code"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		changed++
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || changed == 0 {
		t.Fatalf("%d files of compiled code were changed: %v", changed, err)
	}
	m := h.Up()
	a, err := m.Call(context.Background(), m.HTTP(), key, "/app", "")
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 200 || a.Body != "genuine" {
		t.Errorf("got %d %.80q", a.Status, a.Body)
	}
	harness.Eventually(t, "the operator is told", func() bool {
		return strings.Contains(m.Output(), "compiled code was changed on disk")
	})
}

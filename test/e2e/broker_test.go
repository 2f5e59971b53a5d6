package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/test/harness"
)

// TestKilledBrokerIsReplaced kills what starts the sandboxes, and every sandbox with it:
// functions of both tiers answer again, on the same node.
func TestKilledBrokerIsReplaced(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi"}}, nil)
	n.MustDeployNative(map[string]harness.Native{"snake": harness.Python("word")}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	wasm := func() bool {
		a, err := n.Call(t.Context(), client, key, "/hello", "")
		return err == nil && a.Body == "hi"
	}
	native := func() bool {
		a, err := n.Call(t.Context(), client, key, "/snake", `{"do":"echo","text":"again"}`)
		return err == nil && a.Status == 200 && strings.Contains(a.Body, "again")
	}
	if !wasm() || !native() {
		t.Fatalf("before: the functions do not answer\n%s", n.Output())
	}
	first := brokerOf(t, n.PID())
	sandboxes := harness.Tree(t, first)
	if len(sandboxes) < 5 { // itself, two inits, the process, Python
		t.Fatalf("below the broker there are %v", sandboxes)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "there is another broker", func() bool {
		pid, ok := findBroker(t, n.PID())
		return ok && pid != first
	})
	harness.Eventually(t, "the wasm function answers again", wasm)
	harness.Eventually(t, "the native function answers again", native)
	for _, pid := range sandboxes {
		// Process ids come back late.
		if text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && len(text) > 0 {
			t.Errorf("process %d of the first broker lives: %q", pid, text)
		}
	}
	if !strings.Contains(n.Output(), "the broker ended, and every sandbox with it") {
		t.Errorf("the log does not say what happened:\n%s", n.Output())
	}
}

// brokerOf gives the broker below a node.
func brokerOf(t *testing.T, node int) int {
	t.Helper()
	pid, ok := findBroker(t, node)
	if !ok {
		t.Fatal("the node has no broker")
	}
	return pid
}

func findBroker(t *testing.T, node int) (pid int, ok bool) {
	t.Helper()
	for _, pid := range harness.Tree(t, node) {
		// One that has died and was not waited for has none.
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && bytes.HasPrefix(text, []byte("casemate-box-broker")) {
			return pid, true
		}
	}
	return 0, false
}

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/farside"
	"github.com/casemate-dev/casemate/test/harness"
)

// connectors puts the connector programs where the node looks for them, unless they lie
// beside the binary already.
func connectors(t *testing.T, h *harness.Home) {
	t.Helper()
	dir := filepath.Join(h.Data, "connectors")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"redis", "sqs"} {
		program := "casemate-connector-" + name
		if _, err := os.Stat(filepath.Join(filepath.Dir(harness.Binary(t)), program)); err == nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, program), ".")
		cmd.Dir = filepath.Join("..", "..", "connectors", name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", program, err, out)
		}
	}
}

// At every kind of source an event leads to the function of its example and to a receipt
// that names it; the program tells its story.
func TestAnEventOfEverySourceReachesItsFunction(t *testing.T) {
	if testing.Short() {
		t.Skip("runs compilers and servers; not with -short")
	}
	t.Parallel()
	examples, err := farside.Load(filepath.Join("..", "..", "examples", "events"))
	if err != nil {
		t.Fatal(err)
	}
	h := harness.NewHome(t)
	inbox := filepath.Join(h.Dir, "inbox")
	if err := os.MkdirAll(filepath.Join(inbox, "done"), 0o700); err != nil {
		t.Fatal(err)
	}
	n := h.Up("--watch", "inbox="+inbox)
	connectors(t, h) // a data directory that is not empty must have its keys
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	node := &farside.Node{Gateway: n.Gateway, Client: n.HTTP(), Folder: inbox, Command: func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := h.Command(ctx, args...)
		cmd.Env = append(cmd.Env, "HOME="+home) // where compilers keep what they need
		return cmd
	}}
	t.Run("sources", func(t *testing.T) {
		for _, e := range examples {
			t.Run(e.Function.Name, func(t *testing.T) {
				t.Parallel()
				shown := e.Show(t, node, time.Now)
				r := shown.Receipt
				if r.Event == "" || r.Source != e.Trigger || r.Outcome != "ok" || r.Attempt < 1 || r.Function != e.Function.Name || r.Principal != "trigger:default/"+e.Function.Name+"/"+e.Trigger {
					t.Errorf("receipt: %+v", r)
				}
				var story api.EventStory
				out := h.Run("events", "show", r.Event, "--sequence=false", "-o", "json")
				if err := json.Unmarshal([]byte(out), &story); err != nil {
					t.Fatal(err)
				}
				if story.Event.ID != r.Event || len(story.Deliveries) == 0 || !strings.Contains(out, r.ID) {
					t.Errorf("the story does not lead to the receipt %s: %s", r.ID, out)
				}
				t.Logf("%s in %v: %s", e.Kind, shown.Took.Round(time.Millisecond), shown.Said)
			})
		}
	})
	if t.Failed() {
		t.Logf("the node's log:\n%s", n.Output())
		return
	}
	n.Stop()
}

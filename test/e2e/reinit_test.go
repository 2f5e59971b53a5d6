package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/harness"
)

// The attack of CVE-2018-11756 and -11757: in OpenWhisk whoever could run something in a
// function's container could post to its init path, and what he posted was the function
// for everybody who called it later. Here nothing takes code, what was deployed cannot be
// written to, and an answer counts for the invocation under way alone.

// whole is a handler as it was deployed: it knows its word.
func whole(t *testing.T, n *harness.Node, client *http.Client, key, name, word, when string) {
	t.Helper()
	var got struct{ Text, Word string }
	n.Do(client, key, name, harness.Order{"do": "echo", "text": "asked"}, &got)
	if got.Word != word || got.Text != "asked" {
		t.Errorf("%s: %s answers %+v", when, name, got)
	}
}

// isolations deploys the same handler with each isolation, under its name.
func isolations(t *testing.T) (n *harness.Node, client *http.Client, key string) {
	t.Helper()
	n = harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"instance": harness.Python("genuine"), "invocation": harness.Python("genuine")}, func(s *api.FunctionSpec) {
		s.Config.Isolation = s.Name
	})
	return n, n.HTTP(), n.InvokeKey()
}

// TestReinitialisationIsRefused posts code to every path that a platform has been known
// to take it at, and to some that ours has for other ends.
func TestReinitialisationIsRefused(t *testing.T) {
	t.Parallel()
	n, client, key := isolations(t)
	code := `{"value":{"name":"f","main":"main","binary":false,"code":"def main(a): return {'text': 'taken over'}"},"text":"taken over"}`
	var asks [][3]string
	for _, method := range []string{"POST", "PUT", "GET", "DELETE", "PATCH"} {
		for _, path := range []string{
			"/", "/init", "/run", "/invoke", "/code", "/update", "/specialize", "/v2/specialize", "/_/init", "/2018-06-01/init", "/2018-06-01/runtime",
			"/2018-06-01/runtime/init", "/2018-06-01/runtime/code", "/2018-06-01/runtime/restore/next", "/2018-06-01/runtime/restore/error",
			"/2018-06-01/runtime/init/error", "/2018-06-01/runtime/invocation/0/response", "/2018-06-01/runtime/invocation//response",
			"/2018-06-01/runtime/invocation/../invocation/next/response", "/2020-01-01/extension/register", "/2020-08-15/logs", "/2022-07-01/telemetry",
			"/2015-03-31/functions/f/code", "/admin/host", "/v1/configuration",
		} {
			asks = append(asks, [3]string{method, path, code})
		}
	}
	for _, name := range []string{"instance", "invocation"} {
		for round := range 2 {
			var got []int
			n.Do(client, key, name, harness.Order{"do": "ask", "asks": asks}, &got)
			if len(got) != len(asks) {
				t.Fatalf("%d answers to %d requests", len(got), len(asks))
			}
			for i, status := range got {
				if status < 400 || status >= 500 {
					t.Errorf("%s: %s %s is answered %d", name, asks[i][0], asks[i][1], status)
				}
			}
			for range 3 {
				whole(t, n, client, key, name, "genuine", fmt.Sprintf("after round %d", round+1))
			}
		}
	}
	n.Stop()
}

// TestDeployedFilesCannotBeReplaced writes to what a later start would load: the code,
// the runtime's client, the interpreter, its modules.
func TestDeployedFilesCannotBeReplaced(t *testing.T) {
	t.Parallel()
	n, client, key := isolations(t)
	paths := []string{
		"/var/task/guest.py", "/var/task/planted.py", "/var/task/json.py", "/var/task/new.py", "/opt/casemate/python/bootstrap.py", "/opt/casemate/python/new.py",
		"/usr/bin/python3.11", "/usr/lib/python3.11/json/__init__.py", "/etc/passwd", "/etc/ld.so.preload", "/new", "/proc/sys/kernel/core_pattern", "/proc/1/mem",
	}
	for _, name := range []string{"instance", "invocation"} {
		var said map[string]string
		n.Do(client, key, name, harness.Order{"do": "write", "paths": paths}, &said)
		for _, p := range paths {
			if said[p] == "" || strings.Contains(said[p], "written") || strings.Contains(said[p], "renamed") {
				t.Errorf("%s: %s: %q", name, p, said[p])
			}
		}
		whole(t, n, client, key, name, "genuine", "after writing")
		// One that starts anew loads what was deployed, too.
		if a, err := n.Try(client, key, name, harness.Order{"do": "exit", "code": 1}); err != nil || a.Status != http.StatusBadGateway {
			t.Errorf("%+v, %v", a, err)
		}
		whole(t, n, client, key, name, "genuine", "after a fresh start")
	}
}

// TestScratchFilesDoNotReachOthers leaves modules in the only folder that can be written
// to. An instance keeps its own scratch; with invocation isolation there is nothing left,
// and to another function, or a later version, there never is.
func TestScratchFilesDoNotReachOthers(t *testing.T) {
	t.Parallel()
	n, client, key := isolations(t)
	keep := func(name, text string) (seen [2]*string) {
		t.Helper()
		n.Do(client, key, name, harness.Order{"do": "keep", "text": text}, &seen)
		return seen
	}
	keep("instance", "left by instance")
	if seen := keep("instance", "again"); seen[0] == nil || *seen[0] != "left by instance" || seen[1] == nil || *seen[1] != "left by instance" {
		t.Errorf("an instance does not keep what is its own: the rest of this test would prove nothing")
	}
	for range 4 {
		if seen := keep("invocation", "left by invocation"); seen[0] != nil || seen[1] != nil {
			t.Errorf("with invocation isolation, an earlier call left %q and %q", text(seen[0]), text(seen[1]))
		}
		var said map[string]string
		n.Do(client, key, "invocation", harness.Order{"do": "write", "paths": []string{"/tmp/planted.py", "/tmp/json.py", "/tmp/guest.py"}}, &said)
		if said["/tmp/planted.py"] != "written" {
			t.Errorf("scratch cannot be written: %v", said)
		}
		whole(t, n, client, key, "invocation", "genuine", "after planting modules in scratch")
	}
	// A new version has new sandboxes.
	n.MustDeployNative(map[string]harness.Native{"instance": harness.Python("second")}, nil)
	if seen := keep("instance", "x"); seen[0] != nil || seen[1] != nil {
		t.Errorf("a later version finds %q and %q", text(seen[0]), text(seen[1]))
	}
	whole(t, n, client, key, "instance", "second", "the later version")
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// TestNobodyAnswersForALaterInvocation leaves a process behind that asks for the next
// invocation and answers whatever it can name. With invocation isolation it has ended
// before the next one begins. An instance is shared by the calls of its function, whose
// code did this to itself; nobody else may notice.
func TestNobodyAnswersForALaterInvocation(t *testing.T) {
	t.Parallel()
	n, client, key := isolations(t)
	n.MustDeployNative(map[string]harness.Native{"neighbour": harness.Python("of the neighbour")}, nil)
	for range 5 {
		n.Do(client, key, "invocation", harness.Order{"do": "squat"}, nil)
		for range 4 {
			whole(t, n, client, key, "invocation", "genuine", "after a squatter")
		}
	}
	n.Do(client, key, "instance", harness.Order{"do": "squat"}, nil)
	for range 20 {
		whole(t, n, client, key, "neighbour", "of the neighbour", "beside a squatter")
		whole(t, n, client, key, "invocation", "genuine", "beside a squatter")
	}
}

// TestAnswersCountForTheInvocationUnderWay has a function answer for invocations that
// are not its own: one that is over, one that will come, another function's.
func TestAnswersCountForTheInvocationUnderWay(t *testing.T) {
	t.Parallel()
	n, client, key := isolations(t)
	var first struct{ ID string }
	n.Do(client, key, "instance", harness.Order{"do": "echo"}, &first)
	if len(first.ID) < 16 {
		t.Fatalf("the id of an invocation is %q", first.ID)
	}
	const base = "/2018-06-01/runtime/invocation/"
	var got []int
	n.Do(client, key, "instance", harness.Order{"do": "ask", "asks": [][3]string{
		{"POST", base + first.ID + "/response", `{"text":"taken over"}`},
		{"POST", base + first.ID + "/error", `{}`},
		{"POST", base + "01900000-0000-7000-8000-000000000000/response", `{"text":"taken over"}`},
		{"GET", base + "next", ""},
	}}, &got)
	for i, status := range got {
		if status < 400 || status >= 500 {
			t.Errorf("request %d is answered %d", i, status)
		}
	}
	whole(t, n, client, key, "instance", "genuine", "afterwards")
}

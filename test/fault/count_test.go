package fault

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/casemate-dev/casemate/test/harness"
)

// everydayInvocations is how many the short form makes; CASEMATE_INVOCATIONS says
// otherwise.
const everydayInvocations = 300

// footprint is what must not grow with the number of invocations.
type footprint struct {
	Processes             int
	NodeFDs, BrokerFDs    string // by kind, without the files of storage
	Groups                int
	NodeMounts, BoxMounts int
	Sandboxes             int
	Claimed               int64
}

func (n *nativeNode) footprint(t *testing.T) footprint {
	t.Helper()
	n.client.CloseIdleConnections()
	all := n.processes(t)
	broker := with(t, all, brokerLine)
	f := footprint{
		Processes: len(all), NodeFDs: fds(t, n.PID()), BrokerFDs: fds(t, broker.pid), Groups: len(groups(t, all)),
		NodeMounts: mounts(t, n.PID()), BoxMounts: mounts(t, broker.pid),
	}
	tier := n.NativeTier(t)
	f.Sandboxes, f.Claimed = tier.Sandboxes, tier.Claimed
	return f
}

// fds counts descriptors by kind, without those of storage.
func fds(t *testing.T, pid int) string {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(found) == 0 {
		t.Fatalf("%d descriptors of %d, %v", len(found), pid, err)
	}
	kinds := map[string]int{}
	for _, fd := range found {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // it was closed meanwhile
		}
		kind, _, isKind := strings.Cut(target, ":")
		switch {
		case strings.Contains(target, ".blk"), strings.Contains(target, "/journal/"):
			continue // storage opens and closes as it likes
		case strings.Contains(target, "/cgroup/"):
			kind = "cgroup"
		case !isKind:
			kind = "file"
		}
		kinds[kind]++
	}
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		out = append(out, fmt.Sprintf("%s %d", kind, kinds[kind]))
	}
	return strings.Join(out, ", ")
}

// TestInvocationsLeaveNothingBehind makes many invocations, most of them in a fresh
// sandbox, some of which end badly, and wants every count back where it was.
func TestInvocationsLeaveNothingBehind(t *testing.T) {
	invocations := everydayInvocations
	if s := os.Getenv("CASEMATE_INVOCATIONS"); s != "" {
		var err error
		if invocations, err = strconv.Atoi(s); err != nil {
			t.Fatalf("CASEMATE_INVOCATIONS: %v", err)
		}
	}
	n := newNativeNode(t)
	const callers = 4
	run := func(total int) (ok, bad int) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for c := range callers {
			wg.Go(func() {
				for i := c; i < total; i += callers {
					name, o, want := "fresh", harness.Order{"do": "echo"}, http.StatusOK
					switch i % 20 {
					case 7:
						o, want = harness.Order{"do": "exit", "code": 3}, http.StatusBadGateway
					case 11:
						o, want = harness.Order{"do": "fail", "text": "on purpose"}, http.StatusBadGateway
					case 13:
						o = harness.Order{"do": "squat"}
					case 17, 3:
						name = "kept"
					}
					a, err := n.Try(n.client, n.key, name, o)
					mu.Lock()
					if err == nil && a.Status == want {
						ok++
					} else if bad++; bad < 5 {
						t.Errorf("invocation %d (%s %v): %+v, %v", i, name, o, a, err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return ok, bad
	}
	// The functions are deleted before each count, so that no sandbox is kept for later.
	rest := func() {
		for _, name := range []string{"kept", "fresh"} {
			if err := n.Client.DeleteFunction(t.Context(), "default", name); err != nil {
				t.Fatal(err)
			}
		}
		harness.Eventually(t, "all sandboxes have ended", func() bool {
			f := n.footprint(t)
			return f.Sandboxes == 0 && f.Claimed == 0 && !slices.ContainsFunc(n.processes(t), func(p process) bool { return strings.Contains(p.line, guestLine) })
		})
	}
	run(40)
	rest()
	before := n.footprint(t)
	n.deploy(t)
	ok, _ := run(invocations)
	rest()
	if ok != invocations {
		t.Errorf("%d of %d invocations ended as they should", ok, invocations)
	}
	var after footprint
	defer func() { t.Logf("before: %+v\nafter %d: %+v", before, invocations, after) }()
	harness.Eventually(t, "what is left is what was there", func() bool {
		after = n.footprint(t)
		return after == before
	})
	n.Stop()
}

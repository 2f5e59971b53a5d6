package fault

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/test/harness"
)

// nativeNode is a node with a handler in two isolations: "kept" and "fresh".
type nativeNode struct {
	*harness.Node
	client *http.Client
	key    string
	temp   string
}

func newNativeNode(t *testing.T) *nativeNode {
	t.Helper()
	if testing.Short() {
		t.Skip("kills take their time; make test and make fault run them")
	}
	h := harness.NewHome(t)
	temp := filepath.Join(h.Dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	h.Wrap = []string{"env", "TMPDIR=" + temp}
	n := &nativeNode{Node: h.Up(), temp: temp}
	n.NeedNative(t, "python")
	n.deploy(t)
	n.key, n.client = n.InvokeKey(), n.HTTP()
	return n
}

func (n *nativeNode) deploy(t *testing.T) {
	t.Helper()
	n.MustDeployNative(map[string]harness.Native{"kept": harness.Python("x"), "fresh": harness.Python("x")}, func(s *api.FunctionSpec) {
		if s.Name == "fresh" {
			s.Config.Isolation = "invocation"
		}
		s.Config.TimeoutMillis = 60_000
	})
}

// process is one that cannot be mistaken for another that got its id later.
type process struct {
	pid     int
	started string
	line    string
}

// processes lists the node's descendants, and itself.
func (n *nativeNode) processes(t *testing.T) []process {
	t.Helper()
	var all []process
	for _, pid := range harness.Tree(t, n.PID()) {
		if started := startOf(pid); started != "" {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone since: it has none
			all = append(all, process{pid, started, strings.ReplaceAll(string(line), "\x00", " ")})
		}
	}
	return all
}

// startOf is when a process started, in ticks, or "" when there is none; a zombie is
// none, as its parent is all that keeps it.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	const start = 19 // of what follows the name; proc(5) counts from 1, with two before
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) <= start || f[0] == "Z" {
		return ""
	}
	return f[start]
}

// stateOf is a process's state in one letter: D for one that is frozen, among others.
func stateOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

func (p process) alive() bool { return startOf(p.pid) == p.started }

// with gives the only process whose command line has that text.
func with(t *testing.T, all []process, text string) process {
	t.Helper()
	i := slices.IndexFunc(all, func(p process) bool { return strings.Contains(p.line, text) })
	if i < 0 {
		t.Fatalf("no process has %q in its command line: %+v", text, all)
	}
	return all[i]
}

const (
	guestLine  = "/opt/casemate/python/bootstrap.py"
	brokerLine = "casemate-box-broker"
)

// group is a directory of control groups; names are used again, inodes are not while
// both are there.
type group struct {
	path  string
	inode uint64
}

// groups finds the boxes' control groups by the processes in them.
func groups(t *testing.T, all []process) []group {
	t.Helper()
	seen := map[group]bool{}
	for _, p := range all {
		if !strings.Contains(p.line, guestLine) {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
		if err != nil {
			continue // it ended
		}
		for line := range strings.Lines(string(b)) {
			_, rel, _ := strings.Cut(strings.TrimSpace(line), ":/")
			if !strings.Contains(rel, "casemate/") {
				continue
			}
			for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
				found, err := filepath.Glob(pattern + rel)
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range found {
					if inode := inodeOf(path); inode != 0 {
						seen[group{path, inode}] = true
					}
				}
			}
		}
	}
	return slices.Collect(maps.Keys(seen))
}

func inodeOf(path string) uint64 {
	var s syscall.Stat_t
	if syscall.Stat(path, &s) != nil {
		return 0
	}
	return s.Ino
}

// gone waits until nothing is left of those processes and groups.
func gone(t *testing.T, all []process, gs []group) {
	t.Helper()
	for _, p := range all {
		harness.Eventually(t, fmt.Sprintf("process %d (%s) is gone", p.pid, p.line), func() bool { return !p.alive() })
	}
	for _, g := range gs {
		harness.Eventually(t, "control group "+g.path+" is gone", func() bool { return inodeOf(g.path) != g.inode })
	}
}

// holding gives the guests that serve a call of sleepers: each has a child.
func (n *nativeNode) holding(t *testing.T) []process {
	t.Helper()
	all := n.processes(t)
	guests := map[int]process{}
	for _, p := range all {
		if strings.Contains(p.line, guestLine) {
			guests[p.pid] = p
		}
	}
	var busy []process
	for pid := range guests {
		if g, ok := guests[parentOf(pid)]; ok {
			busy = append(busy, g)
		}
	}
	return busy
}

// sleepers starts calls that are under way when it returns, and gives their answers.
func (n *nativeNode) sleepers(t *testing.T, names ...string) <-chan harness.Answer {
	t.Helper()
	out := make(chan harness.Answer, len(names))
	for _, name := range names {
		go func() {
			a, err := n.Try(n.client, n.key, name, harness.Order{"do": "hold", "millis": 50_000})
			if err != nil {
				a.Status = -1
			}
			out <- a
		}()
	}
	harness.Eventually(t, "the calls have reached their code", func() bool { return len(n.holding(t)) == len(names) })
	return out
}

func (n *nativeNode) works(t *testing.T, name string) {
	t.Helper()
	var got struct{ Text string }
	n.Do(n.client, n.key, name, harness.Order{"do": "echo", "text": "still here"}, &got)
	if got.Text != "still here" {
		t.Errorf("%s: %+v", name, got)
	}
}

// mounts counts the mounts of this machine, as a process outside of all boxes sees them.
func mounts(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// A node that is killed leaves nothing of the native functions that it ran.
func TestKilledNodeLeavesNoSandboxBehind(t *testing.T) {
	t.Parallel()
	n := newNativeNode(t)
	before := mounts(t, os.Getpid())
	answers := n.sleepers(t, "kept", "kept", "fresh", "fresh")
	all := n.processes(t)
	gs := groups(t, all)
	if len(all) < 10 { // the node, a broker, and two for each sandbox
		t.Fatalf("only %d processes: %+v", len(all), all)
	}
	t.Logf("%d processes, %d control groups", len(all), len(gs))
	n.Signal(syscall.SIGKILL)
	_ = n.Wait() // it was killed
	for range cap(answers) {
		if a := <-answers; a.Status == http.StatusOK {
			t.Errorf("a call that was under way was answered: %+v", a)
		}
	}
	gone(t, all, gs)
	if after := mounts(t, os.Getpid()); after != before {
		t.Errorf("%d mounts before, %d after", before, after)
	}
	err := filepath.WalkDir(n.temp, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// What the killed one held is free for the next.
	m := n.Up()
	m.Do(m.HTTP(), n.key, "kept", harness.Order{"do": "echo"}, nil)
	m.Do(m.HTTP(), n.key, "fresh", harness.Order{"do": "echo"}, nil)
	m.Stop()
}

// A node that stops leaves as little.
func TestStoppedNodeLeavesNoSandboxBehind(t *testing.T) {
	t.Parallel()
	n := newNativeNode(t)
	n.works(t, "kept")
	n.works(t, "fresh")
	all := n.processes(t)
	gs := groups(t, all)
	n.Stop()
	gone(t, all, gs)
}

// A sandbox that is killed in the middle of an invocation gives its caller a plain
// answer, and the next caller another sandbox.
func TestKilledSandboxCostsOneCall(t *testing.T) {
	t.Parallel()
	n := newNativeNode(t)
	for _, name := range []string{"kept", "fresh"} {
		for what, victim := range map[string]func(guest int) int{
			"the code": func(guest int) int { return guest }, "the box's first process": parentOf,
		} {
			answers := n.sleepers(t, name)
			for _, g := range n.holding(t) {
				if err := syscall.Kill(victim(g.pid), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			a := <-answers
			var d problem.Details
			if err := jsonOf(a, &d); err != nil || d.Code != problem.FunctionCrashed || a.Receipt == "" {
				t.Errorf("%s, %s was killed: %+v, %v", name, what, a, err)
			}
			n.works(t, "kept")
			n.works(t, "fresh")
		}
	}
	n.Stop()
}

// Code that ends while nobody calls it costs nobody a call. Where control groups are of
// version 1, what is frozen dies only when it is woken for a call, which is then lost:
// that much is allowed here, once.
func TestCodeThatDiesAtRestCostsNoCall(t *testing.T) {
	t.Parallel()
	n := newNativeNode(t)
	for range 3 {
		n.works(t, "kept")
		var killed []process
		for _, p := range n.processes(t) {
			if strings.Contains(p.line, guestLine) && syscall.Kill(p.pid, syscall.SIGKILL) == nil {
				killed = append(killed, p)
			}
		}
		if len(killed) == 0 {
			t.Fatal("nothing waits for a call")
		}
		frozen := false
		for _, p := range killed {
			harness.Eventually(t, "it is gone, or frozen", func() bool {
				asleep := p.alive() && stateOf(p.pid) == "D"
				frozen = frozen || asleep
				return asleep || !p.alive()
			})
		}
		for _, name := range []string{"kept", "fresh"} {
			if frozen {
				if a, err := n.Try(n.client, n.key, name, harness.Order{"do": "echo"}); err != nil || a.Status != http.StatusOK && a.Status != http.StatusBadGateway {
					t.Errorf("%s: %+v, %v", name, a, err)
				}
			}
			n.works(t, name)
		}
	}
	// By its own hand, before it is put to rest or as soon as it is awake again.
	n.Do(n.client, n.key, "kept", harness.Order{"do": "die_later", "millis": 20}, nil)
	harness.Eventually(t, "calls are answered again", func() bool {
		a, err := n.Try(n.client, n.key, "kept", harness.Order{"do": "echo"})
		return err == nil && a.Status == http.StatusOK
	})
	n.Stop()
}

// A broker that is killed takes its sandboxes with it. Whoever was served gets a plain
// answer, and soon native functions run again, without anybody's help.
func TestKilledBrokerIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNativeNode(t)
	n.MustDeploy(map[string]harness.Guest{"module": {Body: "wasm"}}, nil)
	for range 2 {
		answers := n.sleepers(t, "kept", "fresh")
		all := n.processes(t)
		broker := with(t, all, brokerLine)
		var below []process
		for _, p := range all {
			if strings.Contains(p.line, guestLine) || strings.Contains(p.line, "casemate-box-") {
				below = append(below, p)
			}
		}
		gs := groups(t, all)
		if err := syscall.Kill(broker.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for range cap(answers) {
			a := <-answers
			var d problem.Details
			if err := jsonOf(a, &d); err != nil || a.Status < 500 || d.Code == problem.Internal || a.Receipt == "" {
				t.Errorf("a call under way: %+v, %v", a, err)
			}
		}
		gone(t, below, nil)
		harness.Eventually(t, "modules are called", func() bool {
			a, err := n.Call(t.Context(), n.client, n.key, "/module", "")
			return err == nil && a.Status == http.StatusOK
		})
		for _, name := range []string{"kept", "fresh"} {
			harness.Eventually(t, name+" is called again", func() bool {
				a, err := n.Try(n.client, n.key, name, harness.Order{"do": "echo"})
				if err == nil && a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable {
					t.Errorf("%s meanwhile: %+v", name, a)
				}
				return err == nil && a.Status == http.StatusOK
			})
		}
		gone(t, nil, gs) // the next broker removes what a killed one could not
	}
	n.Stop()
}

// parentOf gives a process's parent, or 0 when it is gone.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	const parent = 1 // of what follows the name
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) <= parent {
		return 0
	}
	n, err := strconv.Atoi(f[parent])
	if err != nil {
		return 0
	}
	return n
}

func jsonOf(a harness.Answer, v any) error { return json.Unmarshal([]byte(a.Body), v) }

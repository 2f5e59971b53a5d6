package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/harness"
)

var isolationForm = regexp.MustCompile(`^native/process (instance|invocation) python 3\.\d+\.\d+ \([0-9a-f]{12}\)( without [a-z,-]+)?$`)

func TestReceiptsOfNativeInvocations(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	guests := map[string]harness.Native{"handler": harness.Python("x")}
	v := n.MustDeployNative(guests, nil)
	key, client := n.InvokeKey(), n.HTTP()
	receipt := func(name string, o harness.Order, status int) *api.Receipt {
		t.Helper()
		a, err := n.Try(client, key, name, o)
		if err != nil || a.Status != status || a.Receipt == "" {
			t.Fatalf("%s %v: %+v, %v", name, o, a, err)
		}
		r, err := n.Client.Receipt(t.Context(), a.Receipt)
		if err != nil {
			t.Fatal(err)
		}
		if !isolationForm.MatchString(r.Isolation) || r.Function != name || r.Trigger != "http" || r.Status != status || r.Sandbox == "" ||
			r.WallMillis <= 0 || r.CPUMillis <= 0 || r.MemoryPeak < 1<<20 || r.MemoryPeak > 128<<20 || r.BytesIn == 0 || r.Fuel != 0 || r.Calls != 0 {
			t.Errorf("%s %v: %+v", name, o, r)
		}
		return r
	}
	// Deploying left a sandbox that waits: no call has to wait for a start.
	first := receipt("handler", harness.Order{"do": "log", "text": "a line"}, 200)
	second := receipt("handler", harness.Order{"do": "echo", "text": "x"}, 200)
	if first.Cold || second.Cold || first.Sandbox != second.Sandbox || first.Version != v["handler"] || first.LogBytes != int64(len("a line\n")) || second.BytesOut == 0 {
		t.Errorf("first %+v\nsecond %+v", first, second)
	}
	if r := receipt("handler", harness.Order{"do": "fail", "text": "on purpose"}, 502); r.Outcome == "ok" {
		t.Errorf("a fault: %+v", r)
	}
	// Its process ended, so the next call has to wait for another.
	ended := receipt("handler", harness.Order{"do": "exit", "code": 3}, 502)
	if r := receipt("handler", harness.Order{"do": "echo"}, 200); !r.Cold || r.Sandbox == ended.Sandbox {
		t.Errorf("after an end: %+v", r)
	}
	// A sandbox for each invocation.
	n.MustDeployNative(guests, func(s *api.FunctionSpec) {
		s.Name, s.Config.HTTP[0].Path, s.Config.Isolation = "fresh", "/fresh", "invocation"
	})
	seen := map[string]bool{}
	for range 5 {
		r := receipt("fresh", harness.Order{"do": "echo"}, 200)
		if seen[r.Sandbox] || !strings.Contains(r.Isolation, " invocation ") {
			t.Errorf("a sandbox was used again: %+v", r)
		}
		seen[r.Sandbox] = true
	}
	n.Stop()
}

// The listeners of sandboxes are in their own networks. What the machine can be reached
// at stays what it is.
func TestNothingElseListensForNativeFunctions(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("x")}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	n.Do(client, key, "handler", harness.Order{"do": "echo"}, nil)
	var ports []int
	var want []string
	for _, u := range []string{n.Gateway, n.Control, n.Objects()} {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(p.Port())
		if err != nil {
			t.Fatal(err)
		}
		ports, want = append(ports, port), append(want, "tcp "+p.Host)
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var outside, inside []string
	boxes := 0
	for _, pid := range harness.Tree(t, n.PID()) {
		ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err != nil {
			continue // it ended meanwhile
		}
		if ns == home {
			outside = append(outside, bound(t, pid)...)
		} else {
			boxes++
			inside = append(inside, bound(t, pid)...)
		}
	}
	slices.Sort(want)
	slices.Sort(outside)
	if !slices.Equal(outside, want) {
		t.Errorf("bound on the machine: %q, want %q", outside, want)
	}
	// The node holds the only descriptor of the listener in the box.
	if boxes == 0 || len(inside) > 0 {
		t.Errorf("%d processes in other networks hold %q", boxes, inside)
	}
	// From inside, neither the node nor anything else is to be reached.
	var reached []string
	n.Do(client, key, "handler", harness.Order{"do": "connect", "ports": append(ports, 22, 53, 80, 443)}, &reached)
	if len(reached) > 0 {
		t.Errorf("reached from inside: %v", reached)
	}
}

// TestNativePlaintextIsNotOnDisk plants words in the code of a native function and in
// its events, answers and log, and looks for them in every file that the node could
// have written.
func TestNativePlaintextIsNotOnDisk(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	temp := filepath.Join(h.Dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	h.Wrap = []string{"env", "TMPDIR=" + temp}
	n := h.Up()
	n.NeedNative(t, "python")
	const inCode, inEvent, inLog, inEnv = "native-word-in-code", "native-word-in-event", "native-word-in-log", "native-word-in-environment"
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python(inCode)}, func(s *api.FunctionSpec) {
		s.Config.Environment = map[string]string{"PLANTED": inEnv}
	})
	key, client := n.InvokeKey(), n.HTTP()
	var got struct{ Text, Word string }
	n.Do(client, key, "handler", harness.Order{"do": "echo", "text": inEvent}, &got)
	if got.Text != inEvent || got.Word != inCode {
		t.Fatalf("%+v", got)
	}
	n.Do(client, key, "handler", harness.Order{"do": "log", "text": inLog}, nil)
	n.Do(client, key, "handler", harness.Order{"do": "keep", "text": inEvent}, nil)
	look := func(when string) {
		t.Helper()
		files := 0
		for _, root := range []string{h.Data, temp} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				if os.IsNotExist(err) {
					return nil
				}
				files++
				for _, word := range []string{inCode, inEvent, inLog, inEnv} {
					if bytes.Contains(b, []byte(word)) {
						t.Errorf("%s: %s holds %q in the clear", when, path, word)
					}
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		if files == 0 {
			t.Errorf("%s: no file was looked at", when)
		}
	}
	look("while running")
	// Nor does the machine see a mount of the files: they are in the broker's own tree.
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for mount := range bytes.Lines(mounts) {
		// Other tests fill small disks of their own meanwhile.
		if bytes.Contains(mount, []byte("casemate")) && !bytes.Contains(mount, []byte(" casemate-test ")) {
			t.Errorf("a mount of the machine: %s", mount)
		}
	}
	n.Stop()
	look("after the stop")
}

// TestNativeFunctionsFindNoCredentials has a function read whatever there is to read,
// and looks for anything that authenticates to this node.
func TestNativeFunctionsFindNoCredentials(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	h.Wrap = []string{"env", "CASEMATE_PLANTED=inherited-by-the-node"}
	n := h.Up()
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("own-word")}, func(s *api.FunctionSpec) {
		s.Config.Environment = map[string]string{"OWN": "own-variable"}
		s.Config.OutputBytes, s.Config.TimeoutMillis = 6<<20, 30_000
	})
	// A neighbour whose code and variables are none of its business.
	n.MustDeployNative(map[string]harness.Native{"neighbour": harness.Python("word-of-the-neighbour")}, func(s *api.FunctionSpec) {
		s.Config.Environment = map[string]string{"OTHER": "variable-of-the-neighbour"}
	})
	key, client := n.InvokeKey(), n.HTTP()
	n.Do(client, key, "neighbour", harness.Order{"do": "keep", "text": "left-by-the-neighbour"}, nil)
	var found struct {
		Env        map[string]string
		FDs        map[string]string
		Files      map[string]string
		Sockets    []string
		Processes  map[string]map[string]string
		Unreadable int
	}
	a := n.Do(client, key, "handler", harness.Order{"do": "crawl"}, &found)
	if !strings.Contains(found.Files["/var/task/planted.py"], "own-word") || found.Env["OWN"] != "own-variable" || len(found.Processes) == 0 || len(found.FDs) == 0 {
		t.Fatalf("it did not find its own things: env %v, descriptors %v, %d files", found.Env, found.FDs, len(found.Files))
	}
	secrets := map[string][]byte{
		"the administrator's key": []byte(n.Key), "an invocation key": []byte(key), "the node's environment": []byte("inherited-by-the-node"),
		"the data directory": []byte(h.Data), "the neighbour's code": []byte("word-of-the-neighbour"), "the neighbour's variables": []byte("variable-of-the-neighbour"),
		"the neighbour's scratch": []byte("left-by-the-neighbour"), "a private key": []byte("PRIVATE KEY"),
	}
	root, err := os.ReadFile(filepath.Join(h.Data, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["the root key"] = bytes.TrimSpace(root)
	// As JSON it would stand in the answer escaped; what was found is looked at plainly too.
	var plain bytes.Buffer
	for name, content := range found.Files {
		plain.WriteString(name + "\n" + content + "\n")
	}
	for pid, about := range found.Processes {
		plain.WriteString(pid + " " + about["cmdline"] + " " + about["environ"] + "\n")
	}
	for what, secret := range secrets {
		encoded := base64.StdEncoding.EncodeToString(secret)
		for _, text := range [][]byte{[]byte(a.Body), plain.Bytes()} {
			if len(secret) < 8 || bytes.Contains(text, secret) || bytes.Contains(text, []byte(encoded)) {
				t.Errorf("%s can be found inside", what)
			}
		}
	}
	// Of the environment, only these may carry the function's own.
	for name := range found.Env {
		for _, word := range []string{"TOKEN", "SECRET", "ACCESS_KEY", "PASSWORD", "CREDENTIAL", "CASEMATE"} {
			if strings.Contains(name, word) {
				t.Errorf("the environment has %s", name)
			}
		}
	}
	// Descriptors: pipes for output, its socket to the listener, and nothing that leads out.
	const null = "1:3" // /dev/null, wherever it was opened
	for fd, target := range found.FDs {
		n, err := strconv.Atoi(fd)
		ok := strings.HasPrefix(target, "pipe:") || target == null || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "socket:") && n > 2
		if err != nil || !ok {
			t.Errorf("descriptor %s is %s", fd, target)
		}
	}
	sockets := 0
	for _, target := range found.FDs {
		if strings.HasPrefix(target, "socket:") {
			sockets++
		}
	}
	if sockets > 1 || len(found.Sockets) > 0 {
		t.Errorf("%d sockets are open, and there are %v", sockets, found.Sockets)
	}
	// Processes: its own, and none of another user or of the node.
	for pid, about := range found.Processes {
		line := strings.ReplaceAll(about["cmdline"], "\x00", " ")
		if !strings.Contains(line, "bootstrap") && !strings.Contains(line, "python") {
			b, err := json.Marshal(about)
			t.Errorf("it sees process %s: %s, %v", pid, b, err)
		}
	}
}

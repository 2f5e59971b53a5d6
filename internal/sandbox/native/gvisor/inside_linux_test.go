package gvisor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/gvisor"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
)

// look runs the probe and gives what it saw.
func look(t *testing.T, b *nativetest.Bench, options ...nativetest.Option) map[string]string {
	t.Helper()
	code, err := os.ReadFile(nativetest.Build(t, "internal/sandbox/native/gvisor/testdata/probe"))
	if err != nil {
		t.Fatal(err)
	}
	o := b.Invoke(b.VersionOf(nativetest.Archive(t, map[string][]byte{"bootstrap": code}), options...), `{}`)
	seen := map[string]string{}
	if o.Err != nil || json.Unmarshal(o.Body, &seen) != nil {
		t.Fatalf("the probe answered %q and %v; it printed %q", o.Body, o.Err, o.Log)
	}
	if want := gvisor.Kind + " instance base "; !strings.HasPrefix(o.Usage.Kind, want) {
		t.Errorf("its receipt says %q, want %q…", o.Usage.Kind, want)
	}
	return seen
}

func TestTheKernelInsideIsGVisors(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is there for nobody to reach
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	seen := look(t, b, nativetest.Env(map[string]string{"HOST_PORT": port}))
	machine, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	if seen["version"] == string(machine) || !strings.Contains(seen["dmesg"], "gVisor") {
		t.Errorf("its kernel is %q, which says %q", seen["version"], seen["dmesg"])
	}
	if seen["interfaces"] != "lo" || seen["user"] != "1000" {
		t.Errorf("it has the interfaces %s and is user %s", seen["interfaces"], seen["user"])
	}
	for what, said := range seen {
		if strings.HasPrefix(what, "try ") && said == "done" {
			t.Errorf("it could %s", strings.TrimPrefix(what, "try "))
		}
		if strings.HasPrefix(what, "call ") && said == "errno 0" {
			t.Errorf("the call %s succeeded", strings.TrimPrefix(what, "call "))
		}
	}
	// What the machine's kernel has code for is not even there.
	for _, call := range []string{"userfaultfd", "io_uring_setup"} {
		if said := seen["call "+call]; said != "function not implemented" {
			t.Errorf("%s: %s", call, said)
		}
	}
	for line := range strings.Lines(seen["mounts"]) {
		if f := strings.Fields(line); len(f) > 3 && !strings.HasPrefix(f[1], "/dev") && f[1] != "/tmp" && !slices.Contains(strings.Split(f[3], ","), "ro") {
			t.Errorf("it may write to %s", strings.TrimSpace(line))
		}
	}
	if t.Failed() {
		text, _ := json.MarshalIndent(seen, "", "  ")
		t.Logf("%s", text)
	}
}

// What the machine sees of a sandbox: gVisor's processes, locked in.
func TestWhatStandsAroundTheKernel(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
	v := b.Version(nativetest.Env(map[string]string{"TEST": t.Name()}))
	b.Want(b.Invoke(v, `1`), `1`)
	var all []string
	for _, pid := range descendants(t, os.Getpid()) {
		line, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			continue
		}
		name, _, _ := bytes.Cut(line, []byte{0})
		switch role := filepath.Base(string(name)); role {
		case "runsc-sandbox", "runsc-gofer":
			if strings.Contains(string(line), sandboxOf(t, b)) {
				all = append(all, role)
				checkLocked(t, role, pid)
			}
		}
	}
	slices.Sort(all)
	if want := []string{"runsc-gofer", "runsc-sandbox"}; !slices.Equal(all, want) {
		t.Errorf("found %v, want %v", all, want)
	}
}

// sandboxOf gives a word that only this test's sandboxes have in their arguments.
func sandboxOf(t *testing.T, b *nativetest.Bench) string {
	t.Helper()
	return gvisor.Folder(b.Runner.Launcher())
}

// descendants lists processes below one.
func descendants(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-e", "-o", "pid=,ppid=").Output()
	if err != nil {
		t.Fatal(err)
	}
	below := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 {
			below[f[1]] = append(below[f[1]], f[0])
		}
	}
	var all []string
	var walk func(string)
	walk = func(p string) {
		for _, c := range below[p] {
			all = append(all, c)
			walk(c)
		}
	}
	walk(strconv.Itoa(pid))
	return all
}

func checkLocked(t *testing.T, role, pid string) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("%s lacks %s", role, want)
		}
	}
	_, users, _ := strings.Cut(string(status), "Uid:")
	for _, uid := range strings.Fields(users)[:4] {
		if n, err := strconv.Atoi(uid); err != nil || n < 1_000_000_000 {
			t.Errorf("%s is user %s of the machine", role, uid)
		}
	}
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if ours == theirs {
			t.Errorf("%s shares the machine's namespace %s", role, kind)
		}
	}
	limits, err := os.ReadFile("/proc/" + pid + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[len(f)-2] != "1" {
			t.Errorf("%s may dump its memory: %s", role, line)
		}
	}
	if adj, err := os.ReadFile("/proc/" + pid + "/oom_score_adj"); err != nil || strings.TrimSpace(string(adj)) != "1000" {
		t.Errorf("%s has %s for when memory is short, %v", role, adj, err)
	}
	groups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(groups), "casemate") {
		t.Errorf("%s is in no group of ours: %s", role, groups)
	}
}

func TestInterpretersInGVisor(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	for runtime, c := range map[function.Runtime]struct{ program, file, handler, code string }{
		function.RuntimeNodeJS: {"node", "index.js", "index.handler", "exports.handler = async (e) => ({ got: e.n + 1 });\n"},
		function.RuntimePython: {"python3", "app.py", "app.handler", "def handler(event, context):\n    return {\"got\": event[\"n\"] + 1}\n"},
	} {
		t.Run(string(runtime), func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(c.program); err != nil {
				t.Skip(err)
			}
			b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
			v := b.VersionOf(nativetest.Archive(t, map[string][]byte{c.file: []byte(c.code)}), func(v *function.Version) {
				v.Config.Runtime, v.Config.Handler, v.Config.Limits.Memory = runtime, c.handler, 256<<20
			})
			o := b.Invoke(v, `{"n":1}`)
			if o.Err != nil || strings.ReplaceAll(string(o.Body), " ", "") != `{"got":2}` {
				t.Errorf("got %q and %v; it printed %q", o.Body, o.Err, o.Log)
			}
			if !strings.HasPrefix(o.Usage.Kind, gvisor.Kind+" instance "+string(runtime)) {
				t.Errorf("its receipt says %q", o.Usage.Kind)
			}
		})
	}
}

func TestVersionsThatDoNotFit(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
	v := b.Version(nativetest.Limit(func(l *function.Limits) { l.Memory = gvisor.MinMemory - 1 }))
	o := b.Invoke(v, `1`)
	b.WantKind(o, sandbox.Refused)
	if o.Err != nil && !strings.Contains(o.Err.Public, fmt.Sprint(gvisor.MinMemory>>20)+" MiB") {
		t.Errorf("it says %q", o.Err.Public)
	}
}

// A server is asked to end before it is ended.
func TestTerminate(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	l := launcher(t, program, stub)
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	archive := nativetest.Archive(t, map[string][]byte{"bootstrap": nativetest.Guest(t)})
	v := &function.Version{Ref: function.Ref{Namespace: "alpha", Name: "server"}}
	v.Config.Runtime, v.Config.Command = function.RuntimeHTTP, []string{"bootstrap"}
	v.Config.Limits.Memory = 128 << 20
	laid, err := l.Lay(t.Context(), v, archive)
	if err != nil {
		t.Fatal(err)
	}
	defer laid.Release()
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	c, err := l.Launch(t.Context(), laid, native.Order{
		Command: func(p native.Place) ([]string, []string) {
			return []string{p.Task + "/bootstrap"}, []string{"PORT=" + strconv.Itoa(p.Port)}
		},
		Output: theirs, Memory: 128 << 20, Processes: 64, Scratch: 1 << 20,
	})
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	for { // it asks for its signals before it listens
		conn, err := c.Dial(t.Context())
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-c.Done():
			t.Fatalf("it ended: %v", c.Ended())
		default:
		}
	}
	c.Terminate()
	said, err := io.ReadAll(ours)
	<-c.Done()
	if err != nil || !strings.Contains(string(said), "asked to end") || c.Ended().Signal != "" {
		t.Errorf("it said %q and ended with %v, %v", said, c.Ended(), err)
	}
}

// Nothing is left of sandboxes, and of a Launcher, when they are over.
func TestNothingIsLeft(t *testing.T) {
	program, stub := runsc(t), nativetest.Stub(t)
	var folder string
	before := open(t)
	t.Run("sandboxes", func(t *testing.T) {
		b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
		folder = gvisor.Folder(b.Runner.Launcher())
		v := b.Version(nativetest.Fresh)
		b.Want(b.Invoke(v, `1`), `1`)
		b.WantKind(b.Invoke(v, `{"do":"exit","n":1}`), sandbox.Exit)
		b.Want(b.Invoke(v, `1`), `1`)
	})
	if after := open(t); after != before {
		t.Errorf("%d descriptors are open, and %d were before", after, before)
	}
	nothing(t, folder)
}

// The broker's end is the end of all sandboxes, although their processes are not its own.
func TestTheBrokerEnds(t *testing.T) {
	program, stub := runsc(t), nativetest.Stub(t)
	b := nativetest.New(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }})
	l := b.Runner.Launcher()
	done := make(chan nativetest.Outcome, 1)
	v := b.Version()
	b.Want(b.Invoke(v, `1`), `1`)
	go func() { done <- b.Invoke(v, `{"do":"sleep","millis":60000}`) }()
	if err := syscall.Kill(gvisor.Broker(t, l), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if o := <-done; o.Err == nil {
		t.Error("an invocation went on")
	}
	if err := b.Runner.Close(); err != nil {
		t.Error(err)
	}
	nothing(t, gvisor.Folder(l))
}

// open counts descriptors.
func open(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// nothing checks that nothing is left of a Launcher.
func nothing(t *testing.T, folder string) {
	t.Helper()
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("its folder is there: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), folder) {
		t.Error("something is mounted in its folder")
	}
	for _, pid := range descendants(t, os.Getpid()) {
		if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(line), folder) {
			t.Errorf("process %s is there: %q", pid, line)
		}
	}
}

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/test/harness"
)

// nobody is the user that owns nothing.
const nobody = 65534

// withoutNamespaces is a home whose commands cannot make user namespaces: they run in
// one in which the kernel allows no further ones, as on a machine that forbids them.
func withoutNamespaces(t *testing.T) *harness.Home {
	t.Helper()
	const none = `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`
	wrap := []string{"unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"}
	if out, err := exec.CommandContext(t.Context(), wrap[0], append(wrap[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no user namespace can be made without further ones: %v: %s", err, out)
	}
	h := harness.NewHome(t)
	h.Wrap = wrap
	return h
}

// unprivileged is a home whose commands run as a user without privileges, if the test
// has some; else the test has none to begin with.
func unprivileged(t *testing.T) *harness.Home {
	t.Helper()
	h := harness.NewHome(t)
	if os.Geteuid() != 0 {
		return h
	}
	id := "65534"
	wrap := []string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}
	if out, err := exec.CommandContext(t.Context(), wrap[0], append(slices.Clone(wrap[1:]), "true")...).CombinedOutput(); err != nil {
		t.Skipf("privileges cannot be dropped: %v: %s", err, out)
	}
	// Where the program and the folders of tests lie, others may not be let in.
	dir, err := os.MkdirTemp("/tmp", "casemate-unprivileged-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program := filepath.Join(dir, "casemate")
	copyFile(t, harness.Binary(t), program)
	for _, f := range []string{dir, program} {
		if err := os.Chown(f, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	h.Dir, h.Data, h.Config = dir, filepath.Join(dir, "data"), filepath.Join(dir, "client", "config.json")
	// The path of the program comes behind the wrap; the copy is run in its place, with the
	// programs of the system, as root's own are not this user's.
	h.Wrap = append([]string{"env", "PATH=/usr/local/bin:/usr/bin:/bin"}, append(wrap, "sh", "-c", `shift; exec "$0" "$@"`, program)...)
	return h
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// tier finds the native tier in what `casemate posture sandbox -o json` prints, and
// gives the exit code of its strict form too.
func tier(t *testing.T, h *harness.Home) (api.TierPosture, api.SandboxPosture, int) {
	t.Helper()
	var p api.SandboxPosture
	if err := json.Unmarshal([]byte(h.Run("posture", "sandbox", "-o", "json")), &p); err != nil {
		t.Fatal(err)
	}
	code := 0
	if err := h.Command(t.Context(), "posture", "sandbox", "--strict").Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	for _, x := range p.Tiers {
		if x.Name == "native" {
			return x, p, code
		}
	}
	t.Fatalf("no native tier in %+v", p)
	return api.TierPosture{}, p, code
}

// missing lists the measures that are not in force, and wants a reason with each.
func missing(t *testing.T, p api.TierPosture) []string {
	t.Helper()
	var names []string
	for _, m := range p.Measures {
		if m.Enforced == (m.Reason != "") {
			t.Errorf("measure %+v", m)
		}
		if !m.Enforced {
			names = append(names, m.Name)
		}
	}
	return names
}

// A node on a machine that cannot lock code in says so, refuses native functions with
// the reason, and runs modules as ever.
func TestNodeWithoutSandboxesRefusesNativeFunctions(t *testing.T) {
	t.Parallel()
	h := withoutNamespaces(t)
	n := h.Up()
	native, _, strict := tier(t, h)
	if native.Available || native.Reason == "" || strict != 1 {
		t.Errorf("posture: %+v, --strict exits %d", native, strict)
	}
	if text := h.Run("posture", "sandbox"); !strings.Contains(text, "not available") || !strings.Contains(text, native.Reason) {
		t.Errorf("posture as text:\n%s", text)
	}
	_, err := n.DeployNative(t.Context(), "default", map[string]harness.Native{"handler": harness.Python("x")}, nil)
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Details.Code != problem.NotImplemented || refused.Details.Status != 501 || !strings.Contains(refused.Details.Detail, native.Reason) {
		t.Errorf("a native function: %+v", err)
	}
	n.MustDeploy(map[string]harness.Guest{"module": {Body: "still here"}}, nil)
	if a, err := n.Call(t.Context(), n.HTTP(), n.InvokeKey(), "/module", ""); err != nil || a.Body != "still here" {
		t.Errorf("a module: %+v, %v", a, err)
	}
	s, err := n.Client.Status(t.Context())
	if err != nil || !strings.Contains(s.Components["native sandboxes"], "refused: ") || strings.Contains(strings.Join(s.Warnings, " "), "without a sandbox") {
		t.Errorf("status: %+v, %v", s, err)
	}
	if !strings.Contains(n.Output(), "native functions are refused") {
		t.Errorf("the log does not say it:\n%s", n.Output())
	}
	n.Stop()
}

// With --unsandboxed it runs them, and nobody can overlook it.
func TestUnsandboxedIsSaidEverywhere(t *testing.T) {
	t.Parallel()
	h := withoutNamespaces(t)
	n := h.Up("--unsandboxed")
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("here all the same")}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	for range 3 {
		var got struct{ Word string }
		a := n.Do(client, key, "handler", harness.Order{"do": "echo"}, &got)
		r, err := n.Client.Receipt(t.Context(), a.Receipt)
		if err != nil || got.Word != "here all the same" || !strings.HasPrefix(r.Isolation, "native/unsandboxed ") {
			t.Errorf("answer %+v, receipt %+v, %v", got, r, err)
		}
	}
	var who struct{ Dir string }
	n.Do(client, key, "handler", harness.Order{"do": "who"}, &who)
	if !filepath.IsAbs(who.Dir) || who.Dir == "/var/task" {
		t.Errorf("it runs in %q", who.Dir)
	}
	s, err := n.Client.Status(t.Context())
	if err != nil || !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "without a sandbox") }) {
		t.Errorf("status warns of %q, %v", s.Warnings, err)
	}
	if text := h.Run("status"); !strings.Contains(text, "without a sandbox") {
		t.Errorf("status as text:\n%s", text)
	}
	audited := slices.ContainsFunc(strings.Split(n.Output(), "\n"), func(l string) bool {
		return strings.Contains(l, "msg=audit") && strings.Contains(l, "without a sandbox") && strings.Contains(l, "--unsandboxed")
	})
	if !audited {
		t.Errorf("no audit line:\n%s", n.Output())
	}
	native, p, strict := tier(t, h)
	if !native.Available || native.Kind != "native/unsandboxed" || p.Complete || strict != 1 || !slices.Equal(missing(t, native), []string{"sandbox"}) {
		t.Errorf("posture: %+v, complete: %v, --strict exits %d", native, p.Complete, strict)
	}
	n.Stop()
	if _, err := os.Stat(who.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left behind: %v", who.Dir, err)
	}
}

// Without a sandbox a function is no more than a process of the node's: it ends with it,
// and its files go with the next start.
func TestKilledNodeLeavesNoPlainProcess(t *testing.T) {
	t.Parallel()
	h := withoutNamespaces(t)
	n := h.Up("--unsandboxed")
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("left behind")}, func(s *api.FunctionSpec) { s.Config.TimeoutMillis = 300_000 })
	key, client := n.InvokeKey(), n.HTTP()
	var who struct {
		Dir string
		PID int
	}
	n.Do(client, key, "handler", harness.Order{"do": "who"}, &who)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = n.Try(client, key, "handler", harness.Order{"do": "sleep", "millis": 300_000}) // the node is killed
	}()
	harness.Eventually(t, "the call is under way", func() bool {
		s, err := n.Client.Status(t.Context())
		return err == nil && s.InFlight == 1
	})
	if !slices.Contains(harness.Tree(t, n.PID()), who.PID) {
		t.Fatalf("process %d is none of the node's", who.PID)
	}
	n.Kill()
	<-over
	harness.Eventually(t, "the function's process has ended", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", who.PID))
		return err != nil || !strings.Contains(string(b), "bootstrap.py")
	})
	m := h.Up("--unsandboxed")
	if _, err := os.Stat(who.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", who.Dir, err)
	}
	m.Stop()
}

// Where there are sandboxes, the flag that allows to do without changes nothing.
func TestUnsandboxedChangesNothingWhereSandboxesAre(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up("--unsandboxed")
	native, _, _ := tier(t, h)
	if native.Kind == "native/unsandboxed" {
		t.Skip("this machine has no sandbox to offer: " + strings.Join(missing(t, native), ", "))
	}
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("x")}, nil)
	a := n.Do(n.HTTP(), n.InvokeKey(), "handler", harness.Order{"do": "echo"}, nil)
	r, err := n.Client.Receipt(t.Context(), a.Receipt)
	if err != nil || !strings.HasPrefix(r.Isolation, "native/process ") {
		t.Errorf("receipt: %+v, %v", r, err)
	}
	s, err := n.Client.Status(t.Context())
	if err != nil || strings.Contains(strings.Join(s.Warnings, " "), "sandbox") || strings.Contains(n.Output(), "--unsandboxed") {
		t.Errorf("status warns of %q, %v; log:\n%s", s.Warnings, err, n.Output())
	}
}

// A node without privileges runs native functions as well, and says what it could not
// put around them.
func TestUnprivilegedNodeRunsNativeFunctions(t *testing.T) {
	t.Parallel()
	h := unprivileged(t)
	n := h.Up()
	native, p, strict := tier(t, h)
	if !native.Available {
		t.Skip("this machine lets nobody without privileges make sandboxes: " + native.Reason)
	}
	n.NeedNative(t, "python")
	lacks := missing(t, native)
	if !slices.Contains(lacks, "unused-uid") {
		t.Errorf("another user cannot be had without privileges, and is not said to be missing: %v", lacks)
	}
	for _, name := range []string{"user-namespace", "pid-namespace", "no-network", "syscall-filter", "no-capabilities", "empty-root"} {
		if slices.Contains(lacks, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if p.Complete || strict != 1 {
		t.Errorf("complete: %v, --strict exits %d", p.Complete, strict)
	}
	n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("rootless")}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	var got struct{ Word string }
	a := n.Do(client, key, "handler", harness.Order{"do": "echo"}, &got)
	r, err := n.Client.Receipt(t.Context(), a.Receipt)
	if err != nil || got.Word != "rootless" || !strings.HasPrefix(r.Isolation, "native/process ") || !strings.HasSuffix(r.Isolation, " without "+strings.Join(lacks, ",")) {
		t.Errorf("answer %+v, receipt %+v, %v", got, r, err)
	}
	// Inside it is nobody's business whose node it is.
	var who struct{ UID int }
	n.Do(client, key, "handler", harness.Order{"do": "who"}, &who)
	if who.UID == 0 || who.UID == nobody {
		t.Errorf("inside it is user %d", who.UID)
	}
	var said map[string]string
	owned := filepath.Join(h.Data, "root.key")
	n.Do(client, key, "handler", harness.Order{"do": "write", "paths": []string{"/var/task/guest.py", owned}}, &said)
	if said["/var/task/guest.py"] != "Read-only file system" || said[owned] == "written" {
		t.Errorf("writing: %v", said)
	}
	if _, err := os.Stat(owned); errors.Is(err, fs.ErrNotExist) {
		t.Error("the root key is gone")
	}
	n.Stop()
}

// On a machine that enforces everything, the strict form is content; on another it
// says what lacks. Either way text, JSON and exit code tell the same.
func TestPostureAgreesWithItself(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	native, p, strict := tier(t, h)
	var lacks []string
	for _, tp := range p.Tiers {
		lacks = append(lacks, missing(t, tp)...)
	}
	if p.Complete != (len(lacks) == 0) || p.Complete != (strict == 0) {
		t.Errorf("complete: %v, --strict exits %d, missing: %v", p.Complete, strict, lacks)
	}
	text := h.Run("posture", "sandbox")
	for _, tp := range p.Tiers {
		for _, m := range tp.Measures {
			if !strings.Contains(text, m.Name) {
				t.Errorf("%s is not in the text:\n%s", m.Name, text)
			}
		}
	}
	if strings.Count(text, "✗ missing") < len(lacks) || strings.Count(text, "✓ enforced") == 0 && native.Available {
		t.Errorf("%d are missing:\n%s", len(lacks), text)
	}
	s, err := n.Client.Status(t.Context())
	if err != nil || s.Components["native sandboxes"] == "" {
		t.Errorf("status: %+v, %v", s, err)
	}
}

package harness

import (
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/api"
)

// Native is a native function by its files.
type Native struct {
	Runtime string
	Handler string
	Command []string
	Files   map[string]string
}

// guestPython is a handler that does what its event tells it to.
//
//go:embed guest.py
var guestPython string

// Python is that handler, as a function for AWS Lambda; see NeedNative. What is planted
// stands in its code.
func Python(planted string) Native {
	return Native{Runtime: "python", Handler: "guest.handler", Files: map[string]string{
		"guest.py": guestPython, "planted.py": "WORD = " + fmt.Sprintf("%q", planted) + "\n",
	}}
}

// Code packs the files as the client does, all executable.
func (f Native) Code() ([]byte, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(f.Files)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(fs.FileMode(0o755))
		file, err := w.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := file.Write([]byte(f.Files[name])); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

// DeployNative is Deploy for native functions, each with a POST route of its name in
// that namespace.
func (n *Node) DeployNative(ctx context.Context, namespace string, fns map[string]Native, edit func(*api.FunctionSpec)) (map[string]string, error) {
	var specs []api.FunctionSpec
	for _, name := range slices.Sorted(maps.Keys(fns)) {
		f := fns[name]
		code, err := f.Code()
		if err != nil {
			return nil, err
		}
		if err := n.Client.PutArtifact(ctx, Digest(code), int64(len(code)), bytes.NewReader(code)); err != nil {
			return nil, err
		}
		spec := api.FunctionSpec{Name: name, Artifact: Digest(code), Config: api.FunctionConfig{
			Runtime: f.Runtime, Handler: f.Handler, Command: f.Command, HTTP: []api.HTTPTrigger{{Method: http.MethodPost, Path: "/" + name}},
		}}
		if edit != nil {
			edit(&spec)
		}
		specs = append(specs, spec)
	}
	return n.apply(ctx, namespace, specs)
}

// MustDeployNative is DeployNative into the default namespace, for tests that rely on it.
func (n *Node) MustDeployNative(fns map[string]Native, edit func(*api.FunctionSpec)) map[string]string {
	n.T.Helper()
	v, err := n.DeployNative(n.T.Context(), "default", fns, edit)
	if err != nil {
		n.T.Fatalf("%v\n%s", err, n.Output())
	}
	return v
}

// RequireToolchains is the variable under which what a machine lacks fails a test
// instead of leaving it out.
const RequireToolchains = "CASEMATE_REQUIRE_TOOLCHAINS"

// NeedNative skips the test when the node can lock no native functions in, or its
// machine lacks what one of the runtimes needs.
func (n *Node) NeedNative(t testing.TB, runtimes ...string) {
	t.Helper()
	tier := n.NativeTier(t)
	lacks := ""
	if !tier.Available {
		lacks = "this machine has no sandbox to offer: " + tier.Reason
	}
	for _, r := range tier.Runtimes {
		if !r.Available && slices.Contains(runtimes, r.Name) {
			lacks = r.Name + " cannot be run here: " + r.Reason
		}
	}
	if lacks != "" {
		Lacking(t, lacks)
	}
}

// Lacking skips the test for what this machine lacks, or fails it where everything is
// to be there.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(RequireToolchains) != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// NativeTier asks for the posture of native functions.
func (n *Node) NativeTier(t testing.TB) api.TierPosture {
	t.Helper()
	p, err := n.Client.SandboxPosture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Tiers, func(tp api.TierPosture) bool { return tp.Name == "native" })
	if i < 0 {
		t.Fatalf("there is no native tier: %+v", p)
	}
	return p.Tiers[i]
}

// apply plans and applies.
func (n *Node) apply(ctx context.Context, namespace string, specs []api.FunctionSpec) (map[string]string, error) {
	plan, err := n.Client.Plan(ctx, namespace, api.PlanRequest{Functions: specs})
	if err != nil {
		return nil, err
	}
	applied, err := n.Client.Apply(ctx, namespace, api.ApplyRequest{Plan: *plan, Functions: specs})
	if err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, d := range applied.Functions {
		versions[d.Name] = d.Version
	}
	return versions, nil
}

// Order is what an event tells the handler in guest.py to do.
type Order map[string]any

// Do calls a function of that handler and wants an answer, which it decodes into v
// unless that is nil.
func (n *Node) Do(client *http.Client, key, name string, o Order, v any) Answer {
	n.T.Helper()
	a, err := n.Try(client, key, name, o)
	if err != nil {
		n.T.Fatal(err)
	}
	if a.Status != http.StatusOK {
		n.T.Fatalf("%s %v: %d %s\n%s", name, o, a.Status, a.Body, n.Output())
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.Body), v); err != nil {
			n.T.Fatalf("%s %v: %q: %v", name, o, a.Body, err)
		}
	}
	return a
}

// Try calls a function of that handler.
func (n *Node) Try(client *http.Client, key, name string, o Order) (Answer, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return Answer{}, err
	}
	return n.Call(n.T.Context(), client, key, "/"+name, string(body))
}

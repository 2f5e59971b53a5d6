package control

import (
	"archive/zip"
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func archive(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	if _, err := w.Create("index.js"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What is no archive reaches no sandbox, and what is one comes out as it went in.
func TestNativeCodeMustBeAnArchive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := r.client(adminSecret), t.Context()
	apply := func(cfg api.FunctionConfig, code string) error {
		d := string(function.DigestOf([]byte(code)))
		if err := c.PutArtifact(ctx, d, int64(len(code)), strings.NewReader(code)); err != nil {
			t.Fatal(err)
		}
		specs := []api.FunctionSpec{{Name: "hello", Artifact: d, Config: cfg}}
		plan, err := c.Plan(ctx, "default", api.PlanRequest{Functions: specs})
		if err != nil {
			return err
		}
		_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
		return err
	}
	good := archive(t)
	for _, runtime := range []string{"nodejs", "python", "provided", "azure"} {
		for _, code := range []string{"\x00asm\x01\x00\x00\x00", "exports.handler = 1", "\x7fELF", good[:len(good)-1]} {
			if e := refused(t, apply(api.FunctionConfig{Runtime: runtime}, code), problem.InvalidModule); e.Field != "functions.hello" || e.Remedy == "" {
				t.Errorf("%s %.10q: %+v", runtime, code, e.Details)
			}
		}
		refused(t, apply(api.FunctionConfig{Runtime: runtime, Entry: "handle"}, good), problem.InvalidManifest)
	}
	refused(t, apply(api.FunctionConfig{Runtime: "http", Command: []string{"../server"}}, good), problem.InvalidManifest)
	if len(r.prepared) != 0 {
		t.Fatalf("a sandbox was troubled with %d versions", len(r.prepared))
	}

	want := api.FunctionConfig{
		Runtime: "http", Command: []string{"node", "server.js"}, Isolation: "invocation", Sandbox: "gvisor", MemoryBytes: 128 << 20, TimeoutMillis: 5000,
		CPUMillis: 1000, OutputBytes: 1 << 20, LogBytes: 1 << 10, ScratchBytes: 32 << 20, Processes: 16, Concurrency: api.Concurrency{Max: 8},
	}
	if err := apply(want, good); err != nil {
		t.Fatal(err)
	}
	f, err := c.Function(ctx, "default", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Live.Config, want) {
		t.Errorf("got %+v, want %+v", f.Live.Config, want)
	}
	if err := apply(f.Live.Config, good); err != nil { // what a node says of a version can be sent again
		t.Error(err)
	}
	if err := apply(api.FunctionConfig{Runtime: "nodejs"}, good); err != nil {
		t.Fatal(err)
	}
	v := r.prepared[len(r.prepared)-1].Config
	if v.Handler != "index.handler" || v.Entry != "" || v.Isolation != function.IsolationInstance || v.Command != nil || v.Limits.Calls != 0 ||
		v.Limits.Memory != 256<<20 || v.Limits.Scratch != function.DefaultScratch || v.Limits.Processes != function.DefaultProcesses {
		t.Errorf("prepared: %+v", v)
	}
}

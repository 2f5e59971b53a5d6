package lambdas

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/scaffold"
	"github.com/casemate-dev/casemate/test/guests"
	"github.com/casemate-dev/casemate/test/harness"
)

// Every function is deployed by the casemate program to one node, and answers as its
// test.json says. Each request is made twice, since what serves the second has served
// before.
func TestFunctionsAnswerAsOnTheirProvider(t *testing.T) {
	t.Parallel()
	fns := functions(t)
	n := harness.NewHome(t).Up()
	for _, f := range fns {
		t.Run(f.Function.Name, func(t *testing.T) {
			available(t, &f)
			answers(t, n, &f, f.Dir)
		})
	}
	if !t.Failed() {
		n.Stop()
	}
}

// alsoFresh are the functions that are called with a sandbox for each invocation too:
// one of each way to run, and those that pack nothing.
func alsoFresh() []string {
	return []string{"aws-go", "aws-node-callback", "aws-node-streaming", "aws-python", "azure-node-forward", "azure-queue", "gcp-go-server"}
}

// With `isolation: invocation` they answer the same.
func TestFunctionsAnswerFromAFreshSandboxEachTime(t *testing.T) {
	t.Parallel()
	fns := functions(t)
	n := harness.NewHome(t).Up()
	for _, f := range fns {
		if !slices.Contains(alsoFresh(), f.Function.Name) {
			continue
		}
		t.Run(f.Function.Name, func(t *testing.T) {
			available(t, &f)
			dir := filepath.Join(t.TempDir(), f.Function.Name)
			if err := os.CopyFS(dir, os.DirFS(f.Dir)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, manifest.FileName)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			before, after, ok := strings.Cut(string(text), "    runtime: ")
			if !ok {
				t.Fatalf("%s has no runtime where it is looked for", file)
			}
			if err := os.WriteFile(file, []byte(before+"    isolation: invocation\n    runtime: "+after), 0o600); err != nil {
				t.Fatal(err)
			}
			used := map[string]bool{}
			for _, id := range answers(t, n, &f, dir) {
				r, err := n.Client.Receipt(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(r.Isolation, " invocation") || used[r.Sandbox] {
					t.Errorf("receipt: %+v", r)
				}
				used[r.Sandbox] = true
			}
		})
	}
	if !t.Failed() {
		n.Stop()
	}
}

// answers deploys a function from dir and makes its requests twice; it gives the ids of
// their receipts.
func answers(t *testing.T, n *harness.Node, f *guests.Example, dir string) (receipts []string) {
	t.Helper()
	key, client := n.InvokeKey(), n.HTTP()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	n.NeedNative(t, f.Function.Config.Runtime)
	deploy(t, n, dir)
	for round := range 2 {
		for _, r := range f.Requests {
			a := call(t, n, client, key, r)
			if err := r.Want.Check(a); err != nil {
				t.Errorf("%s, round %d: %v", r.Name, round+1, err)
			}
			if id := a.Headers["casemate-receipt"]; id != "" { // a request that reaches no function has none
				receipts = append(receipts, id)
			}
		}
	}
	if len(receipts) == 0 {
		t.Error("no request reached the function")
	}
	if t.Failed() {
		t.Logf("the function's log:\n%s", logs(t, n, f.Function.Name))
	}
	return receipts
}

// deploy runs `casemate deploy`, for as long as a compiler may take.
func deploy(t *testing.T, n *harness.Node, dir string) {
	t.Helper()
	cmd := n.Command(t.Context(), "deploy", dir, "--yes")
	cmd.Env = append(cmd.Env, homes()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("casemate deploy: %v\n%s", err, out)
	}
}

func call(t *testing.T, n *harness.Node, client *http.Client, key string, r guests.Request) guests.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	defer cancel()
	url := n.Gateway + r.Path
	if r.Query != "" {
		url += "?" + r.Query
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, url, bytes.NewReader(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := guests.Answer{Status: resp.StatusCode, Headers: map[string]string{}, Body: body}
	for name := range resp.Header {
		a.Headers[strings.ToLower(name)] = resp.Header.Get(name)
	}
	return a
}

// logs gives what the function and those who packed it said, for a failure's sake.
func logs(t *testing.T, n *harness.Node, name string) string {
	t.Helper()
	var b strings.Builder
	for r, err := range n.Client.Logs(t.Context(), "default", api.LogQuery{Function: name}) {
		if err != nil {
			return err.Error()
		}
		b.WriteString(r.Text + "\n")
	}
	return b.String()
}

// What `casemate init` writes can be deployed at once, and greets.
func TestTemplatesAnswer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs compilers; not with -short")
	}
	n := harness.NewHome(t).Up()
	key, client := n.InvokeKey(), n.HTTP()
	for _, runtime := range scaffold.Runtimes() {
		if !manifest.Native(runtime) {
			continue
		}
		t.Run(runtime, func(t *testing.T) {
			name := "salute-" + runtime
			n.Run("init", name, "--runtime", runtime)
			dir := filepath.Join(n.Dir, name)
			m, err := manifest.Load(filepath.Join(dir, manifest.FileName))
			if err != nil {
				t.Fatal(err)
			}
			available(t, &guests.Example{Dir: dir, Function: m.Functions[0]})
			n.NeedNative(t, runtime)
			deploy(t, n, dir)
			for body, want := range map[string]guests.Want{
				`{"name":"Ada"}`: {Status: 200, Headers: map[string]string{"content-type": "application/json"}, JSON: []byte(`{"message":"Hello, Ada!"}`)},
				`{}`:             {Status: 200, JSON: []byte(`{"message":"Hello, world!"}`)},
				``:               {Status: 200, JSON: []byte(`{"message":"Hello, world!"}`)},
				`{`:              {Status: 400},
			} {
				r := guests.Request{Method: http.MethodPost, Path: "/" + name, Headers: map[string]string{"content-type": "application/json"}, Body: []byte(body)}
				if err := want.Check(call(t, n, client, key, r)); err != nil {
					t.Errorf("%q: %v", body, err)
				}
			}
			if t.Failed() {
				t.Logf("the function's log:\n%s", logs(t, n, name))
			}
		})
	}
	if !t.Failed() {
		n.Stop()
	}
}

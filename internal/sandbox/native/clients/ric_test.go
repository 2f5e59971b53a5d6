package clients_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// AWS's own clients work against our Runtime API with the same handlers as ours.

// install runs a package manager in a folder of its own, with a lock file.
func install(t *testing.T, lock []string, name string, args ...string) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("installs packages")
	}
	program, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	dir = t.TempDir()
	for _, file := range lock {
		b, err := os.ReadFile(filepath.Join("testdata/ric", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		for _, reason := range []string{"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "NewConnectionError", "Temporary failure", "timed out"} {
			if strings.Contains(string(out), reason) {
				t.Skipf("the registry cannot be reached: %s", out)
			}
		}
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return dir
}

func TestAWSClientForNode(t *testing.T) {
	p := node(t)
	dir := install(t, []string{"node/package.json", "node/package-lock.json", "node/native-client.cjs"}, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	// Where the addon would be; native-client.cjs answers for it.
	if err := os.WriteFile(filepath.Join(dir, "node_modules/aws-lambda-ric/dist/rapid-client.node"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	use := func(handler string) program {
		q := p
		// The package looks for the function below the working directory.
		q.args = []string{
			p.args[0], "--require", filepath.Join(dir, "native-client.cjs"), "--input-type=module", "--eval",
			"import { run } from '" + filepath.Join(dir, "node_modules/aws-lambda-ric/dist/index.mjs") + "'; await run(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER)",
		}
		return q
	}
	g := start(t, use("index.echo"), "index.echo")
	for i := range 3 {
		g.want(`{"a":"ü"}`, `{"event":{"a":"ü"},"calls":`+string(rune('1'+i))+`,"id":"id-1"}`)
	}
	g = start(t, use("index.throws"), "index.throws")
	for range 2 {
		g.fault("RangeError", "out of range")
	}
	start(t, use("index.none"), "index.none").initFault("Runtime.HandlerNotFound", "index.none is undefined or not exported")
	g = start(t, use("index.stream"), "index.stream")
	for range 2 {
		r, err := g.invoke(`{"n":3}`)
		if err != nil || r.Fault != nil || !r.Streamed || r.ContentType != "text/plain" || string(r.Body) != "part 0\npart 1\npart 2\n" {
			t.Errorf("a stream gave %s %q %+v %v", r.ContentType, r.Body, r.Fault, err)
		}
	}
	g = start(t, use("index.streamBreaks"), "index.streamBreaks")
	g.fault("RangeError", "half way")
}

func TestAWSClientForPython(t *testing.T) {
	p := python(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the lock file names wheels for amd64")
	}
	if out, err := exec.Command(p.args[0], "-c", "import sys; print(sys.version_info[:2])").Output(); err != nil || strings.TrimSpace(string(out)) != "(3, 11)" {
		t.Skipf("the lock file names wheels for Python 3.11; this is %s %v", out, err)
	}
	dir := install(t, []string{"python/requirements.txt"}, p.args[0], "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "--no-deps", "--target", "packages", "-r", "requirements.txt")
	use := func(handler string) program {
		q := p
		q.args = []string{p.args[0], "-B", "-m", "awslambdaric", handler}
		q.env = []string{"PYTHONPATH=" + filepath.Join(dir, "packages") + ":" + p.root}
		return q
	}
	g := start(t, use("index.echo"), "index.echo")
	for i := range 3 {
		g.want(`{"a":"u"}`, `{"event": {"a": "u"}, "calls": `+string(rune('1'+i))+`, "id": "id-1"}`)
	}
	g = start(t, use("index.throws"), "index.throws")
	for range 2 {
		g.fault("ValueError", "wrong value")
	}
	g = start(t, use("index.big"), "index.big")
	g.want(`{"size":2000000}`, `"`+strings.Repeat("x", 2000000)+`"`) // with Expect: 100-continue
	start(t, use("index.none"), "index.none").initFault("Runtime.HandlerNotFound", "Handler 'none' missing on module 'index'")
}

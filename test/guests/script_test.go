package guests

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// runScript stands in for the platform around a bundle: Node.js has the interfaces
// of the web too, so what a handler does can be judged without our engine. Requests
// are lines of JSON, and so are answers.
const runScript = `
import { createInterface } from "node:readline";
const [bundle, env] = process.argv.slice(2);
console.log = console.info = console.debug = console.error;
const module = await import(bundle);
for await (const line of createInterface({ input: process.stdin })) {
  const given = JSON.parse(line);
  const body = given.body === "" ? undefined : Buffer.from(given.body, "base64");
  const url = new URL("https://node.test" + given.path);
  url.search = given.query;
  const request = new Request(url, { method: given.method, headers: given.headers, body });
  Object.defineProperty(request, "casemate", { value: { id: "test", caller: "key:test", params: {}, trigger: "http" } });
  const waiting = [];
  let answer;
  try {
    const response = await module.default.fetch(request, JSON.parse(env), { waitUntil: (p) => waiting.push(p) });
    answer = { status: response.status, headers: Object.fromEntries(response.headers), body: Buffer.from(await response.arrayBuffer()).toString("base64") };
    await Promise.all(waiting);
  } catch (e) {
    answer = { failure: String(e?.stack ?? e) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
`

// scriptGuest is a bundle under Node.js, one process for all its requests.
type scriptGuest struct {
	in  *json.Encoder
	out *json.Decoder
}

func newScript(t *testing.T, bundle []byte, env map[string]string) *scriptGuest {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv(requireToolchains) == "" {
			t.Skip("node is not installed, so the handler is not run")
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	runner, file := filepath.Join(dir, "run.mjs"), filepath.Join(dir, "function.mjs")
	for name, content := range map[string][]byte{runner: []byte(runScript), file: bundle} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if env == nil {
		env = map[string]string{}
	}
	values, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, runner, file, string(values))
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // its end
		_ = cmd.Wait() // the context may have killed it first
		if t.Failed() {
			t.Logf("log: %s", log.Bytes())
		}
	})
	return &scriptGuest{in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

// ask calls the handler and reads its answer.
func (g *scriptGuest) ask(t *testing.T, r Request) (Answer, time.Duration) {
	t.Helper()
	headers := r.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	start := time.Now()
	if err := g.in.Encode(map[string]any{"method": r.Method, "path": r.Path, "query": r.Query, "headers": headers, "body": r.Body}); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	var answer struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    []byte            `json:"body"`
		Failure string            `json:"failure"`
	}
	if err := g.out.Decode(&answer); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	if answer.Failure != "" {
		t.Fatalf("%s: %s", r.Name, answer.Failure)
	}
	return Answer{Status: answer.Status, Headers: answer.Headers, Body: answer.Body}, time.Since(start)
}

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/harness"
)

// Clients of AWS are the real ones, each with what `casemate key create --aws` prints
// and nothing else, against functions of both tiers.

// awsNode is a node with one function of each tier, and the environment for clients.
type awsNode struct {
	*harness.Node
	versions map[string]string // hex
	env      []string
}

func newAWSNode(t *testing.T) *awsNode {
	t.Helper()
	h := harness.NewHome(t)
	n := &awsNode{Node: h.Up(), versions: map[string]string{}}
	n.NeedNative(t, "python")
	wasm := n.MustDeploy(map[string]harness.Guest{"module": {Body: `{"from":"wasm"}`, Log: "a line of the module\n"}, "trap": {Trap: true}}, nil)
	native := n.MustDeployNative(map[string]harness.Native{"handler": harness.Python("planted")}, nil)
	one := n.MustDeployNative(map[string]harness.Native{"single": harness.Python("single")}, func(s *api.FunctionSpec) { s.Config.Concurrency.Max = 1 })
	for _, m := range []map[string]string{wasm, native, one} {
		for name, id := range m {
			n.versions[name] = strings.TrimPrefix(id, "sha256:")
		}
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "AWS_") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			n.env = append(n.env, v)
		}
	}
	n.env = append(n.env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
	// The command prints what a shell evaluates; a shell does it here too.
	script := h.Run("key", "create", "clients", "--aws", "--scope", "invoke:default/*", "--scope", "read:default/*")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script+"\nenv")
	cmd.Env = n.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "AWS_") {
			n.env = append(n.env, strings.TrimSpace(line))
		}
	}
	return n
}

func (n *awsNode) variable(name string) string {
	for _, v := range slices.Backward(n.env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// run runs a client and gives what it printed, and what it complained of.
func (n *awsNode) run(t *testing.T, args ...string) (out, complaints string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = n.Dir, n.env
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

func needs(t *testing.T, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		harness.Lacking(t, program+" is not here")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		harness.Lacking(t, fmt.Sprintf("%s %s: %v: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(out)))
	}
	return path
}

func TestAWSCommandLineCallsFunctionsOfBothTiers(t *testing.T) {
	t.Parallel()
	aws := needs(t, "aws", "--version")
	n := newAWSNode(t)
	event := filepath.Join(n.Dir, "event.json")
	type answer struct {
		StatusCode                                int
		ExecutedVersion, FunctionError, LogResult string
	}
	invoke := func(name, payload string, options ...string) (answer, string) {
		t.Helper()
		if err := os.WriteFile(event, []byte(payload), 0o600); err != nil {
			t.Fatal(err)
		}
		out, complaints, err := n.run(t, append([]string{aws, "lambda", "invoke", "--function-name", name, "--payload", "fileb://" + event, "out.json"}, options...)...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, complaints)
		}
		var a answer
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatalf("%s: %q: %v", name, out, err)
		}
		b, err := os.ReadFile(filepath.Join(n.Dir, "out.json"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return a, string(b)
	}
	var echoed struct{ Text, Word string }
	a, body := invoke("handler", `{"do":"echo","text":"grüße"}`)
	if err := json.Unmarshal([]byte(body), &echoed); err != nil || echoed.Text != "grüße" || echoed.Word != "planted" || a.StatusCode != 200 || a.ExecutedVersion != n.versions["handler"] || a.FunctionError != "" {
		t.Errorf("handler: %+v %s", a, body)
	}
	a, body = invoke("module:live", `{}`, "--log-type", "Tail")
	log, err := base64.StdEncoding.DecodeString(a.LogResult)
	if body != `{"from":"wasm"}` || a.ExecutedVersion != n.versions["module"] || err != nil || string(log) != "a line of the module\n" {
		t.Errorf("module: %+v %s, log %q", a, body, log)
	}
	a, body = invoke("handler", `{"do":"log","text":"said by the handler"}`, "--log-type", "Tail")
	log, err = base64.StdEncoding.DecodeString(a.LogResult)
	if err != nil || !strings.Contains(string(log), "said by the handler\n") || a.FunctionError != "" {
		t.Errorf("log tail: %+v %s, log %q", a, body, log)
	}
	var fault struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
		Stack   []any  `json:"stackTrace"`
	}
	a, body = invoke("handler", `{"do":"fail","text":"on purpose"}`)
	if err := json.Unmarshal([]byte(body), &fault); err != nil || a.StatusCode != 200 || a.FunctionError != "Unhandled" || fault.Message != "on purpose" || fault.Type != "ValueError" || len(fault.Stack) == 0 {
		t.Errorf("a fault: %+v %s", a, body)
	}
	a, body = invoke("trap", `{}`)
	if a.FunctionError != "Unhandled" || !strings.Contains(body, "errorMessage") {
		t.Errorf("a trap: %+v %s", a, body)
	}
	if a, _ := invoke("handler", `{"do":"fail"}`, "--invocation-type", "DryRun"); a.StatusCode != http.StatusNoContent || a.FunctionError != "" {
		t.Errorf("dry run: %+v", a)
	}
	if out, complaints, err := n.run(t, aws, "lambda", "list-functions", "--query", "sort(Functions[].FunctionName)", "--output", "text"); err != nil || strings.Join(strings.Fields(out), " ") != "handler module single trap" {
		t.Errorf("list: %q, %v, %s", out, err, complaints)
	}
	if out, complaints, err := n.run(t, aws, "lambda", "get-function-configuration", "--function-name", "handler", "--query", "[FunctionName,Runtime,Handler]", "--output", "text"); err != nil || strings.Join(strings.Fields(out), " ") != "handler python guest.handler" {
		t.Errorf("configuration: %q, %v, %s", out, err, complaints)
	}
	if out, complaints, err := n.run(t, aws, "lambda", "get-alias", "--function-name", "module", "--name", "live", "--query", "FunctionVersion", "--output", "text"); err != nil || strings.TrimSpace(out) != n.versions["module"] {
		t.Errorf("alias: %q, %v, %s", out, err, complaints)
	}
	if out, complaints, err := n.run(t, aws, "lambda", "list-versions-by-function", "--function-name", "handler", "--query", "Versions[].Version", "--output", "text"); err != nil || !strings.Contains(out, n.versions["handler"]) {
		t.Errorf("versions: %q, %v, %s", out, err, complaints)
	}
	// What is called is on record, whoever called it.
	for name, trigger := range map[string]string{"handler": "native/", "module": "wasm"} {
		found := false
		for rec, err := range n.Client.Logs(t.Context(), "default", api.LogQuery{Function: name}) {
			if err != nil {
				t.Fatal(err)
			}
			found = found || rec.Receipt != nil && rec.Receipt.Trigger == "lambda" && strings.HasPrefix(rec.Receipt.Principal, "key:") && strings.Contains(rec.Receipt.Isolation, trigger)
		}
		if !found {
			t.Errorf("%s: no receipt of a call through this door", name)
		}
	}
}

// botoScript calls what boto3 has methods for. The throttled call competes with one that
// holds the only place, and asks for it again when it does not get it at once.
const botoScript = `
import json, threading
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

client = boto3.client("lambda", config=Config(retries={"mode": "standard", "total_max_attempts": 1}))
patient = boto3.client("lambda", config=Config(retries={"mode": "standard", "total_max_attempts": 10}))

def call(client, **args):
    try:
        answer = client.invoke(**args)
        return {"status": answer["StatusCode"], "error": answer.get("FunctionError"), "version": answer.get("ExecutedVersion"),
                "body": answer["Payload"].read().decode()}
    except ClientError as e:
        meta = e.response["ResponseMetadata"]
        return {"status": meta["HTTPStatusCode"], "error": e.response["Error"]["Code"], "message": e.response["Error"]["Message"],
                "reason": e.response.get("Reason"), "after": meta["HTTPHeaders"].get("retry-after")}

seen = {
    "handler": call(client, FunctionName="handler", Payload=json.dumps({"do": "echo", "text": "x"})),
    "module": call(client, FunctionName="module", Payload=b"{}"),
    "fault": call(client, FunctionName="handler", Payload=json.dumps({"do": "fail", "text": "on purpose"})),
    "exit": call(client, FunctionName="handler", Payload=json.dumps({"do": "exit", "code": 3})),
    "event": call(client, FunctionName="handler", InvocationType="Event", Payload=b"{}"),
    "dry": call(client, FunctionName="module", InvocationType="DryRun"),
    "missing": call(client, FunctionName="nothing", Payload=b"{}"),
}
held = threading.Thread(target=lambda: call(patient, FunctionName="single", Payload=json.dumps({"do": "sleep", "millis": 2500})))
held.start()
while True:
    seen["throttled"] = call(client, FunctionName="single", Payload=json.dumps({"do": "echo"}))
    if seen["throttled"]["status"] == 429 or not held.is_alive():
        break
seen["patient"] = call(patient, FunctionName="single", Payload=json.dumps({"do": "echo", "text": "in the end"}))
held.join()
print(json.dumps(seen))
`

func TestBoto3CallsFunctionsOfBothTiers(t *testing.T) {
	t.Parallel()
	python := needs(t, "python3", "-c", "import boto3")
	n := newAWSNode(t)
	out, complaints, err := n.run(t, python, "-c", botoScript)
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints)
	}
	type answer struct {
		Status                                       int
		Error, Version, Body, Message, Reason, After string
	}
	var got map[string]answer
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	for name, want := range map[string]struct {
		status      int
		err, in, fn string
	}{
		"handler":   {200, "", `"word": "planted"`, "handler"},
		"module":    {200, "", `{"from":"wasm"}`, "module"},
		"fault":     {200, "Unhandled", `on purpose`, "handler"},
		"exit":      {200, "Unhandled", `Runtime.ExitError`, "handler"},
		"event":     {202, "", "", ""},
		"dry":       {204, "", "", ""},
		"missing":   {404, "ResourceNotFoundException", "", ""},
		"throttled": {429, "TooManyRequestsException", "", ""},
		"patient":   {200, "", "in the end", "single"},
	} {
		a := got[name]
		body := strings.ReplaceAll(a.Body, `":"`, `": "`)
		if a.Status != want.status || a.Error != want.err || !strings.Contains(body, strings.ReplaceAll(want.in, `":"`, `": "`)) || want.fn != "" && a.Version != n.versions[want.fn] {
			t.Errorf("%s: %+v", name, a)
		}
		if want.status >= 400 && a.Message == "" {
			t.Errorf("%s: no reason: %+v", name, a)
		}
	}
	if a := got["throttled"]; a.After == "" || a.Reason == "" {
		t.Errorf("throttled without a hint: %+v", a)
	}
}

func TestCurlSignsForFunctionsOfBothTiers(t *testing.T) {
	t.Parallel()
	curl := needs(t, "curl", "--aws-sigv4", "aws:amz:us-east-1:lambda", "--version")
	n := newAWSNode(t)
	call := func(secret, name, payload string, more ...string) (status, body string) {
		t.Helper()
		out, complaints, err := n.run(t, append([]string{
			curl, "-sS", "--cacert", n.variable("AWS_CA_BUNDLE"), "--aws-sigv4", "aws:amz:us-east-1:lambda",
			"--user", n.variable("AWS_ACCESS_KEY_ID") + ":" + secret, "-H", "Content-Type: application/json", "--data-binary", payload,
			"-w", "\n%{http_code}", n.variable("AWS_ENDPOINT_URL_LAMBDA") + "/2015-03-31/functions/" + name + "/invocations",
		}, more...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, complaints)
		}
		at := strings.LastIndexByte(out, '\n')
		return out[at+1:], out[:at]
	}
	secret := n.variable("AWS_SECRET_ACCESS_KEY")
	if status, body := call(secret, "handler", `{"do":"echo","text":"by curl"}`); status != "200" || !strings.Contains(body, "by curl") {
		t.Errorf("handler: %s %s", status, body)
	}
	if status, body := call(secret, "module", `{}`); status != "200" || body != `{"from":"wasm"}` {
		t.Errorf("module: %s %s", status, body)
	}
	if status, body := call("guess", "module", `{}`); status != "403" || !strings.Contains(body, "The access key, or what was signed with it, is not valid") {
		t.Errorf("another secret: %s %s", status, body)
	}
}

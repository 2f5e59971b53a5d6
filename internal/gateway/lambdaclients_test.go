package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

// awsEnvironment is what `casemate key create --aws` prints, and nothing of the
// machine's own settings.
func (w *lambdaWorld) awsEnvironment(t *testing.T, key accessKey) []string {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testCertificate().Certificate[0]})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"AWS_ACCESS_KEY_ID=" + key.id, "AWS_SECRET_ACCESS_KEY=" + key.secret, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ENDPOINT_URL_LAMBDA=https://" + w.addr, "AWS_CA_BUNDLE=" + bundle,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "AWS_") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, v)
		}
	}
	return env
}

// withPrograms answers each function in its own way, and counts the calls.
func (w *lambdaWorld) withPrograms() (calls func(name string) int) {
	var mu sync.Mutex
	count := map[string]int{}
	for _, name := range []string{"fault", "busy", "full", "withheld"} {
		ref := function.Ref{Namespace: "default", Name: name}
		w.functions[ref] = []*function.Version{versionOf(ref, 1)}
	}
	w.invoker.run = func(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		count[c.Ref.Name]++
		v, _, err := w.functions.Resolve(c.Ref, c.Qualifier, nil)
		if err != nil {
			return nil, err
		}
		out := &invoke.Outcome{Status: 200, Body: c.Body, Receipt: audit.Receipt{ID: "r", Version: string(v.ID)}, Log: []string{"from the function"}}
		switch c.Ref.Name {
		case "fault":
			out.Fault = []byte(`{"errorType":"Error","errorMessage":"no"}`)
			return out, problem.New(problem.FunctionCrashed, "the function reported that it failed")
		case "busy": // twice
			if count["busy"] <= 2 {
				return nil, problem.New(problem.TooManyRequests, "the function is busy").After(time.Second)
			}
		case "full":
			return nil, problem.New(problem.Overloaded, "no room").After(time.Second)
		case "withheld":
			return nil, problem.New(problem.StorageFull, "the answer is withheld")
		}
		return out, nil
	}
	return func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		return count[name]
	}
}

func TestBoto3(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import boto3").Run(); err != nil {
		t.Skip("python3 has no boto3")
	}
	w := newLambdaWorld(t)
	calls := w.withPrograms()
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "boto.py"))
	cmd.Env = w.awsEnvironment(t, w.full)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &complaints)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	hello := w.functions[function.Ref{Namespace: "default", Name: "hello"}]
	version, second, third := hello[0].ID.Hex(), hello[1].ID.Hex(), hello[2].ID.Hex()
	log := base64.StdEncoding.EncodeToString([]byte("from the function\n"))
	for name, want := range map[string]string{
		"plain":         `{"StatusCode":200,"FunctionError":null,"ExecutedVersion":"` + version + `","Payload":"{\"text\":\"gr\\u00fc\\u00dfe %+ /\"}","LogResult":null}`,
		"tail":          `{"StatusCode":200,"FunctionError":null,"ExecutedVersion":"` + version + `","Payload":"{}","LogResult":"` + log + `"}`,
		"qualified":     `{"StatusCode":200,"FunctionError":null,"ExecutedVersion":"` + version + `","Payload":"{}","LogResult":null}`,
		"arn":           `{"StatusCode":200,"FunctionError":null,"ExecutedVersion":"` + w.functions[function.Ref{Namespace: "shop", Name: "cart"}][0].ID.Hex() + `","Payload":"{}","LogResult":null}`,
		"dry":           `{"StatusCode":204}`,
		"fault":         `{"StatusCode":200,"FunctionError":"Unhandled","ExecutedVersion":"` + w.functions[function.Ref{Namespace: "default", Name: "fault"}][0].ID.Hex() + `","Payload":"{\"errorType\":\"Error\",\"errorMessage\":\"no\"}","LogResult":null}`,
		"busy":          `{"StatusCode":200,"FunctionError":null,"ExecutedVersion":"` + w.functions[function.Ref{Namespace: "default", Name: "busy"}][0].ID.Hex() + `","Payload":"{}","LogResult":null}`,
		"configuration": `{"FunctionName":"hello","MemorySize":256,"Timeout":3}`,
		"alias":         `{"Name":"live","FunctionVersion":"` + version + `","RoutingConfig":{"AdditionalVersionWeights":{"` + second + `":0.1}}}`,
		"names":         `{"all":["busy","fault","full","hello","orders","shop_cart","withheld"]}`,
		"versions":      `{"all":["` + version + `","` + second + `","` + third + `"]}`,
	} {
		var a, b any
		if json.Unmarshal(got[name], &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
			t.Errorf("%s: %s", name, got[name])
			continue
		}
		if x, y := canonicalJSON(a), canonicalJSON(b); x != y {
			t.Errorf("%s: %s\nwant %s", name, x, y)
		}
	}
	for name, want := range map[string]struct {
		code, typed, after string
		status, retries    int
		calls              int // of the function, in all
	}{
		"event":    {code: "NotImplementedException", typed: "ClientError", status: 501},
		"missing":  {code: "ResourceNotFoundException", typed: "ResourceNotFoundException", status: 404, calls: 1},
		"full":     {code: "TooManyRequestsException", typed: "TooManyRequestsException", after: "1", status: 429, retries: 2, calls: 3},
		"withheld": {code: "ServiceException", typed: "ServiceException", status: 507, calls: 1},
		"forged":   {code: "UnrecognizedClientException", typed: "ClientError", status: 403},
	} {
		var e struct {
			Error, Message, Typed, After, ID string
			Status, Retries                  int
		}
		if err := json.Unmarshal(got[name], &e); err != nil || e.Error != want.code || e.Typed != want.typed || e.Status != want.status ||
			e.Retries != want.retries || e.After != want.after || e.Message == "" || e.ID == "" {
			t.Errorf("%s: %s", name, got[name])
		}
		called := map[string]string{"missing": "nothing", "full": "full", "withheld": "withheld"}[name]
		if called != "" && calls(called) != want.calls {
			t.Errorf("%s: called %d times", name, calls(called))
		}
	}
	if calls("busy") != 3 {
		t.Errorf("a throttled call was made %d times", calls("busy"))
	}
}

func canonicalJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestAWSCommandLine(t *testing.T) {
	t.Parallel()
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("the AWS CLI is not here")
	}
	w := newLambdaWorld(t)
	w.withPrograms()
	dir, env := t.TempDir(), w.awsEnvironment(t, w.full)
	run := func(args ...string) (string, string, error) {
		cmd := exec.CommandContext(t.Context(), aws, args...)
		cmd.Dir, cmd.Env = dir, env
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		err := cmd.Run()
		return out.String(), complaints.String(), err
	}
	if _, _, err := run("--version"); err != nil {
		t.Skip("the AWS CLI does not start")
	}
	// By its environment, and by options.
	payload := `{"text":"grüße"}`
	// From a file: version 2 would take a payload on the command line for base64.
	if err := os.WriteFile(filepath.Join(dir, "event.json"), []byte(payload), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]string{nil, {"--endpoint-url", "https://" + w.addr, "--region", "eu-central-1"}} {
		args := append([]string{"lambda", "invoke", "--function-name", "hello:live", "--log-type", "Tail", "--payload", "fileb://event.json", "out.json"}, options...)
		out, complaints, err := run(args...)
		if err != nil {
			t.Fatalf("%v\n%s", err, complaints)
		}
		var answer struct {
			StatusCode      int
			ExecutedVersion string
			LogResult       string
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.StatusCode != 200 || len(answer.ExecutedVersion) != 64 || answer.LogResult == "" {
			t.Errorf("answer: %s", out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "out.json")); err != nil || string(b) != payload {
			t.Errorf("payload %q, %v", b, err)
		}
	}
	if out, complaints, err := run("lambda", "list-functions", "--query", "Functions[].FunctionName", "--output", "text"); err != nil || strings.Join(strings.Fields(out), " ") != "busy fault full hello orders shop_cart withheld" {
		t.Errorf("list: %q, %v\n%s", out, err, complaints)
	}
	if _, complaints, err := run("lambda", "invoke", "--function-name", "nothing", "out.json"); err == nil || !strings.Contains(complaints, "ResourceNotFoundException") {
		t.Errorf("missing: %v\n%s", err, complaints)
	}
	env = append(env, "AWS_SECRET_ACCESS_KEY=guess")
	if _, complaints, err := run("lambda", "invoke", "--function-name", "hello", "out.json"); err == nil || !strings.Contains(complaints, "UnrecognizedClientException") || !strings.Contains(complaints, signatureRefused) {
		t.Errorf("forged: %v\n%s", err, complaints)
	}
}

package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
	"github.com/casemate-dev/casemate/internal/sandbox/native/runtimeapi"
)

// guest is a client in a process of its own, with no sandbox around it.
type guest struct {
	*runtimeapi.Server
	t              testing.TB
	process        *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan struct{}
}

// program is how a runtime is started.
type program struct {
	args []string
	root string // the function's code
	env  []string
}

func node(t testing.TB) program { return interpreter(t, "node", clients.Node, nil) }
func python(t testing.TB) program {
	return interpreter(t, "python3", clients.Python, []string{"-S", "-B"})
}

func interpreter(t testing.TB, name, file string, flags []string) program {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	root, err := filepath.Abs("testdata/" + strings.TrimSuffix(name, "3"))
	if err != nil {
		t.Fatal(err)
	}
	return program{args: append(append([]string{path}, flags...), file), root: root}
}

func start(t testing.TB, p program, handler string) *guest {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{Server: runtimeapi.New(l, runtimeapi.Options{}), t: t, ended: make(chan struct{})}
	g.process = exec.Command(p.args[0], p.args[1:]...)
	g.process.Env = append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + l.Addr().String(), "_HANDLER=" + handler, "LAMBDA_TASK_ROOT=" + p.root,
		"AWS_LAMBDA_FUNCTION_NAME=fn", "AWS_LAMBDA_FUNCTION_VERSION=7", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_LAMBDA_LOG_GROUP_NAME=/group", "AWS_LAMBDA_LOG_STREAM_NAME=stream", "TZ=:UTC",
	}, p.env...)
	g.process.Stdout, g.process.Stderr = &g.stdout, &g.stderr
	if err := g.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.process.Wait(); close(g.ended) }()
	t.Cleanup(g.stop)
	return g
}

func (g *guest) stop() {
	_ = g.process.Process.Kill()
	<-g.ended
	_ = g.Close()
}

// exit waits for the process's own end.
func (g *guest) exit() int {
	<-g.ended
	return g.process.ProcessState.ExitCode()
}

func (g *guest) invoke(payload string) (runtimeapi.Response, error) {
	return g.invokeAs(payload, "Root=1", `{"custom":{"k":"v"},"client":{"app_title":"title"}}`)
}

func (g *guest) invokeAs(payload, traceID, clientContext string) (runtimeapi.Response, error) {
	ctx, cancel := context.WithCancel(g.t.Context())
	defer cancel()
	go func() { // what died will not answer
		select {
		case <-g.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return g.Invoke(ctx, runtimeapi.Event{
		RequestID: "id-1", ARN: "arn:x", TraceID: traceID, Deadline: time.Now().Add(time.Minute), Payload: []byte(payload),
		ClientContext: clientContext,
	})
}

func (g *guest) want(payload, want string) {
	g.t.Helper()
	r, err := g.invoke(payload)
	if err != nil || r.Fault != nil {
		g.t.Fatalf("%s: %v, fault %+v\n%s", payload, err, r.Fault, g.stderr.String())
	}
	if string(r.Body) != want {
		g.t.Errorf("%s gave %s, want %s", payload, r.Body, want)
	}
}

func (g *guest) fault(errType, message string) *runtimeapi.Fault {
	g.t.Helper()
	r, err := g.invoke("{}")
	if err != nil || r.Fault == nil {
		g.t.Fatalf("gave %s, %v, no fault", r.Body, err)
	}
	if r.Fault.Type != errType || !strings.Contains(r.Fault.Message, message) {
		g.t.Errorf("fault %s: %s, want %s: %s", r.Fault.Type, r.Fault.Message, errType, message)
	}
	return r.Fault
}

func (g *guest) initFault(errType, message string) {
	g.t.Helper()
	select {
	case <-g.InitFailed():
	case <-g.Ready():
		g.t.Fatal("the handler was loaded")
	case <-g.ended:
	}
	f := g.InitError()
	if f == nil {
		g.t.Fatalf("it said nothing of its failure: %s", g.stderr.String())
	}
	if f.Type != errType || !strings.Contains(f.Message, message) {
		g.t.Errorf("init fault %s: %s, want %s: %s", f.Type, f.Message, errType, message)
	}
	if code := g.exit(); code == 0 {
		g.t.Error("it ended with 0")
	}
	if out := g.stdout.String() + g.stderr.String(); !strings.Contains(out, message) {
		g.t.Errorf("the log has no word of it: %q", out)
	}
}

func TestNodeHandlers(t *testing.T) {
	p := node(t)
	for handler, want := range map[string]string{
		"index.undefinedResult": "null", "index.never": "null", "index.neverSettles": "null", "index.succeed": `{"by":"succeed"}`, "index.done": `"by done"`,
		"index.nested.deep.handler": `"deep"`, "dir/other.handler": `"in a directory"`, "module.handler": `{"esm":{"a":"é"}}`, "esm/index.handler": `"by type"`,
	} {
		t.Run(handler, func(t *testing.T) {
			g := start(t, p, handler)
			g.want(`{"a":"é"}`, want)
			g.want(`{"a":"é"}`, want)
		})
	}
	g := start(t, p, "index.echo")
	for i := range 20 {
		g.want(`{"a":[1,"ü"]}`, fmt.Sprintf(`{"event":{"a":[1,"ü"]},"calls":%d,"id":"id-1"}`, i+1))
	}
	g = start(t, p, "index.big")
	for _, size := range []int{0, 100_000, 6 << 20} {
		g.want(fmt.Sprintf(`{"size":%d,"pad":"%s"}`, size, strings.Repeat("é", size/2)), `"`+strings.Repeat("x", size)+`"`)
	}
	if r, err := g.invoke(`{"size":7000000}`); err != nil || r.Fault == nil || r.Fault.Type != "Function.ResponseSizeTooLarge" {
		t.Errorf("an answer past the limit gave %+v, %v", r.Fault, err)
	}
	g.want(`{"size":1}`, `"x"`)
}

func TestNodeContext(t *testing.T) {
	g := start(t, node(t), "index.context")
	r, err := g.invoke("{}")
	if err != nil || r.Fault != nil {
		t.Fatal(err, r.Fault)
	}
	var got map[string]any
	if err := json.Unmarshal(r.Body, &got); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"awsRequestId": "id-1", "invokedFunctionArn": "arn:x", "functionName": "fn", "functionVersion": "7", "memoryLimitInMB": "128", "logGroupName": "/group",
		"logStreamName": "stream", "callbackWaits": "true", "remaining": "true", "trace": "Root=1", "functions": "[function function function]",
		"clientContext": "map[client:map[app_title:title] custom:map[k:v]]",
	} {
		if fmt.Sprint(got[k]) != want {
			t.Errorf("%s is %v, want %s", k, got[k], want)
		}
	}
}

// What a client of AWS says of itself reaches the handler in its own letters.
func TestClientContextKeepsItsLetters(t *testing.T) {
	const text = "Grüße €\U0001F600"
	for name, p := range map[string]func(testing.TB) program{"node": node, "python": python} {
		t.Run(name, func(t *testing.T) {
			r, err := start(t, p(t), "index.context").invokeAs("{}", "Root=1", `{"custom":{"k":"`+text+`"},"client":{"app_title":"title"}}`)
			if err != nil || r.Fault != nil || !strings.Contains(string(r.Body), text) {
				t.Errorf("gave %s, %v, fault %+v", r.Body, err, r.Fault)
			}
		})
	}
}

// A trace is one invocation's: the next one without a trace has none.
func TestTraceEndsWithItsInvocation(t *testing.T) {
	for name, p := range map[string]func(testing.TB) program{"node": node, "python": python} {
		t.Run(name, func(t *testing.T) {
			g := start(t, p(t), "index.trace")
			for trace, want := range map[string]string{"Root=1": `"Root=1"`, "": `"none"`} {
				for range 2 {
					r, err := g.invokeAs("{}", trace, "")
					if err != nil || r.Fault != nil || string(r.Body) != want {
						t.Errorf("with the trace %q: %s, %v, fault %+v", trace, r.Body, err, r.Fault)
					}
				}
			}
		})
	}
}

func TestNodeWaitsForTheEventLoop(t *testing.T) {
	g := start(t, node(t), "index.callback")
	g.want(`{"waits":true}`, `{"late":0}`)
	g.want(`{"waits":false}`, `{"late":1}`) // the first one's timer ran before it was answered
}

func TestNodeFaults(t *testing.T) {
	p := node(t)
	for handler, want := range map[string][2]string{
		"index.throws": {"RangeError", "out of range"}, "index.rejects": {"RangeError", "later"}, "index.throwsText": {"string", "just text"},
		"index.callbackError": {"Error", "by callback"}, "index.fail": {"TypeError", "by fail"}, "index.circular": {"Error", "Unable to stringify"},
		"index.streamFails": {"RangeError", "at once"}, "index.streamBreaks": {"RangeError", "half way"},
	} {
		t.Run(handler, func(t *testing.T) {
			g := start(t, p, handler)
			for range 2 { // and it goes on
				f := g.fault(want[0], want[1])
				var said struct{ Trace []string }
				if err := json.Unmarshal(f.Payload, &said); err != nil || said.Trace == nil {
					t.Errorf("payload %s: %v", f.Payload, err)
				}
			}
			g.stop()
			if !strings.Contains(g.stderr.String(), want[1]) {
				t.Errorf("the log has no word of it: %q", g.stderr.String())
			}
		})
	}
	for handler, want := range map[string]struct {
		errType, message string
		code             int
	}{
		"index.uncaught":  {"Error", "outside", 129},
		"index.rejection": {"Runtime.UnhandledPromiseRejection", "nobody looked", 128},
	} {
		g := start(t, p, handler)
		g.fault(want.errType, want.message)
		if code := g.exit(); code != want.code {
			t.Errorf("%s ended with %d, want %d", handler, code, want.code)
		}
	}
	g := start(t, p, "index.exits")
	if _, err := g.invoke("{}"); !errors.Is(err, context.Canceled) || g.exit() != 7 {
		t.Errorf("process.exit(7) gave %v and %d", err, g.exit())
	}
}

func TestNodeInitFaults(t *testing.T) {
	p := node(t)
	for handler, want := range map[string][2]string{
		"index.none": {"Runtime.HandlerNotFound", "index.none is undefined or not exported"}, "index.notFunction": {"Runtime.HandlerNotFound", "is not a function"},
		"nowhere.handler": {"Runtime.ImportModuleError", "Cannot find module"}, "missing.handler": {"Runtime.ImportModuleError", "no-such-package"},
		"syntax.handler": {"Runtime.UserCodeSyntaxError", "Unexpected"}, "broken.handler": {"RangeError", "at load"},
		"index": {"Runtime.MalformedHandlerName", "Bad handler"}, "../index.handler": {"Runtime.MalformedHandlerName", "Bad handler"},
	} {
		t.Run(strings.ReplaceAll(handler, "/", "_"), func(t *testing.T) { start(t, p, handler).initFault(want[0], want[1]) })
	}
}

func TestNodeStreams(t *testing.T) {
	p := node(t)
	for handler, want := range map[string][2]string{
		"index.stream": {"text/plain", "part 0\npart 1\npart 2\n"}, "index.streamOpen": {"application/octet-stream", "left open"},
		"index.streamHTTP": {"application/vnd.awslambda.http-integration-response", `{"statusCode":418,"headers":{"x-a":"b"},"cookies":["c=d"]}` + "\x00\x00\x00\x00\x00\x00\x00\x00teapot"},
	} {
		g := start(t, p, handler)
		for range 2 {
			r, err := g.invoke(`{"n":3}`)
			if err != nil || r.Fault != nil || !r.Streamed || r.ContentType != want[0] || string(r.Body) != want[1] {
				t.Errorf("%s gave %s %q %+v %v", handler, r.ContentType, r.Body, r.Fault, err)
			}
		}
	}
}

func TestNodeLogs(t *testing.T) {
	g := start(t, node(t), "index.logs")
	g.want("{}", "1")
	g.stop()
	if g.stdout.String() != "to stdout\n" || g.stderr.String() != "to stderr\n" {
		t.Errorf("stdout %q, stderr %q", g.stdout.String(), g.stderr.String())
	}
}

func TestPythonHandlers(t *testing.T) {
	p := python(t)
	g := start(t, p, "index.echo")
	for i := range 20 {
		g.want(`{"a":[1,"ü"]}`, fmt.Sprintf(`{"event": {"a": [1, "ü"]}, "calls": %d, "id": "id-1"}`, i+1))
	}
	start(t, p, "pkg/mod.handler").want("{}", `"in a package"`)
	start(t, p, "pkg.mod.handler").want("{}", `"in a package"`)
	start(t, p, "index.number").want("{}", `{"n": 1.5, "text": "é"}`)
	start(t, p, "index.context").want("{}", `{"name": "fn", "version": "7", "arn": "arn:x", "memory": "128", "group": "/group", "stream": "stream", "id": "id-1", `+
		`"remaining": true, "custom": {"k": "v"}, "title": "title", "identity": null, "trace": "Root=1"}`)
	g = start(t, p, "index.big")
	for _, size := range []int{0, 100_000, 6 << 20} {
		g.want(fmt.Sprintf(`{"size":%d,"pad":"%s"}`, size, strings.Repeat("é", size/2)), `"`+strings.Repeat("x", size)+`"`)
	}
	if r, err := g.invoke(`{"size":7000000}`); err != nil || r.Fault == nil || r.Fault.Type != "Function.ResponseSizeTooLarge" {
		t.Errorf("an answer past the limit gave %+v, %v", r.Fault, err)
	}
	g.want(`{"size":1}`, `"x"`)
}

// What the client itself loads, each sandbox pays for.
func TestPythonIsLean(t *testing.T) {
	p := python(t)
	bare, err := exec.Command(p.args[0], "-S", "-c", "import sys; print(' '.join(sys.modules))").Output()
	if err != nil {
		t.Fatal(err)
	}
	has := make(map[string]bool)
	for _, m := range strings.Fields(string(bare)) {
		has[m] = true
	}
	r, err := start(t, p, "index.modules").invoke("{}")
	if err != nil || r.Fault != nil {
		t.Fatal(err, r.Fault)
	}
	var loaded []string
	if err := json.Unmarshal(r.Body, &loaded); err != nil {
		t.Fatal(err)
	}
	for _, m := range loaded {
		switch m {
		case "logging", "traceback", "socket", "http", "threading", "email", "asyncio", "decimal", "typing", "importlib.util":
			if !has[m] {
				t.Errorf("the client loads %s", m)
			}
		}
	}
}

func TestPythonFaults(t *testing.T) {
	p := python(t)
	g := start(t, p, "index.throws")
	for range 2 {
		f := g.fault("ValueError", "wrong value")
		var said struct {
			RequestID  string
			StackTrace []string
		}
		if err := json.Unmarshal(f.Payload, &said); err != nil || said.RequestID != "id-1" || len(said.StackTrace) != 1 || !strings.Contains(said.StackTrace[0], "in throws") {
			t.Errorf("payload %s: %v", f.Payload, err)
		}
	}
	g.stop()
	if !strings.HasPrefix(g.stderr.String(), "[ERROR] ValueError: wrong value\nTraceback (most recent call last):\n") {
		t.Errorf("the log has %q", g.stderr.String())
	}
	start(t, p, "index.unmarshalable").fault("Runtime.MarshalError", "Object of type set is not JSON serializable")
	g = start(t, p, "index.exits")
	if _, err := g.invoke("{}"); !errors.Is(err, context.Canceled) || g.exit() != 7 {
		t.Errorf("sys.exit(7) gave %v and %d", err, g.exit())
	}
}

func TestPythonInitFaults(t *testing.T) {
	p := python(t)
	for handler, want := range map[string][2]string{
		"index.none": {"Runtime.HandlerNotFound", "Handler 'none' missing on module 'index'"}, "nowhere.handler": {"Runtime.ImportModuleError", "Unable to import module 'nowhere'"},
		"missing.handler": {"Runtime.ImportModuleError", "No module named 'no_such_module'"}, "syntax.handler": {"Runtime.UserCodeSyntaxError", "Syntax error in module 'syntax'"},
		"broken.handler": {"ValueError", "at load"}, "index": {"Runtime.MalformedHandlerName", "Bad handler 'index'"},
	} {
		t.Run(handler, func(t *testing.T) { start(t, p, handler).initFault(want[0], want[1]) })
	}
}

func TestPythonLogs(t *testing.T) {
	g := start(t, python(t), "index.logs")
	g.want("{}", "true")
	// It is killed: what it had kept back would be lost.
	g.stop()
	if got := g.stdout.String(); got != "to stdout\nby context\n" {
		t.Errorf("stdout %q", got)
	}
	if got := g.stderr.String(); !strings.HasPrefix(got, "[INFO]\t2") || !strings.HasSuffix(got, "Z\tid-1\tby logging\n") {
		t.Errorf("stderr %q", got)
	}
}

func TestFilesAreWhatTheArgumentsName(t *testing.T) {
	for file, args := range map[string][]string{clients.Node: clients.NodeArgs(), clients.Python: clients.PythonArgs()} {
		embedded, err := fs.ReadFile(clients.FS(), file)
		if err != nil {
			t.Fatal(err)
		}
		if onDisk, err := os.ReadFile(file); err != nil || !bytes.Equal(onDisk, embedded) {
			t.Errorf("%s: %v", file, err)
		}
		if args[len(args)-1] != clients.Dir+"/"+file {
			t.Errorf("arguments %q", args)
		}
	}
}

package manifest

import (
	"testing"

	"github.com/casemate-dev/casemate/api"
)

func TestNativeDefaults(t *testing.T) {
	t.Parallel()
	for runtime, handler := range map[string]string{
		"nodejs": "index.handler", "python": "lambda_function.lambda_handler", "provided": "", "http": "", "azure": "",
	} {
		given := api.FunctionConfig{Runtime: runtime}
		if runtime == "http" {
			given.Command = []string{"./server"}
		}
		c := WithDefaults(given)
		if c.Handler != handler || c.Entry != "" || c.Isolation != "instance" || c.MemoryBytes != 256<<20 || c.ScratchBytes != 64<<20 ||
			c.Processes != 64 || c.Calls != 0 || c.CPUMillis != 10_000 || c.TimeoutMillis != 10_000 {
			t.Errorf("%s: %+v", runtime, c)
		}
		if issues := Check("f", c); len(issues) > 0 {
			t.Errorf("%s: the defaults break the rules: %+v", runtime, issues)
		}
		small := WithDefaults(api.FunctionConfig{Runtime: runtime, Command: given.Command, MemoryBytes: 16 << 20})
		if issues := Check("f", small); small.ScratchBytes != 8<<20 || len(issues) > 0 {
			t.Errorf("%s: %d bytes of scratch space in the least memory: %+v", runtime, small.ScratchBytes, issues)
		}
	}
}

// What the providers' documentation teaches passes.
func TestNativeManifestsAsDocumented(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`runtime: nodejs, handler: index.handler`,
		`runtime: nodejs, handler: dist/src/app-v2.handlers.create`,
		`runtime: nodejs, handler: src/get-all-items.getAllItemsHandler, isolation: invocation, memory: 1Gi, scratch: 512Mi, processes: 1024`,
		`runtime: python, handler: app.lambda_handler`,
		`runtime: python, handler: src/app.handler, sandbox: gvisor`,
		`runtime: python, handler: package.module.handler, environment: {PORT: "1"}`,
		`runtime: provided, environment: {AWS_REGION: eu-central-1}`,
		`runtime: http, command: [./server]`,
		`runtime: http, command: [bin/server, --quiet]`,
		`runtime: http, command: [node, node_modules/.bin/functions-framework, --target=helloHttp, --signature-type=cloudevent]`,
		`runtime: http, command: [python3, -m, functions_framework, --target=hello]`,
		`runtime: azure`,
		`runtime: provided, handler: function.handler`,
		`runtime: azure, command: [node, handler.js]`,
	} {
		m, err := Parse("casemate.yaml", []byte("functions: {f: {"+text+"}}"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		// What a node answers with can be sent to it again.
		if issues := Check("f", WithDefaults(m.Functions[0].Config)); len(issues) > 0 {
			t.Errorf("%s: %+v", text, issues)
		}
	}
}

func TestHandlersAndProgramsStayInTheFolder(t *testing.T) {
	t.Parallel()
	for _, handler := range []string{"../a.handler", "/a.handler", "a/../b.handler", "a b.handler", "a;b.handler", "a.handler\n", "$(x).handler", ".handler", "a.", "a..b", "a\x00.b"} {
		for _, runtime := range []string{"nodejs", "python"} {
			if issues := Check("f", api.FunctionConfig{Runtime: runtime, Handler: handler}); len(issues) != 1 || issues[0].Field != "handler" {
				t.Errorf("%s %q: %+v", runtime, handler, issues)
			}
		}
	}
	for _, program := range []string{"..", ".", "./", "../x", "./../x", "a/../../x", "/bin/x", "a//b", "a/", `a\b`, "a\x00", "", "a b"} {
		for _, runtime := range []string{"http", "azure"} {
			if issues := Check("f", api.FunctionConfig{Runtime: runtime, Command: []string{program}}); len(issues) == 0 || issues[0].Field != "command[0]" {
				t.Errorf("%s %q: %+v", runtime, program, issues)
			}
		}
	}
}

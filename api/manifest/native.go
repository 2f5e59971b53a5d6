package manifest

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// What holds for native runtimes when a manifest is silent, and the bounds of what it
// may say. A node has the same ones.
const (
	DefaultNativeMemory int64 = 256 << 20 // Node.js and Python with a framework fit
	MinNativeMemory     int64 = 16 << 20
	DefaultScratch      int64 = 64 << 20
	MinScratch          int64 = 1 << 20
	MaxScratch          int64 = 512 << 20
	DefaultProcesses          = 64
	MaxProcesses              = 1024
	maxHandler                = 128 // bytes, as AWS has it
	maxCommand                = 32
	maxArgument               = 1024 // bytes
)

// The runtimes of the native tier, and the handlers that AWS's console begins with.
const (
	provided = "provided"
	nodejs   = "nodejs"
	python   = "python"
	server   = "http"
	azure    = "azure"

	nodeHandler   = "index.handler"
	pythonHandler = "lambda_function.lambda_handler"
)

func nativeRuntimes() []string { return []string{provided, nodejs, python, server, azure} }

// Native reports whether functions of a runtime run as machine code in a locked-down
// process of their own, from a zip archive.
func Native(runtime string) bool { return slices.Contains(nativeRuntimes(), runtime) }

// interpreters are the programs of the node that a command may name.
func interpreters() []string { return []string{"node", "python3"} }

// nativeDefaults fills in what only native runtimes have.
func nativeDefaults(cfg *api.FunctionConfig) {
	switch cfg.Runtime {
	case nodejs:
		fill(&cfg.Handler, nodeHandler)
	case python:
		fill(&cfg.Handler, pythonHandler)
	}
	fill(&cfg.Isolation, "instance")
	fill(&cfg.MemoryBytes, DefaultNativeMemory)
	fill(&cfg.ScratchBytes, max(MinScratch, min(DefaultScratch, cfg.MemoryBytes/2)))
	fill(&cfg.Processes, DefaultProcesses)
}

// native checks the fields that only native runtimes have, and those they have not.
func (c *check) native(cfg *api.FunctionConfig) {
	if !Native(cfg.Runtime) {
		c.notNative(cfg)
		return
	}
	if cfg.Entry != "" {
		c.add("entry", cfg.Entry, "the runtime "+cfg.Runtime+" runs programs, and entry is of modules", "leave entry out"+insteadOfEntry(cfg.Runtime))
	}
	if cfg.Calls != 0 {
		c.add("limits.calls", fmt.Sprint(cfg.Calls), "functions of the runtime "+cfg.Runtime+" have no host to call", "leave limits.calls out")
	}
	if cfg.MemoryBytes != 0 && cfg.MemoryBytes < MinNativeMemory && cfg.MemoryBytes >= MinMemory {
		c.size("memory", cfg.MemoryBytes, MinNativeMemory, MaxMemory)
	}
	c.size("scratch", cfg.ScratchBytes, MinScratch, MaxScratch)
	memory := cfg.MemoryBytes
	fill(&memory, DefaultNativeMemory)
	if cfg.ScratchBytes <= MaxScratch && cfg.ScratchBytes > memory {
		c.add("scratch", FormatSize(cfg.ScratchBytes), FormatSize(cfg.ScratchBytes)+" of scratch space are more than the memory, "+FormatSize(memory)+", in which it lies", "write less, or raise memory")
	}
	c.count("processes", int64(cfg.Processes), MaxProcesses)
	if cfg.Sandbox != "" {
		c.oneOf("sandbox", cfg.Sandbox, []string{"gvisor"})
	}
	c.handler(cfg)
	c.command(cfg)
	c.platformVariables(cfg)
}

func insteadOfEntry(runtime string) string {
	switch runtime {
	case nodejs, python:
		return "; handler says which function is called"
	case server, azure:
		return "; command says what is run"
	default:
		return "; the program named bootstrap is run"
	}
}

// notNative refuses for modules what is of processes.
func (c *check) notNative(cfg *api.FunctionConfig) {
	if !slices.Contains(runtimes(), cfg.Runtime) {
		return // one thing at a time: the runtime is reported
	}
	only := func(field, text, remedy string) {
		c.add(field, text, field+" does not go with the runtime "+cfg.Runtime, remedy)
	}
	natives := strings.Join(nativeRuntimes(), ", ")
	if cfg.Handler != "" {
		remedy := "leave it out; it belongs to Lambda handlers, which have the runtime nodejs or python"
		if script(cfg.Runtime) {
			remedy = "leave it out: the default export's fetch is called; or write runtime: nodejs, if this is a Lambda handler"
		}
		only("handler", cfg.Handler, remedy)
	}
	if len(cfg.Command) > 0 {
		only("command", cfg.Command[0], "leave it out; servers have the runtime http")
	}
	if cfg.Sandbox != "" {
		only("sandbox", cfg.Sandbox, "leave it out: a module has no system calls to keep from the kernel. It goes with "+natives)
	}
	if cfg.ScratchBytes != 0 {
		only("scratch", FormatSize(cfg.ScratchBytes), "leave it out: a module has no files. It goes with "+natives)
	}
	if cfg.Processes != 0 {
		only("processes", fmt.Sprint(cfg.Processes), "leave it out: a module has no processes. It goes with "+natives)
	}
}

// A file without its ending, perhaps in folders, and the name of what it exports. In a
// Python package, folders may be parted by dots.
var (
	nodeHandlerForm   = regexp.MustCompile(`^([A-Za-z0-9_@-][A-Za-z0-9_@.-]*/)*[A-Za-z0-9_@$-]+(\.[A-Za-z_$][A-Za-z0-9_$]*)+$`)
	pythonHandlerForm = regexp.MustCompile(`^([A-Za-z0-9_-]+[/.])*[A-Za-z0-9_-]+\.[A-Za-z_][A-Za-z0-9_]*$`)
)

func (c *check) handler(cfg *api.FunctionConfig) {
	if cfg.Handler == "" {
		return
	}
	example, form := nodeHandler, nodeHandlerForm
	switch cfg.Runtime {
	case nodejs:
	case python:
		example, form = pythonHandler, pythonHandlerForm
	case provided: // bootstrap gets it in _HANDLER, and knows what it means
		if len(cfg.Handler) > maxHandler || strings.ContainsFunc(cfg.Handler, func(r rune) bool { return r <= ' ' || r > '~' }) {
			c.add("handler", cfg.Handler, fmt.Sprintf("%s is longer than %d characters or holds a blank", quote(cfg.Handler), maxHandler), "write it as bootstrap is to find it in _HANDLER, as in function.handler")
		}
		return
	default:
		c.add("handler", cfg.Handler, "handler does not go with the runtime "+cfg.Runtime, "leave it out; command says what is run, and routes are the program's own")
		return
	}
	if len(cfg.Handler) > maxHandler || !form.MatchString(cfg.Handler) {
		remedy := "write the file without its ending, a dot and the function, as in " + example
		if stem, ending, ok := cutEnding(cfg.Handler); ok {
			remedy = "leave the ending " + ending + " out and name the function, as in " + path.Base(stem) + ".handler"
		}
		c.add("handler", cfg.Handler, quote(cfg.Handler)+" does not name a file and a function in it", remedy)
		return
	}
	if stem, ending, ok := cutEnding(cfg.Handler); ok {
		c.add("handler", cfg.Handler, quote(cfg.Handler)+" names a file and no function in it", "leave the ending "+ending+" out and name the function, as in "+shown(stem)+".handler")
	}
}

func cutEnding(handler string) (stem, ending string, ok bool) {
	ending = path.Ext(handler)
	if slices.Contains([]string{".js", ".mjs", ".cjs", ".ts", ".mts", ".py"}, ending) {
		return strings.TrimSuffix(handler, ending), ending, true
	}
	return "", "", false
}

func (c *check) command(cfg *api.FunctionConfig) {
	switch {
	case cfg.Runtime == server && len(cfg.Command) == 0:
		c.add("command", "", "command is missing: nothing says how the server is started", "name a program among the function's files, or node or python3, as in command: [node, server.js]")
		return
	case len(cfg.Command) == 0:
		return
	case cfg.Runtime == nodejs || cfg.Runtime == python:
		c.add("command", cfg.Command[0], "command does not go with the runtime "+cfg.Runtime, "leave it out; handler says which function is called. A server has the runtime http")
		return
	case cfg.Runtime == provided:
		c.add("command", cfg.Command[0], "command does not go with the runtime provided", "leave it out: the program named bootstrap is run")
		return
	case len(cfg.Command) > maxCommand:
		c.add("command", "", fmt.Sprintf("%d arguments are more than the %d allowed", len(cfg.Command)-1, maxCommand-1), "take some away; what is long, put into a file")
		return
	}
	for i, a := range cfg.Command {
		field := fmt.Sprintf("command[%d]", i)
		if a == "" || len(a) > maxArgument || strings.ContainsRune(a, 0) {
			c.add(field, a, fmt.Sprintf("an argument has 1 to %d characters", maxArgument), "shorten it, or put what is long into a file")
			continue
		}
		if s, found := findSecret("", a); found {
			c.issues = append(c.issues, FieldIssue{
				Field: field, Code: problem.SecretInConfig, Text: s.masked, Message: "the argument " + s.reason,
				Remedy: "take it out of the manifest: arguments are stored and shown in the clear",
			})
		}
	}
	c.program(cfg.Command)
}

// program checks what is started: a file of the function, or an interpreter.
func (c *check) program(command []string) {
	p := command[0]
	if p == "" || slices.Contains(interpreters(), p) {
		return
	}
	at := func(message, remedy string) { c.add("command[0]", p, message, remedy) }
	switch {
	case strings.ContainsAny(p, " \t"):
		at(quote(p)+" is one argument, and no shell takes it apart", "write each argument as an item: command: ["+strings.Join(strings.Fields(shown(p)), ", ")+"]")
	case slices.Contains([]string{"sh", "bash", "/bin/sh", "/bin/bash"}, p):
		at("there is no shell in a sandbox", "name the program itself, as in command: [node, server.js]")
	case slices.Contains([]string{"npm", "npx", "yarn", "pnpm"}, p):
		at("there is no "+p+" in a sandbox", "name what the script runs, as in command: [node, server.js] or [node, node_modules/.bin/functions-framework, --target=hello]")
	case slices.Contains([]string{"python", "python3.11", "pip", "flask", "gunicorn", "uvicorn", "functions-framework"}, p):
		at("there is no program "+quote(p)+" in a sandbox", "let Python start it, as in command: [python3, -m, functions_framework, --target=hello] or [python3, app.py]")
	case path.IsAbs(p):
		at(quote(p)+" is not a file of the function", "name a program relative to the function's folder, as in ./server, or node or python3")
	case !plainPath(strings.TrimPrefix(p, "./")):
		at(quote(p)+" does not lie in the function's folder", "name a program in it, without .. and with slashes, as in ./server")
	}
}

// plainPath reports whether p leads to something below where it begins, in the one way
// to write that.
func plainPath(p string) bool {
	return p != "." && p != ".." && !strings.HasPrefix(p, "../") && p == path.Clean(p) && !strings.ContainsAny(p, "\\\x00")
}

// platformVariables refuses what the platform sets itself: the function would not see
// the manifest's value.
func (c *check) platformVariables(cfg *api.FunctionConfig) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Environment)) {
		if !ownVariable(cfg.Runtime, name) {
			continue
		}
		c.add("environment."+name, name, name+" is set by the platform, for functions of the runtime "+cfg.Runtime, "take it away, or choose another name")
	}
}

// ownVariable reports whether the contract of a runtime gives that variable its value.
func ownVariable(runtime, name string) bool {
	switch runtime {
	case server:
		return slices.Contains([]string{"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}, name)
	case azure:
		return name == "FUNCTIONS_CUSTOMHANDLER_PORT"
	default: // the reserved variables of AWS Lambda
		return strings.HasPrefix(name, "AWS_LAMBDA_") || strings.HasPrefix(name, "LAMBDA_") ||
			slices.Contains([]string{"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_EXECUTION_ENV"}, name)
	}
}

// otherRuntime says what to write for other names of the runtimes, or gives "".
func otherRuntime(value string) string {
	v := strings.ToLower(value)
	const node = "nodejs for a Lambda handler or http for a server on Node.js, or js for code on the web's own interfaces"
	switch {
	case v == "node" || v == "node.js" || strings.HasPrefix(v, "nodejs"):
		return node
	case strings.HasPrefix(v, "python"), v == "py":
		return "python for a Lambda handler, or http for a server such as Flask"
	case strings.HasPrefix(v, "provided"), v == "go1.x", strings.HasPrefix(v, "al20"):
		return provided
	}
	return map[string]string{
		"golang": "go", "tinygo": "go", "rs": "rust", "cargo": "rust", "clang": "c", "cc": "c", "as": "assemblyscript", "asc": "assemblyscript",
		"javascript": "js", "ecmascript": "js", "mjs": "js", "jsx": "js", "bun": "js",
		"typescript": "ts", "mts": "ts", "tsx": "ts", "deno": "ts", "wasi": "wasm", "webassembly": "wasm",
		"lambda": "nodejs, python or provided", "aws": "nodejs, python or provided", "custom": provided, "bootstrap": provided,
		"flask": server, "express": server, "cloudrun": server, "cloud-run": server, "knative": server, "functions-framework": server,
		"gcf": server, "gcp": server, "container": server, "docker": server, "server": server, "web": server,
		"azure-functions": azure, "custom-handler": azure, "customhandler": azure,
	}[v]
}

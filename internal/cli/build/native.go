package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// native reports whether a runtime's artifact is a zip archive of a folder.
func native(runtime string) bool {
	return slices.Contains([]string{Provided, NodeJS, Python, HTTP, Azure}, runtime)
}

// The handlers of a function whose manifest names none.
const (
	defaultNodeHandler   = "index.handler"
	defaultPythonHandler = "lambda_function.lambda_handler"
)

// bootstrapFile is the program that the runtime provided starts.
const bootstrapFile = "bootstrap"

// pack is the making of one archive. Files gather in the folder stage, a copy: neither
// an installer nor a compiler writes into the developer's own folder.
type pack struct {
	*job
	stage   string
	program string // what is started: a file of the function, or an interpreter; "" for handlers
	golang  bool   // the program is built of Go in the folder
	cargo   bool   // or of Rust
	bundle  string // or the handler is bundled of this TypeScript file
}

// plan finds out what there is to do.
func (j *job) plan() (*pack, error) {
	p := &pack{job: j, stage: filepath.Join(j.tmp, "stage")}
	switch j.Runtime {
	case Provided:
		p.program = bootstrapFile
	case HTTP, Azure:
		command := j.Command
		if len(command) == 0 && j.Runtime == Azure {
			var err error
			if command, err = azureCommand(j); err != nil {
				return nil, err
			}
		}
		if len(command) == 0 {
			return nil, j.input("command", "nothing says how the server is started", "write command: [node, server.js], say")
		}
		p.program = strings.TrimPrefix(command[0], "./")
	case NodeJS:
		if err := p.typeScript(); err != nil {
			return nil, err
		}
	}
	if p.program != "" && !interpreter(p.program) {
		p.golang = j.has("go.mod") && goMain(j.source) != ""
		p.cargo = !p.golang && j.has("Cargo.toml")
		if j.has("go.mod") && !p.golang && !j.has(p.program) {
			return nil, j.input("source", j.source+" has a go.mod, and neither it nor its folder cmd has a package main", "put func main there")
		}
	}
	return p, nil
}

// interpreter reports whether a command's first word is a program of the node. Azure's
// documentation calls Python's python.
func interpreter(program string) bool {
	return program == "node" || program == "python3" || program == "python"
}

// buildNative packs the folder with its dependencies.
func buildNative(ctx context.Context, j *job) ([]byte, error) {
	if j.Prebuilt {
		return j.output(j.source)
	}
	p, err := j.plan()
	if err != nil {
		return nil, err
	}
	if err := p.tools(ctx); err != nil {
		return nil, err
	}
	skip, err := p.ignored()
	if err != nil {
		return nil, err
	}
	if err := p.copySource(ctx, skip); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{p.installNode, p.installPython, p.bundleTypeScript, p.compileGo, p.compileRust} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.complete(); err != nil {
		return nil, err
	}
	return p.archive()
}

func checkNative(ctx context.Context, j *job) error {
	if j.Prebuilt {
		return nil
	}
	p, err := j.plan()
	if err != nil {
		return err
	}
	return p.tools(ctx)
}

// tools finds out whether what is needed is installed.
func (p *pack) tools(ctx context.Context) error {
	if p.golang && p.env.find("go") == "" {
		return p.missing("go", goInstall)
	}
	if p.cargo {
		if _, err := p.hostCargo(ctx); err != nil {
			return err
		}
	}
	node, err := p.needsNode()
	if err != nil {
		return err
	}
	if node && p.env.find("npm") == "" {
		return p.missing("npm", nodeInstall)
	}
	if p.needsPython() {
		if err := p.checkRequirements(requirementsFile, 0); err != nil {
			return err
		}
		if _, err := p.pip(ctx); err != nil {
			return err
		}
	}
	return nil
}

// complete finds out what a node would refuse, where the developer can still do
// something about it.
func (p *pack) complete() error {
	switch p.Runtime {
	case NodeJS, Python:
		return p.hasHandler()
	case Provided:
		return p.hasProgram(bootstrapFile, "compile the function to a program of that name, or put its go.mod or Cargo.toml there")
	case Azure:
		if !p.staged("host.json") {
			return p.input("source", p.source+" has no host.json", "write one, with the custom handler under customHandler.description")
		}
		if found, err := filepath.Glob(filepath.Join(escapeGlob(p.stage), "*", "function.json")); err != nil || len(found) == 0 {
			return p.input("source", p.source+" has no function: a folder with a function.json", "write one, with its bindings")
		}
	}
	if interpreter(p.program) {
		return p.hasScript()
	}
	return p.hasProgram(p.program, "name a file of the function in command, or node or python3")
}

func (p *pack) handler() string {
	switch {
	case p.Handler != "":
		return p.Handler
	case p.Runtime == Python:
		return defaultPythonHandler
	default:
		return defaultNodeHandler
	}
}

// handlerFile is the handler's file without its ending: AWS takes for Node.js what
// comes before the first dot of the last part, for Python what comes before the last.
func (p *pack) handlerFile() string {
	h := p.handler()
	if p.Runtime == Python {
		if i := strings.LastIndexByte(h, '.'); i >= 0 {
			h = h[:i]
		}
		return strings.ReplaceAll(h, ".", "/")
	}
	slash := strings.LastIndexByte(h, '/') + 1
	if i := strings.IndexByte(h[slash:], '.'); i >= 0 {
		h = h[:slash+i]
	}
	return h
}

func (p *pack) hasHandler() error {
	stem := p.handlerFile()
	candidates := []string{stem + ".js", stem + ".mjs", stem + ".cjs"}
	if p.Runtime == Python {
		candidates = []string{stem + ".py", stem + "/__init__.py"}
	}
	if slices.ContainsFunc(candidates, p.staged) {
		return nil
	}
	remedy := "put the function there, or name its file in handler"
	if p.Handler == "" {
		remedy += "; without handler it is " + p.handler()
	}
	return p.input("handler", p.source+" has no "+candidates[0], remedy)
}

// hasScript checks the file that an interpreter is told to run, where one is named.
func (p *pack) hasScript() error {
	command := p.Command
	if len(command) == 0 { // of Azure
		var err error
		if command, err = azureCommand(p.job); err != nil {
			return err
		}
	}
	for _, a := range command[1:] {
		if strings.HasPrefix(a, "-") {
			continue
		}
		if ext := filepath.Ext(a); slices.Contains([]string{".js", ".mjs", ".cjs", ".py"}, ext) && !p.staged(strings.TrimPrefix(a, "./")) {
			return p.input("command", p.source+" has no "+a, "name the file relative to the function's folder")
		}
		break // what follows are arguments of the script
	}
	return nil
}

// hasProgram checks that a program is one for Linux.
func (p *pack) hasProgram(name, remedy string) error {
	f, err := os.Open(filepath.Join(p.stage, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return p.input("source", p.source+" has no "+name, remedy)
	}
	if err != nil {
		return p.input("source", name+" cannot be read", "check its permissions")
	}
	defer func() { _ = f.Close() }()
	first := make([]byte, 256)
	n, _ := f.Read(first) // too short for a program is none
	switch head := string(first[:n]); {
	case strings.HasPrefix(head, "\x7fELF"), interpreted(head):
		return nil
	case strings.HasPrefix(head, "#!"):
		return p.input("source", name+" is a script for what a sandbox does not have", "begin it with #!/bin/sh, #!/bin/bash, or #!/usr/bin/env with node or python3, or compile a program")
	default:
		return p.input("source", name+" is not a program for Linux", "compile it for Linux on this machine's processor, as with GOOS=linux")
	}
}

// interpreted reports whether a file begins with a line that names an interpreter of the
// node, or a shell, by itself or through env. A shell comes with a few small programs: see
// internal/sandbox/native/layout.
func interpreted(head string) bool {
	line, found := strings.CutPrefix(head, "#!")
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if !found || len(words) == 0 {
		return false
	}
	program := path.Base(words[0])
	if program == "env" && len(words) > 1 {
		program = words[1]
	}
	return interpreter(program) || program == "sh" || program == "bash"
}

// staged reports whether a file is in the archive to be.
func (p *pack) staged(name string) bool {
	info, err := os.Stat(filepath.Join(p.stage, filepath.FromSlash(name)))
	return err == nil && info.Mode().IsRegular()
}

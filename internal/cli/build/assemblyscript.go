package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// nodeMajor is the oldest Node.js that the compiler runs on.
	nodeMajor   = 20
	nodeInstall = "install Node.js 20 or newer, with npm, from https://nodejs.org"
	ascEntry    = "assembly/index.ts"
	ascCompiler = "node_modules/assemblyscript/bin/asc.js"
)

func checkAssemblyScript(ctx context.Context, j *job) error {
	node := j.env.find("node")
	if node == "" {
		return j.missing("node", nodeInstall)
	}
	var out bytes.Buffer
	if err := j.run(ctx, tool{path: node, args: []string{"--version"}, dir: j.tmp, env: j.env.pick(jsTool), stdout: &out, quiet: true}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return j.missing("a working node", nodeInstall)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(out.String()), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < nodeMajor {
		return j.missing("Node.js 20", nodeInstall+" (found "+strings.TrimSpace(out.String())+")")
	}
	if !j.has(ascCompiler) && j.env.find("npm") == "" {
		return j.missing("npm", nodeInstall)
	}
	return nil
}

// buildAssemblyScript compiles assembly/index.ts with the compiler that the
// folder's package-lock.json pins. When node_modules lacks it, it is fetched
// without running any package's install script.
func buildAssemblyScript(ctx context.Context, j *job) ([]byte, error) {
	if err := checkAssemblyScript(ctx, j); err != nil {
		return nil, err
	}
	if !j.has(ascEntry) {
		return nil, j.input("source", j.source+" has no "+ascEntry, "put the function's code there")
	}
	if !j.has(ascCompiler) {
		if !j.has("package-lock.json") {
			return nil, j.input("source", j.source+" has no package-lock.json", "run `npm install --save-dev --save-exact assemblyscript` there and keep the lock file")
		}
		if err := j.run(ctx, tool{
			path: j.env.find("npm"), args: []string{"ci", "--ignore-scripts", "--no-audit", "--no-fund"},
			dir: j.source, env: j.env.pick(jsTool),
		}); err != nil {
			return nil, err
		}
		if !j.has(ascCompiler) {
			return nil, j.input("source", "package-lock.json does not hold assemblyscript", "run `npm install --save-dev --save-exact assemblyscript` in "+j.source)
		}
	}
	start := "_start"
	if j.Entry == EntryHandle {
		start = "_initialize"
	}
	args := []string{
		ascCompiler, ascEntry, "--outFile", filepath.Join(j.tmp, "function.wasm"),
		"--optimizeLevel", "3", "--shrinkLevel", "1", "--exportStart", start,
	}
	// A module has no "env" to import from: abort and trace lead into the glue.
	if _, err := os.Stat(filepath.Join(j.source, "assembly", "casemate.ts")); err == nil {
		args = append(args, "--use", "abort=assembly/casemate/abort")
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, j.input("source", "assembly/casemate.ts cannot be read", "check its permissions")
	}
	if err := j.run(ctx, tool{path: j.env.find("node"), args: args, dir: j.source, env: j.env.pick(jsTool)}); err != nil {
		return nil, err
	}
	return j.output(filepath.Join(j.tmp, "function.wasm"))
}

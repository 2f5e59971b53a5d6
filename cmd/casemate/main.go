// Command casemate is the whole platform in one file: the client's verbs, the
// node behind `casemate up`, and, re-executed under another name, the sandbox
// process in which guest code runs.
package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/casemate-dev/casemate/internal/cli"
	"github.com/casemate-dev/casemate/internal/node"
	"github.com/casemate-dev/casemate/internal/sandbox/box/stub"
	"github.com/casemate-dev/casemate/internal/sandbox/process"
)

// version is set when linking a release.
var version string

func main() {
	// The sandbox process must not touch anything that the client or the node
	// would set up: no flags, no environment, no configuration.
	if len(os.Args) > 0 && process.IsSandbox(os.Args[0]) {
		os.Exit(process.Main())
	}
	// Nor must the broker and the init of a box, where this program plays them because
	// it was built without the small one that does.
	if len(os.Args) > 0 {
		if code, ok := stub.Main(os.Args[0]); ok {
			os.Exit(code)
		}
	}
	os.Exit(cli.Main(context.Background(), cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Clock: time.Now, Version: release(), Up: up, Root: os.Geteuid() == 0,
	}))
}

// up runs a node for the command line, which knows nothing of its inside.
func up(ctx context.Context, o cli.UpOptions) error {
	folders := map[string]node.Folder{}
	for name, f := range o.Folders {
		folders[name] = node.Folder{Path: f.Path, Namespaces: f.Namespaces}
	}
	return node.Run(ctx, node.Options{
		DataDir: o.DataDir, KeyFile: o.KeyFile, Gateway: o.Gateway, Control: o.Control, Objects: o.Objects, Hosts: o.Hosts, Folders: folders,
		AllowTLS12: o.AllowTLS12, Unsandboxed: o.Unsandboxed, Drain: o.Drain, AdminKey: o.AdminKey, Version: release(),
		Logger: slog.New(o.LogHandler),
		Ready: func(r node.Ready) error {
			return o.Ready(cli.ReadyInfo{
				Node: r.Node, GatewayURL: r.GatewayURL, ControlURL: r.ControlURL, ObjectsURL: r.ObjectsURL, CA: r.CA, AdminKey: r.AdminKey,
				FirstBoot: r.FirstBoot, Took: r.Took,
			})
		},
	})
}

// release names this build: what the linker was told, or the module's version,
// or the commit it was built from.
func release() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

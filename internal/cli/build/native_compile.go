package build

import (
	"bytes"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	esbuild "github.com/evanw/esbuild/pkg/api"
)

const nativeRustInstall = "install Rust from https://rustup.rs"

// goMain gives the package of a folder that is a program, as go build takes it: the
// folder's own, cmd, or the only one in cmd; or "".
func goMain(dir string) string {
	candidates := []string{".", "./cmd"}
	if below, err := os.ReadDir(filepath.Join(dir, "cmd")); err == nil {
		var mains []string
		for _, e := range below {
			if e.IsDir() && isGoMain(filepath.Join(dir, "cmd", e.Name())) {
				mains = append(mains, "./cmd/"+e.Name())
			}
		}
		if len(mains) == 1 {
			candidates = append(candidates, mains[0])
		}
	}
	for _, c := range candidates {
		if isGoMain(filepath.Join(dir, c)) {
			return c
		}
	}
	return ""
}

func isGoMain(dir string) bool {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.go"))
	if err != nil {
		return false
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.PackageClauseOnly)
		if err == nil && parsed.Name.Name == "main" {
			return true
		}
	}
	return false
}

// compileGo builds the folder's program for Linux on this machine's processor, without
// anything of the folder's place or of the caller's flags in it. The tag leaves out of
// AWS's library what speaks its protocol from before the Runtime API.
func (p *pack) compileGo(ctx context.Context) error {
	if !p.golang {
		return nil
	}
	out := filepath.Join(p.tmp, "program")
	if err := p.run(ctx, tool{
		path: p.env.find("go"),
		args: []string{"build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc", "-ldflags", "-s -w -buildid=", "-o", out, goMain(p.source)},
		dir:  p.source,
		env:  p.env.pick(goTool, "GOOS=linux", "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false"),
	}); err != nil {
		return err
	}
	return p.place(out)
}

// place puts the built program where it is started from.
func (p *pack) place(out string) error {
	to := filepath.Join(p.stage, filepath.FromSlash(p.program))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("placing the program: %v", err)
	}
	_ = os.Remove(to) // an older one that the folder held
	if _, err := copyFile(out, to); err != nil {
		return fmt.Errorf("placing the program: %v", err)
	}
	return nil
}

// hostCargo finds cargo with a target that gives a program without shared libraries:
// musl, or glibc linked statically.
func (p *pack) hostCargo(ctx context.Context) (cargo, error) {
	c := cargo{cargo: p.env.find("cargo"), rustc: p.env.find("rustc")}
	if c.cargo == "" || c.rustc == "" {
		return cargo{}, p.missing("cargo", nativeRustInstall)
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if want, have := wantedRust(p.job), rustVersion(ctx, p.job, c.rustc); have.less(want) {
		return cargo{}, p.missing("Rust "+want.String(), nativeRustInstall+" (found "+have.String()+")")
	}
	for _, library := range []string{"musl", "gnu"} {
		c.target = arch + "-unknown-linux-" + library
		if arch != "" && hasStandardLibrary(ctx, p.job, c.rustc, c.target) {
			return c, nil
		}
	}
	if ctx.Err() != nil {
		return cargo{}, &CompileError{Function: p.Name, Tool: "rustc", ExitCode: -1, Cause: context.Cause(ctx)}
	}
	return cargo{}, p.missing("Rust's standard library for Linux", "run `rustup target add "+arch+"-unknown-linux-musl`")
}

// compileRust builds the package's one program.
func (p *pack) compileRust(ctx context.Context) error {
	if !p.cargo {
		return nil
	}
	c, err := p.hostCargo(ctx)
	if err != nil {
		return err
	}
	target, err := p.cache("rust-native")
	if err != nil {
		return err
	}
	args := []string{"build", "--release", "--bins", "--target", c.target, "--message-format=json-render-diagnostics"}
	if p.has("Cargo.lock") {
		args = append(args, "--locked")
	}
	flags := append(remapPaths(p.job), "-Ctarget-feature=+crt-static", "-Cstrip=symbols")
	var messages bytes.Buffer
	if err := p.run(ctx, tool{
		path: c.cargo, args: args, dir: p.source, stdout: &messages,
		env: p.env.pick(rustTool, "RUSTC="+c.rustc, "CARGO_TARGET_DIR="+target, "CARGO_INCREMENTAL=0", "CARGO_ENCODED_RUSTFLAGS="+strings.Join(flags, "\x1f")),
	}); err != nil {
		return err
	}
	name := filepath.Base(p.program)
	found := cargoFiles(p.job, messages.Bytes(), "bin", func(string) bool { return true })
	if i := slices.IndexFunc(found, func(f string) bool { return filepath.Base(f) == name }); len(found) > 1 && i >= 0 {
		found = found[i : i+1]
	}
	if len(found) != 1 {
		return p.input("source", fmt.Sprintf("the package in %s gives %d programs", p.source, len(found)), "keep one, or call the one to run "+name)
	}
	return p.place(found[0])
}

// typeScript finds out whether the handler is written in TypeScript, with nothing
// compiled beside it.
func (p *pack) typeScript() error {
	stem := filepath.FromSlash(p.handlerFile())
	for _, ending := range []string{".js", ".mjs", ".cjs"} {
		if p.has(stem + ending) {
			return nil
		}
	}
	for _, ending := range []string{".ts", ".mts", ".cts", ".tsx"} {
		if p.has(stem + ending) {
			p.bundle = p.handlerFile() + ending
			return nil
		}
	}
	return nil
}

// bundleTypeScript puts one file of JavaScript in the place of the handler and all it
// imports. The bundler parses; nothing of the folder or of its packages is run.
func (p *pack) bundleTypeScript(ctx context.Context) error {
	if p.bundle == "" {
		return nil
	}
	if p.installedNothing() { // so that a package is missing here, and not found above the folder
		if err := os.MkdirAll(filepath.Join(p.stage, modulesDir), 0o700); err != nil {
			return fmt.Errorf("making a folder for packages: %v", err)
		}
	}
	result, err := bundle(ctx, p.job, esbuild.BuildOptions{
		AbsWorkingDir: p.stage, EntryPoints: []string{"./" + p.bundle}, Outfile: p.handlerFile() + ".js",
		Bundle: true, Platform: esbuild.PlatformNode, Format: esbuild.FormatCommonJS, Target: esbuild.ES2023, TreeShaking: esbuild.TreeShakingTrue,
		Charset: esbuild.CharsetUTF8, LegalComments: esbuild.LegalCommentsEndOfFile, Sourcemap: esbuild.SourceMapNone,
		LogLevel: esbuild.LogLevelSilent, LogLimit: maxBundleMessages,
	})
	if err != nil {
		return err
	}
	if len(result.OutputFiles) != 1 {
		return fmt.Errorf("building %s: the bundler gave %d files", p.Name, len(result.OutputFiles))
	}
	if err := p.dropSources(); err != nil {
		return err
	}
	to := filepath.Join(p.stage, filepath.FromSlash(p.handlerFile())+".js")
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("writing the bundle: %v", err)
	}
	if err := os.WriteFile(to, result.OutputFiles[0].Contents, 0o600); err != nil {
		return fmt.Errorf("writing the bundle: %v", err)
	}
	return nil
}

func (p *pack) installedNothing() bool {
	_, err := os.Stat(filepath.Join(p.stage, modulesDir))
	return err != nil
}

// dropSources takes out of the stage what the bundle stands for. Without a
// package.json, Node.js takes the bundle for the CommonJS module that it is.
func (p *pack) dropSources() error {
	for _, name := range []string{modulesDir, packageFile, npmLock, "tsconfig.json"} {
		if err := os.RemoveAll(filepath.Join(p.stage, name)); err != nil {
			return fmt.Errorf("tidying up after the bundler: %v", err)
		}
	}
	return filepath.WalkDir(p.stage, func(at string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".ts", ".mts", ".cts", ".tsx"}, filepath.Ext(at)) {
			return err
		}
		return os.Remove(at)
	})
}

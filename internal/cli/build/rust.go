package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	rustInstall = "install Rust from https://rustup.rs and run `rustup target add wasm32-wasip1`; " +
		"on Debian, `apt-get install cargo rustc libstd-rust-dev-wasm32 lld` also does for code that its older compiler accepts"
	// distributionBin is where a distribution's own compiler is, which a rustup in
	// the home folder usually hides.
	distributionBin = "/usr/bin"
)

// rustTargets are the names of WASI preview 1, the current one first.
var rustTargets = [...]string{"wasm32-wasip1", "wasm32-wasi"}

// cargo is a pair of cargo and rustc that can build for target.
type cargo struct{ cargo, rustc, target string }

func checkRust(ctx context.Context, j *job) error {
	_, err := findCargo(ctx, j)
	return err
}

// findCargo takes the first compiler that has a standard library for WASI: the
// one on the PATH, else the distribution's.
func findCargo(ctx context.Context, j *job) (cargo, error) {
	pairs := []cargo{
		{cargo: j.env.find("cargo"), rustc: j.env.find("rustc")},
		{cargo: filepath.Join(distributionBin, "cargo"), rustc: filepath.Join(distributionBin, "rustc")},
	}
	pairs = slices.DeleteFunc(pairs, func(c cargo) bool { return !executable(c.cargo) || !executable(c.rustc) })
	if len(pairs) == 0 {
		return cargo{}, j.missing("cargo", rustInstall)
	}
	want := wantedRust(j)
	tooOld := ""
	for _, c := range pairs {
		if have := rustVersion(ctx, j, c.rustc); have.less(want) {
			tooOld = have.String()
			continue
		}
		for _, target := range rustTargets {
			if hasStandardLibrary(ctx, j, c.rustc, target) {
				c.target = target
				return c, nil
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return cargo{}, &CompileError{Function: j.Name, Tool: "rustc", ExitCode: -1, Cause: context.Cause(ctx)}
	}
	if tooOld != "" {
		return cargo{}, j.missing("Rust "+want.String()+" with its standard library for wasm32-wasip1", rustInstall+" (found "+tooOld+")")
	}
	return cargo{}, j.missing("Rust's standard library for wasm32-wasip1", rustInstall)
}

func hasStandardLibrary(ctx context.Context, j *job, rustc, target string) bool {
	var out bytes.Buffer
	err := j.run(ctx, tool{
		path: rustc, args: []string{"--print", "target-libdir", "--target", target},
		dir: j.source, // a rust-toolchain.toml there selects the compiler
		env: j.env.pick(rustTool), stdout: &out, quiet: true,
	})
	if err != nil {
		return false
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(strings.TrimSpace(out.String())), "libstd-*.rlib"))
	return err == nil && len(found) > 0
}

// release is a compiler's version as far as it is compared: 1.95 is {1, 95}.
type release [2]int

func (r release) less(o release) bool { return r[0] < o[0] || r[0] == o[0] && r[1] < o[1] }
func (r release) String() string      { return fmt.Sprintf("%d.%d", r[0], r[1]) }

// wantedRust is the least compiler that the package declares with rust-version, or
// zero when it declares none.
func wantedRust(j *job) release {
	b, err := os.ReadFile(filepath.Join(j.source, "Cargo.toml"))
	if err != nil {
		return release{}
	}
	return matchRelease(regexp.MustCompile(`(?m)^rust-version\s*=\s*"(\d+)\.(\d+)`), b)
}

func rustVersion(ctx context.Context, j *job, rustc string) release {
	var out bytes.Buffer
	if j.run(ctx, tool{path: rustc, args: []string{"--version"}, dir: j.source, env: j.env.pick(rustTool), stdout: &out, quiet: true}) != nil {
		return release{}
	}
	return matchRelease(regexp.MustCompile(`^rustc (\d+)\.(\d+)`), out.Bytes())
}

func matchRelease(form *regexp.Regexp, text []byte) release {
	m := form.FindSubmatch(text)
	if m == nil {
		return release{}
	}
	major, errMajor := strconv.Atoi(string(m[1]))
	minor, errMinor := strconv.Atoi(string(m[2]))
	if errMajor != nil || errMinor != nil {
		return release{}
	}
	return release{major, minor}
}

// buildRust compiles the one program (or, for entry handle, the one cdylib) of the
// package in the source folder. Paths of this machine are mapped away, so that
// panic messages in the module do not tell them.
func buildRust(ctx context.Context, j *job) ([]byte, error) {
	c, err := findCargo(ctx, j)
	if err != nil {
		return nil, err
	}
	if !j.has("Cargo.toml") {
		return nil, j.input("source", j.source+" has no Cargo.toml", "run `cargo init --name "+moduleName(j)+"` there")
	}
	target, err := j.cache(Rust)
	if err != nil {
		return nil, err
	}
	args := []string{"build", "--release", "--target", c.target, "--message-format=json-render-diagnostics"}
	if j.has("Cargo.lock") {
		args = append(args, "--locked") // what was reviewed is what is built
	}
	var messages bytes.Buffer
	if err := j.run(ctx, tool{
		path: c.cargo, args: args, dir: j.source, stdout: &messages,
		env: j.env.pick(rustTool,
			"RUSTC="+c.rustc, "CARGO_TARGET_DIR="+target, "CARGO_INCREMENTAL=0",
			"CARGO_ENCODED_RUSTFLAGS="+strings.Join(remapPaths(j), "\x1f"),
		),
	}); err != nil {
		return nil, err
	}
	path, err := cargoOutput(j, messages.Bytes())
	if err != nil {
		return nil, err
	}
	return j.output(path)
}

func remapPaths(j *job) []string {
	home := j.env.get("CARGO_HOME")
	if home == "" {
		home = filepath.Join(j.env.get("HOME"), ".cargo")
	}
	flags := []string{"--remap-path-prefix=" + home + "=/cargo", "--remap-path-prefix=" + j.source + "=/function"}
	if real, err := filepath.EvalSymlinks(j.source); err == nil && real != j.source {
		flags = append(flags, "--remap-path-prefix="+real+"=/function")
	}
	return flags
}

// cargoOutput finds the module among cargo's messages.
func cargoOutput(j *job, messages []byte) (string, error) {
	kind, remedy := "bin", "keep one program in the package (src/main.rs, no other [[bin]])"
	if j.Entry == EntryHandle {
		kind, remedy = "cdylib", "declare one [lib] with crate-type = [\"cdylib\"]"
	}
	found := cargoFiles(j, messages, kind, func(name string) bool { return strings.HasSuffix(name, ".wasm") })
	if len(found) != 1 {
		what := "gives no module"
		if len(found) > 1 {
			what = "gives more than one module"
		}
		return "", j.input("source", "the package in "+j.source+" "+what+" of the kind "+kind, remedy)
	}
	return found[0], nil
}

// cargoFiles lists what was made of a kind of target, from cargo's messages, one JSON
// object a line (The Cargo Book, "External tools").
func cargoFiles(j *job, messages []byte, kind string, wanted func(name string) bool) []string {
	manifest := filepath.Join(j.source, "Cargo.toml")
	if real, err := filepath.EvalSymlinks(manifest); err == nil {
		manifest = real
	}
	var found []string
	for line := range bytes.Lines(messages) {
		var m struct {
			Reason       string `json:"reason"`
			ManifestPath string `json:"manifest_path"`
			Target       struct {
				Kind []string `json:"kind"`
			} `json:"target"`
			Filenames []string `json:"filenames"`
		}
		if json.Unmarshal(line, &m) != nil || m.Reason != "compiler-artifact" || !slices.Contains(m.Target.Kind, kind) {
			continue
		}
		if !sameFile(m.ManifestPath, manifest) {
			continue // a program or a cdylib among the dependencies
		}
		for _, f := range m.Filenames {
			if wanted(f) {
				found = append(found, f)
			}
		}
	}
	return found
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

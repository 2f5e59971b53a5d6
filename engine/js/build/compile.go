package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	install = "run `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32` on Debian or Ubuntu; " +
		"elsewhere unpack https://github.com/WebAssembly/wasi-sdk and set WASI_SDK_PATH to its folder"
	// stackSize is the module's own stack, in bytes. src/engine.c keeps JavaScript
	// within it. It lies below the data, so that running over it traps instead of
	// overwriting.
	stackSize = "1048576"
)

// flags are clang's, chosen by measuring; see README.md.
var flags = []string{
	"--target=wasm32-wasi", "-mexec-model=reactor", "-std=gnu11", "-O2", "-fwrapv", "-fno-strict-aliasing", "-DNDEBUG", "-D_GNU_SOURCE",
	"-mbulk-memory", "-msign-ext", "-mnontrapping-fptoint",
	"-fno-ident", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
	"-Wl,--strip-all", "-Wl,--stack-first", "-Wl,-z,stack-size=" + stackSize,
	"-DCASEMATE_STACK_SIZE=" + stackSize,
}

// job is one build.
type job struct {
	root  string // the repository
	dir   string // engine/js
	clang string
	extra string // more flags
}

// findClang finds a compiler that links for WASI, by linking: clang without its
// linker, C library or runtime library is common.
func findClang(ctx context.Context) (string, error) {
	path := "clang"
	if sdk := os.Getenv("WASI_SDK_PATH"); sdk != "" {
		path = filepath.Join(sdk, "bin", "clang")
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("%w: clang is missing: %s", errToolchain, install)
	}
	dir, err := os.MkdirTemp("", "casemate-engine-")
	if err != nil {
		return "", fmt.Errorf("probing clang: %w", err)
	}
	defer os.RemoveAll(dir)
	const program = "#include <stdlib.h>\nint main(int n, char **v) { return v[n] == malloc((size_t)n); }\n"
	if err := os.WriteFile(filepath.Join(dir, "probe.c"), []byte(program), 0o600); err != nil {
		return "", fmt.Errorf("probing clang: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, "--target=wasm32-wasi", "-o", "probe.wasm", "probe.c")
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%w: %s does not link for wasm32-wasi: %s\n%s", errToolchain, path, install, bytes.TrimSpace(text))
	}
	return path, nil
}

// inputs is a digest over everything that decides the output.
func (j *job) inputs(ctx context.Context) (string, error) {
	h := sha256.New()
	version, err := exec.CommandContext(ctx, j.clang, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking clang for its version: %w", err)
	}
	fmt.Fprintf(h, "%q %q %q\n", version, flags, j.extra)
	for _, dir := range []string{".", "build", "src", "boot"} {
		entries, err := os.ReadDir(filepath.Join(j.dir, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reading the sources: %w", err)
		}
		for _, e := range entries { // sorted by name
			switch filepath.Ext(e.Name()) {
			case ".go", ".c", ".h", ".js", ".json":
			default:
				continue
			}
			if strings.HasSuffix(e.Name(), "_test.go") || e.IsDir() {
				continue
			}
			data, err := os.ReadFile(filepath.Join(j.dir, dir, e.Name()))
			if err != nil {
				return "", fmt.Errorf("reading the sources: %w", err)
			}
			fmt.Fprintf(h, "%q %s\n", filepath.Join(dir, e.Name()), digest(data))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// build compiles everything as one unit, in a folder of its own.
func (j *job) build(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "casemate-engine-")
	if err != nil {
		return nil, fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(dir)
	sources, err := readLock(filepath.Join(j.dir, "sources.lock.json"))
	if err != nil {
		return nil, err
	}
	for i := range sources {
		archive, err := sources[i].archive(ctx)
		if err != nil {
			return nil, err
		}
		if err := sources[i].unpack(archive, dir); err != nil {
			return nil, err
		}
	}
	if err := j.copyOwn(dir); err != nil {
		return nil, err
	}
	boot, err := j.boot()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "boot.inc"), boot, 0o600); err != nil {
		return nil, fmt.Errorf("writing the boot script: %w", err)
	}
	args := slices.Concat(flags, strings.Fields(j.extra), []string{"-o", "engine.wasm", "engine.c"})
	cmd := exec.CommandContext(ctx, j.clang, args...)
	cmd.Dir = dir // file names relative, so that none tells where the folder is
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("compiling: %w\n%s", err, bytes.TrimSpace(log.Bytes()))
	}
	_, _ = io.Copy(os.Stderr, &log)
	code, err := os.ReadFile(filepath.Join(dir, "engine.wasm"))
	if err != nil {
		return nil, fmt.Errorf("reading what was compiled: %w", err)
	}
	return code, nil
}

func (j *job) copyOwn(dir string) error {
	entries, err := os.ReadDir(filepath.Join(j.dir, "src"))
	if err != nil {
		return fmt.Errorf("reading the sources: %w", err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(j.dir, "src", e.Name()))
		if err != nil {
			return fmt.Errorf("reading the sources: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), data, 0o600); err != nil {
			return fmt.Errorf("copying the sources: %w", err)
		}
	}
	return nil
}

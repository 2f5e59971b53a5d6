package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
)

const (
	cInstall = "run `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32` on Debian or Ubuntu; " +
		"elsewhere unpack https://github.com/WebAssembly/wasi-sdk and set WASI_SDK_PATH to its folder"
	// cStack is the guest's stack in bytes. It lies below the data, so that running
	// over it traps instead of overwriting.
	cStack = "262144"
)

func checkC(ctx context.Context, j *job) error {
	_, err := clang(ctx, j)
	return err
}

// clang finds a compiler that links a program for WASI, by linking one: clang
// without its linker, C library or runtime library is common.
func clang(ctx context.Context, j *job) (string, error) {
	path := j.env.find("clang")
	if sdk := j.env.get("WASI_SDK_PATH"); sdk != "" {
		path = filepath.Join(sdk, "bin", "clang")
		if !executable(path) {
			return "", j.missing(path, "set WASI_SDK_PATH to the folder of a WASI SDK, or unset it")
		}
	}
	if path == "" {
		return "", j.missing("clang", cInstall)
	}
	probe := filepath.Join(j.tmp, "probe.c")
	const program = "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n"
	if err := os.WriteFile(probe, []byte(program), 0o600); err != nil {
		return "", j.input("source", "the temporary folder cannot be written", "make room in "+j.tmp)
	}
	err := j.run(ctx, tool{
		path: path, dir: j.tmp, env: j.env.pick(cTool), quiet: true,
		args: []string{"--target=wasm32-wasi", "-O1", "-o", filepath.Join(j.tmp, "probe.wasm"), probe},
	})
	switch {
	case ctx.Err() != nil:
		return "", err
	case err != nil:
		return "", j.missing("what clang needs to link for wasm32-wasi", cInstall)
	}
	return path, nil
}

// buildC compiles every .c file in the source folder, but not in folders below it.
// For entry handle, CASEMATE_ENTRY_HANDLE is defined.
func buildC(ctx context.Context, j *job) ([]byte, error) {
	path, err := clang(ctx, j)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(j.source), "*.c"))
	if err != nil || len(files) == 0 {
		return nil, j.input("source", j.source+" has no .c file", "put the function's C files there")
	}
	slices.Sort(files)
	out := filepath.Join(j.tmp, "function.wasm")
	args := []string{
		"--target=wasm32-wasi", "-std=c11", "-O2", "-Wall", "-Wextra",
		"-fno-ident", "-Wl,--strip-all", "-Wl,--stack-first", "-Wl,-z,stack-size=" + cStack, "-o", out,
	}
	if j.Entry == EntryHandle {
		args = append(args, "-mexec-model=reactor", "-DCASEMATE_ENTRY_HANDLE=1")
	}
	for _, f := range files { // relative, so that __FILE__ does not tell where the folder is
		args = append(args, "./"+filepath.Base(f))
	}
	if err := j.run(ctx, tool{path: path, args: args, dir: j.source, env: j.env.pick(cTool)}); err != nil {
		return nil, err
	}
	return j.output(out)
}

// escapeGlob makes every byte of a path mean itself in a pattern.
func escapeGlob(path string) string {
	var out []byte
	for _, c := range []byte(path) {
		if c == '*' || c == '?' || c == '[' || c == '\\' && filepath.Separator != '\\' {
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return string(out)
}

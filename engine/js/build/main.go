// Command build makes the JavaScript engine: QuickJS-ng, our own C and the
// JavaScript of the platform's globals, as one WebAssembly module. Run it from the
// repository's root:
//
//	go run ./engine/js/build
//
// It fetches what sources.lock.json names, checks it, and writes the module into
// internal/jsengine/dist. The same inputs and compiler give the same bytes, and
// when nothing has changed it does nothing. Only `make build` and the tests use it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	force := flag.Bool("force", false, "build although nothing has changed")
	out := flag.String("o", "", "where to write the module, instead of the folder it is embedded from")
	optional := flag.Bool("optional", false, "when there is no compiler for WASI, say so and go on without the engine")
	cflags := flag.String("cflags", "", "more flags for clang, for experiments; separated by spaces")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, *force, *out, *cflags)
	if *optional && errors.Is(err, errToolchain) {
		fmt.Fprintf(os.Stderr, "going on without the JavaScript engine: js and ts functions will be refused.\n%v\n", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "javascript engine:", err)
		os.Exit(1) //nolint:forbidigo // the program's own end
	}
}

// errToolchain means that this machine cannot compile for WASI.
var errToolchain = errors.New("no compiler for WASI")

// stamp says from what an output was made.
type stamp struct {
	Inputs string `json:"inputs"` // digest over sources, flags and compiler
	Output string `json:"output"` // SHA-256 of the module
}

func run(ctx context.Context, force bool, out, cflags string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	j := &job{root: root, dir: filepath.Join(root, "engine", "js"), extra: cflags}
	own := out != ""
	if !own {
		out = filepath.Join(root, "internal", "jsengine", "dist", "engine.wasm")
	} else if out, err = filepath.Abs(out); err != nil {
		return fmt.Errorf("finding the output: %w", err)
	}
	if j.clang, err = findClang(ctx); err != nil {
		return err
	}
	inputs, err := j.inputs(ctx)
	if err != nil {
		return err
	}
	mark := filepath.Join(root, "bin", "engine.stamp") // only the embedded one is kept track of
	if own {
		force = true
	}
	if !force && fresh(mark, out, inputs) {
		return nil
	}
	fmt.Fprintln(os.Stderr, "building the JavaScript engine (half a minute, when its sources change)")
	code, err := j.build(ctx)
	if err != nil {
		return err
	}
	if err := replace(out, code); err != nil || own {
		return err
	}
	text, err := json.Marshal(stamp{Inputs: inputs, Output: digest(code)})
	if err != nil {
		return fmt.Errorf("writing the stamp: %w", err)
	}
	return replace(mark, append(text, '\n'))
}

// fresh reports whether the output was made from these inputs.
func fresh(mark, out, inputs string) bool {
	text, err := os.ReadFile(mark)
	if err != nil {
		return false
	}
	var s stamp
	if json.Unmarshal(text, &s) != nil || s.Inputs != inputs {
		return false
	}
	code, err := os.ReadFile(out)
	return err == nil && digest(code) == s.Output
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".engine-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// moduleRoot is the nearest folder above that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("finding the repository: %w", err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("finding the repository: run this inside it")
		}
		dir = up
	}
}

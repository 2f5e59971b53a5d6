package cli

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// House rule: this is the only file of the package that starts programs. It runs
// the handful that keep a system's and the browsers' lists of authorities, by the
// path found for them and without a shell.

// Programs starts other programs.
type Programs interface {
	// Find returns the path of a program, or an error when it is not installed.
	Find(name string) (string, error)
	// Run runs a program to its end. Its output is part of the error.
	Run(ctx context.Context, path string, args ...string) error
}

// systemPrograms starts programs of this machine. sudo may ask for a password at
// the terminal, so input and errors are passed through.
type systemPrograms struct {
	stdin  io.Reader
	stderr io.Writer
}

// Find looks in PATH and where administrators' programs lie.
func (systemPrograms) Find(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// Run runs one.
func (s systemPrograms) Run(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = s.stdin
	var said strings.Builder
	cmd.Stdout = &said
	cmd.Stderr = &said
	if filepath.Base(path) == "sudo" {
		cmd.Stderr = s.stderr
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %v: %s", filepath.Base(path), err, strings.TrimSpace(said.String()))
	}
	return nil
}

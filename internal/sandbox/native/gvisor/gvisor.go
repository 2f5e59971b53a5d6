package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// Kind is what receipts call these sandboxes.
const Kind = "native/gvisor"

// MinMemory is the least limit on memory that a version may have here, in bytes: the
// kernel in user space needs most of it.
const MinMemory = 64 << 20

// MeasureKernel is the measure that only these sandboxes have.
const MeasureKernel = "own-kernel"

// Where things are inside.
const (
	task    = "/var/task"
	scratch = "/tmp"
)

// Ports inside, as in a box.
const (
	apiPort    = 9001
	serverPort = 8080
)

// Config is what a Launcher is made of. All fields are needed.
type Config struct {
	Broker  *box.Broker // it stays the caller's
	Program string      // runsc's path
	Logger  *slog.Logger
}

// MissingError says why there is no gVisor, and what to do. All of it may be shown.
type MissingError struct {
	Reason string
	Remedy string
}

func (e *MissingError) Error() string { return e.Reason + ": " + e.Remedy }

// askTime bounds how long runsc may take to say what it is.
const askTime = 10 * time.Second

// Find looks for runsc in the folders of a list like PATH and asks what it is:
// "runsc version release-20260105.0". It fails with a *MissingError.
func Find(ctx context.Context, list string) (program, version string, err error) {
	for _, dir := range filepath.SplitList(list) {
		name := filepath.Join(dir, "runsc")
		info, err := os.Stat(name)
		if err != nil || !filepath.IsAbs(dir) || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, "--version")
		cmd.Env = []string{}
		said, err := cmd.Output()
		first, _, _ := strings.Cut(string(said), "\n")
		if err != nil || !strings.HasPrefix(first, "runsc") {
			return "", "", &MissingError{
				Reason: fmt.Sprintf("%s does not say its version (%v)", name, errors.Join(err, ctx.Err())),
				Remedy: "install a release of gVisor's runsc and restart the node",
			}
		}
		return name, first, nil
	}
	return "", "", &MissingError{Reason: "runsc is not on the node's PATH", Remedy: "install gVisor's runsc and restart the node"}
}

// needed are the measures of boxes on which this builds.
func needed() []string {
	return []string{box.MeasureUser, box.MeasureUID, box.MeasureNetwork}
}

// ready says what a broker lacks.
func ready(p box.Posture) error {
	for _, m := range needed() {
		if !p.Has(m) {
			return &MissingError{Reason: "gVisor needs " + m + ", which this node cannot give (" + p.Missing[m] + ")", Remedy: "run the node as root"}
		}
	}
	return nil
}

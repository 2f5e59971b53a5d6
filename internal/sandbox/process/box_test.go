package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// staticBox builds the sandbox as it ships, without cgo, whatever the test itself
// was built with.
var staticBox = sync.OnceValues(func() (string, error) { return build("box", "./testdata/box") })

// crashBox builds a sandbox that does not survive what it is asked.
var crashBox = sync.OnceValues(func() (string, error) { return build("crash", "./testdata/crash") })

func build(name, pkg string) (string, error) {
	path := filepath.Join(boxDir(), name)
	if err := os.MkdirAll(boxDir(), 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the sandbox: %v: %s", err, out)
	}
	return path, nil
}

// boxDir is where this run of the tests builds its sandboxes.
func boxDir() string { return filepath.Join(os.TempDir(), fmt.Sprintf("casemate-box-%d", os.Getpid())) }

func removeBox() { _ = os.RemoveAll(boxDir()) }

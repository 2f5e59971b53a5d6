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
var staticBox = sync.OnceValues(func() (string, error) {
	path := boxPath()
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", path, "./testdata/box")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the sandbox: %v: %s", err, out)
	}
	return path, nil
})

// boxPath is where this run of the tests builds its sandbox.
func boxPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("casemate-box-%d", os.Getpid()), "box")
}

func removeBox() { _ = os.RemoveAll(filepath.Dir(boxPath())) }

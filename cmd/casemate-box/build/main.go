// Command build compiles cmd/casemate-box into internal/sandbox/box/dist, from where
// casemate embeds it: static, without symbols and paths, for the system and processor
// that GOOS and GOARCH name. Run it at the module's root. On systems other than Linux
// there is nothing to build, and what is there is removed.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

const (
	target  = "internal/sandbox/box/dist/casemate-box"
	program = "./cmd/casemate-box"
	// maxSize keeps it small: it has privileges, and every node has one.
	maxSize = 3 << 20
)

func main() {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "building the small program:", err)
		os.Exit(1)
	}
}

func build() error {
	system := os.Getenv("GOOS")
	if system == "" {
		system = runtime.GOOS
	}
	if system != "linux" {
		if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", target, program)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	if info.Size() > maxSize {
		return fmt.Errorf("%s has %d bytes, more than %d", target, info.Size(), maxSize)
	}
	return nil
}

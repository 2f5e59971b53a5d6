//go:build !linux

package gvisor

import "github.com/casemate-dev/casemate/internal/sandbox/native"

// New fails: gVisor is for Linux.
func New(Config) (native.Launcher, error) {
	return nil, &MissingError{Reason: "gVisor runs on Linux only", Remedy: "run the node on Linux"}
}

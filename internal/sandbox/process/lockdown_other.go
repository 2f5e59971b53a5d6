//go:build !linux

package process

import (
	"fmt"
	"os"
	"syscall"

	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// lockDown says that nothing is locked here: the process is a plain one.
func lockDown(plan) (wire.Hello, *os.File, error) {
	const why = "only on Linux"
	missing := map[string]string{}
	for _, m := range []string{
		measureMounts, measureNetwork, measurePID, measurePrivileges, measureSyscalls, measureSealed, measureCgroup, measureParent,
	} {
		missing[m] = why
	}
	return wire.Hello{Missing: missing}, nil, nil
}

// codeOfNode gives nothing: here code is sent.
func codeOfNode() *os.File { return nil }

// nodeConnection makes the inherited socket usable.
func nodeConnection() (*os.File, error) {
	if err := syscall.SetNonblock(connection, true); err != nil {
		return nil, fmt.Errorf("opening the connection: %v", err)
	}
	return os.NewFile(connection, "node"), nil
}

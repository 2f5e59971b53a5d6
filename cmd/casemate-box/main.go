//go:build linux

// Command casemate-box is the small program that casemate carries in itself to start
// guests: the broker, and what looks around in a box once, to see what holds there
// (internal/sandbox/box). It is small because it has privileges, and little to do.
package main

import (
	"os"

	"github.com/casemate-dev/casemate/internal/sandbox/box/stub"
)

func main() {
	if len(os.Args) > 0 {
		if code, ok := stub.Main(os.Args[0]); ok {
			os.Exit(code)
		}
	}
	_, _ = os.Stderr.WriteString("casemate-box: casemate starts this program; it does nothing by itself\n")
	os.Exit(2)
}

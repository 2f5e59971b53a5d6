// Command box is a sandbox and nothing else, for tests that need one without cgo.
package main

import (
	"os"

	"github.com/casemate-dev/casemate/internal/sandbox/process"
)

func main() { os.Exit(process.Main()) }

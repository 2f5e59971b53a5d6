//go:build !linux

package main

import "os"

func main() {
	_, _ = os.Stderr.WriteString("casemate-box: boxes exist on Linux only\n")
	os.Exit(2)
}

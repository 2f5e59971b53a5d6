// Command casemate-connector-sqs brings the messages of an Amazon SQS queue, or of one that
// speaks its protocol, to a Casemate node. A message is deleted after the node has it on
// disk; connectors/README.md has its settings.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "sqs:", err)
		os.Exit(1) //nolint:forbidigo // this is a program of its own
	}
}

// release names this build.
func release() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "dev"
}

// Command casemate-connector-redis brings the entries of a Redis stream to a Casemate node,
// as a member of a consumer group. An entry is acknowledged after the node has it on disk;
// connectors/README.md has its settings.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "redis:", err)
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

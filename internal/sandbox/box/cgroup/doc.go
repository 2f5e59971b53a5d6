// Package cgroup limits and measures groups of processes by the kernel's control groups:
// version 2, and version 1 with or without a version 2 hierarchy beside it ("hybrid").
//
// A hierarchy has a directory for each program that uses it, below the group that the
// program runs in, so that limits set from outside hold for what it makes. The
// directory is locked while the program lives; what a program left behind that died is
// killed and removed by the next one.
//
// What the machine does not offer is in [Hierarchy.Missing], with the reason, and a
// group then goes without: a limit is never skipped silently.
//
// The small privileged program links this package, so it imports neither fmt nor os.
// Only internal/sandbox/box and its children may import it. A Hierarchy may be used from
// many goroutines; a Group by one at a time, except that Kill may be called at any time.
package cgroup

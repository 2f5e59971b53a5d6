package process

import (
	"maps"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// Kind is the first part of what Usage.Kind says.
const Kind = "wasm/process"

// The measures that a Posture speaks of.
const (
	measureUser         = "user-namespace"
	measureUID          = "unused-uid"
	measureMounts       = "empty-root"
	measurePID          = "pid-namespace"
	measureNetwork      = "no-network"
	measureIPC          = "ipc-namespace"
	measureUTS          = "uts-namespace"
	measureCgroupNS     = "cgroup-namespace"
	measureCapabilities = "no-capabilities"
	measurePrivileges   = "no-new-privileges"
	measureRlimits      = "rlimits"
	measureDescriptors  = "no-descriptors"
	measureDump         = "not-dumpable"
	measureOOM          = "killed-first"
	measureParent       = "dies-with-node"

	measureSyscalls = "syscall-filter"
	measureSealed   = "sealed" // by a stricter one, before the first guest
	measureLandlock = "landlock"
	measureCgroup   = "memory-cgroup"

	measureProcesses = "processes-cgroup"
)

// Posture says what separates a sandbox process from the machine.
type Posture struct {
	Enforced []string          // measures in force, sorted
	Missing  map[string]string // measures that are not, with the reason
	Restore  string            // how guests' memory is restored; speed, not safety
}

// String gives the form for receipts: the kind, and what is missing.
func (p Posture) String() string {
	if len(p.Missing) == 0 {
		return Kind
	}
	return Kind + " without " + strings.Join(slices.Sorted(maps.Keys(p.Missing)), ",")
}

// Has reports whether a measure is in force.
func (p Posture) Has(measure string) bool {
	_, found := slices.BinarySearch(p.Enforced, measure)
	return found
}

// postureOf joins what a process says of itself with what its start said of it.
func postureOf(h wire.Hello, enforced []string, missing map[string]string) Posture {
	p := Posture{Missing: map[string]string{}, Restore: h.Restore}
	p.Enforced = append(append(p.Enforced, h.Enforced...), enforced...)
	slices.Sort(p.Enforced)
	p.Enforced = slices.Compact(p.Enforced)
	maps.Copy(p.Missing, h.Missing)
	maps.Copy(p.Missing, missing)
	return p
}

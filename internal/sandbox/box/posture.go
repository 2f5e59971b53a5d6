package box

// The measures that a Posture speaks of.
const (
	MeasureUser         = "user-namespace"
	MeasureUID          = "unused-uid"
	MeasureGroups       = "no-groups"
	MeasureMounts       = "empty-root"
	MeasurePID          = "pid-namespace"
	MeasureNetwork      = "no-network"
	MeasureIPC          = "ipc-namespace"
	MeasureUTS          = "uts-namespace"
	MeasureCgroupNS     = "cgroup-namespace"
	MeasureCapabilities = "no-capabilities"
	MeasurePrivileges   = "no-new-privileges"
	MeasureRlimits      = "rlimits"
	MeasureDescriptors  = "no-descriptors"
	MeasureEnvironment  = "no-environment"
	MeasureDump         = "no-dumps"
	MeasureProc         = "own-proc"
	MeasureOOM          = "killed-first"
	MeasureParent       = "dies-with-node"
	MeasureSyscalls     = "syscall-filter"
	MeasureLandlock     = "landlock"
	MeasureMemory       = "memory-cgroup"
	MeasureProcesses    = "processes-cgroup"
	MeasureCPU          = "cpu-cgroup"
	MeasureFreezer      = "freezer-cgroup"
)

// measures are all of them.
func measures() []string {
	return []string{
		MeasureUser, MeasureUID, MeasureGroups, MeasureMounts, MeasurePID, MeasureNetwork, MeasureIPC, MeasureUTS, MeasureCgroupNS,
		MeasureCapabilities, MeasurePrivileges, MeasureRlimits, MeasureDescriptors, MeasureEnvironment, MeasureDump,
		MeasureProc, MeasureOOM, MeasureParent, MeasureSyscalls, MeasureLandlock, MeasureMemory, MeasureProcesses,
		MeasureCPU, MeasureFreezer,
	}
}

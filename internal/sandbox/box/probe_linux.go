package box

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/cgroup"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// probeTimeout bounds the look around at the start.
const probeTimeout = 10 * time.Second

// probe starts a bare box and looks around in it: what is enforced is what was seen.
func (b *Broker) probe(ctx context.Context) Posture {
	missing := map[string]string{}
	sight, err := b.look(ctx, missing)
	if err != nil {
		for _, m := range measures() {
			missing[m] = err.Error()
		}
		return Posture{Missing: missing}
	}
	lacks := func(m string, ok bool, format string, args ...any) {
		if !ok {
			missing[m] = fmt.Sprintf(format, args...)
		}
	}
	for ns, m := range map[string]string{
		"user": MeasureUser, "mnt": MeasureMounts, "pid": MeasurePID, "net": MeasureNetwork, "ipc": MeasureIPC,
		"uts": MeasureUTS, "cgroup": MeasureCgroupNS,
	} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		lacks(m, err == nil && sight.Namespaces[ns] != "" && sight.Namespaces[ns] != ours, "the box has the node's own %s namespace", ns)
	}
	lacks(MeasureNetwork, slices.Equal(sight.Links, []string{"lo"}), "the box has interfaces %v", sight.Links)
	lacks(MeasureMounts, !sight.Writable, "the box can write to its root")
	for _, n := range sight.Root {
		lacks(MeasureMounts, slices.Contains([]string{"tmp", "proc", "dev", "var"}, n), "the box's root has %s", n)
	}
	lacks(MeasureUID, hostUID(sight.Map) > 1<<30, "without privileges there is one user id, the node's own")
	lacks(MeasureGroups, sight.Groups == 0, "without privileges the node's groups cannot be left")
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		lacks(MeasureCapabilities, strings.Trim(sight.Status[set], "0") == "" && sight.Status[set] != "", "the box has %s %s", set, sight.Status[set])
	}
	lacks(MeasurePrivileges, sight.Status["NoNewPrivs"] == "1", "the kernel does not say that they are renounced")
	lacks(MeasureSyscalls, sight.Status["Seccomp"] == "2", "the kernel does not say that a filter is set")
	lacks(MeasureDescriptors, len(sight.Descriptors) == 0, "the box has descriptors %v", sight.Descriptors)
	lacks(MeasureEnvironment, sight.Environment == 0, "the box has %d environment variables", sight.Environment)
	lacks(MeasureRlimits, sight.Core == 1, "the limit of core dumps is %d", sight.Core)
	lacks(MeasureDump, sight.Core == 1, "the limit of core dumps is %d", sight.Core)
	lacks(MeasureProc, sight.Others == 0, "the box sees %d processes besides its own", sight.Others)
	lacks(MeasureOOM, sight.OOM == "1000", "oom_score_adj is %s", sight.OOM)
	return Posture{Missing: missing, Enforced: slices.Sorted(func(yield func(string) bool) {
		for _, m := range measures() {
			if _, lacking := missing[m]; !lacking && !yield(m) {
				return
			}
		}
	})}
}

// look starts the probe, and adds what is missing by other means than looking.
func (b *Broker) look(ctx context.Context, missing map[string]string) (*message.Sight, error) {
	maps.Copy(missing, b.lacksLandlock())
	for what, m := range map[string]string{
		cgroup.Memory: MeasureMemory, cgroup.Processes: MeasureProcesses, cgroup.CPU: MeasureCPU, cgroup.Freezing: MeasureFreezer,
	} {
		if reason, lacking := b.missing[what]; lacking {
			missing[m] = reason
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, &Error{Step: "looking around in a box", Err: err}
	}
	defer func() { _ = r.Close() }()
	x, err := b.Start(ctx, Spec{
		Executable: b.program, Args: []string{message.RoleProbe}, Stdout: w, Proc: true, Tmp: 64 << 10, Filter: allowAll(),
		Memory: 64 << 20, Processes: 32, CPUPercent: 100,
	})
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	defer func() {
		x.Kill()
		<-x.Done()
	}()
	stop := context.AfterFunc(ctx, x.Kill)
	defer stop()
	sight := new(message.Sight)
	if err := json.NewDecoder(io.LimitReader(r, message.MaxSize)).Decode(sight); err != nil {
		return nil, &Error{Step: "looking around in a box", Err: err}
	}
	return sight, nil
}

// allowAll is a filter that allows everything, to see whether filters can be had.
func allowAll() []byte {
	f := binary.NativeEndian.AppendUint16(nil, unix.BPF_RET|unix.BPF_K)
	f = append(f, 0, 0)
	return binary.NativeEndian.AppendUint32(f, unix.SECCOMP_RET_ALLOW)
}

// hostUID gives the first user of the host in a map of user ids.
func hostUID(text string) int {
	f := strings.Fields(text)
	if len(f) < 3 {
		return 0
	}
	n, err := strconv.Atoi(f[1])
	if err != nil {
		return 0
	}
	return n
}

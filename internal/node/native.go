package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/boxed"
	"github.com/casemate-dev/casemate/internal/sandbox/native/unsandboxed"
	"github.com/casemate-dev/casemate/internal/sandbox/process"
)

// nativeShare is how much of the machine's memory native sandboxes may claim together,
// in percent. The rest is for the node, the wasm tier and the system.
const nativeShare = 75

// startsPerProcessor is how many native sandboxes start at once, for each processor:
// starting one waits for the disk and the kernel part of the time.
const startsPerProcessor = 2

// needed are the measures without which native code does not run: each is a wall of
// its own that nothing else stands in for. What else is missing is reported, by
// `casemate posture sandbox` and in every receipt.
func needed() []string {
	return []string{
		box.MeasureUser, box.MeasureMounts, box.MeasurePID, box.MeasureNetwork, box.MeasureIPC,
		box.MeasureCapabilities, box.MeasurePrivileges, box.MeasureSyscalls, box.MeasureDescriptors, box.MeasureEnvironment,
	}
}

// startNative gives the native tier, or why there is none. k is nil when there is no
// broker, for the reason.
func (n *node) startNative(ctx context.Context, k *keeper, reason string) (*natives, string, error) {
	if k != nil {
		reason = lacksFor(k.Posture())
	}
	if reason == "" {
		r, err := newNatives(ctx, k, func(b *box.Broker) (*native.Runner, error) {
			l, err := boxed.New(b)
			if err != nil {
				return nil, err
			}
			return n.newNative(newTenant(l), n.stronger(b))
		})
		return r, "", err
	}
	if !n.opts.Unsandboxed {
		n.log.Warn("native functions are refused: this machine cannot lock them in", "reason", reason)
		return nil, reason, nil
	}
	n.bare = true
	n.log.Warn("audit", "action", "run without a sandbox", "object", "native functions", "why", "--unsandboxed", "reason", reason)
	r, err := newNatives(ctx, nil, func(*box.Broker) (*native.Runner, error) {
		l, err := unsandboxed.New(reason)
		if err != nil {
			return nil, err
		}
		return n.newNative(l, nil)
	})
	return r, "", err
}

func (n *node) newNative(l native.Launcher, stronger map[function.SandboxKind]native.Stronger) (*native.Runner, error) {
	return native.New(native.Config{
		Launcher: l, Stronger: stronger, Artifacts: n.registry, Memory: totalMemory() / 100 * nativeShare,
		Starts: startsPerProcessor * runtime.NumCPU(), Clock: n.clock, Logger: n.log,
	})
}

// lacksFor says why native code may not run in a broker's boxes, nothing when it may.
func lacksFor(p box.Posture) string {
	for _, m := range needed() {
		if why, missing := p.Missing[m]; missing {
			return m + " is missing: " + why
		}
	}
	return ""
}

// totalMemory is the machine's, in bytes; a gigabyte where the system does not tell.
func totalMemory() int64 {
	const unknown = 1 << 30
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return unknown
}

// sandboxPosture says what separates guest code from the machine.
func sandboxPosture(wasm *process.Runner, natives *natives, reason string) api.SandboxPosture {
	p := wasm.Posture()
	w := api.TierPosture{Name: "wasm", Kind: process.Kind, Available: true, Measures: measures(p.Enforced, p.Missing)}
	w.Sandboxes, w.Idle = wasm.Count()
	out := api.SandboxPosture{Complete: len(p.Missing) == 0}
	t := api.TierPosture{Name: "native", Reason: reason, Measures: []api.Measure{}}
	if natives != nil {
		r := natives.now()
		l := r.Launcher()
		p := l.Posture()
		t.Kind, t.Available, t.Measures = p.Kind, true, measures(p.Enforced, p.Missing)
		t.Sandboxes, t.Idle, t.Claimed, t.Budget = r.Load()
		for _, i := range l.Runtimes() {
			t.Runtimes = append(t.Runtimes, api.RuntimePosture{Name: string(i.Runtime), Available: i.Reason == "", Version: i.Version, Reason: i.Reason})
		}
		out.Complete = out.Complete && len(p.Missing) == 0
	}
	out.Tiers = []api.TierPosture{w, t}
	if natives != nil {
		out.Tiers = append(out.Tiers, strongerPosture(natives.now())...)
	}
	return out
}

// measures joins what is in force and what is not, by name.
func measures(enforced []string, missing map[string]string) []api.Measure {
	all := make([]api.Measure, 0, len(enforced)+len(missing))
	for _, m := range enforced {
		all = append(all, api.Measure{Name: m, Enforced: true})
	}
	for _, m := range slices.Sorted(maps.Keys(missing)) {
		all = append(all, api.Measure{Name: m, Reason: missing[m]})
	}
	return all
}

// describe is the native tier in one line, for status.
func describe(natives *natives, reason string) string {
	if natives == nil {
		return "refused: " + reason
	}
	running, idle, claimed, budget := natives.now().Load()
	return fmt.Sprintf("%d running, %d waiting, %d of %d MiB claimed", running, idle, claimed>>20, budget>>20)
}

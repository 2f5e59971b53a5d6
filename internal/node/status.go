package node

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/sandbox/process"
)

// status is the node's account of itself.
func (n *node) status(ctx context.Context) api.Status {
	inFlight, admitted := n.admission.Load()
	state, _ := n.state.Load().(string)
	least := "1.3"
	if n.opts.AllowTLS12 {
		least = "1.2"
	}
	now := n.clock()
	s := api.Status{
		State: state, Node: n.id, Version: n.opts.Version, Go: runtime.Version(),
		Started: n.began.UTC(), UptimeMS: now.Sub(n.began).Milliseconds(),
		Listeners: []api.Listener{
			{Name: "gateway", Address: n.gatewayListener.Addr().String(), TLS: least, URL: n.url(n.gatewayListener)},
			{Name: "control", Address: n.controlListener.Addr().String(), TLS: least, URL: n.url(n.controlListener)},
		},
		Components: map[string]string{"bus": n.bus.Version(), "sandbox": "wasm"},
		Functions:  n.registry.Len(), Invocations: admitted, InFlight: inFlight,
		RSSBytes: residentBytes(),
		Healthy:  state == "ready",
	}
	if s.Objects = n.objectsStatus(); s.Objects != nil {
		s.Listeners = append(s.Listeners, api.Listener{Name: "objects", Address: n.objectsListener.Addr().String(), TLS: least, URL: s.Objects.URL})
	}
	s.Sandbox = n.posture()
	if native := n.native(); native != "" {
		s.Components["native sandboxes"] = native
	}
	s.Warnings = append(s.Warnings, n.bus.Warnings()...)
	s.Warnings = append(s.Warnings, n.recorder.Warnings()...)
	if n.code != nil {
		s.Warnings = append(s.Warnings, n.code.Warnings()...)
	}
	for _, f := range n.registry.Faults() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("stored value %s refused: %s", f.Key, f.Reason))
	}
	for _, f := range n.keys.Faults() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("stored key %s refused: %s", f.Key, f.Reason))
	}
	if err := n.bus.Check(ctx); err != nil {
		s.Healthy = false
		s.Components["bus"] = "not answering"
		s.Warnings = append(s.Warnings, "the bus does not answer: deployments and receipts wait")
		n.log.Error("the bus does not answer", "error", err)
	}
	if n.opts.AllowTLS12 {
		s.Warnings = append(s.Warnings, "TLS 1.2 is allowed")
	}
	if n.bare {
		s.Warnings = append(s.Warnings, "native functions run without a sandbox: --unsandboxed was given, and this machine has none to offer")
	}
	return s
}

// residentBytes is the node's own resident memory, or 0 where the system does
// not tell.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// sandboxStatus says which walls stand around guest code on this machine.
func sandboxStatus(r *process.Runner) api.SandboxStatus {
	p := r.Posture()
	s := api.SandboxStatus{Enforced: p.Enforced}
	for _, what := range slices.Sorted(maps.Keys(p.Missing)) {
		s.Unenforced = append(s.Unenforced, what+": "+p.Missing[what])
	}
	s.Processes, s.Warm = r.Count()
	return s
}

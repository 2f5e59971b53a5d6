package node

import (
	"context"
	"errors"
	"os"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/gvisor"
)

// stronger gives what native versions may ask for beyond a box, on a broker that stays
// the caller's. What the machine lacks is said to those who ask for it.
func (n *node) stronger(b *box.Broker) map[function.SandboxKind]native.Stronger {
	var s native.Stronger
	program, version, err := gvisor.Find(context.Background(), os.Getenv("PATH"))
	if err == nil {
		s.Version = version
		s.Launcher, err = gvisor.New(gvisor.Config{Broker: b, Program: program, Logger: n.log.With("from", "gvisor")})
	}
	var missing *gvisor.MissingError
	switch {
	case errors.As(err, &missing):
		s = native.Stronger{Reason: missing.Error()}
	case err != nil:
		n.log.Error("gVisor cannot be had", "error", err)
		s = native.Stronger{Reason: "it could not be set up: see the node's log"}
	}
	return map[function.SandboxKind]native.Stronger{function.SandboxGVisor: s}
}

// strongerPosture says what versions may ask for.
func strongerPosture(r *native.Runner) []api.TierPosture {
	s, known := r.Stronger()[function.SandboxGVisor]
	if !known {
		return nil
	}
	t := api.TierPosture{Name: string(function.SandboxGVisor), Reason: s.Reason, Measures: []api.Measure{}}
	if s.Launcher != nil {
		p := s.Launcher.Posture()
		t.Kind, t.Available, t.Measures = p.Kind, true, measures(p.Enforced, p.Missing)
		t.Runtimes = []api.RuntimePosture{{Name: "runsc", Available: true, Version: s.Version}}
	}
	return []api.TierPosture{t}
}

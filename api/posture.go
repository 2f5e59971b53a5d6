package api

import (
	"context"
	"net/http"
)

// SandboxPosture says, measure by measure, what separates guest code from the machine.
type SandboxPosture struct {
	Complete bool          `json:"complete" doc:"Whether every measure of every tier in use is in force"`
	Tiers    []TierPosture `json:"tiers"`
}

// TierPosture is one way to run code.
type TierPosture struct {
	Name      string           `json:"name" enum:"wasm,native,gvisor"`
	Kind      string           `json:"kind,omitempty" doc:"What receipts call it"`
	Available bool             `json:"available"`
	Reason    string           `json:"reason,omitempty" doc:"Why it is not available, or not what it should be"`
	Measures  []Measure        `json:"measures"`
	Runtimes  []RuntimePosture `json:"runtimes,omitempty"`
	Sandboxes int              `json:"sandboxes" doc:"Running now"`
	Idle      int              `json:"idle" doc:"Of them, waiting for work"`
	Claimed   int64            `json:"claimedBytes,omitempty" doc:"Memory that running sandboxes may use together"`
	Budget    int64            `json:"budgetBytes,omitempty" doc:"What they may claim at most"`
}

// Measure is one thing that stands between guest code and the machine.
type Measure struct {
	Name     string `json:"name"`
	Enforced bool   `json:"enforced"`
	Reason   string `json:"reason,omitempty" doc:"Why it is not in force"`
}

// RuntimePosture says whether the machine has what a runtime needs.
type RuntimePosture struct {
	Name      string `json:"name"`
	Available bool   `json:"available"`
	Version   string `json:"version,omitempty" doc:"Of the interpreter, as in receipts"`
	Reason    string `json:"reason,omitempty"`
}

// SandboxPosture asks what separates guest code from the node's machine.
func (c *Client) SandboxPosture(ctx context.Context) (*SandboxPosture, error) {
	return fetch[SandboxPosture](ctx, c, http.MethodGet, path("posture", "sandbox"), nil)
}

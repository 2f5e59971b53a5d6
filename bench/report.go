package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// result is one row of results.json.
type result struct {
	ID       string  `json:"id"`
	Unit     string  `json:"unit,omitempty"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer,omitempty"`
	PeerName string  `json:"peer_name,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // ours / peer
	Goal     float64 `json:"goal,omitempty"`
	Better   string  `json:"better,omitempty"`
	// Most is a second goal: what Ours itself may be at the most.
	Most float64 `json:"most,omitempty"`
	N    int     `json:"n,omitempty"`
	Note string  `json:"note,omitempty"`

	// CPU and PeerCPU are user and system time of the whole process tree per answer,
	// in µs; CPURatio is peer / ours, so that like Ratio it says who does more with a
	// processor.
	CPU      float64 `json:"cpu_micros,omitempty"`
	PeerCPU  float64 `json:"peer_cpu_micros,omitempty"`
	CPURatio float64 `json:"cpu_ratio,omitempty"`

	Error   string        `json:"error,omitempty"`   // why there is no figure
	Restore []restore     `json:"restore,omitempty"` // the table of wasm.restore.pages
	Profile []profilePart `json:"profile,omitempty"` // of profile.*
}

func (r result) String() string {
	if r.Error != "" {
		return fmt.Sprintf("%-24s failed: %s", r.ID, r.Error)
	}
	s := fmt.Sprintf("%-24s %s %s", r.ID, figure(r.Ours), r.Unit)
	if r.PeerName != "" {
		s += fmt.Sprintf("  %s %s  ratio %.3g", r.PeerName, figure(r.Peer), r.Ratio)
	}
	if r.CPURatio != 0 {
		s += fmt.Sprintf("  CPU µs %s against %s (%.3g×)", figure(r.CPU), figure(r.PeerCPU), r.CPURatio)
	}
	if goal := r.goal(); goal != "" {
		s += "  goal " + goal + " " + r.verdict()
	}
	return s + "  (" + r.Note + ")"
}

// held is what of the row is held against its goal: of throughput the ratio of CPU
// time, which the load generator and other work on the machine do not change; the
// ratio of anything else that has a peer; the figure itself without one.
func (r result) held() float64 {
	switch {
	case r.CPURatio != 0:
		return r.CPURatio
	case r.PeerName != "":
		return r.Ratio
	default:
		return r.Ours
	}
}

// goal says what is wanted; it is empty when nothing is.
func (r result) goal() string {
	var goals []string
	if r.Goal != 0 {
		sign := "≥"
		if r.Better == "lower" {
			sign = "≤"
		}
		goals = append(goals, fmt.Sprintf("%s %.4g", sign, r.Goal))
	}
	if r.Most != 0 {
		goals = append(goals, fmt.Sprintf("≤ %.4g %s", r.Most, r.Unit))
	}
	return strings.Join(goals, " and ")
}

func (r result) verdict() string {
	switch {
	case r.Error != "":
		return "error"
	case r.goal() == "":
		return ""
	case r.Most != 0 && r.Ours > r.Most:
		return "missed"
	case r.Goal == 0:
		return "met"
	case r.Better == "higher" && r.held() >= r.Goal, r.Better == "lower" && r.held() <= r.Goal:
		return "met"
	default:
		return "missed"
	}
}

// report puts fresh results in the place of older ones in results.json, drops those
// that no measure gives any more, and renders BENCHMARKS.md.
func report(fresh []result) error {
	rows, err := readResults()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, m := range measures() {
		for _, id := range m.ids() {
			known[id] = true
		}
	}
	rows = slices.DeleteFunc(rows, func(r result) bool {
		return !known[r.ID] || slices.ContainsFunc(fresh, func(f result) bool { return f.ID == r.ID })
	})
	rows = append(rows, fresh...)
	slices.SortStableFunc(rows, func(a, b result) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("results.json", append(b, '\n'), 0o644); err != nil {
		return err
	}
	notes, err := os.ReadFile("NOTES.md")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile("../BENCHMARKS.md", markdown(rows, notes, machine()), 0o644)
}

func readResults() ([]result, error) {
	b, err := os.ReadFile("results.json")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rows []result
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("reading results.json: %v", err)
	}
	return rows, nil
}

// figure writes a number with what of it is worth reading.
func figure(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

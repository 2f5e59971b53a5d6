package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// result is one row of results.json.
type result struct {
	ID       string  `json:"id"`
	Unit     string  `json:"unit"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer,omitempty"`
	PeerName string  `json:"peer_name,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // ours / peer
	Goal     float64 `json:"goal,omitempty"`
	Better   string  `json:"better"`
	N        int     `json:"n"`
	Note     string  `json:"note,omitempty"`
}

func (r result) String() string {
	s := fmt.Sprintf("%-32s %10.4g %s", r.ID, r.Ours, r.Unit)
	if r.PeerName != "" {
		s += fmt.Sprintf("  %s %.4g  ratio %.3g", r.PeerName, r.Peer, r.Ratio)
	}
	if r.Goal != 0 {
		s += fmt.Sprintf("  goal %.4g %s", r.Goal, r.verdict())
	}
	return s + "  (" + r.Note + ")"
}

// verdict holds the figure against its goal; a goal on something with a peer is a
// ratio.
func (r result) verdict() string {
	if r.Goal == 0 {
		return ""
	}
	v := r.Ours
	if r.PeerName != "" {
		v = r.Ratio
	}
	if (r.Better == "higher" && v >= r.Goal) || (r.Better == "lower" && v <= r.Goal) {
		return "met"
	}
	return "missed"
}

// report merges fresh results into results.json, all of them anew or some, and
// renders BENCHMARKS.md.
func report(fresh []result, all bool) error {
	if len(fresh) == 0 {
		return nil
	}
	var kept []result
	if !all {
		b, err := os.ReadFile("results.json")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err == nil {
			if err := json.Unmarshal(b, &kept); err != nil {
				return fmt.Errorf("reading results.json: %v", err)
			}
		}
		kept = slices.DeleteFunc(kept, func(r result) bool {
			return slices.ContainsFunc(fresh, func(f result) bool { return f.ID == r.ID })
		})
	}
	rows := append(kept, fresh...)
	slices.SortStableFunc(rows, func(a, b result) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("results.json", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile("../BENCHMARKS.md", markdown(rows), 0o644)
}

func markdown(rows []result) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, `# Benchmarks

Rendered from bench/results.json by `+"`make bench`"+`, which starts both sides of every row itself, in one run, on loopback, with TLS on both, and alternates between them; the figures are medians. `+"`make bench ONLY=id,id`"+` takes some of them anew.

The work is a JSON hello: `+"`{\"name\":\"Ada\"}`"+` in, `+"`{\"hello\":\"Ada\"}`"+` out. The load is wrk with one thread on the same two cores; c1 and c32 are its connections. Ratio is ours divided by the peer's. On a shared machine throughput drifts from run to run, so read the ratio and the CPU time per answer (user and system, whole process tree) before the absolute figures.

Machine: %s. Last run: %s.

| measure | ours | peer | ratio | goal | | what |
|---|---:|---:|---:|---:|---|---|
`, machine(), time.Now().UTC().Format("2006-01-02"))
	for _, r := range rows {
		peer, ratio, goal := "–", "–", "–"
		if r.PeerName != "" {
			peer, ratio = fmt.Sprintf("%.0f %s (%s)", r.Peer, r.Unit, r.PeerName), fmt.Sprintf("%.3g", r.Ratio)
		}
		if r.Goal != 0 {
			sign := "≥"
			if r.Better == "lower" {
				sign = "≤"
			}
			goal = fmt.Sprintf("%s %.4g", sign, r.Goal)
		}
		fmt.Fprintf(&w, "| %s | %.0f %s | %s | %s | %s | %s | %s |\n", r.ID, r.Ours, r.Unit, peer, ratio, goal, r.verdict(), r.Note)
	}
	if notes, err := os.ReadFile("NOTES.md"); err == nil {
		w.WriteString("\n")
		w.Write(notes)
	}
	return w.Bytes()
}

func machine() string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	kernel := "unknown kernel"
	if out, err := exec.Command("uname", "-r").Output(); err == nil {
		kernel = strings.TrimSpace(string(out))
		kernel, _, _ = strings.Cut(kernel, "-")
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), cpu, kernel, runtime.Version())
}

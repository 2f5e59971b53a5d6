package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// markdown renders BENCHMARKS.md.
func markdown(rows []result, notes []byte, machine string) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, `# Benchmarks

Rendered from bench/results.json by `+"`make bench`"+`, which starts both sides of every row itself, in one run, on loopback, with TLS on both, and alternates between them; the figures are medians of n rounds, so with n = 1 a single reading. `+"`make bench ONLY=id,id`"+` takes some of them anew; `+"`ONLY=wasm.c`"+` takes all rows that begin so.

The work, unless a row says otherwise, is a JSON hello: `+"`{\"name\":\"Ada\"}`"+` in, `+"`{\"hello\":\"Ada\"}`"+` out, written as each side's users would write it. The load is wrk with one thread on the same two cores; c1 and c32 are its connections. Ratio is ours divided by the peer's. CPU is user and system time per answer of the whole process tree, in µs, ours against the peer's, and in brackets the peer's divided by ours: on a shared machine throughput drifts from run to run and the load generator takes its part of it, so rows that have this figure are held against their goal by it.

Machine: %s. Last run: %s.

| measure | n | ours | peer | ratio | CPU µs per answer | goal | | what, and why a goal is missed |
|---|---:|---:|---:|---:|---:|---|---|---|
`, machine, time.Now().UTC().Format("2006-01-02"))
	for _, r := range rows {
		if r.Profile == nil {
			tableRow(&w, r)
		}
	}
	for _, r := range rows {
		if r.Restore != nil {
			restoreTable(&w, r)
		}
	}
	if len(notes) > 0 {
		w.WriteString("\n")
		w.Write(notes)
	}
	for _, r := range rows {
		if r.Profile != nil {
			profileTable(&w, r)
		}
	}
	return w.Bytes()
}

func tableRow(w *bytes.Buffer, r result) {
	if r.Error != "" {
		fmt.Fprintf(w, "| %s | – | – | – | – | – | – | error | %s |\n", r.ID, cell(r.Error))
		return
	}
	peer, ratio, cpu, goal, note := "–", "–", "–", "–", r.Note
	if r.PeerName != "" {
		peer, ratio = fmt.Sprintf("%s %s (%s)", figure(r.Peer), r.Unit, r.PeerName), fmt.Sprintf("%.3g", r.Ratio)
	}
	if r.CPURatio != 0 {
		cpu = fmt.Sprintf("%s : %s (%.3g)", figure(r.CPU), figure(r.PeerCPU), r.CPURatio)
	}
	if g := r.goal(); g != "" {
		goal = g
	}
	verdict := r.verdict()
	if verdict == "missed" {
		verdict = "**missed**"
		note += ". " + reason(r.ID)
	}
	fmt.Fprintf(w, "| %s | %d | %s %s | %s | %s | %s | %s | %s | %s |\n", r.ID, r.N, figure(r.Ours), r.Unit, peer, ratio, cpu, goal, verdict, cell(note))
}

// cell keeps a text from ending a table's cell.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }

// restoreTable shows what restoring costs, as numbers and as bars on a logarithmic scale.
func restoreTable(w *bytes.Buffer, r result) {
	strategies := []string{"scan", "advise", "copy", "memcpy"}
	fmt.Fprintf(w, "\n## Restoring an instance's memory (%s)\n\nµs to write to so many pages and to have the memory as it was, by strategy; memcpy writes to and copies the same pages and does nothing else.\n\n| memory | dirty pages | %s |\n|---:|---:|---:|---:|---:|---:|\n", r.ID, strings.Join(strategies, " | "))
	for _, p := range r.Restore {
		fmt.Fprintf(w, "| %d MiB | %d |", p.MiB, p.Pages)
		for _, s := range strategies {
			if v, ok := p.Micros[s]; ok {
				fmt.Fprintf(w, " %s |", figure(v))
			} else {
				w.WriteString(" – |")
			}
		}
		w.WriteString("\n")
	}
	w.WriteString("\n```\n")
	for _, p := range r.Restore {
		for _, s := range strategies {
			if v, ok := p.Micros[s]; ok {
				fmt.Fprintf(w, "%2d MiB %3d pages %-6s %s %s\n", p.MiB, p.Pages, s, bar(v), figure(v))
			}
		}
	}
	w.WriteString("```\n\nFour characters of a bar are a factor of two; the shortest is an eighth of a microsecond.\n")
}

// bar is four characters for each doubling over an eighth.
func bar(v float64) string {
	return strings.Repeat("█", max(1, 1+int(math.Round(4*math.Log2(v*8)))))
}

func profileTable(w *bytes.Buffer, r result) {
	fmt.Fprintf(w, "\n### %s\n\n%s\n", r.ID, r.Note)
	for _, p := range r.Profile {
		fmt.Fprintf(w, "\n%s, %.0f %% of all samples:\n\n| CPU | part | CPU | function |\n|---:|---|---:|---|\n", p.Process, p.Total)
		for i := range max(len(p.Parts), len(p.Lines)) {
			for _, lines := range [][]profileLine{p.Parts, p.Lines} {
				if i < len(lines) {
					fmt.Fprintf(w, "| %.1f %% | `%s` ", lines[i].Percent, cell(lines[i].Symbol))
				} else {
					w.WriteString("| | ")
				}
			}
			w.WriteString("|\n")
		}
	}
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

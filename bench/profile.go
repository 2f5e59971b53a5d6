package main

import (
	"bytes"
	"context"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// profilePart is where one process spends its time.
type profilePart struct {
	Process string        `json:"process"`
	Total   float64       `json:"total"` // percent of the samples of both processes
	Parts   []profileLine `json:"parts"` // by the innermost package that says something
	Lines   []profileLine `json:"lines"` // by function
}

type profileLine struct {
	Percent float64 `json:"percent"` // of the samples of both processes
	Symbol  string  `json:"symbol"`
}

// profileLines is how many lines of each kind a profile shows.
const profileLines = 12

// profiled samples the node and the sandbox process under 32 connections with perf: the
// sandbox can open no file to write a profile of its own.
func profiled(fn string) func(context.Context, *bench) ([]result, error) {
	return func(ctx context.Context, b *bench) ([]result, error) {
		if _, err := exec.LookPath("perf"); err != nil {
			return nil, errors.New("perf is not here: on Debian, `apt-get install linux-perf`")
		}
		t, err := b.node(ctx, fn)
		if err != nil {
			return nil, err
		}
		defer t.stop()
		if _, err := load(ctx, t, 32, b.cfg.warmup); err != nil {
			return nil, err
		}
		pids, err := tree(t.PID)
		if err != nil {
			return nil, err
		}
		var list []string
		for _, p := range pids {
			list = append(list, strconv.Itoa(p))
		}
		data := filepath.Join(b.dir, "perf.data")
		record := exec.CommandContext(ctx, "perf", "record", "-q", "-F", "499", "-e", "cpu-clock", "-g", "-o", data, "-p", strings.Join(list, ","))
		if err := record.Start(); err != nil {
			return nil, err
		}
		x, err := load(ctx, t, 32, b.cfg.duration)
		_ = record.Process.Signal(os.Interrupt)
		_ = record.Wait() // it ends as interrupted programs do
		if err != nil {
			return nil, err
		}
		out, err := exec.CommandContext(ctx, "perf", "script", "-i", data, "-F", "comm,ip,sym,dso").Output()
		if err != nil {
			return nil, fmt.Errorf("reading the samples: %v", err)
		}
		table, err := functionsOf(b.cfg.casemate)
		if err != nil {
			return nil, err
		}
		parts, err := summarise(out, filepath.Base(b.cfg.casemate), table)
		if err != nil {
			return nil, err
		}
		return []result{{
			ID: "c32", Unit: "req/s", Ours: x.PerSecond, CPU: x.CPUMicros, Better: "higher", N: 1, Profile: parts,
			Note: fmt.Sprintf("%s, c32, %.0f CPU µs per answer while sampled.", fn, x.CPUMicros),
		}}, nil
	}
}

// functionsOf reads the functions of a Go program, which it has without symbols too.
func functionsOf(path string) (*functions, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, lines := f.Section(".text"), f.Section(".gopclntab")
	if text == nil || lines == nil {
		return nil, fmt.Errorf("%s has no table of functions", path)
	}
	data, err := lines.Data()
	if err != nil {
		return nil, err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return nil, err
	}
	return &functions{table, text.Addr - text.Offset}, nil
}

// functions finds the function at a place of a program's file, which is how perf names
// addresses that it has no symbols for.
type functions struct {
	table *gosym.Table
	base  uint64 // what to add to a place for its address
}

func (f *functions) at(place string) string {
	p, err := strconv.ParseUint(place, 16, 64)
	if err != nil {
		return "?"
	}
	if fn := f.table.PCToFunc(p + f.base); fn != nil {
		return fn.Name
	}
	return "?"
}

// frame is one function of a stack.
type frame struct{ name, in string } // in is "kernel", "program", "guest"

// summarise counts what `perf script` prints: for each sample the process's name, then
// its stack from the inside, then an empty line.
func summarise(out []byte, program string, table *functions) ([]profilePart, error) {
	count := map[string]map[string]int{}
	total := 0
	var process string
	var stack []frame
	add := func(kind, key string) {
		k := process + " " + kind
		if count[k] == nil {
			count[k] = map[string]int{}
		}
		count[k][key]++
	}
	end := func() {
		if len(stack) > 0 {
			total++
			add("all", "")
			add("function", stack[0].name)
			add("part", partOf(stack))
		}
		stack = nil
	}
	for line := range strings.Lines(string(bytes.ToValidUTF8(out, nil))) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
			end()
		case line[0] != ' ' && line[0] != '\t' || len(f) == 1:
			end()
			process = "sandbox" // which goes by the number of the descriptor that it was started from
			if strings.HasPrefix(f[0], program[:min(len(program), 8)]) {
				process = "node"
			}
		default:
			stack = append(stack, frameOf(f, program, table))
		}
	}
	end()
	if total == 0 {
		return nil, errors.New("perf took no samples")
	}
	top := func(counts map[string]int) []profileLine {
		var lines []profileLine
		for k, n := range counts {
			lines = append(lines, profileLine{100 * float64(n) / float64(total), k})
		}
		slices.SortFunc(lines, func(a, b profileLine) int {
			if a.Percent != b.Percent {
				return int(1e6 * (b.Percent - a.Percent))
			}
			return strings.Compare(a.Symbol, b.Symbol)
		})
		return lines[:min(len(lines), profileLines)]
	}
	var parts []profilePart
	for _, p := range []string{"node", "sandbox"} {
		parts = append(parts, profilePart{
			Process: p, Total: 100 * float64(count[p+" all"][""]) / float64(total),
			Parts: top(count[p+" part"]), Lines: top(count[p+" function"]),
		})
	}
	return parts, nil
}

// frameOf reads an address, a name and (where it lies).
func frameOf(f []string, program string, table *functions) frame {
	name, where := strings.Join(f[1:len(f)-1], " "), strings.Trim(f[len(f)-1], "()")
	if i := strings.IndexByte(name, '+'); i > 0 {
		name = name[:i]
	}
	switch {
	case strings.HasPrefix(where, "[kernel"):
		return frame{"kernel: " + name, "kernel"}
	case strings.HasSuffix(where, "/"+program):
		return frame{table.at(f[0]), "program"}
	case strings.HasPrefix(where, "[vdso"):
		return frame{"vdso: " + name, "kernel"}
	default:
		return frame{"guest code", "guest"}
	}
}

// partOf names the part of the program that a sample belongs to: the innermost frame
// whose package says more than "runtime" or "kernel" does.
func partOf(stack []frame) string {
	const ours = "github.com/casemate-dev/casemate/"
	for i, f := range stack {
		if f.in == "guest" && i == 0 {
			return "guest code"
		}
		if f.in != "program" {
			continue
		}
		pkg := f.name
		if cut := strings.LastIndexByte(pkg, '/'); cut >= 0 {
			if dot := strings.IndexByte(pkg[cut:], '.'); dot >= 0 {
				pkg = pkg[:cut+dot]
			}
		} else {
			pkg, _, _ = strings.Cut(pkg, ".")
		}
		switch {
		case strings.HasPrefix(pkg, ours):
			return strings.TrimPrefix(pkg, ours)
		case strings.HasPrefix(pkg, "crypto/"), pkg == "net/http", strings.HasPrefix(pkg, "encoding/"):
			return pkg
		case strings.HasPrefix(pkg, "github.com/"):
			return strings.Join(strings.SplitN(pkg, "/", 4)[:3], "/")
		case strings.HasPrefix(f.name, "runtime.gcBgMarkWorker"), strings.HasPrefix(f.name, "runtime.bgsweep"), strings.HasPrefix(f.name, "runtime.bgscavenge"):
			return "garbage collection"
		case f.name == "runtime.schedule", f.name == "runtime.findRunnable", f.name == "runtime.mcall", f.name == "runtime.park_m":
			return "scheduling of goroutines"
		}
	}
	return "other runtime and kernel"
}

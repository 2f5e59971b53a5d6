package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r    result
		want string
	}{
		"no goal":                       {result{Ours: 1, Better: "higher"}, ""},
		"figure alone":                  {result{Ours: 79, Goal: 80, Better: "lower"}, "met"},
		"figure alone, too high":        {result{Ours: 81, Goal: 80, Better: "lower"}, "missed"},
		"ratio":                         {result{Ours: 100, Peer: 100, PeerName: "p", Ratio: 1, Goal: 1.25, Better: "higher"}, "missed"},
		"CPU decides against the clock": {result{PeerName: "p", Ratio: 0.7, CPURatio: 0.5, Goal: 0.6, Better: "higher"}, "missed"},
		"CPU decides for it":            {result{PeerName: "p", Ratio: 0.5, CPURatio: 0.6, Goal: 0.6, Better: "higher"}, "met"},
		"second goal missed":            {result{Ours: 7, Most: 6, PeerName: "p", Ratio: 10, Goal: 12, Better: "lower"}, "missed"},
		"both goals met":                {result{Ours: 6, Most: 6, PeerName: "p", Ratio: 10, Goal: 12, Better: "lower"}, "met"},
		"first goal missed":             {result{Ours: 6, Most: 6, PeerName: "p", Ratio: 13, Goal: 12, Better: "lower"}, "missed"},
		"failed":                        {result{Goal: 1, Better: "lower", Error: "it broke"}, "error"},
	} {
		if got := c.r.verdict(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestAFailureIsARow: what a measure does not give stands in the table with the reason.
func TestAFailureIsARow(t *testing.T) {
	t.Parallel()
	m := measure{"x", []string{"c1", "c32"}, func(context.Context, *bench) ([]result, error) {
		return []result{{ID: "c1", Ours: 7}}, errors.New("the second | failed\nwith details")
	}}
	rs, err := m.take(t.Context(), nil)
	if err == nil || len(rs) != 2 || rs[0].ID != "x.c1" || rs[0].Error != "" || rs[1].ID != "x.c32" || rs[1].Error != "the second | failed" {
		t.Fatalf("%+v, %v", rs, err)
	}
	text := string(markdown(rs, nil, "a machine"))
	if !strings.Contains(text, `| x.c32 | – | – | – | – | – | – | error | the second \| failed |`) {
		t.Errorf("the row is missing:\n%s", text)
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	m := measure{id: "wasm.c", rows: []string{"c1", "c32"}}
	for only, want := range map[string]bool{"": true, "wasm.c": true, "wasm.c.c32": true, "wasm": true, "wasm.cold": false, "wasm.c.c3": false} {
		var list []string
		if only != "" {
			list = []string{only}
		}
		if got := m.wanted(list); got != want {
			t.Errorf("%q: %v", only, got)
		}
	}
}

func TestMeasuresHaveIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range measures() {
		for _, id := range m.ids() {
			if seen[id] {
				t.Errorf("%s is there twice", id)
			}
			seen[id] = true
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	t.Parallel()
	out := []byte(`goos: linux
BenchmarkCall
BenchmarkCall/wat-handle-2         	  120	      9500 ns/op	      2700 cpu-ns/op
    bench_test.go:9: BenchmarkCall/x says something
BenchmarkCall/wat-handle-2         	  120	      9300 ns/op	      2900 cpu-ns/op
PASS
`)
	all, err := parseBenchmarks(out)
	if err != nil || len(all) != 2 || !slices.Equal(all[0].name, []string{"Call", "wat-handle"}) {
		t.Fatalf("%+v, %v", all, err)
	}
	if got := by(all, "cpu-ns/op")["Call/wat-handle"]; got != 2700 {
		t.Errorf("the least CPU is %v", got)
	}
	if got := by(all, "ns/op")["Call/wat-handle"]; got != 9300 {
		t.Errorf("the least time is %v", got)
	}
}

func TestSummarise(t *testing.T) {
	t.Parallel()
	out := []byte(`casemate
	ffffffff81000e06 tcp_sendmsg+0x1 ([kernel.kallsyms])

4
	    7fae25f28326 [unknown] (/tmp/perf-29197.map)

4
	    7fae25f28326 [unknown] (/tmp/perf-29197.map)

4
	ffffffff81000e06 ioctl ([kernel.kallsyms])
	    7fae25f28326 [unknown] (/tmp/perf-29197.map)
`)
	parts, err := summarise(out, "casemate", nil)
	if err != nil {
		t.Fatal(err)
	}
	node, sandbox := parts[0], parts[1]
	if node.Total != 25 || sandbox.Total != 75 {
		t.Errorf("node %v %%, sandbox %v %%", node.Total, sandbox.Total)
	}
	if node.Lines[0].Symbol != "kernel: tcp_sendmsg" {
		t.Errorf("node: %+v", node.Lines)
	}
	if sandbox.Lines[0] != (profileLine{50, "guest code"}) || sandbox.Lines[1] != (profileLine{25, "kernel: ioctl"}) {
		t.Errorf("sandbox: %+v", sandbox.Lines)
	}
	if _, err := summarise(nil, "casemate", nil); err == nil {
		t.Error("a profile without samples is none")
	}
}

func TestVariant(t *testing.T) {
	t.Parallel()
	f := built{"hello", api.FunctionConfig{Runtime: "c", HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/hello"}}}, sandboxtest.Hello()}
	a, b := f.variant(1), f.variant(2)
	if bytes.Equal(a.code, b.code) || bytes.Equal(a.code, f.code) {
		t.Error("variants share their bytes")
	}
	if _, err := rewrite.Module(a.code); err != nil {
		t.Errorf("a variant is no module: %v", err)
	}
	if a.config.HTTP[0].Path != "/hello-1" || f.config.HTTP[0].Path != "/hello" {
		t.Errorf("routes: %s, %s", a.config.HTTP[0].Path, f.config.HTTP[0].Path)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	v := []float64{5, 1, 4, 2, 3, 6, 7, 8, 9, 10}
	for q, want := range map[float64]float64{0: 1, .5: 6, .9: 10, 1: 10} {
		if got := quantile(v, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

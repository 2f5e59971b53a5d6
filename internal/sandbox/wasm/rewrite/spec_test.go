package rewrite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// The conformance suite of WebAssembly comes with the engine's source. Each script
// runs twice, on the modules as they are and on stubs with the rewritten modules'
// native code, completed by the host; and both must behave alike. The engine itself
// is measured against the suite by its makers.

type value struct {
	Type  string `json:"type"`
	Lane  string `json:"lane_type"`
	Value any    `json:"value"`
}

type command struct {
	Type       string `json:"type"`
	Line       int    `json:"line"`
	Name       string `json:"name"`
	Filename   string `json:"filename"`
	As         string `json:"as"`
	ModuleType string `json:"module_type"`
	Action     struct {
		Type   string  `json:"type"`
		Module string  `json:"module"`
		Field  string  `json:"field"`
		Args   []value `json:"args"`
	} `json:"action"`
	Expected []value `json:"expected"`
}

// engineTests is where the engine keeps its own.
func engineTests(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		tb.Fatalf("finding the engine's source: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test")
}

func TestSpecSuite(t *testing.T) {
	t.Parallel()
	root := filepath.Join(engineTests(t), "spectest")
	host, err := os.ReadFile(filepath.Join(root, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	total := &tally{}
	t.Cleanup(func() {
		t.Logf("%d modules rewritten, %d actions alike, %d invalid modules refused", total.modules, total.actions, total.refused)
		if !t.Failed() && !testing.Short() && (total.modules < 1000 || total.actions < 40_000 || total.refused < 2000) {
			t.Errorf("the suite is smaller than it should be: %+v", *total)
		}
	})
	for _, version := range []string{"v1", "v2"} {
		scripts, err := filepath.Glob(filepath.Join(root, version, "testdata", "*.json"))
		if err != nil || len(scripts) == 0 {
			t.Fatalf("no scripts in %s: %v", version, err)
		}
		for _, script := range scripts {
			name := strings.TrimSuffix(filepath.Base(script), ".json")
			if testing.Short() && (version == "v1" || strings.HasPrefix(name, "simd_")) {
				continue
			}
			t.Run(version+"/"+name, func(t *testing.T) { runScript(t, version, script, host, total) })
		}
	}
}

type tally struct{ modules, actions, refused int }

// stage is one of the two worlds in which a script runs.
type stage struct {
	runtime wazero.Runtime
	press   *press // of the rewritten ones' world
	named   map[string]api.Module
	current api.Module
}

func newStage(t *testing.T, host []byte, p *press) *stage {
	s := &stage{named: map[string]api.Module{}, press: p}
	if p == nil {
		s.runtime = newRuntime(t, nil)
	} else { // a small allowance, that many ticks happen within
		s.runtime = p.runtimeOf(t, &tank{allowance: 50, refills: -1})
	}
	if _, err := s.runtime.InstantiateWithConfig(t.Context(), host, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return s
}

func runScript(t *testing.T, version, path string, host []byte, total *tally) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script struct{ Commands []command }
	if err := json.Unmarshal(raw, &script); err != nil {
		t.Fatal(err)
	}
	plain, paying := newStage(t, host, nil), newStage(t, host, newPress(t))
	read := func(c command) []byte {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), c.Filename))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, c := range script.Commands {
		at := fmt.Sprintf("line %d: %s", c.Line, c.Type)
		switch c.Type {
		case "module":
			as := ""
			if i+1 < len(script.Commands) && script.Commands[i+1].Type == "register" {
				as = script.Commands[i+1].As
			}
			m := read(c)
			if err := plain.enter(t, m, c.Name, as); err != nil {
				t.Fatalf("%s: the original: %v", at, err)
			}
			if err := paying.enter(t, m, c.Name, as); err != nil {
				t.Fatalf("%s: the rewritten: %v", at, err)
			}
			total.modules++
		case "register":
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			want, got := plain.act(c), paying.act(c)
			if !alike(want, got) {
				t.Errorf("%s %s: the original gives %v, the rewritten %v", at, c.Action.Field, want, got)
			}
			// The older suite expects what bulk memory changed since.
			if trapped := want.err != ""; version == "v2" && trapped != (c.Type == "assert_trap" || c.Type == "assert_exhaustion") {
				t.Errorf("%s %s: unexpected outcome %v", at, c.Action.Field, want)
			}
			total.actions++
		case "assert_invalid", "assert_malformed":
			if c.ModuleType == "text" {
				continue
			}
			total.refused++
			out, err := rewrite.Module(read(c))
			if err != nil {
				continue
			}
			if compiles(t, paying.runtime, out.Module) && !compiles(t, plain.runtime, read(c)) {
				t.Errorf("%s %s: an invalid module became a valid one", at, c.Filename)
			}
		case "assert_unlinkable", "assert_uninstantiable":
			m := read(c)
			want := plain.enter(t, m, "", "")
			got := paying.enter(t, m, "", "")
			if (want == nil) != (got == nil) {
				t.Errorf("%s: the original gives %v, the rewritten %v", at, want, got)
			}
		default:
			t.Errorf("%s: unknown command", at)
		}
	}
}

func compiles(tb testing.TB, r wazero.Runtime, m []byte) bool {
	tb.Helper()
	compiled, err := r.CompileModule(context.Background(), m)
	if err == nil {
		_ = compiled.Close(context.Background())
	}
	return err == nil
}

func (s *stage) enter(t *testing.T, m []byte, name, as string) (err error) {
	var mod api.Module
	if s.press != nil {
		mod, err = s.press.enter(t, s.runtime, rewritten(t, m), as)
	} else {
		mod, err = s.runtime.InstantiateWithConfig(context.Background(), m, wazero.NewModuleConfig().WithName(as))
	}
	if err != nil {
		return err
	}
	s.current = mod
	if name != "" {
		s.named[name] = mod
	}
	return nil
}

type outcome struct {
	values []uint64
	refs   []int // places of references to functions, which are addresses
	err    string
}

func alike(a, b outcome) bool {
	for _, i := range a.refs {
		if (a.values[i] == 0) != (b.values[i] == 0) {
			return false
		}
		a.values[i], b.values[i] = 0, 0
	}
	return slices.Equal(a.values, b.values) && a.err == b.err
}

func (s *stage) act(c command) outcome {
	m := s.current
	if c.Action.Module != "" {
		m = s.named[c.Action.Module]
	}
	if c.Action.Type == "get" {
		return outcome{values: []uint64{m.ExportedGlobal(c.Action.Field).Get()}}
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.bits()...)
	}
	f := m.ExportedFunction(c.Action.Field)
	values, err := f.Call(context.Background(), args...)
	o := outcome{values: slices.Clone(values), err: reason(err)}
	if err == nil {
		at := 0
		for _, typ := range f.Definition().ResultTypes() {
			switch typ {
			case byte(rewrite.FuncRef):
				o.refs = append(o.refs, at)
			case byte(rewrite.V128):
				at++
			}
			at++
		}
	}
	return o
}

// bits gives an argument as the engine takes it.
func (v value) bits() []uint64 {
	if v.Type != "v128" {
		return []uint64{parse(v.Type, v.Value)}
	}
	var lanes [2]uint64
	width := map[string]int{"i8": 8, "i16": 16, "i32": 32, "f32": 32, "i64": 64, "f64": 64}[v.Lane]
	for i, lane := range v.Value.([]any) {
		lanes[i*width/64] |= parse(v.Lane, lane) & (math.MaxUint64 >> (64 - width)) << (i * width % 64)
	}
	return lanes[:]
}

func parse(typ string, v any) uint64 {
	text, _ := v.(string)
	switch {
	case text == "" || text == "null":
		return 0
	case strings.HasPrefix(text, "nan") && strings.HasSuffix(typ, "32"):
		return 0x7fc00000
	case strings.HasPrefix(text, "nan"):
		return 0x7ff8000000000000
	case strings.HasPrefix(text, "-"):
		n, _ := strconv.ParseInt(text, 10, 64)
		if strings.HasSuffix(typ, "32") {
			return uint64(uint32(n))
		}
		return uint64(n)
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	if typ == "externref" {
		n++ // zero is null
	}
	return n
}

package filter

import (
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"
)

// machine runs a program as the kernel does.
type machine struct {
	t  testing.TB
	vm *bpf.VM
	arch
}

func boot(t testing.TB, p policy, a arch) machine {
	t.Helper()
	code, err := assemble(p, a)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, code, a)
}

func load(t testing.TB, code []bpf.Instruction, a arch) machine {
	t.Helper()
	if len(code) > 4096 {
		t.Fatalf("%d instructions, the kernel takes 4096", len(code))
	}
	if _, err := bpf.Assemble(code); err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, vm, a}
}

// ask gives what the program answers. The words of struct seccomp_data are put in
// the order of the network, since that is how this machine loads them.
func (m machine) ask(number uint32, args ...uint64) uint32 {
	m.t.Helper()
	return m.askAs(m.audit, number, args...)
}

func (m machine) askAs(audit, number uint32, args ...uint64) uint32 {
	m.t.Helper()
	var data [64]byte
	binary.BigEndian.PutUint32(data[0:], number)
	binary.BigEndian.PutUint32(data[4:], audit)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	got, err := m.vm.Run(data[:])
	if err != nil {
		m.t.Fatal(err)
	}
	return uint32(got)
}

func failing(e errno) uint32 { return actErrno | uint32(e) }

func said(act uint32) string {
	switch {
	case act == actAllow:
		return "allowed"
	case act == actKill:
		return "killed"
	case act&0xffff0000 == actErrno:
		return fmt.Sprintf("error %d", act&0xffff)
	}
	return fmt.Sprintf("%#x", act)
}

// kernelNumbers reads an architecture's numbers out of golang.org/x/sys/unix.
func kernelNumbers(t testing.TB, a arch) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+a.name+".go")
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		n1, err := strconv.Atoi(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		numbers[strings.ToLower(strings.TrimPrefix(spec.Names[0].Name, "SYS_"))] = n1
		return true
	})
	if len(numbers) < 300 {
		t.Fatalf("%s has %d numbers only", name, len(numbers))
	}
	return numbers
}

func architectures() []arch { return []arch{amd64(), arm64()} }

func TestNumbersAreTheKernels(t *testing.T) {
	for _, a := range architectures() {
		ours, err := numbersFor(a)
		if err != nil {
			t.Fatal(err)
		}
		kernels := kernelNumbers(t, a)
		for name, n := range ours {
			want, has := kernels[name]
			if !has {
				want = -1
			}
			if n != want {
				t.Errorf("%s: %s is %d, the kernel's is %d", a.name, name, n, want)
			}
		}
	}
}

// expected spells a table out: names to answers. A name that is there twice is an error.
func expected(t *testing.T, rows map[string]uint32) map[string]uint32 {
	t.Helper()
	all := map[string]uint32{}
	for names, act := range rows {
		for name := range strings.FieldsSeq(names) {
			if _, twice := all[name]; twice {
				t.Errorf("%s is in the table twice", name)
			}
			all[name] = act
		}
	}
	return all
}

const byArguments = 1 // stands in a table for: what the arguments say

func TestEveryCallIsAnsweredAsTheTableSays(t *testing.T) {
	native := expected(t, map[string]uint32{
		nativeAllowed: actAllow, nativeChecked: byArguments, nativeNoSuchCall: failing(eNOSYS),
		nativeInvalid: failing(eINVAL), nativeUnsupported: failing(eOPNOTSUPP), nativeNothingDone: failing(0),
		nativeForbidden: failing(ePERM),
	})
	sealed := expected(t, map[string]uint32{sealedAllowed: actAllow, sealedChecked: byArguments, "clone3": failing(eNOSYS)})
	wasm := expected(t, map[string]uint32{
		wasmAllowed: actAllow, sealedChecked + " arch_prctl": byArguments, "clone3": failing(eNOSYS),
	})
	for _, c := range []struct {
		name     string
		policy   policy
		want     map[string]uint32
		complete bool
	}{
		{"native", nativePolicy(), native, true},
		{"wasm", wasmPolicy(), wasm, false},
		{"sealed", wasmSealedPolicy(), sealed, false},
	} {
		for _, a := range architectures() {
			t.Run(c.name+"/"+a.name, func(t *testing.T) {
				m := boot(t, c.policy, a)
				names := map[uint32]string{}
				for name, n := range kernelNumbers(t, a) {
					names[uint32(n)] = name
				}
				for n := range uint32(601) {
					name := names[n]
					want, listed := c.want[name]
					if !listed {
						if c.complete && name != "" {
							t.Errorf("%s is in no row of the table", name)
						}
						want = failing(ePERM)
						if n >= 424 {
							want = failing(eNOSYS)
						}
					}
					if want == byArguments {
						continue
					}
					// Whatever the arguments are.
					for _, args := range [][]uint64{{}, {1, 1, 1, 1, 1, 1}, {^uint64(0), ^uint64(0), ^uint64(0)}} {
						if got := m.ask(n, args...); got != want {
							t.Errorf("%d %s%x: %s, want %s", n, name, args, said(got), said(want))
						}
					}
				}
			})
		}
	}
}

func TestForeignCallsAreNotAnswered(t *testing.T) {
	for _, p := range []policy{nativePolicy(), wasmPolicy(), wasmSealedPolicy()} {
		for _, a := range architectures() {
			m := boot(t, p, a)
			// i386, arm, and each other's: read and getpid are there under other numbers.
			for _, audit := range []uint32{0x40000003, 0x40000028, amd64().audit, arm64().audit, 0} {
				for n := range uint32(600) {
					if got := m.askAs(audit, n); audit != a.audit && got != actKill {
						t.Fatalf("%s: call %d of architecture %#x: %s", a.name, n, audit, said(got))
					}
				}
			}
			// The x32 ABI, and what a tracer leaves behind.
			for n := range uint32(600) {
				if got := m.ask(0x40000000 | n); got != failing(eNOSYS) {
					t.Fatalf("%s: x32 call %d: %s", a.name, n, said(got))
				}
			}
			if got := m.ask(^uint32(0)); got != failing(eNOSYS) {
				t.Errorf("call -1: %s", said(got))
			}
		}
	}
}

func TestEveryProgramIsOnItsOwnArchitecturesNumbers(t *testing.T) {
	for _, p := range []policy{nativePolicy(), wasmPolicy(), wasmSealedPolicy()} {
		for _, a := range architectures() {
			raw, err := encodeFor(p, a)
			if err != nil {
				t.Fatal(err)
			}
			if len(raw)%8 != 0 || len(raw) == 0 {
				t.Errorf("%s: a program of %d bytes", a.name, len(raw))
			}
			if audit := binary.LittleEndian.Uint32(raw[12:]); audit != a.audit {
				t.Errorf("%s: compares with %#x", a.name, audit)
			}
			again, err := encodeFor(p, a)
			if err != nil || string(again) != string(raw) {
				t.Errorf("%s: the second program differs from the first (%v)", a.name, err)
			}
		}
	}
}

func TestPolicyThatContradictsItselfIsRefused(t *testing.T) {
	for _, p := range []policy{
		{allow: []string{"read", "read"}},
		{allow: []string{"read"}, refuse: map[string]errno{"read": ePERM}},
		{allow: []string{"no such call"}},
	} {
		if _, err := assemble(p, amd64()); err == nil {
			t.Errorf("%v was taken", p)
		}
	}
}

// The tree answers as a list would, for any set of decisions.
func TestTreeEqualsList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		acts := rapid.MapOf(rapid.Uint32Range(0, 700), rapid.SampledFrom([]uint32{actAllow, failing(eNOSYS), failing(ePERM), failing(eINVAL)})).
			Draw(t, "decided")
		long := rapid.MapOf(rapid.Uint32Range(0, 700), rapid.IntRange(1, 200)).Draw(t, "checks")
		decided := map[uint32]span{}
		for n, act := range acts {
			decided[n] = span{from: n, act: act}
		}
		for n, length := range long {
			// A check that is long enough to be out of a condition's reach.
			code := check{argument(0)}
			for range length {
				code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1})
			}
			decided[n] = span{from: n, code: append(code, bpf.RetA{})}
		}
		code := append([]bpf.Instruction{bpf.LoadAbsolute{Off: offNumber, Size: 4}}, tree(fill(maps.Clone(decided)))...)
		vm, err := bpf.NewVM(code)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(n uint32) uint32 {
			var data [64]byte
			binary.BigEndian.PutUint32(data[:], n)
			got, err := vm.Run(data[:])
			if err != nil {
				t.Fatal(err)
			}
			return uint32(got)
		}
		for n := range uint32(710) {
			want := failing(ePERM)
			if n >= firstNew {
				want = failing(eNOSYS)
			}
			if act, ok := acts[n]; ok {
				want = act
			}
			if length, ok := long[n]; ok {
				want = uint32(length)
			}
			if got := ask(n); got != want {
				t.Fatalf("call %d: %s, want %s", n, said(got), said(want))
			}
		}
	})
}

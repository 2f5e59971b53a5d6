package fuel_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Random programs are run by the engine, rewritten, and by the little interpreter
// below, which knows the price of each payment from the program's tree. They must
// agree on the state at the end, on the number of ticks, and on what is left in
// the tank to the last unit: so each cycle pays, and nothing pays twice.

type verb int

const (
	doNothing verb = iota
	doStep
	doBlock
	doLoop
	doIf
	doBranch
	doBranchIf
	doTable
	doCall
	doReturn
	verbs
)

type node struct {
	verb        verb
	body, other []node
	depth       int   // of a branch
	targets     []int // of a table, the last one the default
	callee      int
}

// program is a list of functions without parameters. Their one shared state is a
// global that each step and each condition moves on.
type program struct {
	functions [][]node
}

// Code shared by encoder and price list, and how many instructions it has.
var (
	stepCode = []byte{0x23, 0, 0x41, 0x05, 0x6c, 0x41, 0x07, 0x6a, 0x24, 0} // x = 5x+7
	condCode = []byte{0x23, 0, 0x41, 0x04, 0x76, 0x41, 0x03, 0x71}          // x>>4 & 3
)

const stepCount, condCount = 6, 5

func step(x uint32) uint32 { return x*5 + 7 }
func cond(x uint32) int    { return int(x >> 4 & 3) }

func drawProgram(t *rapid.T) program {
	n := rapid.IntRange(1, 4).Draw(t, "functions")
	p := program{functions: make([][]node, n)}
	for i := range p.functions {
		p.functions[i] = drawBody(t, n, 0, 5)
	}
	return p
}

func drawBody(t *rapid.T, functions, depth, room int) []node {
	var nodes []node
	for range rapid.IntRange(1, 5).Draw(t, "length") {
		n := node{verb: verb(rapid.IntRange(0, int(verbs)-1).Draw(t, "verb"))}
		if room == 0 && (n.verb == doBlock || n.verb == doLoop || n.verb == doIf) {
			n.verb = doStep
		}
		label := rapid.IntRange(0, depth)
		switch n.verb {
		case doBlock:
			n.body = drawBody(t, functions, depth+1, room-1)
		case doLoop: // most go round
			n.body = append(drawBody(t, functions, depth+1, room-1), node{verb: doBranchIf})
		case doIf:
			n.body = drawBody(t, functions, depth+1, room-1)
			n.other = drawBody(t, functions, depth+1, room-1)
		case doBranch, doBranchIf:
			n.depth = label.Draw(t, "label")
		case doTable:
			n.targets = rapid.SliceOfN(label, 1, 5).Draw(t, "targets")
		case doCall:
			n.callee = rapid.IntRange(0, functions-1).Draw(t, "callee")
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (p program) encode() []byte {
	var bodies [][]byte
	for _, f := range p.functions {
		bodies = append(bodies, body(0, 0, encode(f)...))
	}
	return module(types(sig(nil, nil)), functions(make([]int, len(bodies))...),
		section(6, vec([]byte{i32, 1, 0x41, 0, 0x0b})),
		section(7, vec(export("f", 0, 0), export("x", 3, 0))), code(bodies...))
}

func encode(nodes []node) []byte {
	var b []byte
	for _, n := range nodes {
		switch n.verb {
		case doNothing:
			b = append(b, 0x01)
		case doStep:
			b = append(b, stepCode...)
		case doBlock:
			b = cat(b, []byte{0x02, 0x40}, encode(n.body), []byte{0x0b})
		case doLoop:
			b = cat(b, []byte{0x03, 0x40}, encode(n.body), []byte{0x0b})
		case doIf:
			b = cat(b, stepCode, condCode, []byte{0x04, 0x40}, encode(n.body), []byte{0x05}, encode(n.other), []byte{0x0b})
		case doBranch:
			b = cat(b, []byte{0x0c}, u(n.depth))
		case doBranchIf:
			b = cat(b, stepCode, condCode, []byte{0x0d}, u(n.depth))
		case doTable:
			b = cat(b, stepCode, condCode, []byte{0x0e}, u(len(n.targets)-1))
			for _, d := range n.targets {
				b = cat(b, u(d))
			}
		case doCall:
			b = cat(b, []byte{0x10}, u(n.callee))
		case doReturn:
			b = append(b, 0x0f)
		}
	}
	return b
}

// price counts the instructions of a body, its end included, outside of loops.
func price(nodes []node) int64 {
	n := int64(1)
	for _, c := range nodes {
		switch c.verb {
		case doNothing, doBranch, doCall, doReturn, doLoop: // what is in a loop, the loop pays
			n++
		case doStep:
			n += stepCount
		case doBlock:
			n += 1 + price(c.body)
		case doIf: // either end is the else or the end
			n += stepCount + condCount + 1 + price(c.body) + price(c.other)
		case doBranchIf, doTable:
			n += stepCount + condCount + 1
		}
	}
	return n
}

// meter is the interpreter.
type meter struct {
	program         program
	x               uint32
	fuel, allowance int64
	ticks, refills  int
}

var errDeep = errors.New("calls too deep for a fair comparison")

func (m *meter) pay(n int64) error {
	if m.fuel -= n; m.fuel >= 0 {
		return nil
	}
	if m.ticks++; m.ticks > m.refills {
		return errStopped
	}
	m.fuel = m.allowance
	return nil
}

func (m *meter) function(i, deep int) error {
	if deep > 5000 {
		return errDeep
	}
	if err := m.pay(1 + price(m.program.functions[i])); err != nil {
		return err
	}
	_, err := m.run(m.program.functions[i], deep)
	return err
}

// returned is further out than any label.
const returned = 1 << 30

// run gives the label to branch to, or -1.
func (m *meter) run(nodes []node, deep int) (int, error) {
	for _, n := range nodes {
		to := -1
		var err error
		if n.verb == doStep || n.verb == doIf || n.verb == doBranchIf || n.verb == doTable {
			m.x = step(m.x)
		}
		switch n.verb {
		case doBlock:
			to, err = m.run(n.body, deep)
			to = max(to-1, -1)
		case doLoop:
			for again := true; again && err == nil; {
				if err = m.pay(1 + price(n.body)); err == nil {
					to, err = m.run(n.body, deep)
				}
				again = to == 0
				to = max(to-1, -1)
			}
		case doIf:
			if cond(m.x) != 0 {
				to, err = m.run(n.body, deep)
			} else {
				to, err = m.run(n.other, deep)
			}
			to = max(to-1, -1)
		case doBranch:
			to = n.depth
		case doBranchIf:
			if cond(m.x) != 0 {
				to = n.depth
			}
		case doTable:
			to = n.targets[min(cond(m.x), len(n.targets)-1)]
		case doCall:
			err = m.function(n.callee, deep+1)
		case doReturn:
			to = returned
		}
		if err != nil || to >= 0 {
			return to, err
		}
	}
	return -1, nil
}

func TestEachCyclePaysExactly(t *testing.T) {
	t.Parallel()
	ended, stopped := 0, 0
	check := func(rt *rapid.T) {
		p := drawProgram(rt)
		want := &meter{program: p, allowance: 300, refills: 20}
		wantErr := want.function(0, 0)
		if errors.Is(wantErr, errDeep) {
			rt.Skip("too deep")
		}
		out, _ := instrument(t, p.encode())
		k := &tank{allowance: want.allowance, refills: want.refills}
		r := newRuntime(t, k)
		mod := start(t, r, out)
		_, err := call(mod, "f")
		x := uint32(mod.ExportedGlobal("x").Get())
		state := fmt.Sprintf("x %d, %d ticks, %d left", x, k.ticks, leftIn(mod))
		expect := fmt.Sprintf("x %d, %d ticks, %d left", want.x, want.ticks, want.fuel)
		if state != expect || errors.Is(err, errStopped) != errors.Is(wantErr, errStopped) || (err == nil) != (wantErr == nil) {
			rt.Fatalf("got %s (%v)\nwant %s (%v)", state, reason(err), expect, wantErr)
		}
		if err == nil {
			ended++
		} else {
			stopped++
		}
		_ = r.Close(context.Background())
	}
	// Few programs run long: go on until there were some of both sorts.
	for round := 0; round < 3 || (ended < 10 || stopped < 10) && round < 50; round++ {
		rapid.Check(t, check)
	}
	if ended < 10 || stopped < 10 {
		t.Errorf("the programs are too much alike: %d ended, %d were stopped", ended, stopped)
	}
}

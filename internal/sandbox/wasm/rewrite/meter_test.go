package rewrite_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Random programs are run by the engine, rewritten, and by the little interpreter
// below, which works out from the program's tree where a stretch of code begins and
// what it costs. They must agree on the state at the end, on the number of ticks, and
// on what is left in the tank to the last unit: so each cycle pays, and nothing pays
// twice.

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

	stretches []int64 // of a loop: what each costs, in parts of a unit
	atElse    int     // the stretch that begins at an if's else, 0 when none does
	atEnd     int     // the same behind the end of a block or if
}

// program is a list of functions without parameters. Their one shared state is a
// global that each step and each condition moves on.
type program struct {
	functions [][]node
	stretches [][]int64 // of each function
}

// Code shared by encoder and price list, and how many instructions it has.
var (
	stepCode = []byte{0x23, 0, 0x41, 0x05, 0x6c, 0x41, 0x07, 0x6a, 0x24, 0} // x = 5x+7
	condCode = []byte{0x23, 0, 0x41, 0x04, 0x76, 0x41, 0x03, 0x71}          // x>>4 & 3
)

// What they cost in parts: a constant is one, the rest four each.
const stepParts, condParts = 4*4 + 2*1, 3*4 + 2*1

const (
	partsPerUnit = 4
	leastStretch = 32 * partsPerUnit
)

func step(x uint32) uint32 { return x*5 + 7 }
func cond(x uint32) int    { return int(x >> 4 & 3) }

func drawProgram(t *rapid.T) program {
	n := rapid.IntRange(1, 4).Draw(t, "functions")
	p := program{functions: make([][]node, n)}
	for i := range p.functions {
		p.functions[i] = drawBody(t, n, 0, 5)
		p.stretches = append(p.stretches, plan(p.functions[i]))
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

// plan works out the stretches of a function or loop.
func plan(nodes []node) []int64 {
	all := []int64{partsPerUnit} // for entering it
	var walk func([]node)
	walk = func(nodes []node) {
		spend := func(parts int64) { all[len(all)-1] += parts }
		join := func(began int) int {
			if len(all) == began && all[len(all)-1] < leastStretch {
				return 0
			}
			all = append(all, 0)
			return len(all) - 1
		}
		for i := range nodes {
			n := &nodes[i]
			began := len(all)
			switch n.verb {
			case doBranch, doCall, doReturn:
				spend(partsPerUnit)
			case doStep:
				spend(stepParts)
			case doLoop: // what is in it, it pays itself
				n.stretches = plan(n.body)
			case doBlock:
				walk(n.body)
				n.atEnd = join(began)
			case doIf:
				spend(stepParts + condParts + partsPerUnit)
				walk(n.body)
				n.atElse = join(began)
				walk(n.other)
				n.atEnd = join(began)
			case doBranchIf, doTable:
				spend(stepParts + condParts + partsPerUnit)
			}
		}
	}
	walk(nodes)
	return all
}

func units(parts int64) int64 { return (parts + partsPerUnit - 1) / partsPerUnit }

// meter is the interpreter.
type meter struct {
	program         program
	x               uint32
	fuel, allowance int64
	ticks, refills  int
}

var errDeep = errors.New("calls too deep for a fair comparison")

// owe pays for a stretch that is not the first: nobody is called.
func (m *meter) owe(stretches []int64, i int) {
	if i > 0 {
		m.fuel -= units(stretches[i])
	}
}

func (m *meter) pay(stretches []int64) error {
	if m.fuel -= units(stretches[0]); m.fuel >= 0 {
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
	stretches := m.program.stretches[i]
	if err := m.pay(stretches); err != nil {
		return err
	}
	_, err := m.run(m.program.functions[i], stretches, deep)
	return err
}

// returned is further out than any label.
const returned = 1 << 30

// run gives the label to branch to, or -1. The nodes belong to the frame with these
// stretches.
func (m *meter) run(nodes []node, stretches []int64, deep int) (int, error) {
	for _, n := range nodes {
		to := -1
		var err error
		if n.verb == doStep || n.verb == doIf || n.verb == doBranchIf || n.verb == doTable {
			m.x = step(m.x)
		}
		switch n.verb {
		case doBlock:
			to, err = m.run(n.body, stretches, deep)
			if to = max(to-1, -1); to < 0 && err == nil {
				m.owe(stretches, n.atEnd)
			}
		case doLoop:
			for again := true; again && err == nil; {
				if err = m.pay(n.stretches); err == nil {
					to, err = m.run(n.body, n.stretches, deep)
				}
				again = to == 0
				to = max(to-1, -1)
			}
		case doIf:
			if cond(m.x) != 0 {
				to, err = m.run(n.body, stretches, deep)
			} else {
				m.owe(stretches, n.atElse)
				to, err = m.run(n.other, stretches, deep)
			}
			if to = max(to-1, -1); to < 0 && err == nil {
				m.owe(stretches, n.atEnd)
			}
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
		k := &tank{allowance: want.allowance, refills: want.refills}
		r := newRuntime(t, k)
		mod := startRewritten(t, r, rewritten(t, p.encode()))
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

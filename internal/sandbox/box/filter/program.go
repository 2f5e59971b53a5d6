package filter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/net/bpf"
)

// ErrUnsupported is what every program of this package is on an architecture that it
// has no numbers for.
var ErrUnsupported = errors.New("system calls are filtered on linux/amd64 and linux/arm64 only")

// What a program answers: linux/seccomp.h.
const (
	actKill  = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	actErrno = 0x00050000 // SECCOMP_RET_ERRNO, the error in the lower half
	actAllow = 0x7fff0000 // SECCOMP_RET_ALLOW
)

// Where things are in struct seccomp_data.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// firstNew is the first number of the calls that came with Linux 5.1 and later, which
// all architectures number alike. It is below the x32 ABI's numbers too, which have bit
// 30 set: those calls do not exist either.
const firstNew = 424

// arch is an architecture as the kernel names it to a filter: linux/audit.h.
type arch struct {
	name  string
	audit uint32
}

func amd64() arch { return arch{"amd64", 0xc000003e} }
func arm64() arch { return arch{"arm64", 0xc00000b7} }

// policy is a filter as people write it. A call is in one of the three at most.
type policy struct {
	allow  []string         // whatever the arguments are
	refuse map[string]errno // with an error that its callers know what to do about
	check  map[string]check // by its arguments
}

// check looks at arguments. Every way through it ends with a return.
type check []bpf.Instruction

// errno is an error as the kernel gives it. The filters are made on any system, so
// the numbers are here: asm-generic/errno.h, the same on both architectures.
type errno uint32

const (
	ePERM           errno = 1
	eINVAL          errno = 22
	eNOTTY          errno = 25
	eNOSYS          errno = 38
	eNOENT          errno = 2
	ePROTONOSUPPORT errno = 93
	eOPNOTSUPP      errno = 95
	eAFNOSUPPORT    errno = 97
)

// span is what happens to the calls from a number on, up to the next span.
type span struct {
	from uint32
	code []bpf.Instruction
	act  uint32 // the answer when code is nil
}

func (s span) same(o span) bool { return s.code == nil && o.code == nil && s.act == o.act }

func (s span) instructions() []bpf.Instruction {
	if s.code != nil {
		return s.code
	}
	return []bpf.Instruction{bpf.RetConstant{Val: s.act}}
}

// encode makes the program of a policy for the architecture that this runs on.
func encode(p policy) ([]byte, error) {
	if runtime.GOOS != "linux" {
		return nil, ErrUnsupported
	}
	for _, a := range []arch{amd64(), arm64()} {
		if a.name == runtime.GOARCH {
			return encodeFor(p, a)
		}
	}
	return nil, ErrUnsupported
}

func encodeFor(p policy, a arch) ([]byte, error) {
	code, err := assemble(p, a)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("assembling filter: %v", err)
	}
	out := make([]byte, 0, 8*len(raw))
	for _, r := range raw {
		// Both architectures are little-endian here.
		out = binary.LittleEndian.AppendUint16(out, r.Op)
		out = append(out, r.Jt, r.Jf)
		out = binary.LittleEndian.AppendUint32(out, r.K)
	}
	return out, nil
}

// assemble gives a program: the architecture, then a tree over the numbers.
//
// The kernel runs a filter once for each number when it is installed, and remembers
// which calls it allows without having looked at an argument; those cost nothing later.
// It can do so only while the program keeps to loads of number and architecture,
// comparisons with constants, and returns (kernel/seccomp.c, seccomp_is_const_allow).
// The tree is for the others: nine comparisons, where a list has three hundred.
func assemble(p policy, a arch) ([]bpf.Instruction, error) {
	spans, err := p.spans(a)
	if err != nil {
		return nil, err
	}
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.audit, SkipTrue: 1},
		bpf.RetConstant{Val: actKill},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	return append(code, tree(spans)...), nil
}

// spans gives a policy in the order of numbers, without a gap.
func (p policy) spans(a arch) ([]span, error) {
	numbers, err := numbersFor(a)
	if err != nil {
		return nil, err
	}
	decided := map[uint32]span{}
	add := func(name string, s span) error {
		n, known := numbers[name]
		if !known {
			return fmt.Errorf("making filter: no number for %s", name)
		}
		if n < 0 {
			return nil // this architecture never had it
		}
		s.from = uint32(n)
		if _, twice := decided[s.from]; twice {
			return fmt.Errorf("making filter: %s is named twice", name)
		}
		decided[s.from] = s
		return nil
	}
	for _, name := range p.allow {
		err = errors.Join(err, add(name, span{act: actAllow}))
	}
	for name, e := range p.refuse {
		err = errors.Join(err, add(name, span{act: actErrno | uint32(e)}))
	}
	for name, c := range p.check {
		err = errors.Join(err, add(name, span{code: c}))
	}
	if err != nil {
		return nil, err
	}
	return fill(decided), nil
}

// fill puts the answers for everything else between what was decided, and joins
// neighbours that are alike.
func fill(decided map[uint32]span) []span {
	old, young := span{act: actErrno | uint32(ePERM)}, span{act: actErrno | uint32(eNOSYS)}
	points := map[uint32]span{}
	other := func(from uint32) span {
		s := old
		if from >= firstNew {
			s = young
		}
		s.from = from
		return s
	}
	points[0], points[firstNew] = other(0), other(firstNew)
	for n := range decided {
		points[n+1] = other(n + 1)
	}
	for n, s := range decided {
		points[n] = s
	}
	all := make([]span, 0, len(points))
	for _, s := range points {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return slices.CompactFunc(all, span.same)
}

// tree finds the span of the number that is loaded.
func tree(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return spans[0].instructions()
	}
	middle := len(spans) / 2
	below, above := tree(spans[:middle]), tree(spans[middle:])
	var code []bpf.Instruction
	if len(below) <= 255 {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[middle].from, SkipTrue: uint8(len(below))})
	} else {
		// A condition reaches 255 instructions far.
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[middle].from, SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(below))})
	}
	return append(append(code, below...), above...)
}

package machine

import (
	"encoding/binary"
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Connection is the descriptor that the machine reads its list from. It is a socket
// that keeps packets apart.
const Connection = 3

// Where things are in the machine's memory. The assembly knows the first.
const (
	bootAt  = 0x10000000 // what it begins with; see image
	bootLen = 4 << 10
	callsAt = bootAt + bootLen // the length of the list's calls, and they
	callLen = 96 << 10
	dataAt  = callsAt + callLen // what the calls point to
	dataLen = 384 << 10
	lenSize = 8
)

// Offsets from bootAt, which the assembly knows.
const (
	bootFailed  = 0 // the address of the call that failed last; 0: none has
	bootResult  = 8
	bootHandler = 16 // the address of the call to go on with then
	bootCalls   = 24
)

// Where a list finds what the machine notes down, and sets the handler of failures.
const (
	Failed  = bootAt + bootFailed
	Result  = bootAt + bootResult
	Handler = bootAt + bootHandler
)

// load is the number of what is no system call: its result is what its first argument
// points to. No system call has a number this high.
const load = 0x7ff

// What a call's result has to be.
const (
	exactly  uintptr = iota // equal to want
	anything                // no error
	whatever                // errors too
	branch                  // equal to want: the other call is next
)

// Call is one system call. The assembly knows its fields.
type Call struct {
	number uintptr
	args   [6]uintptr
	rule   uintptr
	want   uintptr
	other  uintptr // of a branch: the address of a call
	out    uintptr // where the result is stored; 0: nowhere
}

const callSize = unsafe.Sizeof(Call{})

// Program is a list of calls, with a name of the step that each is part of, and what
// they point to. The zero value is an empty one.
type Program struct {
	calls []Call
	steps Steps
	data  []byte
	err   error
}

// New gives an empty program with room for so many calls, and bytes that they point to.
func New(calls, data int) *Program {
	return &Program{calls: make([]Call, 0, calls), steps: make(Steps, 0, calls), data: make([]byte, 0, data)}
}

// Place is one call's in the list.
type Place int

// At is the address of a call.
func (p Place) At() uintptr { return callsAt + lenSize + uintptr(p)*callSize }

// Arg is the address of one of its arguments, for results of others.
func (p Place) Arg(n int) uintptr { return p.At() + unsafe.Offsetof(Call{}.args) + uintptr(n)*8 }

// Wanted is the address of what its result is compared with.
func (p Place) Wanted() uintptr { return p.At() + unsafe.Offsetof(Call{}.want) }

// Here is the place of the next call that is added.
func (p *Program) Here() Place { return Place(len(p.calls)) }

func (p *Program) add(step string, rule, want, number uintptr, args []uintptr) Place {
	c := Call{number: number, rule: rule, want: want}
	copy(c.args[:], args)
	p.calls, p.steps = append(p.calls, c), append(p.steps, step)
	return Place(len(p.calls) - 1)
}

// Do adds a call that must give 0. Args are numbers, or addresses in the machine.
func (p *Program) Do(step string, number uintptr, args ...uintptr) Place {
	return p.add(step, exactly, 0, number, args)
}

// Want adds a call that must give a certain result.
func (p *Program) Want(step string, want, number uintptr, args ...uintptr) Place {
	return p.add(step, exactly, want, number, args)
}

// Succeed adds a call that must not fail.
func (p *Program) Succeed(step string, number uintptr, args ...uintptr) Place {
	return p.add(step, anything, 0, number, args)
}

// Try adds a call that may fail.
func (p *Program) Try(step string, number uintptr, args ...uintptr) Place {
	return p.add(step, whatever, 0, number, args)
}

// Check has the list go on only if there is a certain number at an address.
func (p *Program) Check(step string, addr, want uintptr) Place {
	return p.Want(step, want, load, addr)
}

// Good has the list go on only if the number at an address is no error.
func (p *Program) Good(step string, addr uintptr) Place { return p.Succeed(step, load, addr) }

// Copy copies a number from one address to another.
func (p *Program) Copy(step string, from, to uintptr) Place {
	return p.Store(p.Try(step, load, from), to)
}

// If has the list go on elsewhere, at what [Program.Goto] says, if there is a certain
// number at an address.
func (p *Program) If(step string, addr, want uintptr) Place {
	return p.add(step, branch, want, load, []uintptr{addr})
}

// Jump has the list go on elsewhere.
func (p *Program) Jump(step string, to Place) {
	p.Goto(p.If(step, p.Numbers(0), 0), to)
}

// Branch makes a call's wanted result, and no other, lead elsewhere.
func (p *Program) Branch(from, to Place) {
	p.calls[from].rule = branch
	p.Goto(from, to)
}

// Goto says where a branch leads.
func (p *Program) Goto(from, to Place) { p.calls[from].other = to.At() }

// Store has a call's result stored at an address.
func (p *Program) Store(from Place, addr uintptr) Place {
	p.calls[from].out = addr
	return from
}

// Bytes puts something into the machine's memory and gives its address.
func (p *Program) Bytes(b []byte) uintptr {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	at := dataAt + uintptr(len(p.data))
	p.data = append(p.data, b...)
	return at
}

// Numbers is Bytes for numbers of eight bytes.
func (p *Program) Numbers(numbers ...uint64) uintptr {
	at := p.Bytes(nil)
	for _, n := range numbers {
		p.data = binary.NativeEndian.AppendUint64(p.data, n)
	}
	return at
}

// Put sets a number that was put into the machine's memory before.
func (p *Program) Put(addr uintptr, n uint64) {
	binary.NativeEndian.PutUint64(p.data[addr-dataAt:], n)
}

// errZero is for a text that cannot be handed to the kernel.
var errZero = errors.New("a text has a zero byte in it")

// Text is Bytes for a text as the kernel takes it. With a zero byte in it there is no
// Packet.
func (p *Program) Text(s string) uintptr {
	if strings.IndexByte(s, 0) >= 0 {
		p.err = errZero
	}
	at := dataAt + uintptr(len(p.data))
	p.data = append(append(p.data, s...), 0)
	return at
}

// Texts gives the address of a list of texts, as a program's arguments are.
func (p *Program) Texts(texts []string) uintptr {
	at := make([]uint64, 0, len(texts)+1)
	for _, s := range texts {
		at = append(at, uint64(p.Text(s)))
	}
	return p.Numbers(append(at, 0)...)
}

// Packet gives what the machine is to be sent. It fails with unix.E2BIG if there is no
// room for all that.
func (p *Program) Packet() ([]byte, error) {
	calls := lenSize + len(p.calls)*int(callSize)
	switch {
	case p.err != nil:
		return nil, p.err
	case calls > callLen || len(p.data) > dataLen:
		return nil, unix.E2BIG
	}
	out := make([]byte, 0, calls+len(p.data))
	out = binary.NativeEndian.AppendUint64(out, uint64(calls))
	out = append(out, bytesOf(p.calls)...)
	return append(out, p.data...), nil
}

func bytesOf(calls []Call) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(calls))), len(calls)*int(callSize))
}

// Steps name the steps of a list's calls.
type Steps []string

// Steps gives those of this list.
func (p *Program) Steps() Steps { return p.steps }

// Of gives the step of the call at an address, as [Failed] has it, and false if there is
// no such call.
func (s Steps) Of(at uintptr) (string, bool) {
	n := (at - Place(0).At()) / callSize
	if n >= uintptr(len(s)) {
		return "", false
	}
	return s[n], true
}

// Package fuel rewrites a WebAssembly module so that it cannot run for long
// without asking the host: it pays fuel at each function entry, loop header and
// bulk operation, and calls the host when the fuel is used up. The host then
// lets others run, looks at the clock, and either fills the tank again or stops
// the guest. Engine-made interruption costs a call per loop iteration; a payment
// costs a subtraction and a branch.
//
// Packages below internal/sandbox/wasm may import it. It imports the standard
// library only. Instrument is a pure function, safe for concurrent use; the same
// module always gives the same bytes.
//
// # What a module gets
//
// One function import, ImportModule.ImportName of type () -> (), after the
// module's own imports, and one exported mutable i64 global, GlobalExport, after
// its own globals. All references to local functions move up by one. The global
// starts at zero, so the very first payment calls the host, also within a start
// function: the host needs no chance to fill the tank before. The module itself
// can name neither the global nor the function, since an index which was out of
// range before is refused.
//
// The host's function sets the global to the next allowance (it does not add: the
// value may lie far below zero after a bulk operation) and returns, or panics to
// stop the guest.
//
// # What a unit is
//
// A unit pays for one instruction, and is an upper bound: a function entry pays
// for all instructions of the body outside of loops, its parameters, results and
// locals, and one for itself; a loop header pays likewise, at each iteration, for
// all instructions of the loop outside of loops within, taken or not. So no
// allowance can be stretched by long bodies. memory.fill, copy, init and grow pay
// besides one unit for each 16 bytes, table.fill, copy, init and grow one for each
// element, before they run.
//
// What runs uninterrupted is therefore bounded by the allowance plus one
// operation: a straight piece of code (bounded by the module's size, and by
// maxWeight) or one bulk operation (bounded by the memory limit, about 0.1 ms per
// MiB; and by MaxTableElements). Host functions keep their own time.
//
// # What is refused
//
// Everything that is not core WebAssembly 2.0 is refused by name. The rewriter and
// the engine must agree about where each instruction starts, so encodings which
// engines read differently are refused too. What is refused or let through here
// says nothing of validity: types are the engine's business.
package fuel

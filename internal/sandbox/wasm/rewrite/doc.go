// Package rewrite prepares a WebAssembly module for a platform that interrupts its
// guests and uses their instances again. It does two things in one pass: the module
// pays fuel, and its state comes within the host's reach.
//
// Packages below internal/sandbox/wasm may import it. It imports the standard
// library only. Module is a pure function, safe for concurrent use; the same module
// always gives the same bytes.
//
// # What a module gets
//
// One function import, ImportModule.ImportName of type () -> (), after the module's
// own imports, and one exported mutable i64 global, GlobalExport, after its own
// globals. All references to local functions move up by one. Besides, its memory and
// its mutable numeric globals are exported, when they are its own, and its start
// function, which no longer runs by itself. The module itself can name neither the
// fuel nor the function, since an index which was out of range before is refused;
// exports whose name begins with Reserved are refused too.
//
// # Fuel
//
// The module pays at each function entry, loop header and bulk operation, and calls
// the host when the fuel is used up. (What is paid in between only adds to the debt.)
// The host then lets others run, looks at the clock, and either fills the tank again
// or stops the guest. Engine-made interruption costs a call per loop iteration; a
// payment costs a subtraction and a branch.
//
// The global starts at zero, so the very first payment calls the host: it needs no
// chance to fill the tank before. The host's function sets the global to the next
// allowance (it does not add: the value may lie far below zero after a bulk
// operation) and returns, or panics to stop the guest.
//
// A unit pays for one instruction that computes, moves data, branches or calls; what
// compilers mostly make nothing of (constants, local variables, drop) is a quarter,
// what only marks a place (block, loop, else, end, nop) is free. A function or loop is
// paid for in stretches: one where it begins, at each call or iteration, which also
// pays for a function's parameters, results and locals; and another behind the end of a
// block, or at an else, where the stretch before has become long enough, or where
// control may arrive past the beginning of another stretch. A stretch is paid for as
// a whole, whatever of it is taken, so the count is an upper bound, and close for code
// that is one large loop around a switch, as interpreters and Go's output are.
// memory.fill, copy, init and grow pay besides one unit for each 16 bytes,
// table.fill, copy, init and grow one for each element, before they run.
//
// What runs uninterrupted is therefore bounded by the allowance plus one
// operation: a straight piece of code (bounded by the module's size, and by
// maxWeight) or one bulk operation (bounded by the memory limit, about 0.1 ms per
// MiB; and by MaxTableElements). Host functions keep their own time.
//
// # State
//
// An instance of Output.Module is complete only after its host has done what
// instantiation did before, in this order:
//
//  1. Each of Output.Segments must lie within MemoryMin pages of 64 KiB; an empty
//     one may stand just at their end. If one does not, the module must fail, as
//     instantiating it would have. Module leaves this to the host, since it is no
//     fault of the module's form.
//  2. Segments are copied into memory, in order: later ones may overwrite earlier ones.
//  3. When HasStart, StartExport is called, once, before anything else. A trap in it
//     fails the instance.
//
// After that, memory and the GlobalName exports are all that changes in an instance,
// if Restorable gives nil: who puts both back, to length and value, has the instance
// as it was.
//
// Segments which were taken out of a module with a data count section leave empty
// ones behind: for memory.init and data.drop they are what core 2.0 makes of an
// active segment after instantiation, a dropped one. (wazero 1.12 keeps them
// readable; a module that counts on that finds them empty here.)
//
// # The stub
//
// Native code is looked up by function index, so whoever has the code that Module was
// compiled to needs no bodies. Output.Stub is the module with `unreachable` in place
// of each, and is quick to decode. It must never run with code compiled from itself,
// as an engine makes it when its cache has none: each call would trap. An engine keys
// native code by the bytes it decoded, and two modules may differ in nothing but
// bodies, so the stub ends with a custom section that holds the SHA-256 of
// Output.Module: different modules have different stubs.
//
// # What is refused
//
// Everything that is not core WebAssembly 2.0 is refused by name. The rewriter and
// the engine must agree about where each instruction starts, so encodings which
// engines read differently are refused too. What is refused or let through here
// says nothing of validity: types are the engine's business. Only what the rewriting
// would hide from the engine is checked here: the start function's type, that active
// data has a memory, and that ref.func names a declared function.
package rewrite

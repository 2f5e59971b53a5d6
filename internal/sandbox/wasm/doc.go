// Package wasm is the engine that runs inside a sandbox process: it loads compiled
// WebAssembly modules, gives each invocation the state that its function had when it
// was ready, and holds the limits that can be held from within. It speaks wire on
// one connection and knows nothing else of the world. In a process that was started
// for it, it compiles one module and gives what came of it.
//
// Only the package process may import it. It and what lies below it are all that
// imports wazero.
//
// # From code to an invocation
//
// compile (code.go) rewrites a module and takes the machine code out of the engine.
// A program (program.go) is such code attached to a stub. A version (version.go) is a
// program with a function's limits and environment. It is booted once (boot.go), and
// what came of it is its ready state: an image of memory, and globals. An instance
// (instance.go) in that state serves one invocation (invocation.go) and is put back.
// A command's instances continue from within a host call (checkpoint.go). Functions
// whose state cannot be put back, or must not be shared, begin from nothing each time.
//
// # What stops a guest
//
// A module is rewritten before it is compiled so that it counts as it runs and
// calls back whenever the count is spent (package rewrite). In that call, a tick, the
// engine looks at the clocks, at cancellation and at the depth of the guest's
// stack, and ends the guest by a panic that the engine catches. Ticks are also
// what lets Go's collector and scheduler have their turn: without them a spinning
// guest would hold up the whole process. Host calls that may take long (sleeping,
// reading much entropy, writing) look at the same conditions.
//
// # What a guest can reach
//
// Standard input, output and error, clocks, entropy, its own name and the
// environment of its configuration (package wasi), and the operations of ops.go. No
// files, no directories, no sockets: none are ever opened in the process, so there is
// nothing to be found by number.
//
// # Concurrency
//
// One worker at a time reads frames, and runs what it reads (crew.go); a guest that
// takes longer than most goes on while another worker reads. Loads run in goroutines
// of their own. The lines of one invocation's log, and the frames of its answer, leave
// in order.
package wasm

// Package wasm is the engine that runs inside a sandbox process: it loads
// WebAssembly modules, runs each invocation on an instance that nobody used
// before, and holds the limits that can be held from within. It speaks wire on
// one connection and knows nothing else of the world.
//
// Only the package process may import it, and nothing else may import wazero.
//
// # What stops a guest
//
// A module is rewritten before it is compiled so that it counts as it runs and
// calls back whenever the count is spent (package fuel). In that call, a tick, the
// engine looks at the clock, at cancellation and at the depth of the guest's
// stack, and ends the guest by a panic that the engine catches. Ticks are also
// what lets Go's collector and scheduler have their turn: without them a spinning
// guest would hold up the whole process. Host calls that may take long (sleeping,
// reading much entropy, writing) look at the same conditions.
//
// # What a guest can reach
//
// Standard input, output and error, clocks, entropy, its own name and the
// environment of its configuration. No files, no directories, no sockets: none
// are ever opened in the process, so there is nothing to be found by number.
//
// # Concurrency
//
// Serve reads frames in one goroutine and runs each load and each invocation in
// a goroutine of its own. The lines of one invocation's log, and the frames of
// its answer, leave in order.
package wasm

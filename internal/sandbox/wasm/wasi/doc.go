// Package wasi is what a guest finds of WASI preview 1: standard input, output and
// error, arguments, environment, clocks, entropy, waiting and leaving. Every other
// function of preview 1 can be linked and answers that there is no such file, since
// there are none. Only internal/sandbox/wasm may import it.
//
// Nothing is kept here between calls: whatever belongs to one run of a guest is in
// the Guest that the call's context carries, so one set of functions serves all
// instances and none can leave something behind for another.
//
// The source for forms and numbers is the preview 1 witx of the WebAssembly
// System Interface.
package wasi

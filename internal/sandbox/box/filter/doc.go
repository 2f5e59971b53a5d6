// Package filter makes the seccomp programs that guests run under: which system calls
// the kernel answers at all, before it looks at who asks.
//
// There are four. [Connector] is for a program that an operator installed as a source of
// events; [ConnectorStart] is the same for before it is executed. [Native] is for a native guest: Node.js, CPython, Go, Rust, what
// links glibc or musl. [Wasm] is for the sandbox process that hosts WebAssembly guests,
// from its first instruction. [WasmSealed] is for the same process once it has started,
// added by itself: a filter that is added can only take away.
//
// All are lists of what is allowed. What is not named is refused with EPERM when it is
// older than Linux 5.1, and with ENOSYS when it is younger: programs know the answer of
// an older kernel and have another way, and what the future adds is refused before
// anybody here has heard of it. A call of a foreign architecture ends the process.
//
// A program is an encoded array of struct sock_filter. It is made by a pure function,
// the same each time; the package is safe for concurrent use and keeps nothing. It may
// be imported by whoever starts or is a sandbox: internal/sandbox and below.
package filter

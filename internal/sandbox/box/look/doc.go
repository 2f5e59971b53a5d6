// Package look is the program that looks around inside a box and prints what it sees:
// what a machine enforces is what was seen, not what was asked for.
//
// Only internal/sandbox/box/stub imports it. Main owns the process: it must be called
// before anything else.
package look

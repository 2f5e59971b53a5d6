// Package spawn starts processes that share the memory of the one that starts them until
// they execute a program. A copy of the memory, which fork makes, is most of what a start
// costs a program of Go: both sides take faults for each page that they touch, and the
// copy is thrown away a moment later.
//
// In a process that shares the memory nothing of Go works, nor is there a stack for it:
// it makes the system calls of a Plan, in assembly, and ends when one does not go well.
//
// Only the children of internal/sandbox/box may import it. A Plan is one goroutine's.
package spawn

// Package landlock takes from a thread, and what it executes, the right to reach files,
// TCP ports and processes, by Landlock. It is a layer of its own: it holds where a mount
// was too generous or a filter of system calls let something by.
//
// Rules are what is allowed; the zero value allows nothing. What they say is enforced as
// far as the kernel knows it (its "ABI", found at run time); [Missing] says what a kernel
// does not enforce. Nothing can lift a rule set again, and every further one can only
// take away.
//
// The small program that starts guests links this package, so it imports nothing but
// golang.org/x/sys/unix and syscall. Only internal/sandbox and below may import it. [Restrict] is for
// a thread that is about to execute another program, which must be locked to its
// goroutine.
package landlock

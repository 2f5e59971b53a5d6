// Package inner is what runs inside a box before the guest does, and beside it: the
// init, the first process of the box's pid namespace. It finishes the lockdown, starts
// the guest, and stays to collect what dies and to hand sockets of the box's network
// to the node. Its end is the end of everything in the box.
//
// The init is a machine that makes one system call after the other (box/machine); this
// package makes the list of them, in the node, out of an Order, and reads what the init
// says. All that could be found out beforehand is in the list: the init decides nothing.
//
// Why there is an init at all, and the guest is not the first process itself: the
// kernel ignores signals to a first process that has no handler for them, so a guest's
// abort and exit by signal would not work as anywhere else; and nobody would collect
// orphans, which count against the limit on processes. Nor could anybody tell how the
// guest ended, or make a socket in the box's network without privileges on the host.
//
// Why it is no Go program: the start of Go's runtime was a third of what a box cost
// beside its program, and its memory was half of what a small guest takes.
//
// Only internal/sandbox/box imports it. Everything is for one goroutine at a time.
package inner

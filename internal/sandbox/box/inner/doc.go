// Package inner is what runs inside a box before the guest does, and beside it: the
// init, the first process of the box's pid namespace. It finishes the lockdown, starts
// the guest, and stays to collect what dies and to hand sockets of the box's network
// to the node. Its end is the end of everything in the box.
//
// Why there is an init at all, and the guest is not the first process itself: the
// kernel ignores signals to a first process that has no handler for them, so a guest's
// abort and exit by signal would not work as anywhere else; and nobody would collect
// orphans, which count against the limit on processes. Nor could anybody tell how the
// guest ended, or make a socket in the box's network without privileges on the host. It
// costs 0.5 MB of memory and 0.8 ms of a start (measured side by side with a guest that
// was executed in the init's place, 1.06 against 1.56 MB and 3.1 against 4.0 ms).
//
// Only internal/sandbox/box/stub imports it. Main and Probe own the process: they must
// be called before anything else, on the main goroutine.
package inner

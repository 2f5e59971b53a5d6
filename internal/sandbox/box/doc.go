// Package box starts programs that nobody trusts, each in a box: a process tree with
// namespaces, users, a root, a network and limits of its own. It is the one primitive
// for everything that runs guest code.
//
// Only internal/sandbox and below may import it, and internal/node to open the one
// Broker of a node. All methods may be called from many goroutines.
//
// # Who does what
//
//	node ── Broker (this package) ──┬── broker, privileged, the first process (box/broker)
//	                                └── init of each box, unprivileged outside (box/inner) ── guest
//
// The node sends the broker what needs privileges and nothing else: images, and for a
// start its limits. Everything else of a Spec goes to the box's init by a socket of its
// own, which the broker passes on without reading it, as a list of system calls that the
// init makes. Both are executed from sealed memory: the broker is a small binary
// (cmd/casemate-box), and the init one of some hundred instructions (box/machine), since
// every box has its own, to start and to keep.
//
// # The steps of a start, and why in this order
//
//  1. Node: sends the list to the init, by a socket whose other end goes to the broker.
//  2. Broker: makes the control groups, and at the same time
//  3. clones the init into fresh user, mount, pid, network, IPC and UTS
//     namespaces, mapped to a pair of the host's user ids that no other box has. It
//     inherits no environment and no descriptors but /dev/null and two sockets.
//  4. Broker: puts the init into the groups, and only then lets it go on, so that nothing
//     is ever done outside them. It hands over private copies of the images' trees, as
//     descriptors: no path is involved.
//  5. Init: separates control groups, so that the box's own is all that it sees; offers
//     itself first when memory is short; brings lo up and binds the listeners, as only it
//     is in that network.
//  6. Init: mounts the root, the code, /tmp and /proc, and lets go of everything else
//     (pivot_root). Places are opened below the root without following links, since what
//     is there came from a guest's author.
//  7. Init: forbids dumps of itself, renounces new privileges, empties the bounding set,
//     sets Landlock rules. From here on nothing it executes can gain anything.
//  8. Init: starts a child, which shares its memory until it executes the program
//     (box/spawn). It arranges descriptors, becomes the guest's user (it needs its
//     capabilities for that), drops all of them, takes the resource limits, filters system
//     calls (last, as the filter forbids the steps before) and executes the program.
//  9. Init: drops its own capabilities, hands the listeners to the node, and stays to
//     collect what dies.
//
// # What ends a box
//
// The end of its program, Kill, the end of its init (the kernel then kills the rest of
// the pid namespace), and the end of the broker: that is the first process of a pid
// namespace in which all inits are, so they end however it ended. The broker ends when
// its socket to the node closes, however the node ended, and removes the control groups
// before. A killed broker leaves groups behind, empty; the next one removes them.
//
// Done is closed when everything is cleaned up: the processes are gone, the control groups
// removed, the user ids free. An Image that is released stays for boxes that run on it.
//
// # Without privileges
//
// The broker then has a user namespace of its own, with one user id mapped, which the
// guest shares with the node outside. Control groups exist where they were delegated.
// Posture says what is missing; nothing is skipped silently.
package box

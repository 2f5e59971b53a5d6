// Package gvisor launches native versions in gVisor: below the code is a kernel of its
// own, in user space, and what the machine's kernel sees is that program's few system
// calls. It uses the operator's runsc, which is no part of Casemate.
//
// Only internal/node makes a Launcher. It may be used from many goroutines; a Launcher's
// mutex is held for no longer than it takes to note a sandbox.
//
// # What stands around the code
//
//	machine ── box, with nothing in it but a program that sleeps: network, limits, users
//	        └─ runsc, in the box's control groups
//	             ├─ gofer:  serves the files, read-only, chrooted into them
//	             └─ sentry: the kernel, chrooted into nothing, in the box's network
//	                  └─ the code
//
// gVisor's processes have namespaces of their own for users, mounts, processes, IPC and
// names, with the box's unused user ids and no capability outside of them, no_new_privs,
// and gVisor's own filters of system calls. They do not go into the box itself: runsc has to
// mount and to make namespaces before it locks itself in, and a box lets nothing inside
// do that. So Landlock and the box's own filter are not among the walls: the code's calls
// never reach the machine's kernel, and what the sentry may call, gVisor says.
//
// runsc itself waits beside them as the machine's root, which it needs for setting all
// of it up, and asks the sentry over a socket how the code ended. Who has broken out of
// gVisor's kernel finds that socket. runsc and the sandbox end with the thread of the
// node that started them, and with the box.
//
// The code reaches the network by way of the machine's (runsc's "host" network), since
// its servers and the Runtime API are on the box's loopback, of which there is nothing
// but that. It costs a wider filter for the sentry: sockets of the box's network.
//
// # Memory
//
// The kernel in user space takes its memory, some 40 MiB, from the version's own limit:
// what a sandbox claims is what it can use, here as in every other.
package gvisor

// Package broker is the one privileged part of Casemate: a small process that makes
// images (read-only trees) and boxes for the node, and does nothing else. The node
// starts it first. It reads requests from one socket and ends, with all boxes, when
// that socket closes, however the node died.
//
// It is the first process of a pid namespace of its own, so that the kernel ends every
// box when the broker dies, however it died. It has two views of the mounts: its own,
// with the host's tree below /host and the images below /images, and that of the thread
// which starts boxes, in which there is nothing but /proc. No other process has either.
//
// Only internal/sandbox/box/stub imports it. Main owns the process: it must be called
// before anything else.
package broker

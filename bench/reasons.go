package main

// reason says why a goal is missed, as far as it is understood. It is shown beside a
// row only while the row misses its goal.
func reason(id string) string {
	const (
		around = "The guest is the smaller part: TLS, HTTP, the gateway, the receipt and the hand-over to the sandbox process take more than the whole bare server (profile.wasm.c.c32)"
		golang = "About half is the guest: encoding/json in WebAssembly, and some twenty pages that it writes and we put back (profile.wasm.go.c32)"
		cold   = "Supposed: 14 MB of machine code are read, unsealed, sent to the process and attached there"
		flood  = "Seven tenths of the processors go to the node, most of that to storing 64 KiB of log for each call: each line is encoded, sealed and written as a message of its own (perf). The sandbox, which counts and drops the rest, has a tenth"
		idle   = "Of each, 7 KB live (its record, its route, and JetStream's index of its five keys), and twice as much is space between them that other garbage left and Go cannot give back (heap profiles at 1 and at 1,000). The rest is what a node keeps once it has worked at all, some 3 MB"
		wanted = "Memory that is given, cleared and copied takes a processor in pieces that nothing interrupts, and calls of less than two milliseconds are not asked to rest; what two loops of the kernel's lowest rank cost outside of the node is the row machine. wrk corrects its percentiles for calls that it could not make meanwhile, so one answer that takes 100 ms counts as hundreds; the note has the calls of one caller, each counted once"
		events = "A quarter of the processors' time is the invocation with its receipt, a fifth the server's atomic batch, which makes and syncs files of its own for each, a twelfth the event's JSON (CPU profile of events.durable.batched). Single callers store some 16 events with each sync, the peer's batches 100 (strace)"
		rows   = "Each row is an event of its own: decoded, checked, stored with a sync, run and put on record, where the peer only prints it. Not profiled"
		beside = "While memory is given to a flood, or processes are made and ended for it, the kernel of this machine lets nobody else have that processor (it is built without preemption), up to a tick of 4 ms; beside floods that compute in their own code p99 stays near what it is alone"
	)
	for _, r := range []struct{ id, why string }{
		{"wasm.c.c32", around},
		{"wasm.rust.c32", "Not profiled by itself; supposed to be as wasm.c.c32, and serde"},
		{"wasm.go-command.c32", "A command cannot rehearse as an exported handle can, so encoding/json learns its types anew for each request, and its end unwinds the stack by a panic"},
		{"wasm.go.c32", golang},
		{"js.hello.c32", "Outside of the guest we do more per request than workerd does in all: TLS and HTTP in Go, key, receipt, a second process; inside, QuickJS interprets (profile.js.hello.c32). workerd serves from one thread, so the ratio of throughput is nearer to one"},
		{"js.hello.fresh.c32", "workerd's way to a fresh isolate takes milliseconds; what is left of ours is what js.hello.c32 says"},
		{"js.hono.c32", "An interpreter against a compiler: some 3,400 bytecodes a request, cold caches for each (profile.js.hono.c32)"},
		{"wasm.cold.go", cold},
		{"wasm.cold.go-command", cold},
		{"wasm.cold.js", "Supposed: the engine is loaded ahead, but the bundle is evaluated and its memory frozen when the namespace comes"},
		{"wasm.neighbour.spin", wanted},
		{"wasm.neighbour.allocate", wanted},
		{"wasm.neighbour.recurse", wanted},
		{"wasm.neighbour.log", flood},
		{"node.functions.idle.c", idle},
		{"native.fresh.go", "The kernel makes six namespaces, mounts and control groups for each, and takes them away again, for a program that starts in two milliseconds. Not profiled"},
		{"native.rss.go", "The init of the sandbox is a Go program too and takes about a megabyte"},
		{"native.handover", "Two calls of the broker, another process: the sandbox is thawed, and what it used is asked for"},
		{"events.durable", events},
		{"events.durable.batched", events},
		{"events.postgres", rows},
		{"events.postgres.rows", rows},
		{"native.neighbour.cpu", beside},
		{"native.neighbour.memory", beside},
		{"native.neighbour.forks", beside},
		{"native.neighbour.disk", beside},
		{"native.neighbour.log", beside},
		{"native.neighbour.descriptors", beside},
		{"http.framework.c32", "The framework alone takes a quarter of a millisecond; before it come TLS and HTTP in Go, key, receipt, and one request at a time for each instance. Not profiled"},
		{"node.functions.idle.js", idle + ", and 6 MB for the engine, loaded in the process that waits"},
	} {
		if r.id == id {
			return r.why
		}
	}
	return "Not explained yet"
}

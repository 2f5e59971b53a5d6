package main

// reason says why a goal is missed, as far as it is understood. It is shown beside a
// row only while the row misses its goal.
func reason(id string) string {
	const (
		around    = "The guest is the smaller part: TLS, HTTP, the gateway, the receipt and the hand-over to the sandbox process take more than the whole bare server (profile.wasm.c.c32)"
		golang    = "About half is the guest: encoding/json in WebAssembly, and some twenty pages that it writes and we put back (profile.wasm.go.c32)"
		cold      = "Supposed: 14 MB of machine code are read, unsealed, sent to the process and attached there"
		neighbour = "Two guests that compute, the node and two load generators share two cores, and what waits for a processor waits for a turn of some milliseconds. Within the process a good guest's p99 stays near what it is alone (BenchmarkNeighbour). Giving such guests a lower rank, and yielding at each tick, were tried and made it worse: a thread that holds a lock of Go's scheduler, or that a collection waits for, must not be one that is put last"
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
		{"wasm.neighbour.spin", neighbour},
		{"wasm.neighbour.allocate", neighbour},
		{"wasm.neighbour.recurse", neighbour},
		{"wasm.neighbour.log", neighbour},
		{"node.functions.idle.c", "Not taken apart yet; supposed: what a node keeps once it has worked at all, and Go's heap, which may be five times what lives"},
		{"node.functions.idle.js", "Not taken apart yet; supposed: what a node keeps once it has worked at all, divided by fewer functions"},
	} {
		if r.id == id {
			return r.why
		}
	}
	return "Not explained yet"
}

package main

// reason says why a goal is missed, as far as it is understood. It is shown beside a
// row only while the row misses its goal.
func reason(id string) string {
	const (
		around = "The guest is the smaller part: the gateway, the receipt and the hand-over to the sandbox process take more than the whole bare server (profile.wasm.c.c32)"
		golang = "A third of it is the guest, a twelfth restoring its memory, half the node (profile.wasm.go-handle.c32); supposed: encoding/json builds what it knows of the function's own types anew for each request, since the function gives Serve no sample"
		code   = "Not taken apart; supposed: loading the machine code of a Go program, which is megabytes"
	)
	for _, r := range []struct{ id, why string }{
		{"wasm.c.c32", around},
		{"wasm.rust.c32", "Not profiled by itself; supposed to be as wasm.c.c32"},
		{"wasm.go.c32", "Not profiled by itself; a command cannot rehearse as an exported handle can"},
		{"wasm.go-handle.c32", golang},
		{"js.hello.c32", "Outside of the guest we do more per request than workerd does in all: TLS and HTTP in Go, key, receipt, a second process; inside, QuickJS interprets and restoring dirties and scans megabytes (profile.js.hello.c32)"},
		{"js.hello.fresh.c32", "workerd's way to a fresh isolate takes milliseconds; what is left of ours is what js.hello.c32 says"},
		{"js.hono.c32", "Hono's depth of calls makes the engine's stack grow, and an instance whose stack exceeds 256 KiB is thrown away and made anew for each request: kept up to 2 MiB, the CPU per answer fell to less than half; the rest is an interpreter against a compiler (profile.js.hono.c32)"},
		{"wasm.cold.go", code},
		{"wasm.cold.go-handle", code},
		{"wasm.cold.js", "Not taken apart; supposed: the engine is loaded ahead, but the bundle is evaluated and its memory frozen when the namespace comes"},
		{"wasm.neighbour.spin", "Not taken apart; supposed: two guests that compute take two cores, and the good one waits for its turn"},
		{"wasm.neighbour.allocate", "Not taken apart; supposed: growing to the limit and giving the pages back is kernel work on the same two cores"},
		{"node.functions.idle.c", "Not taken apart yet; supposed: what a node keeps once it has worked at all, and Go's heap, which may be five times what lives"},
		{"node.functions.idle.js", "Not taken apart yet; supposed: what a node keeps once it has worked at all, divided by fewer functions"},
	} {
		if r.id == id {
			return r.why
		}
	}
	return "Not explained yet"
}

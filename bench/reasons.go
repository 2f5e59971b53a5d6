package main

// reason says why a goal is missed, as far as it is understood. It is shown beside a
// row only while the row misses its goal.
func reason(id string) string {
	const (
		around = "Guest and restored memory are a twelfth. By perf, on a busy machine, a third is what the bare server does too (HTTP, TLS, sockets), a ninth is the receipt with its journal and stream, as much the hand-over between the processes, a twentieth the watching threads of the two Go runtimes, which wake every half millisecond, and nearly as much the line in the access log"
		golang = "About half is the guest: encoding/json in WebAssembly, and some twenty pages that it writes and we put back (profile.wasm.go.c32)"
		cold   = "Machine code: for 19 MB of it a third of the time goes to reading, unsealing and writing it to where it is mapped (1.6 µs for each new page, and AES at 5.6 GB/s, on both processors), a fifth to the engine, which sums all of it up; then a fifth to freezing the memory, and the rest to data, the start of the runtime and the call (trace of the runner)"
		flood  = "Seven tenths of the processors go to the node, most of that to storing 64 KiB of log for each call: each line is encoded, sealed and written as a message of its own (perf). The sandbox, which counts and drops the rest, has a tenth"
		idle   = "Of each, 7 KB live (its record, its route, and JetStream's index of its five keys), and twice as much is space between them that other garbage left and Go cannot give back (heap profiles at 1 and at 1,000). The rest is what a node keeps once it has worked at all, some 3 MB"
		wanted = "A function that is called again and again rests between its calls as one that computes for long does between its turns, and within the process p99 beside it is what it is alone (BenchmarkNeighbour). What is left is the queue before the two processors: beside such a load the node's threads have half of them, the sandbox's a third, wrk a tenth, and of the waits above half a millisecond as much is behind the node's own threads and wrk's as behind the guests' (perf sched). What two loops of the kernel's lowest rank cost outside of the node is the row machine. wrk corrects its percentiles for calls that it could not make meanwhile; the note has the calls of one caller, each counted once"
		events = "A quarter of the processors' time is the server's atomic batch, a quarter of that the files which it makes and syncs for each; a fifth is the function's delivery, most of it the invocation with its receipt, an eighth allocating (CPU profiles of both rows). Single callers fill the batches: 965 of the 1,000 events that one may have (counted). What each of them costs beyond batched is its own way through the door"
		rows   = "Of the time, what the peer takes is PostgreSQL's own commit and sending; then comes what events.latency takes, which is nearly all that is left: the event is stored with a sync and comes back from the server's consumer before it is run, for which JetStream alone takes two thirds as long (one quiet run: 0.94 ms, with 0.38 for the peer, 0.50 for events.latency and 0.33 for JetStream alone; trace of each step). A following that waits for the commit, or a timer, is not among it: the row is stored while its transaction's end is still on its way"
		many   = "The rows that wait are bounded by what follows them: reading and decoding the log is a twenty-eighth of the processors' time, the door a fourteenth, and the rest storing, delivering, running and putting on record, as in events.drain (CPU profile)"
		beside = "While memory is given to a flood, or processes are made and ended for it, the kernel of this machine lets nobody else have that processor (it is built without preemption), up to a tick of 4 ms; beside floods that compute in their own code p99 stays near what it is alone"
	)
	for _, r := range []struct{ id, why string }{
		{"gateway.noop.c32", "Most of the difference is the receipt: without any the same requests took 21.3 µs where a bare server took 19.5 and all together 29.9. Of a receipt, a third was its stream (less since batches are packed), a third the write to the journal and waiting for it together with others, the rest encoding and sealing (each left out in turn). Short turns of the node's threads, which keep it quick beside functions that compute, take a twentieth"},
		{"wasm.c.c32", around},
		{"wasm.rust.c32", "As wasm.c.c32, with more of a guest: a command begins at its first look at the world, and reads and writes JSON with serde (profile.wasm.rust.c32)"},
		{"wasm.go-command.c32", "A command cannot rehearse as an exported handle can, so encoding/json learns its types anew for each request, and its end unwinds the stack by a panic"},
		{"wasm.go.c32", golang},
		{"js.hello.c32", "Outside of the guest we do more per request than workerd does in all: TLS and HTTP in Go, key, receipt, a second process; inside, QuickJS interprets (profile.js.hello.c32). workerd serves from one thread, so the ratio of throughput is nearer to one"},
		{"js.hello.fresh.c32", "workerd's way to a fresh isolate takes milliseconds; what is left of ours is what js.hello.c32 says"},
		{"js.hono.c32", "An interpreter against a compiler: some 3,400 bytecodes a request, cold caches for each (profile.js.hono.c32)"},
		{"wasm.cold.go", cold},
		{"wasm.cold.go-command", cold},
		{"wasm.cold.js", "The engine is loaded ahead; of 6 ms in the runner, evaluating the bundle takes 2 and freezing its memory 2 (trace of the runner)"},
		{"wasm.neighbour.spin", wanted},
		{"wasm.neighbour.allocate", wanted},
		{"wasm.neighbour.recurse", wanted},
		{"wasm.neighbour.log", flood},
		{"node.functions.idle.c", idle},
		{"native.fresh.go", "The processors are the limit, not the one thread that makes the processes. Of what a box takes beside its program, two fifths are the broker's, nearly all of it the kernel's: namespaces, the network above all, and control groups, made and taken away; a sixth are the init's calls (perf)"},
		{"native.handover", "Two calls of the broker, another process: the sandbox is thawed, and what it used is asked for"},
		{"events.durable", events},
		{"events.durable.batched", events},
		{"events.postgres", rows},
		{"events.postgres.rows", many},
		{"native.neighbour.cpu", beside},
		{"native.neighbour.memory", beside},
		{"native.neighbour.forks", beside},
		{"native.neighbour.disk", beside},
		{"native.neighbour.log", beside},
		{"native.neighbour.descriptors", beside},
		{"http.framework.c32", "Of the processors' time a third is the node's: TLS and HTTP in Go, key, receipt, and for each call a hand-over to another process and back, some twenty system calls (perf stat). The rest is Node.js in the sandbox, which at 250 µs takes more than by itself also when its code is compiled; why is not known. No throttling was seen (cpu.stat), and no mitigation of speculation is on for it (/proc). On a busy machine more sandboxes are started than help, and none of them rests while the load lasts"},
		{"node.functions.idle.js", idle + ", and 6 MB for the engine, loaded in the process that waits"},
	} {
		if r.id == id {
			return r.why
		}
	}
	return "Not explained yet"
}

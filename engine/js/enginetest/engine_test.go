package enginetest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casemate-dev/casemate/engine/js/enginetest"
	"github.com/casemate-dev/casemate/internal/jsengine"
)

// engines compiles the module once for each limit on memory.
var engines = struct {
	sync.Mutex
	byPages map[uint32]*enginetest.Engine
}{byPages: map[uint32]*enginetest.Engine{}}

func open(t testing.TB, pages uint32) *enginetest.Engine {
	t.Helper()
	engines.Lock()
	defer engines.Unlock()
	if e := engines.byPages[pages]; e != nil {
		return e
	}
	code, err := jsengine.Module()
	if path := os.Getenv("CASEMATE_ENGINE"); path != "" { // another build, to compare
		code, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatalf("%v (these tests need it: go run ./engine/js/build)", err)
	}
	e, err := enginetest.Open(context.Background(), code, pages)
	if err != nil {
		t.Fatal(err)
	}
	engines.byPages[pages] = e
	return e
}

const defaultPages = 128 << 20 >> 16

// world has entropy that differs each time.
func world() *enginetest.World {
	return &enginetest.World{
		Now: 1_800_000_000_000_000_000, Monotonic: 5_000_000_000, Calls: map[string]int{},
		Entropy: func(p []byte) {
			for i := range p {
				p[i] = byte(rand.Uint32())
			}
		},
	}
}

func prepared(t testing.TB, source string) *enginetest.Instance {
	t.Helper()
	return preparedIn(t, world(), defaultPages, source)
}

func preparedIn(t testing.TB, w *enginetest.World, pages uint32, source string) *enginetest.Instance {
	t.Helper()
	i, err := open(t, pages).New(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close(context.Background()) })
	if err := i.Prepare(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	return i
}

func handle(t testing.TB, i *enginetest.Instance, h enginetest.Head, body string) *enginetest.Answer {
	t.Helper()
	a, err := i.Handle(context.Background(), h, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answers prepares a handler's body, calls it once and gives the answer's body.
func answers(t *testing.T, code string) string {
	t.Helper()
	i := prepared(t, "export default { async fetch(request, env, ctx) {\n"+code+"\n} };")
	return string(handle(t, i, enginetest.Head{}, "").Body)
}

// TestImports holds the module to what the contract lets it import.
func TestImports(t *testing.T) {
	want := []string{
		"casemate.call", "casemate.poll", "casemate.read", "casemate.size", "casemate.submit",
		"wasi_snapshot_preview1.clock_time_get", "wasi_snapshot_preview1.environ_get", "wasi_snapshot_preview1.environ_sizes_get",
		"wasi_snapshot_preview1.fd_read", "wasi_snapshot_preview1.fd_write",
		"wasi_snapshot_preview1.proc_exit", "wasi_snapshot_preview1.random_get",
	}
	got := open(t, defaultPages).Imports()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the engine imports\n%q, want\n%q", got, want)
	}
}

func TestHello(t *testing.T) {
	i := prepared(t, helloApp)
	a := handle(t, i, enginetest.Head{Path: "/zoë"}, "")
	if a.Status != 200 || a.Headers["content-type"] != "text/plain" || string(a.Body) != "Hello, zo%C3%AB!\n" || a.Log != "" {
		t.Errorf("answer %+v %q", a, a.Body)
	}
}

// TestPrepareErrors: what a developer reads when the module does not load.
func TestPrepareErrors(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"syntax":                {"export default {\n  fetch( {\n", "SyntaxError"},
		"syntax place":          {"let a = 1;\nlet a = 2;", "function.js:2"},
		"throws":                {"function f() { throw new RangeError('no good') }\nf();\nexport default {fetch(){}}", "RangeError: no good\n    at f (function.js:1"},
		"throws cause":          {"throw new Error('outer', {cause: new TypeError('inner')})", "caused by: TypeError: inner"},
		"throws null":           {"throw null", "null"},
		"throws object":         {"throw {code: 5}", "{ code: 5 }"},
		"throws nothing to see": {"throw new Proxy({}, {get() { throw 1 }})", "cannot be shown"},
		"no default":            {"export const x = 1;", "default export"},
		"bad default":           {"export default 7;", "default export"},
		"empty default":         {"export default {};", "fetch"},
		"import":                {"import x from 'left-pad'; export default {fetch(){}}", `import of "left-pad"`},
		"dynamic":               {"await import('left-pad'); export default {fetch(){}}", `import of "left-pad"`},
		"never settles":         {"await new Promise(() => {}); export default {fetch(){}}", "can never settle"},
		"rejects":               {"await Promise.reject(new Error('later')); export default {fetch(){}}", "Error: later"},
		"empty":                 {"", "default export"},
		"getter throws":         {"export default {get fetch() { throw new Error('got') }}", "Error: got"},
		"deep":                  {"let f = () => f(); f()", "RangeError: Maximum call stack size exceeded"},
		"operation":             {"await crypto.subtle.digest('SHA-256', new Uint8Array(3)).then(() => { throw new Error('digested') }); export default {fetch(){}}", "Error: digested"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := open(t, defaultPages).New(t.Context(), world())
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close(t.Context())
			err = i.Prepare(t.Context(), c.source)
			var f *enginetest.Failure
			if !errors.As(err, &f) || !strings.Contains(f.Log, c.want) {
				t.Errorf("prepare: %v, want a failure with %q", err, c.want)
			}
		})
	}
}

func TestPrepare(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"function":        {"export default () => new Response('f')", "f"},
		"class instance":  {"class A { #x = 'private'; fetch() { return new Response(this.#x) } }\nexport default new A()", "private"},
		"top-level await": {"const x = await Promise.resolve('awaited'); export default {fetch: () => new Response(x)}", "awaited"},
		"this":            {"export default {x: 'own', fetch() { return new Response(this.x) }}", "own"},
		"byte order mark": {"\ufeffexport default {fetch: () => new Response('bom')}", "bom"},
		"text":            {"export default {fetch: () => new Response('žluťoučký 🐎')}", "žluťoučký 🐎"},
		"line separator":  {"export default {fetch: () => new Response('a\u2028b')}", "a\u2028b"},
	} {
		t.Run(name, func(t *testing.T) {
			a := handle(t, prepared(t, c.source), enginetest.Head{}, "")
			if string(a.Body) != c.want {
				t.Errorf("answer %q, want %q", a.Body, c.want)
			}
		})
	}
}

func TestHandleErrors(t *testing.T) {
	for name, c := range map[string]struct{ code, want string }{
		"throws":           {"throw new TypeError('bad')", "TypeError: bad\n    at fetch (function.js:2"},
		"rejects":          {"await null; throw new TypeError('bad')", "TypeError: bad"},
		"deadlock":         {"await new Promise(() => {})", "can never settle"},
		"no answer":        {"return 7", "must return a Response"},
		"stack":            {"let f = (x) => f(x + 1) + 1; return new Response(String(f(0)))", "RangeError: Maximum call stack size exceeded"},
		"memory":           {"let a = []; for (;;) a.push(new Uint8Array(1 << 20))", "out of memory"},
		"memory, strings":  {"let s = 'x'.repeat(1 << 20), a = []; for (let i = 0;; i++) a.push(s + i + s)", "out of memory"},
		"memory, objects":  {"let a = null; for (;;) a = {a, b: [1, 2, 3]}", "out of memory"},
		"forgets an error": {"await Promise.reject(new Error('lost'))", "Error: lost"},
		"not granted":      {"return await fetch('https://example.com/')", "outbound"},
	} {
		t.Run(name, func(t *testing.T) {
			i := prepared(t, "export default { async fetch(request, env, ctx) {\n"+c.code+"\n} };")
			_, err := i.Handle(t.Context(), enginetest.Head{}, nil)
			var f *enginetest.Failure
			if !errors.As(err, &f) || !strings.Contains(f.Log, c.want) {
				t.Errorf("handle: %v, want a failure with %q", err, c.want)
			}
		})
	}
}

// TestStack: everything that can recurse ends in an exception that JavaScript
// catches, and the engine works on.
func TestStack(t *testing.T) {
	for name, code := range map[string]string{
		"function":   "(function f(a, b, c) { return f(a, b, [c]) })()",
		"arguments":  "(function f(...a) { return f(...a, 1) })()",
		"method":     "class A { get x() { return this.x } } new A().x",
		"proxy":      "let p = new Proxy({}, { get(t, k, r) { return r[k] } }); p.x",
		"array sort": "let f = () => [2, 1].sort(f); f()",
		"map":        "let f = () => [1].map(f); f()",
		"replace":    "let f = () => 'a'.replace(/a/, f); f()",
		"toString":   "let o = { toString() { return `${o}` } }; `${o}`",
		"toJSON":     "let o = { toJSON() { return JSON.stringify(o) } }; JSON.stringify(o)",
		"json parse": "JSON.parse('['.repeat(1000000))",
		"json write": "let a = []; for (let i = 0; i < 1000000; i++) a = [a]; JSON.stringify(a)",
		"array join": "let a = []; for (let i = 0; i < 1000000; i++) a = [a]; a.join()",
		"flat":       "let a = []; for (let i = 0; i < 1000000; i++) a = [a]; a.flat(Infinity)",
		"parser":     "new Function('return ' + '('.repeat(1000000))",
		"unary":      "new Function('return ' + '!'.repeat(1000000) + '1')",
		"blocks":     "new Function('{'.repeat(1000000))",
		"arrows":     "new Function('return ' + 'a=>'.repeat(1000000) + '1')",
		"regexp":     "new RegExp('('.repeat(1000000))",
		"generator":  "function* g() { yield* g() } [...g()]",
		"spread":     "Math.max(...new Array(1000000).fill(1))",
		"construct":  "class A { constructor() { new A() } } new A()",
		"bound":      "let f = () => f.bind(null)(); f()",
		"reviver":    "let f = () => JSON.parse('[1]', f); f()",
		"clone":      "let a = []; for (let i = 0; i < 1000000; i++) a = [a]; structuredClone(a)",
		"console":    "let f = { get a() { console.log(f); return f.a } }; f.a",
	} {
		t.Run(name, func(t *testing.T) {
			got := answers(t, fmt.Sprintf(`let what = "nothing";
				try { %s; } catch (e) { what = e.name + ": " + e.message }
				return new Response(what + ", " + [1, 2, 3].map((x) => x * 2));`, code))
			if !strings.HasSuffix(got, ", 2,4,6") || !strings.Contains(got, "Error: ") || strings.Contains(got, "out of memory") {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestMemory: JavaScript catches the lack of memory and goes on.
func TestMemory(t *testing.T) {
	got := answers(t, `let a = [], what;
		try { for (;;) a.push(new Uint8Array(4 << 20)) } catch (e) { what = e.message }
		const n = a.length; a = null;
		const again = new Uint8Array(64 << 20);
		return new Response(what + " " + (n > 20) + " " + again.length)`)
	if got != "out of memory true 67108864" {
		t.Errorf("got %q", got)
	}
}

// TestCollect: garbage in cycles does not add up, though the collector runs rarely.
func TestCollect(t *testing.T) {
	got := answers(t, `for (let i = 0; i < 300000; i++) { const a = { big: new Array(100).fill(i) }; a.self = a; }
		return new Response("done")`)
	if got != "done" {
		t.Errorf("got %q", got)
	}
}

// TestCollectKeepsWhatOldObjectsHold: objects from before the snapshot are not looked
// at by the collector; what they refer to must stay.
func TestCollectKeepsWhatOldObjectsHold(t *testing.T) {
	i := prepared(t, `const kept = {}, list = [], map = new Map(), weak = new WeakMap(), key = {};
		class Old { #x; set(x) { this.#x = x } get() { return this.#x } }
		const old = new Old();
		let variable;
		export default { fetch() {
			const make = (n) => { const o = { n, pad: [n, n] }; o.self = o; return o };
			kept.a = make(1); list.push(make(2)); map.set("k", make(3)); weak.set(key, make(4)); old.set(make(5)); variable = make(6);
			globalThis.g = make(7); key.f = () => make(8);
			for (let i = 0; i < 200000; i++) { const a = { big: new Array(100).fill(i) }; a.self = a; }
			const all = [kept.a, list[0], map.get("k"), weak.get(key), old.get(), variable, g, key.f()];
			return new Response(all.map((o) => o.self.n + ":" + o.pad).join(" "));
		} }`)
	a := handle(t, i, enginetest.Head{}, "")
	if want := "1:1,1 2:2,2 3:3,3 4:4,4 5:5,5 6:6,6 7:7,7 8:8,8"; string(a.Body) != want {
		t.Errorf("got %q, want %q", a.Body, want)
	}
}

// TestOldObjectsAreNotShared: text and objects from before the snapshot keep their
// value although their reference counts stand still.
func TestOldObjectsAreNotShared(t *testing.T) {
	i := prepared(t, `const text = "abcdefgh".repeat(3), object = { a: 1 }, twin = { a: 1 }, array = [1, 2, 3];
		class P { constructor() { this.x = 1 } }
		const p = new P();
		let n = 0;
		export default { fetch() {
			let s = text; s += "!"; s += n++;
			const q = new P(); q.y = 2;
			object.b = 2; object.c = 3; delete object.a;
			array.push(4);
			const copy = { ...twin, z: 9 };
			p.w = 3;
			return Response.json([s, text, object, twin, copy, array, p, q, new P()]);
		} }`)
	text := strings.Repeat("abcdefgh", 3)
	want := `["` + text + `!0","` + text + `",{"b":2,"c":3},{"a":1},{"a":1,"z":9},[1,2,3,4],{"x":1,"w":3},{"x":1,"y":2},{"x":1}]`
	image := i.Snapshot()
	for range 3 {
		if a := handle(t, i, enginetest.Head{}, ""); string(a.Body) != want {
			t.Errorf("got %s\nwant %s", a.Body, want)
		}
		i.Restore(image)
	}
}

func TestSnapshot(t *testing.T) {
	i := prepared(t, `let calls = 0; const seen = []; const first = Math.random();
		export default { async fetch(request) {
			seen.push(await request.text());
			return Response.json({ calls: ++calls, seen, first, random: Math.random(), id: crypto.randomUUID(), now: Date.now() });
		} }`)
	image := i.Snapshot()
	random := map[string]bool{}
	var rest string
	for k := range 5 {
		a := handle(t, i, enginetest.Head{Method: "POST"}, "hello")
		head, tail, _ := strings.Cut(string(a.Body), `"random":`)
		if k > 0 && head != rest {
			t.Errorf("call %d answers %s, the first %s", k, head, rest)
		}
		rest = head
		number, uuid, _ := strings.Cut(tail, ",")
		if random[number] || random[uuid] {
			t.Errorf("call %d gives %s again", k, tail)
		}
		random[number], random[uuid] = true, true
		i.Restore(image)
	}
	if !strings.HasPrefix(rest, `{"calls":1,"seen":["hello"],"first":`) {
		t.Errorf("answer %s", rest)
	}
	// Without restoring, the state goes on.
	handle(t, i, enginetest.Head{Method: "POST"}, "a")
	if a := handle(t, i, enginetest.Head{Method: "POST"}, "b"); !strings.HasPrefix(string(a.Body), `{"calls":2,"seen":["a","b"]`) {
		t.Errorf("answer %s", a.Body)
	}
}

func TestDeterminism(t *testing.T) {
	var images [2][]byte
	for k := range images {
		w := &enginetest.World{Now: 1e18, Env: []string{"A=1", "B=ž"}, Entropy: func(p []byte) {
			for i := range p {
				p[i] = byte(i*7 + 1)
			}
		}}
		images[k] = preparedIn(t, w, defaultPages, helloApp+"\nconst m = new Map([[{}, 1]]); export const x = [m, Math.random(), Date.now()];").Snapshot()
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the same module in the same world gives different memory")
	}
}

func TestTimers(t *testing.T) {
	got := answers(t, `const seen = [], start = performance.now(), day = Date.now();
		const sleep = (ms) => new Promise((ok) => setTimeout(ok, ms));
		setTimeout(() => seen.push("late"), 50); setTimeout(() => seen.push("early"), 5); setTimeout(() => seen.push("zero"));
		queueMicrotask(() => seen.push("micro"));
		const stop = setInterval(() => { if (seen.push("tick") > 6) clearInterval(stop) }, 20);
		await sleep(100);
		const cancelled = setTimeout(() => seen.push("never"), 1); clearTimeout(cancelled);
		await sleep(2.5);
		return new Response([...seen, performance.now() - start >= 102, Date.now() - day >= 102].join());`)
	if got != "micro,zero,early,tick,tick,late,tick,tick,true,true" && got != "micro,zero,early,tick,tick,late,tick,true,true" {
		t.Errorf("got %q", got)
	}
}

// TestTimersOfOneTurn: what is set in one go runs in the order of the delays, also when
// more time passes meanwhile than lies between them.
func TestTimersOfOneTurn(t *testing.T) {
	w := world()
	w.Entropy = func([]byte) { w.Monotonic += 5e6 } // drawing takes 5 ms
	i := preparedIn(t, w, defaultPages, `export default { async fetch() {
		const seen = [], pass = () => crypto.getRandomValues(new Uint8Array(1));
		const set = (ms) => { setTimeout(() => seen.push(ms), ms); pass(); };
		for (const ms of [3, 40, 1, 2]) set(ms);
		await new Promise((ok) => setTimeout(ok, 100));
		setTimeout(() => seen.push("a"), 3);
		await new Promise((ok) => setTimeout(ok, 0)); // another turn
		pass();
		setTimeout(() => seen.push("b"), 1);
		await new Promise((ok) => setTimeout(ok, 100));
		return new Response(seen.join());
	} };`)
	if got := string(handle(t, i, enginetest.Head{}, "").Body); got != "1,2,3,40,a,b" {
		t.Errorf("got %q", got)
	}
}

// TestTimersDoNotHold: an answer that is there is not delayed by timers.
func TestTimersDoNotHold(t *testing.T) {
	i := prepared(t, `export default { fetch() { setInterval(() => {}, 1000); setTimeout(() => { throw 1 }, 1e9); return new Response("at once") } }`)
	a := handle(t, i, enginetest.Head{}, "")
	if string(a.Body) != "at once" || i.Calls["submit"] != 0 {
		t.Errorf("answer %q, host calls %v", a.Body, i.Calls)
	}
}

func TestWaitUntil(t *testing.T) {
	i := prepared(t, `export default { fetch(request, env, ctx) {
		const body = new Uint8Array([65, 66]);
		ctx.waitUntil((async () => { await new Promise((ok) => setTimeout(ok, 20)); body.fill(90); console.log("afterwards") })());
		ctx.waitUntil(Promise.reject(new Error("in the background")));
		return new Response(body);
	} }`)
	a := handle(t, i, enginetest.Head{}, "")
	if string(a.Body) != "AB" || !strings.Contains(a.Log, "afterwards\n") || !strings.Contains(a.Log, "Error: in the background") {
		t.Errorf("answer %q, log %q", a.Body, a.Log)
	}
	i = prepared(t, `export default { fetch(request, env, ctx) { ctx.waitUntil(new Promise(() => {})); return new Response("x") } }`)
	a = handle(t, i, enginetest.Head{}, "")
	if string(a.Body) != "x" || !strings.Contains(a.Log, "can never settle") {
		t.Errorf("answer %q, log %q", a.Body, a.Log)
	}
}

func TestRejections(t *testing.T) {
	i := prepared(t, `export default { async fetch() {
		Promise.reject(new Error("nobody listens"));
		const later = Promise.reject(new Error("somebody does")); await null; later.catch(() => {});
		return new Response("x");
	} }`)
	a := handle(t, i, enginetest.Head{}, "")
	if !strings.Contains(a.Log, "Uncaught (in promise) Error: nobody listens\n    at ") || strings.Contains(a.Log, "somebody") {
		t.Errorf("log %q", a.Log)
	}
}

func TestRandomSeed(t *testing.T) {
	// The state is read from the host, not from the clock.
	w := &enginetest.World{Entropy: func(p []byte) { clear(p) }}
	i := preparedIn(t, w, defaultPages, `export default { fetch() { return new Response(String(Math.random())) } }`)
	image := i.Snapshot()
	one := handle(t, i, enginetest.Head{}, "")
	i.Restore(image)
	w.Now++
	two := handle(t, i, enginetest.Head{}, "")
	i.Restore(image)
	w.Entropy = func(p []byte) { binary.LittleEndian.PutUint64(p, 12345) }
	three := handle(t, i, enginetest.Head{}, "")
	if string(one.Body) != string(two.Body) || string(one.Body) == string(three.Body) {
		t.Errorf("random numbers %s, %s, %s", one.Body, two.Body, three.Body)
	}
}

// TestSmallMemory: a function with little memory gets by, and is told when it does not.
func TestSmallMemory(t *testing.T) {
	i := preparedIn(t, world(), 16<<20>>16, `export default { async fetch(r) { return new Response((await r.text()).length + "") } }`)
	image := i.Snapshot()
	if a := handle(t, i, enginetest.Head{Method: "POST"}, strings.Repeat("x", 2<<20)); string(a.Body) != "2097152" {
		t.Errorf("answer %q", a.Body)
	}
	i.Restore(image)
	_, err := i.Handle(t.Context(), enginetest.Head{Method: "POST"}, make([]byte, 15<<20))
	var f *enginetest.Failure
	if !errors.As(err, &f) || !strings.Contains(f.Log, "memory") {
		t.Errorf("a body larger than memory: %v", err)
	}
}

// TestOldShapesGrow: objects from before the snapshot, with shapes of their own, take
// more properties, and the collector's list stays whole.
func TestOldShapesGrow(t *testing.T) {
	i := prepared(t, `const many = {}; for (let i = 0; i < 100; i++) many["k" + i] = i; delete many.k5;
		globalThis.first = 1; const last = Object.create(null); delete last.x; last.a = 1; delete last.a;
		export default { fetch() {
			for (let i = 0; i < 300; i++) { many["n" + i] = i; globalThis["g" + i] = { i }; last["l" + i] = i }
			for (let i = 0; i < 300000; i++) { const a = { big: new Array(100).fill(i) }; a.self = a }
			let sum = 0; for (let i = 0; i < 300; i++) sum += many["n" + i] + globalThis["g" + i].i + last["l" + i];
			return new Response(sum + " " + Object.keys(many).length + " " + Object.keys(last).length);
		} }`)
	if a := handle(t, i, enginetest.Head{}, ""); string(a.Body) != "134550 399 300" {
		t.Errorf("answer %q", a.Body)
	}
}

package webtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/engine/js/enginetest"
)

// TestDispatch covers what Node.js has no like of: triggers, request.casemate, and what is
// refused while a module loads. want is the body, log a part of the log; failure
// is a part of what the handler fails with.
func TestDispatch(t *testing.T) {
	for name, c := range map[string]struct {
		module, body       string
		head               enginetest.Head
		status             int
		want, log, failure string
	}{
		"function export": {
			module: `export default (request) => new Response(request.method);`,
			head:   enginetest.Head{Method: "PUT"}, status: 200, want: "PUT",
		},
		"instance of a class": {
			module: `class App { #n = 5; fetch() { return new Response(String(this.#n)); } } export default new App();`,
			status: 200, want: "5",
		},
		"invoke is fetch": {
			module: `export default { fetch: (request) => new Response(request.casemate.trigger) };`,
			head:   enginetest.Head{Trigger: "invoke"}, status: 200, want: "invoke",
		},
		"casemate": {
			module: `export default { async fetch(request) { return Response.json(new Request(request).casemate); } };`,
			head:   enginetest.Head{ID: "id-1", Caller: "key:ci", Params: map[string]string{"name": "x"}, Deadline: 7},
			status: 200, want: `{"id":"id-1","caller":"key:ci","params":{"name":"x"},"trigger":"http","deadline":7}`,
		},
		"casemate of another request": {
			module: `export default { fetch: () => new Response(String(new Request("https://a/").casemate)) };`,
			status: 200, want: "undefined",
		},
		"incoming headers cannot be changed": {
			module: `export default { fetch(r) { try { r.headers.set("a", "b"); } catch (e) { return new Response(e.name); } } };`,
			status: 200, want: "TypeError",
		},
		"incoming clone": {
			module: `export default { async fetch(r) { const c = r.clone(); return new Response(await c.text() + await r.text() + c.headers.get("host") + c.url); } };`,
			head:   enginetest.Head{Method: "POST", Path: "/ä"}, body: "b", status: 200, want: "bbexample.comhttps://example.com/%C3%A4",
		},
		"schedule": {
			module: `export default { async scheduled(c, env, ctx) { ctx.waitUntil(Promise.resolve().then(() => console.log(c.cron, c.scheduledTime))); } };`,
			head:   enginetest.Head{Trigger: "schedule"}, body: `{"cron":"* * * * *","scheduledTime":"1970-01-01T00:00:05Z"}`, status: 204, log: "* * * * * 5000\n",
		},
		"queue": {
			module: `export default { async queue(batch) {
				for (const m of batch.messages) { if (m.body.bad) { m.retry(); m.ack(); } else m.ack(); }
				console.log(batch.queue, batch.messages.map((m) => [m.id, m.attempts, m.timestamp.getTime()].join()).join(" "));
			} };`,
			head:   enginetest.Head{Trigger: "queue"},
			body:   `{"queue":"q","messages":[{"id":"1","timestamp":"1970-01-01T00:00:01Z","body":{},"attempts":1},{"id":"2","timestamp":2000,"body":{"bad":1},"attempts":3}]}`,
			status: 200, want: `{"retry":["2"]}`, log: "q 1,1,1000 2,3,2000\n",
		},
		"queue retryAll but one": {
			module: `export default { queue(batch) { batch.messages[0].ack(); batch.retryAll(); } };`,
			head:   enginetest.Head{Trigger: "queue"}, body: `{"messages":[{"id":"1"},{"id":"2"}]}`, status: 200, want: `{"retry":["2"]}`,
		},
		"queue without messages": {
			module: `export default { queue() {} };`, head: enginetest.Head{Trigger: "queue"}, body: `{}`, failure: "must hold a list of messages",
		},
		"no handler for the trigger": {
			module: `export default { fetch() {} };`, head: enginetest.Head{Trigger: "schedule"}, failure: `called by trigger "schedule", but its default export has no scheduled function`,
		},
		"not a response": {
			module: `export default { fetch: async () => "text" };`, failure: "must return a Response, not a string",
		},
		"a used response": {
			module: `export default { async fetch() { const r = new Response("x"); await r.text(); return r; } };`, failure: "body has already been read",
		},
		"streamed response": {
			module: `export default { fetch: () => new Response(ReadableStream.from([new Uint8Array([65]), new Uint8Array([66])])) };`, status: 200, want: "AB",
		},
		"failing stream": {
			module: `export default { fetch: () => new Response(new ReadableStream({ pull() { throw new Error("broken pipe"); } })) };`, failure: "broken pipe",
		},
		"waitUntil rejects": {
			module: `export default { fetch(r, env, ctx) { ctx.waitUntil(Promise.reject(new Error("later"))); return new Response("ok"); } };`, status: 200, want: "ok", log: "later",
		},
		"passThroughOnException": {
			module: `export default { fetch(r, env, ctx) { ctx.passThroughOnException(); } };`, failure: "not supported",
		},
		"a listener that throws": {
			module: `export default { fetch() { const t = new EventTarget(); t.addEventListener("x", () => { throw new Error("heard"); }); t.dispatchEvent(new Event("x")); return new Response("on"); } };`,
			status: 200, want: "on", log: "Uncaught Error: heard",
		},
		"fetch has no way out": {
			module: `export default { async fetch() { return new Response(await fetch("https://a/b").catch((e) => e.name + " " + e.message)); } };`,
			status: 200, want: "TypeError fetch failed: the function has no outbound grant, so it cannot reach https://a/b",
		},
		"thrown object": {
			module: `export default { fetch() { throw { code: 5, list: [1] }; } };`, failure: "{ code: 5, list: [ 1 ] }\n",
		},
		"rejection with an object": {
			module: `export default { fetch() { Promise.reject({ code: 5 }); return new Response("ok"); } };`,
			status: 200, want: "ok", log: "Uncaught (in promise) { code: 5 }\n",
		},
		"object as the cause": {
			module: `export default { fetch() { throw new Error("outer", { cause: { code: 5 } }); } };`, failure: "caused by: { code: 5 }\n",
		},
		"what an error has besides": {
			module: `export default { fetch() { throw Object.assign(new TypeError("x"), { code: "E_X", at: [1] }); } };`, failure: "\n{ code: 'E_X', at: [ 1 ] }\n",
		},
		"errors of an AggregateError": {
			module: `export default { async fetch() { await Promise.any([Promise.reject(new Error("first"))]); } };`, failure: "Error: first\n",
		},
		"thrown object that shows nothing": {
			module:  `export default { fetch() { const no = () => { throw 1; }; throw new Proxy({}, { get: no, ownKeys: no, getPrototypeOf: no }); } };`,
			failure: "an exception that cannot be shown\n",
		},
		"global of Node.js": {
			module:  `export default { fetch() { return new Response(process.env.A); } };`,
			failure: "ReferenceError: process is not defined\n    at fetch (function.js:1:",
		},
		"global of Node.js, what there is": {
			module:  `export default { fetch() { return new Response(process.env.A); } };`,
			failure: "note: process belongs to Node.js, which is another runtime (nodejs); here the environment is the handler's second argument, env\n",
		},
		"interface that is not here": {
			module: `export default { async fetch() { return new Response(new Intl.NumberFormat("de").format(1)); } };`, failure: "note: this runtime has no Intl; docs/javascript.md lists",
		},
		"algorithm that is not here": {
			module:  `export default { async fetch() { await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]); } };`,
			failure: "NotSupportedError: The algorithm AES-GCM is not supported; HMAC can be used here",
		},
		"env is frozen": {
			module: `export default { fetch(r, env) { return Response.json([Object.isFrozen(env), Object.keys(env), env.__proto__]); } };`,
			status: 200, want: `[true,["A","__proto__"],"x"]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := prepared(t, c.module)
			a, err := i.Handle(context.Background(), c.head, []byte(c.body))
			var failure *enginetest.Failure
			if c.failure != "" {
				if !errors.As(err, &failure) || !strings.Contains(failure.Log, c.failure) {
					t.Fatalf("failed with %v, want %q", err, c.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != c.status || string(a.Body) != c.want || !strings.Contains(a.Log, c.log) {
				t.Errorf("answered %d %q with the log %q", a.Status, a.Body, a.Log)
			}
		})
	}
}

// What a module makes while it loads is shared by all invocations: nothing that
// must be fresh may be made then.
func TestLoadingRefuses(t *testing.T) {
	for _, code := range []string{
		`crypto.getRandomValues(new Uint8Array(4))`, `crypto.randomUUID()`, `setTimeout(() => {}, 1)`, `setInterval(() => {}, 1)`, `AbortSignal.timeout(5)`,
		`await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, true, ["sign"])`,
	} {
		err := instance(t).Prepare(context.Background(), code+"; export default () => {};")
		var failure *enginetest.Failure
		if !errors.As(err, &failure) || !strings.Contains(failure.Log, "only inside a handler") {
			t.Errorf("%s while loading: %v", code, err)
		}
	}
}

// An invocation that follows another without a restore sees nothing of it.
func TestNothingKept(t *testing.T) {
	i := prepared(t, `export default { fetch(r, env, ctx) { const had = [ctx.mark, r.mark]; ctx.mark = r.mark = 1; return Response.json([r.method, r.casemate.id, had, new URL(r.url).pathname]); } };`)
	for _, h := range []enginetest.Head{{ID: "a", Method: "POST", Path: "/1"}, {ID: "b", Path: "/2"}} {
		a, err := i.Handle(context.Background(), h, nil)
		if err != nil {
			t.Fatal(err)
		}
		method := h.Method
		if method == "" {
			method = "GET"
		}
		var got any
		if err := json.Unmarshal(a.Body, &got); err != nil {
			t.Fatal(err)
		}
		if want := []any{method, h.ID, []any{nil, nil}, h.Path}; !reflect.DeepEqual(got, want) {
			t.Errorf("answered %v, want %v", got, want)
		}
	}
}

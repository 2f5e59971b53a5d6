// Request and Response.
const describeRequest = (r) => ({
  method: r.method, url: r.url, headers: [...r.headers], bodyUsed: r.bodyUsed, body: r.body === null ? null : typeof r.body, redirect: r.redirect, mode: r.mode,
  credentials: r.credentials, cache: r.cache, referrer: r.referrer, integrity: r.integrity, keepalive: r.keepalive, destination: r.destination, referrerPolicy: r.referrerPolicy, aborted: r.signal.aborted,
});
const U = "https://example.com/a?b";
for (const [label, make] of Object.entries({
  plain: () => new Request(U), normalises: () => new Request("HTTPS://Example.com:443/x y"), fragment: () => new Request(`${U}#c`), relative: () => new Request("/x"), credentials: () => new Request("https://u:p@a/"), "URL object": () => new Request(new URL(U)),
  post: () => new Request(U, { method: "post", body: "hi" }), patch: () => new Request(U, { method: "patch", body: "x" }), custom: () => new Request(U, { method: "Chicken" }), "bad method": () => new Request(U, { method: "a b" }), trace: () => new Request(U, { method: "TRACE" }), connect: () => new Request(U, { method: "connect" }), "empty method": () => new Request(U, { method: "" }),
  "get with body": () => new Request(U, { body: "x" }), "head with body": () => new Request(U, { method: "HEAD", body: "x" }), "null body": () => new Request(U, { body: null }), "empty body": () => new Request(U, { method: "POST", body: "" }),
  headers: () => new Request(U, { headers: { A: "b" } }), "content type kept": () => new Request(U, { method: "POST", body: "x", headers: { "Content-Type": "a/b" } }), params: () => new Request(U, { method: "POST", body: new URLSearchParams("a=b") }), bytes: () => new Request(U, { method: "POST", body: bytes(1, 2) }), blob: () => new Request(U, { method: "POST", body: new Blob(["x"], { type: "a/b" }) }),
  "bad redirect": () => new Request(U, { redirect: "x" }), manual: () => new Request(U, { redirect: "manual" }), "bad mode": () => new Request(U, { mode: "x" }), navigate: () => new Request(U, { mode: "navigate" }), cache: () => new Request(U, { cache: "no-store" }), "only-if-cached": () => new Request(U, { cache: "only-if-cached" }), creds: () => new Request(U, { credentials: "include" }), keepalive: () => new Request(U, { keepalive: 1 }), integrity: () => new Request(U, { integrity: "sha256-x" }), referrer: () => new Request(U, { referrer: "" }),
  "from request": () => new Request(new Request(U, { method: "POST", body: "x", headers: { a: "b" } })), "from request new method": () => new Request(new Request(U, { headers: { a: "b" } }), { method: "PUT", body: "y" }), "from request new headers": () => new Request(new Request(U, { headers: { a: "b" } }), { headers: { c: "d" } }), "url from request": () => new Request("https://other/", new Request(U, { method: "POST", body: "x", headers: { a: "b" } })),
  "no arguments": () => new Request(), "init not object": () => new Request(U, 5), "init null": () => new Request(U, null), "object url": () => new Request({ toString: () => U }), "bad signal": () => new Request(U, { signal: {} }), "null signal": () => new Request(U, { signal: null }), window: () => new Request(U, { window: 1 }), aborted: () => new Request(U, { signal: AbortSignal.abort() }),
})) test(`Request ${label}`, () => describeRequest(make()));
test("Request used body moves", async () => { const a = new Request(U, { method: "POST", body: "x" }); const b = new Request(a); return [a.bodyUsed, b.bodyUsed, await b.text(), await attemptAsync(() => a.text())]; });
test("Request from used request", async () => { const a = new Request(U, { method: "POST", body: "x" }); await a.text(); return new Request(a); });
test("Request from used request with new body", async () => { const a = new Request(U, { method: "POST", body: "x" }); await a.text(); return new Request(a, { body: "y" }).text(); });
test("Request clone", async () => { const a = new Request(U, { method: "POST", body: "x", headers: { a: "b" } }); const b = a.clone(); return [await a.text(), await b.text(), [...b.headers]]; });
test("Request clone used", async () => { const a = new Request(U, { method: "POST", body: "x" }); await a.text(); return a.clone(); });
test("Request signal follows", () => { const c = new AbortController(); const r = new Request(U, { signal: c.signal }); c.abort("why"); return [r.signal.aborted, r.signal.reason, r.signal === c.signal]; });
test("Request read-only", () => { "use strict"; const r = new Request(U); r.method = "POST"; });
test("Request JSON.stringify", () => JSON.stringify(new Request(U)));
test("Request keys", () => Object.keys(new Request(U)));
test("Request tag", () => `${new Request(U)}`);
test("Request json", () => new Request(U, { method: "POST", body: '{"a":[1,2]}' }).json());
test("Request json twice", async () => { const r = new Request(U, { method: "POST", body: "{}" }); await r.json(); return r.json(); });
test("Request json empty", () => new Request(U, { method: "POST" }).json());

const describeResponse = (r) => ({ status: r.status, ok: r.ok, statusText: r.statusText, type: r.type, url: r.url, redirected: r.redirected, headers: [...r.headers], body: r.body === null ? null : typeof r.body, bodyUsed: r.bodyUsed });
for (const [label, make] of Object.entries({
  empty: () => new Response(), "null": () => new Response(null), "undefined": () => new Response(undefined), string: () => new Response("hi"), "empty string": () => new Response(""), number: () => new Response(5), object: () => new Response({}), array: () => new Response([1, 2]), "boolean": () => new Response(true),
  bytes: () => new Response(bytes(1)), buffer: () => new Response(new ArrayBuffer(2)), view: () => new Response(new DataView(new ArrayBuffer(2))), blob: () => new Response(new Blob(["x"], { type: "text/html" })), "blob no type": () => new Response(new Blob(["x"])), params: () => new Response(new URLSearchParams("a=b")), stream: () => new Response(new ReadableStream()),
  status: () => new Response("x", { status: 404 }), "status text": () => new Response("x", { statusText: "Fine" }), "status 199": () => new Response("x", { status: 199 }), "status 600": () => new Response("x", { status: 600 }), "status 101": () => new Response(null, { status: 101 }), "status string": () => new Response("x", { status: "201" }), "status NaN": () => new Response("x", { status: "x" }), "status 200.9": () => new Response("x", { status: 200.9 }), "status 65736": () => new Response("x", { status: 65736 }),
  "204 body": () => new Response("x", { status: 204 }), "204": () => new Response(null, { status: 204 }), "304": () => new Response(null, { status: 304 }), "304 empty string": () => new Response("", { status: 304 }), "bad status text": () => new Response("x", { statusText: "a\nb" }), "init null": () => new Response("x", null), "init number": () => new Response("x", 5),
  headers: () => new Response("x", { headers: { A: "b" } }), "content type kept": () => new Response("x", { headers: { "content-type": "a/b" } }), "headers null": () => new Response("x", { headers: null }), "headers pairs": () => new Response("x", { headers: [["a", "b"], ["a", "c"]] }), "init response": () => new Response("x", new Response("y", { status: 201, headers: { a: "b" } })),
  error: () => Response.error(), redirect: () => Response.redirect("https://a/b c"), "redirect 301": () => Response.redirect("https://a", 301), "redirect 200": () => Response.redirect("https://a", 200), "redirect relative": () => Response.redirect("/x"), "redirect none": () => Response.redirect(),
  json: () => Response.json({ a: [1] }), "json null": () => Response.json(null), "json status": () => Response.json("x", { status: 201, headers: { a: "b" } }), "json type": () => Response.json({}, { headers: { "content-type": "application/x+json" } }), "json undefined": () => Response.json(undefined), "json none": () => Response.json(), "json function": () => Response.json(() => 1), "json circular": () => { const a = {}; a.a = a; return Response.json(a); }, "json 204": () => Response.json({}, { status: 204 }), "json bigint": () => Response.json(1n),
})) test(`Response ${label}`, () => describeResponse(make()));
for (const [label, make] of Object.entries({
  string: () => "hé\u{1f600}", "bom": () => "\ufeffx", lone: () => "a\ud800b", empty: () => "", bytes: () => bytes(0, 255, 65), "view part": () => new Uint8Array([1, 2, 3, 4]).subarray(1, 3), u16: () => new Uint16Array([1, 258]), buffer: () => bytes(65, 66).buffer, blob: () => new Blob(["a", bytes(66)]), params: () => new URLSearchParams({ a: "b c" }), nothing: () => null,
  stream: () => new ReadableStream({ start(c) { c.enqueue(bytes(65)); c.enqueue(bytes(66, 67)); c.close(); } }), "bad stream": () => new ReadableStream({ start(c) { c.enqueue("x"); c.close(); } }), "failed stream": () => new ReadableStream({ start(c) { c.error(new RangeError("no")); } }),
})) {
  test(`Body ${label} text`, () => new Response(make()).text());
  test(`Body ${label} arrayBuffer`, () => new Response(make()).arrayBuffer());
  test(`Body ${label} blob`, async () => { const b = await new Response(make()).blob(); return [b.type, b.size, await b.text()]; });
  test(`Body ${label} stream`, async () => { const out = []; const b = new Response(make()).body; if (b === null) return null; for await (const c of b) out.push(typeof c === "string" ? c : hex(c)); return out.join(""); });
}
for (const text of ["{}", "[1,2", "", "\ufeff1", '"\\ud800"', " 1 ", "nul"]) test(`Body json ${JSON.stringify(text)}`, () => new Response(text).json());
test("Body used states", async () => { const r = new Response("x"); const out = [r.bodyUsed]; const p = r.text(); out.push(r.bodyUsed); await p; out.push(r.bodyUsed, r.body.locked); return out; });
test("Body null never used", async () => { const r = new Response(); const out = [await r.text(), r.bodyUsed, await r.text(), (await r.arrayBuffer()).byteLength]; return out; });
test("Body twice", async () => { const r = new Response("x"); await r.text(); return r.text(); });
test("Body text then json", async () => { const r = new Response("1"); await r.text(); return r.json(); });
test("Body locked", () => { const r = new Response("x"); r.body.getReader(); return r.text(); });
test("Body locked clone", () => { const r = new Response("x"); r.body.getReader(); return r.clone(); });
test("Body reader released", async () => { const r = new Response("x"); r.body.getReader().releaseLock(); return r.text(); });
test("Body partially read", async () => { const r = new Response("x"); const d = r.body.getReader(); await d.read(); d.releaseLock(); return [r.bodyUsed, await attemptAsync(() => r.text())]; });
test("Body canceled", async () => { const r = new Response("x"); await r.body.cancel(); return [r.bodyUsed, await attemptAsync(() => r.text())]; });
test("Body same stream", () => { const r = new Response("x"); return r.body === r.body; });
test("Body clone both", async () => { const r = new Response("abc"); const c = r.clone(); return [await c.text(), await r.text()]; });
test("Body clone stream", async () => { const r = new Response(new ReadableStream({ start(c) { c.enqueue(bytes(65, 66)); c.close(); } })); const c = r.clone(); return [await c.text(), await r.text()]; });
test("Body clone after body access", async () => { const r = new Response("abc"); r.body; const c = r.clone(); return [await c.text(), await r.text()]; });
test("Body source not shared", async () => { const b = bytes(1, 2); const r = new Response(b); b[0] = 9; return hex(await r.arrayBuffer()); });
test("Body stream locked given", () => { const s = new ReadableStream(); s.getReader(); return new Response(s); });
test("Body stream used given", async () => { const s = new ReadableStream({ start(c) { c.close(); } }); await s.getReader().read(); return new Response(s); });
test("Response clone used", async () => { const r = new Response("x"); await r.text(); return r.clone(); });
test("Response clone keeps", () => describeResponse(new Response("x", { status: 202, statusText: "Yes", headers: { a: "b" } }).clone()));
test("Response keys", () => Object.keys(new Response("x")));
test("Response for in", () => { const k = []; for (const x in new Response("x")) k.push(x); return k.filter((x) => x !== "bytes").sort(); });
test("Request for in", () => { const k = []; for (const x in new Request(U)) k.push(x); return k.filter((x) => x !== "bytes" && x !== "casemate").sort(); });
test("Response tag", () => Object.prototype.toString.call(new Response()));
test("Response static names", () => ["error", "json", "redirect"].map((n) => typeof Response[n]));
test("Response hostile receiver", () => Object.getOwnPropertyDescriptor(Response.prototype, "status").get.call({}));
test("Response subclass", async () => { class R extends Response { get extra() { return 1; } } const r = new R("x", { status: 201 }); return [r.extra, r.status, await r.text(), r instanceof Response]; });
test("fetch is a function", () => [typeof fetch, fetch.length >= 1]);
test("fetch bad url", () => fetch("not a url"));

test("MIME type of blob()", async () => { const out = []; for (const t of ["text/html; charset=utf-8", "TEXT/HTML;Charset=\"UTF-8\"", "text/html;a=b;a=c", "nonsense", "a/b;", "a/b;=x;c", "a/b; x=\"q\\\"r\""]) out.push((await new Response("x", { headers: { "content-type": t } }).blob()).type); return out; });

// A body's stream is made real only when somebody touches it; none of this may show.
test("Response of a response's body", async () => { const a = new Response("abc", { status: 201, headers: { x: "1" } }); const b = new Response(a.body, a); const seen = [b.status, [...b.headers], a.bodyUsed, b.bodyUsed, a.body === b.body, b.body.locked]; return [seen, await b.text(), a.bodyUsed, b.bodyUsed, a.body.locked]; });
test("text after body", async () => { const r = new Response("abc"); const s = r.body; return [s.locked, await r.text(), s.locked, r.bodyUsed, r.body === s, attempt(() => s.getReader()), await r.text().catch((e) => e.name)]; });
test("json after body", async () => { const r = new Response("[1]"); r.body; return [await r.json(), r.bodyUsed]; });
test("reader after body", async () => { const r = new Response("abc"); const reader = r.body.getReader(); const { value, done } = await reader.read(); return [Array.from(value), done, (await reader.read()).done, r.bodyUsed]; });
test("locked body is unusable", async () => { const r = new Response("abc"); r.body.getReader(); return [r.bodyUsed, await r.text().catch((e) => e.name), attempt(() => new Response(r.body))]; });
test("clone after body", async () => { const r = new Response("abc"); r.body; const c = r.clone(); return [r.bodyUsed, c.bodyUsed, await r.text(), await c.text()]; });
test("tee of a body", async () => { const [a, b] = new Response("abc").body.tee(); return [await new Response(a).text(), await new Response(b).text()]; });
test("cancel of a body", async () => { const r = new Response("abc"); await r.body.cancel(); return [r.bodyUsed, await r.text().catch((e) => e.name)]; });
test("blob's stream", async () => { const b = new Blob(["abc"]); return [await new Response(b.stream()).text(), await b.text()]; });
test("Request of a request with its body read", async () => { const a = new Request("http://x.test/", { method: "POST", body: "abc" }); a.body; const b = new Request(a); return [await b.text(), a.bodyUsed]; });
test("Response.json without a value", () => attempt(() => Response.json()));
test("async self resolution", async () => { let p; const f = async () => { await null; return p; }; p = f(); return p.then(() => "fulfilled", (e) => e.name); });
test("async returns thenables", async () => { const order = []; const t = { then(f) { order.push("then"); f("t"); } }; const a = (async () => t)().then((v) => order.push(v)); const b = (async () => { throw t; })().catch((v) => order.push(v === t)); const c = (async () => ({ get then() { throw new RangeError("x"); } }))().catch((e) => order.push(e.name)); await Promise.all([a, b, c]); return order; });

// Headers.
const all = (h) => [...h];
for (const [label, make] of Object.entries({
  nothing: () => undefined, object: () => ({ "X-A": "1", b: 2 }), pairs: () => [["X-A", "1"], ["x-a", "2"]], headers: () => new Headers({ a: "b" }), map: () => new Map([["a", "b"]]),
  "null": () => null, string: () => "a", number: () => 1, "bad pair": () => [["a"]], three: () => [["a", "b", "c"]], "bad name": () => ({ "a b": "c" }), "empty name": () => ({ "": "c" }), "non-ascii name": () => ({ "é": "c" }),
  "newline value": () => ({ a: "b\nc" }), "nul value": () => ({ a: "b\0c" }), "space value": () => ({ a: "  b c\t" }), "newline around": () => ({ a: "\r\nb\r\n" }), "empty value": () => ({ a: "" }), latin1: () => ({ a: "é" }), wide: () => ({ a: "€" }),
  "undefined value": () => ({ a: undefined }), "null value": () => ({ a: null }), symbolKey: () => ({ [Symbol("s")]: "1" }), cookies: () => [["set-cookie", "a=1"], ["Set-Cookie", "b=2"], ["x", "y"]], generator: () => (function* () { yield ["x", "y"]; })(),
  "set pair": () => [new Set(["a", "b"])], "inherited": () => Object.create({ a: "b" }), "not enumerable": () => Object.defineProperty({}, "a", { value: "b" }), "params": () => new URLSearchParams("a=b"), "string pair": () => ["ab"], "empty list": () => [],
})) test(`Headers from ${label}`, () => all(new Headers(make())));
test("Headers get combines", () => new Headers([["a", "1"], ["A", "2"]]).get("a"));
test("Headers get missing", () => new Headers().get("a"));
test("Headers get bad name", () => new Headers().get("a b"));
test("Headers has", () => [new Headers({ a: "" }).has("A"), new Headers().has("a")]);
test("Headers has bad name", () => new Headers().has(""));
test("Headers set", () => { const h = new Headers([["a", "1"], ["b", "2"], ["a", "3"]]); h.set("A", "9"); return all(h); });
test("Headers append", () => { const h = new Headers({ a: "1" }); h.append("a", "2"); h.append("b", " 3 "); return all(h); });
test("Headers delete", () => { const h = new Headers([["a", "1"], ["b", "2"], ["a", "3"]]); h.delete("A"); return [all(h), h.delete("nope")]; });
test("Headers delete bad name", () => new Headers().delete("a b"));
test("Headers append missing argument", () => new Headers().append("a"));
test("Headers getSetCookie", () => { const h = new Headers([["set-cookie", "a=1; Expires=Wed, 01 Jan"], ["Set-Cookie", "b=2"]]); return [h.getSetCookie(), h.get("set-cookie"), all(h)]; });
test("Headers getSetCookie none", () => new Headers().getSetCookie());
test("Headers delete set-cookie", () => { const h = new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]]); h.delete("set-cookie"); return [h.getSetCookie(), all(h)]; });
test("Headers set set-cookie", () => { const h = new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]]); h.set("set-cookie", "c=3"); return h.getSetCookie(); });
test("Headers copy keeps cookies", () => new Headers(new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]])).getSetCookie());
test("Headers sorted", () => all(new Headers([["z", "1"], ["b", "2"], ["a", "3"], ["set-cookie", "x"], ["b", "4"]])));
test("Headers keys values", () => { const h = new Headers({ B: "1", a: "2" }); return [[...h.keys()], [...h.values()], [...h.entries()]]; });
test("Headers forEach", () => { const out = []; new Headers({ b: "1", a: "2" }).forEach(function (v, k, h) { out.push([v, k, this.x, h instanceof Headers]); }, { x: 1 }); return out; });
test("Headers forEach not a function", () => new Headers().forEach(5));
test("Headers iterate while changing", () => { const h = new Headers({ a: "1", c: "3" }); const out = []; for (const [k] of h) { out.push(k); if (k === "a") h.append("b", "2"); } return out; });
test("Headers iterator tag", () => Object.prototype.toString.call(new Headers().entries()));
test("Headers tag", () => Object.prototype.toString.call(new Headers()));
test("Headers iterator is entries", () => Headers.prototype.entries === Headers.prototype[Symbol.iterator]);
test("Headers keys none", () => Object.keys(new Headers({ a: "b" })));
test("Headers JSON", () => JSON.stringify(new Headers({ a: "b" })));
test("Headers fromEntries", () => Object.fromEntries(new Headers({ B: "1", a: "2" })));
test("Headers spread", () => ({ ...new Headers({ a: "b" }) }));
test("Headers without new", () => Headers());
test("Headers hostile receiver", () => Headers.prototype.get.call({}, "a"));
test("Headers length", () => [Headers.length, Headers.name, Headers.prototype.append.length]);
test("Headers response guard content-length", () => new Response("x", { headers: { "content-length": "9" } }).headers.get("content-length"));
test("Headers request forbidden name", () => new Request("https://a/", { headers: { host: "x", cookie: "y" } }).headers.get("cookie"));
test("Headers redirect immutable", () => Response.redirect("https://a/").headers.set("a", "b"));
test("Headers error immutable", () => Response.error().headers.append("a", "b"));
test("Headers of response live", () => { const r = new Response("x"); r.headers.set("A", "b"); return [r.headers.get("a"), r.headers === r.headers]; });
test("Headers of clone separate", () => { const r = new Response("x", { headers: { a: "1" } }); const c = r.clone(); c.headers.set("a", "2"); return [r.headers.get("a"), c.headers.get("a")]; });
test("Headers value number", () => { const h = new Headers(); h.set("n", 5); h.append("n", true); return h.get("n"); });
test("Headers name tokens", () => "!#$%&'*+-.^_`|~09azAZ (),/:;<=>?@[\\]{}\"\t\x7f".split("").map((c) => attempt(() => { new Headers({ [c]: "x" }); return true; })));
test("Headers conversion may change the list", () => { const h = new Headers({ a: "1", b: "2", c: "3" }); h.set({ toString() { h.delete("a"); return "B"; } }, { toString() { h.append("z", "9"); h.append("b", "8"); return " new "; } }); return [...h]; });
test("Headers set drops later ones", () => { const h = new Headers([["a", "1"], ["b", "2"], ["A", "3"], ["c", "4"], ["a", "5"]]); h.set("A", "x"); const one = [...h]; h.delete("a"); return [one, [...h], h.get("A"), h.has("C"), h.has("a")]; });
test("Headers delete all", () => { const h = new Headers([["a", "1"], ["a", "2"], ["b", "3"], ["a", "4"], ["a", "5"]]); h.delete("A"); h.append("q", "r"); return [[...h], h.get("b")]; });
test("Headers without arguments", () => ["append", "set", "delete", "get", "has"].map((m) => [attempt(() => new Headers()[m]()), attempt(() => Headers.prototype[m].call({}, "a", "b")), Headers.prototype[m].length, Headers.prototype[m].name]));
test("Headers of many", () => { const h = new Headers(); for (let i = 0; i < 100; i++) h.append(`X-${i % 30}`, i); return [...h]; });
test("Headers bad values", () => ["a\nb", "a\0", "\u0100", Symbol("s")].map((v) => attempt(() => { new Headers().set("a", v); return true; })));
test("Headers changed while iterated", () => { const h = new Headers({ a: "1", b: "2" }); const out = []; for (const [k] of h) { out.push(k); if (out.length < 5) h.append(`${k}x`, "1"); h.set("b", "3"); } return out; });

// structuredClone.
for (const [label, make] of Object.entries({
  primitives: () => [1, "a", true, null, undefined, NaN, -0, 5n], nested: () => ({ a: { b: [1, { c: 2 }] } }), date: () => new Date(5), "bad date": () => new Date(NaN), regexp: () => /a+/gi, map: () => new Map([[{ k: 1 }, "v"], ["x", new Map()]]), set: () => new Set([1, "a", { b: 1 }]),
  bytes: () => bytes(1, 2), buffer: () => bytes(1, 2).buffer, "float": () => new Float64Array([1.5]), big: () => new BigInt64Array([5n]), boxed: () => [Object("x"), Object(5), Object(true), Object(5n)], sparse: () => [1, , 3], "array with property": () => Object.assign([1], { x: 2 }), "null prototype": () => Object.assign(Object.create(null), { a: 1 }),
  error: () => new RangeError("no"), "error cause": () => new Error("x", { cause: new TypeError("y") }), domexception: () => new DOMException("m", "AbortError"), "own name": () => Object.assign(new Error("x"), { name: "Custom" }), "extra on error": () => Object.assign(new Error("x"), { extra: 1 }), blob: () => new Blob(["x"], { type: "a/b" }),
  "function": () => () => 1, symbol: () => Symbol("x"), "symbol inside": () => ({ a: Symbol("x") }), "symbol key": () => ({ [Symbol("x")]: 1, a: 1 }), promise: () => Promise.resolve(), weakmap: () => new WeakMap(), weakref: () => new WeakRef({}), headers: () => new Headers(), url: () => new URL("https://a"), getter: () => ({ get a() { return 1; } }), "throwing getter": () => ({ get a() { throw new RangeError("x"); } }), instance: () => new (class A { constructor() { this.x = 1; } y() {} })(), "not enumerable": () => Object.defineProperty({ a: 1 }, "b", { value: 2 }), proxy: () => new Proxy({ a: 1 }, {}), arguments: () => (function () { return arguments; })(1, 2), generator: () => (function* () {})(), "response": () => new Response(), "proto key": () => JSON.parse('{"__proto__":{"x":1},"a":2}'),
})) test(`clone ${label}`, () => { const v = make(); const c = structuredClone(v); if (c instanceof Error) return [c.name, c.message, c.constructor.name, Object.keys(c), c.cause?.message, c instanceof DOMException && c.code]; return [show(c), Object.prototype.toString.call(c), c !== v]; });
test("clone cycle", () => { const a = { x: 1 }; a.self = a; a.list = [a]; const c = structuredClone(a); return [c.self === c, c.list[0] === c, c !== a]; });
test("clone map cycle", () => { const m = new Map(); m.set("m", m); const c = structuredClone(m); return c.get("m") === c; });
test("clone shared", () => { const s = { n: 1 }; const c = structuredClone({ a: s, b: s }); return c.a === c.b; });
test("clone shared buffer", () => { const b = new ArrayBuffer(4); const c = structuredClone({ x: new Uint8Array(b), y: new Uint8Array(b, 1, 2) }); c.x[1] = 7; return [c.y[0], c.y.byteOffset, c.y.length, c.x.buffer === c.y.buffer]; });
test("clone dataview", () => { const c = structuredClone(new DataView(bytes(1, 2, 3).buffer, 1, 1)); return [c.constructor.name, c.byteLength, c.getUint8(0)]; });
test("clone transfer", () => { const b = bytes(1, 2).buffer; const c = structuredClone({ b }, { transfer: [b] }); return [b.byteLength, show(c.b)]; });
test("clone transfer view", () => { const v = bytes(1, 2); const c = structuredClone(v, { transfer: [v.buffer] }); return [v.byteLength, show(c)]; });
test("clone transfer twice", () => { const b = new ArrayBuffer(1); return structuredClone(b, { transfer: [b, b] }); });
test("clone transfer bad", () => structuredClone(1, { transfer: [{}] }));
test("clone transfer failure keeps", () => { const b = new ArrayBuffer(3); const e = attempt(() => structuredClone({ b, f() {} }, { transfer: [b] })); return [e, b.byteLength]; });
test("clone detached", () => { const b = new ArrayBuffer(3); structuredClone(b, { transfer: [b] }); return structuredClone(b); });
test("clone none", () => structuredClone());
test("clone regexp lastIndex", () => { const r = /a/g; r.lastIndex = 3; return structuredClone(r).lastIndex; });
test("clone array length", () => structuredClone(new Array(3)).length);
test("clone key order", () => Object.keys(structuredClone({ b: 1, 2: 2, a: 3, 1: 4 })));

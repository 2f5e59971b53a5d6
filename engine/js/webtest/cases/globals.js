// What is on the global object, and how classes look from outside.
for (const name of ["URL", "URLSearchParams", "Headers", "Request", "Response", "Blob", "File", "FormData", "TextEncoder", "TextDecoder", "ReadableStream", "WritableStream", "TransformStream", "TextEncoderStream", "TextDecoderStream", "Event", "CustomEvent", "EventTarget", "AbortController", "AbortSignal", "DOMException", "CryptoKey", "Crypto", "SubtleCrypto"]) {
  test(`global ${name}`, () => { const d = Object.getOwnPropertyDescriptor(globalThis, name); const c = globalThis[name]; return [typeof c, d.enumerable, d.configurable, c.name, c.length, c.prototype.constructor === c, Object.getOwnPropertyDescriptor(c.prototype, Symbol.toStringTag)?.value, attempt(() => c())]; });
  test(`global ${name} members`, () => { const p = globalThis[name].prototype; return Object.getOwnPropertyNames(p).filter((k) => !["constructor", "bytes", "casemate"].includes(k)).sort(); });
}
for (const name of ["fetch", "atob", "btoa", "setTimeout", "clearTimeout", "setInterval", "clearInterval", "queueMicrotask", "structuredClone", "console", "crypto", "performance", "navigator", "self", "globalThis"]) test(`global ${name}`, () => [typeof globalThis[name], name in globalThis]);
for (const name of ["process", "Buffer", "require", "module", "global", "__native", "gc", "print", "std", "os", "window", "document"]) test(`absent ${name}`, () => typeof globalThis[name]);
test("self is globalThis", () => globalThis.self === globalThis);
test("userAgent", () => typeof navigator.userAgent);
test("own names enumerable", () => ["fetch", "setTimeout", "URL", "Response"].map((k) => Object.prototype.propertyIsEnumerable.call(globalThis, k)));
for (const [c, k] of [["Response", "status"], ["Response", "text"], ["Headers", "get"], ["URL", "href"], ["Blob", "size"], ["AbortSignal", "aborted"], ["Event", "type"], ["FormData", "append"], ["TextDecoder", "encoding"], ["ReadableStream", "locked"]]) test(`enumerable ${c}.${k}`, () => { const d = Object.getOwnPropertyDescriptor(globalThis[c].prototype, k); return [d.enumerable, d.configurable]; });
for (const text of ["fetch", "text", "json", "clone"]) test(`Response method name ${text}`, () => text === "fetch" ? fetch.name : Response.prototype[text].name);
test("async iteration protocol", () => typeof ReadableStream.prototype[Symbol.asyncIterator]);
test("Date and JSON", () => [JSON.stringify(new Date(0)), new Date(86400000).toISOString(), Date.UTC(2024, 1, 29)]);
test("Intl absent is no surprise", () => (1234.5).toFixed(2));
test("Error stack", () => typeof new Error("x").stack);
test("regexp features", () => ["2024-05".match(/(?<y>\d+)-(?<m>\d+)/).groups.y, /\p{L}+/u.exec("été!")[0], "aBc".replace(/b/i, (x) => x + x), [..."a1b2".matchAll(/\d/g)].length]);
test("modern JavaScript", () => [[3, 1, 2].toSorted(), [1, 2].at(-1), Object.groupBy([1, 2, 3], (x) => (x % 2 ? "odd" : "even")), structuredClone({ a: 1n }).a === 1n, "ab".isWellFormed(), [1, [2]].flat(), new Set([1]).has(1), Array.fromAsync !== undefined]);
test("class features", () => { class A { #x = 1; static s = 2; get x() { return this.#x; } static { this.t = 3; } has(o) { return #x in o; } } const a = new A(); return [a.x, A.s, A.t, a.has(a), a.has({})]; });

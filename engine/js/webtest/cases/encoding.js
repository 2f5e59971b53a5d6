// TextEncoder, TextDecoder, atob, btoa.
for (const s of ["", "abc", "é€\u{1f600}", "\ud800", "a\udc00b", "\ud83d", "\ude00\ud83d", "\ufeffx", "\0", "\uffff", "x".repeat(100)]) {
  test(`TextEncoder ${JSON.stringify(s)}`, () => hex(new TextEncoder().encode(s)));
}
test("TextEncoder nothing", () => [hex(new TextEncoder().encode()), hex(new TextEncoder().encode(undefined)), hex(new TextEncoder().encode(null)), hex(new TextEncoder().encode(5))]);
test("TextEncoder owns its buffer", () => { const b = new TextEncoder().encode("héllo"); return [b.constructor.name, b.byteOffset]; });
for (const [s, n] of [["abc", 2], ["é€", 3], ["é€", 4], ["é€", 5], ["\u{1f600}x", 3], ["\u{1f600}x", 4], ["\u{1f600}x", 5], ["a\ud800", 4], ["a\ud800", 3], ["", 4], ["abc", 0]]) {
  test(`encodeInto ${JSON.stringify(s)} ${n}`, () => { const b = new Uint8Array(n); return [new TextEncoder().encodeInto(s, b), hex(b)]; });
}
test("encodeInto part of a buffer", () => { const b = new Uint8Array(8); new TextEncoder().encodeInto("xyz", b.subarray(2, 4)); return hex(b); });
test("encodeInto not bytes", () => new TextEncoder().encodeInto("x", new Uint16Array(4)));
test("encodeInto no destination", () => new TextEncoder().encodeInto("x"));
for (const b of [[], [0x61], [0xc3, 0xa9], [0xe2, 0x82, 0xac], [0xf0, 0x9f, 0x98, 0x80], [0xef, 0xbb, 0xbf, 0x61], [0xef, 0xbb, 0xbf, 0xef, 0xbb, 0xbf], [0xef, 0xbb], [0xff], [0xc0, 0x80], [0xc3], [0xc3, 0x28], [0xe2, 0x82], [0xe2, 0x28, 0xa1], [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0x98], [0xf0, 0x80, 0x80, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80, 0x80, 0x80], [0x61, 0x80, 0x62], [0xe0, 0x80, 0xaf], [0xf8, 0x88, 0x80, 0x80, 0x80], [0xf0, 0x9f, 0x41], [0xe2, 0x82, 0xac, 0xe2]]) {
  test(`utf-8 decode ${b}`, () => [new TextDecoder().decode(bytes(...b)), attempt(() => new TextDecoder("utf-8", { fatal: true }).decode(bytes(...b))), new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes(...b))]);
}
for (const b of [[0x61, 0], [0xff, 0xfe, 0x61, 0], [0x3d, 0xd8, 0, 0xde], [0x3d, 0xd8], [0, 0xdc, 0x61, 0], [0x61], [0x61, 0, 0x62], [0x3d, 0xd8, 0x61, 0], [0x3d, 0xd8, 0]]) {
  test(`utf-16le decode ${b}`, () => [new TextDecoder("utf-16le").decode(bytes(...b)), attempt(() => new TextDecoder("utf-16le", { fatal: true }).decode(bytes(...b))), new TextDecoder("utf-16le", { ignoreBOM: true }).decode(bytes(...b))]);
}
test("latin1 decode", () => new TextDecoder("latin1").decode(Uint8Array.from({ length: 256 }, (_, i) => i)));
for (const label of ["utf-8", "UTF8", " utf-8\n", "unicode-1-1-utf-8", "latin1", "ascii", "iso-8859-1", "windows-1252", "us-ascii", "utf-16", "UTF-16LE", "ucs-2", "nope", "", "utf-7", "utf-8\0", "\u00a0utf-8"]) {
  test(`TextDecoder label ${JSON.stringify(label)}`, () => new TextDecoder(label).encoding);
}
test("TextDecoder properties", () => { const d = new TextDecoder("utf-8", { fatal: 1, ignoreBOM: "x" }); return [d.encoding, d.fatal, d.ignoreBOM, new TextDecoder().fatal]; });
for (const [label, chunks] of [["utf-8", [[0xe2], [0x82, 0xac]]], ["utf-8", [[0xf0, 0x9f], [0x98], [0x80, 0x61]]], ["utf-8", [[0xef], [0xbb], [0xbf, 0x61]]], ["utf-8", [[0xef, 0xbb], [0x61]]], ["utf-8", [[0xe2], [0x61]]], ["utf-8", [[0xf0, 0x9f], []]], ["utf-8", [[0x61], [0xef, 0xbb, 0xbf]]], ["utf-8", [[0xe0, 0x80], [0x80]]], ["utf-8", [[0xed, 0xa0], [0x80]]], ["utf-16le", [[0x61], [0, 0x62], [0]]], ["utf-16le", [[0x3d, 0xd8], [0, 0xde]]], ["utf-16le", [[0x3d], [0xd8, 0], [0xde]]], ["utf-16le", [[0xff], [0xfe, 0x61], [0]]], ["utf-16le", [[0x3d, 0xd8], [0x61, 0]]]]) {
  test(`decode stream ${label} ${JSON.stringify(chunks)}`, () => { const d = new TextDecoder(label); const out = chunks.map((c) => d.decode(bytes(...c), { stream: true })); return [out.join(""), d.decode(), d.decode(bytes(0x41, 0x42))]; });
}
test("decode stream fatal end", () => { const d = new TextDecoder("utf-8", { fatal: true }); return [d.decode(bytes(0xe2, 0x82), { stream: true }), attempt(() => d.decode()), d.decode(bytes(0x41))]; });
test("decode view", () => new TextDecoder().decode(new DataView(bytes(0x41, 0x42, 0x43).buffer, 1, 1)));
test("decode buffer", () => new TextDecoder().decode(bytes(0x41).buffer));
test("decode string", () => new TextDecoder().decode("x"));
test("decode null", () => new TextDecoder().decode(null));
test("decode chunk reused by caller", () => { const d = new TextDecoder(); const b = bytes(0xe2); d.decode(b, { stream: true }); b[0] = 0x41; return d.decode(bytes(0x82, 0xac)); });
for (const s of ["", "a", "ab", "abc", "\xff\0", "é", "€", 12, null]) test(`btoa ${JSON.stringify(s)}`, () => btoa(s));
for (const s of ["", "YQ==", "YQ", "YWI=", "YWJj", " Y Q = = ", "YQ=", "Y", "YQ===", "=", "Y=Q=", "ab-_", "YR==", "\nYWJj\t", "YWJj\u00a0", null, "abcde", "////"]) test(`atob ${JSON.stringify(s)}`, () => atob(s));
test("atob none", () => atob());
test("btoa none", () => btoa());

// URL and URLSearchParams. The standard's own table of cases is run separately;
// here is what handlers do, and the shape of the classes.
const PARTS = "href origin protocol username password host hostname port pathname search hash".split(" ");
const parts = (u) => Object.fromEntries(PARTS.map((p) => [p, u[p]]));

for (const [input, base] of [
  ["https://example.com/"], ["https://example.com"], ["HTTPS://EXAMPLE.com/"], ["https://example.com:443/"], ["http://example.com:80/a"],
  ["http://example.com:8080/a?b#c"], ["https://example.com/a/../b/./c"], ["https://example.com/a%2e%2e/b"], ["https://example.com/%2e%2e/b"],
  ["https://example.com/a b"], ["https://example.com/é?ü#ß"], ["https://user:pass@example.com/"], ["https://user@example.com/"], ["https://:p@example.com/"],
  ["https://example.com?"], ["https://example.com#"], ["https://example.com/?#"], ["https://example.com/?a=1&b=2#frag"], ["https://example.com/'?'#'"],
  ["http://127.0.0.1/"], ["http://0x7f.1/"], ["http://2130706433/"], ["http://1.2.3/"], ["http://256.256.256.256/"], ["http://1.2.3.4.5/"], ["http://09/"],
  ["http://[::1]/"], ["http://[1:2:3:4:5:6:7:8]/"], ["http://[1::8]:8080/x"], ["http://[::ffff:1.2.3.4]/"], ["http://[::1"], ["http://[1::2::3]/"], ["http://[g::1]/"],
  ["http://münchen.de/"], ["http://faß.de/"], ["http://日本語.jp/"], ["http://xn--mnchen-3ya.de/"], ["http://EXAMPLE。com/"], ["http://ex%41mple.com/"], ["http://a b/"], ["http://a%00b/"],
  ["http://example.com:99999/"], ["http://example.com:0/"], ["http://example.com:/"], ["http://example.com:08/"], ["http://example.com:a/"],
  ["mailto:someone@example.com"], ["data:text/plain,Hello, World"], ["javascript:alert(1)"], ["urn:isbn:123?q#f"], ["foo://bar/baz"], ["foo:/a/../b"], ["foo:a/../b"], ["foo://B%41R/"],
  ["file:///etc/passwd"], ["file://host/share"], ["file:///C|/x"], ["file:C:/x/../../y"], ["blob:https://example.com/uuid"], ["ws://x:80/"], ["wss://x:443/"], ["ftp://x:21/"],
  ["/path", "https://example.com/a/b"], ["path", "https://example.com/a/b"], ["../x", "https://example.com/a/b/c"], ["?q", "https://example.com/a/b?x#y"], ["#h", "https://example.com/a/b?x#y"],
  ["", "https://example.com/a/b?x#y"], ["//other.org/x", "https://example.com/a"], ["\\x\\y", "https://example.com/a"], ["https:x", "https://example.com/a/b"], ["http:x", "https://example.com/a/b"],
  ["x", "mailto:a@b"], ["#x", "mailto:a@b"], ["x", "not a url"], ["not a url"], [""], ["//x"], ["/x"], ["https://"], ["https:///x"], ["https:example.com"], ["http:/\\/example.com"],
  ["  https://example.com/  "], ["https://exa\tmple.com/\na"], ["https://example.com/a\\b\\c"], ["https://example.com/%"], ["https://example.com/%zz%41"], ["https://example.com/\u{1f600}"], ["https://example.com/\ud800"],
  ["https://ex_ample.com/"], ["https://-a-.com/"], ["https://a..b/"], ["https://.a/"], ["https://a./"], ["https://a.b.c.d.e/f"], ["https://example.com/{}|`"], ["https://example.com/;a=b,c:@!$&'()*+"], ["https://example.com//double//slash"],
]) test(`URL ${JSON.stringify(input)} ${base ?? ""}`, () => parts(new URL(input, base)));

for (const [href, property, value] of [
  ["https://a.b/c?d#e", "protocol", "http"], ["https://a.b/c?d#e", "protocol", "ftp:"], ["https://a.b/", "protocol", "foo"], ["foo://a/", "protocol", "https"], ["https://a.b:8080/", "protocol", "http:80"],
  ["https://a.b/", "username", "me@x"], ["https://a.b/", "password", "p:w/"], ["file:///x", "username", "me"],
  ["https://a.b/", "host", "c.d:81"], ["https://a.b:9/", "host", "c.d"], ["https://a.b/", "host", ""], ["https://a.b/", "host", "x/y"], ["https://a.b/", "host", "x:99999"], ["https://a.b/", "host", "[::1]:2"], ["mailto:x", "host", "y"],
  ["https://a.b:9/", "hostname", "c.d:81"], ["https://a.b/", "hostname", "c d"], ["https://a.b/", "hostname", "127.1"], ["foo://a/b", "hostname", ""],
  ["https://a.b/", "port", "8080"], ["https://a.b:1/", "port", "443"], ["https://a.b:1/", "port", ""], ["https://a.b:1/", "port", "x"], ["https://a.b:1/", "port", "90x"], ["https://a.b:1/", "port", "65536"], ["https://a.b:1/", "port", 12],
  ["https://a.b/c", "pathname", "x/y z"], ["https://a.b/c", "pathname", "/../q"], ["https://a.b/c", "pathname", ""], ["https://a.b/c", "pathname", "?#"], ["mailto:x", "pathname", "y"], ["foo://h/p", "pathname", ""],
  ["https://a.b/c?d", "search", "x=1&y=é"], ["https://a.b/c?d", "search", "?x"], ["https://a.b/c?d", "search", ""], ["https://a.b/c?d", "search", "?"], ["https://a.b/c", "search", "#a'"],
  ["https://a.b/c#d", "hash", "x y"], ["https://a.b/c#d", "hash", "#x"], ["https://a.b/c#d", "hash", ""], ["https://a.b/c#d", "hash", "#"],
  ["https://a.b/c#d", "href", "http://x.y/z?1"], ["https://a.b/", "href", "nope"], ["https://a.b/c#d", "origin", "http://x.y"],
]) test(`URL set ${property} of ${href} to ${JSON.stringify(value)}`, () => {
  const u = new URL(href);
  const s = u.searchParams;
  try {
    u[property] = value;
  } catch (e) {
    return [threw(e), u.href];
  }
  return [parts(u), s.toString()];
});

test("URL without new", () => URL("https://a/"));
test("URL without arguments", () => new URL());
test("URL of a URL", () => new URL(new URL("https://a/b")).href);
test("URL base is a URL", () => new URL("c", new URL("https://a/b/")).href);
test("URL base undefined", () => new URL("https://a/", undefined).href);
test("URL base null", () => new URL("https://a/", null).href);
test("URL symbol", () => new URL(Symbol("x")));
test("URL JSON", () => JSON.stringify({ u: new URL("https://a/b?c") }));
test("URL string", () => `${new URL("https://a/b?c")}`);
test("URL tag", () => Object.prototype.toString.call(new URL("https://a")));
test("URL keys", () => Object.keys(new URL("https://a")));
test("URL for in", () => { const k = []; for (const x in new URL("https://a")) k.push(x); return k.sort(); });
test("URL.canParse", () => [URL.canParse("https://a"), URL.canParse("x"), URL.canParse("x", "https://a"), URL.canParse("x", "y")]);
test("URL searchParams same object", () => { const u = new URL("https://a/?x=1"); return u.searchParams === u.searchParams; });
test("URL searchParams write", () => { const u = new URL("https://a/?x=1#h"); u.searchParams.append("y", "a b&c"); u.searchParams.delete("x"); return [u.href, u.search]; });
test("URL searchParams empty", () => { const u = new URL("https://a/?x=1#h"); u.searchParams.delete("x"); return [u.href, u.search]; });
test("URL searchParams normalises on write", () => { const u = new URL("https://a/?a=%7e&b=~ '"); u.searchParams.sort(); return u.href; });
test("URL search updates params", () => { const u = new URL("https://a/?x=1"); const p = u.searchParams; u.search = "?z=2&z=3"; return [...p]; });
test("URL href updates params", () => { const u = new URL("https://a/?x=1"); const p = u.searchParams; u.href = "https://b/?q"; return [...p]; });
test("URL hostile receiver", () => Object.getOwnPropertyDescriptor(URL.prototype, "href").get.call({}));

for (const init of ["", "?", "a=1", "?a=1&b=2", "??a=b", "a", "a&b", "a=&b=", "=x", "&&a=1&&", "a=b=c", "a=1+2", "a=1%2B2", "a=%zz", "a=%E4%BD%A0", "a=%ff", "%61=%62", "a=é", "a=\ud800", "a=b;c=d", "#a=b", "a+b=c+d", "a%20b"]) {
  test(`URLSearchParams ${JSON.stringify(init)}`, () => { const p = new URLSearchParams(init); return [[...p], p.toString(), p.size]; });
}
for (const [label, make] of Object.entries({
  record: () => ({ a: 1, b: "x y", c: undefined, d: null }), pairs: () => [["a", "1"], ["a", "2"]], params: () => new URLSearchParams("a=1&a=2"), map: () => new Map([["a", "b"]]),
  "bad pair": () => [["a"]], "three": () => [["a", "b", "c"]], "not pairs": () => [1], "string pair": () => ["ab"], "null": () => null, number: () => 5, "undefined": () => undefined, symbolKey: () => ({ [Symbol("s")]: 1 }),
  "empty object": () => ({}), generator: () => (function* () { yield ["x", "y"]; })(), "form data": () => { const f = new FormData(); f.append("k", "v"); return f; }, "iterator null": () => ({ [Symbol.iterator]: null, a: "b" }), "function": () => function f() {},
})) test(`URLSearchParams from ${label}`, () => { const p = new URLSearchParams(make()); return [...p]; });
for (const text of ["a b", "ä", "*-._~", "!'()", "\u{1f600}", "\0", "%", "a&b=c", "+", "\n"]) test(`URLSearchParams encodes ${JSON.stringify(text)}`, () => new URLSearchParams([[text, text]]).toString());
test("URLSearchParams methods", () => {
  const p = new URLSearchParams("a=1&b=2&a=3");
  const out = [p.get("a"), p.get("z"), p.getAll("a"), p.getAll("z"), p.has("b"), p.has("z"), p.has("a", "3"), p.has("a", "4")];
  p.set("a", "9");
  out.push(p.toString());
  p.set("new", "1");
  p.append("a", "10");
  out.push(p.toString());
  p.delete("a", "10");
  out.push(p.toString());
  p.delete("a");
  out.push(p.toString(), p.size);
  return out;
});
test("URLSearchParams sort", () => { const p = new URLSearchParams("z=1&a=2&z=0&\ufffd=3&\u{1f600}=4&b=5"); p.sort(); return p.toString(); });
test("URLSearchParams iterate while deleting", () => { const p = new URLSearchParams("a=1&b=2&c=3"); const out = []; for (const [k] of p) { out.push(k); p.delete(k); } return out; });
test("URLSearchParams keys values", () => { const p = new URLSearchParams("a=1&b=2"); return [[...p.keys()], [...p.values()], [...p.entries()]]; });
test("URLSearchParams forEach", () => { const out = []; new URLSearchParams("a=1&b=2").forEach(function (v, k, p) { out.push([v, k, this.x, p instanceof URLSearchParams]); }, { x: 7 }); return out; });
test("URLSearchParams iterator", () => { const i = new URLSearchParams("a=1")[Symbol.iterator](); return [Object.prototype.toString.call(i), typeof i.next, i[Symbol.iterator]() === i, i.next(), i.next()]; });
test("URLSearchParams entries is iterator", () => URLSearchParams.prototype.entries === URLSearchParams.prototype[Symbol.iterator]);
test("URLSearchParams get without arguments", () => new URLSearchParams().get());
test("URLSearchParams append one argument", () => new URLSearchParams().append("a"));
test("URLSearchParams to request body", async () => { const r = new Response(new URLSearchParams("a=b c")); return [r.headers.get("content-type"), await r.text()]; });

// Blob, File, FormData.
for (const [label, make] of Object.entries({
  empty: () => new Blob(), parts: () => new Blob(["a", bytes(66), new Blob(["c"]), bytes(68).buffer]), type: () => new Blob(["x"], { type: "Text/PLAIN" }), "bad type": () => new Blob([], { type: "é" }), "object part": () => new Blob([{}, 5, null]), view: () => new Blob([new Uint16Array([0x4142])]), endings: () => new Blob(["a\r\nb\nc\r"], { endings: "native" }), "bad endings": () => new Blob([], { endings: "x" }),
  "not a list": () => new Blob("x"), "object": () => new Blob({}), "number": () => new Blob(5), set: () => new Blob(new Set(["a", "b"])), "lone surrogate": () => new Blob(["\ud800"]), "undefined": () => new Blob(undefined), nullOptions: () => new Blob([], null),
})) test(`Blob ${label}`, async () => { const b = make(); return [b.size, b.type, await b.text(), `${b}`]; });
for (const args of [[], [1], [1, 3], [-2], [0, -1], [3, 1], [0, 99], [1, 2, "a/b"]]) test(`Blob slice ${JSON.stringify(args)}`, async () => { const b = new Blob(["hello"], { type: "x/y" }).slice(...args); return [b.size, b.type, await b.text()]; });
test("Blob arrayBuffer", () => new Blob([bytes(1, 2)]).arrayBuffer());
test("Blob stream", async () => { const out = []; for await (const c of new Blob(["abc"]).stream()) out.push(hex(c)); return out; });
test("Blob text invalid", () => new Blob([bytes(0xff, 0x41)]).text());
test("Blob source not shared", async () => { const v = bytes(65); const b = new Blob([v]); v[0] = 66; return b.text(); });
test("File", async () => { const f = new File(["x"], "n.txt", { type: "a/b", lastModified: 5 }); return [f.name, f.type, f.size, f.lastModified, f instanceof Blob, `${f}`, await f.text()]; });
test("File no name", () => new File(["x"]));
test("File lastModified default", () => typeof new File([], "x").lastModified);
const form = (...list) => { const f = new FormData(); for (const a of list) f.append(...a); return f; };
const entries = async (f) => { const out = []; for (const [k, v] of f) out.push(typeof v === "string" ? [k, v] : [k, v.constructor.name, v.name, v.type, await v.text()]); return out; };
test("FormData basics", () => entries(form(["a", "1"], ["b", 2], ["a", "3"])));
test("FormData get", () => { const f = form(["a", "1"], ["a", "2"]); return [f.get("a"), f.get("z"), f.getAll("a"), f.getAll("z"), f.has("a"), f.has("z")]; });
test("FormData set", async () => { const f = form(["a", "1"], ["b", "2"], ["a", "3"]); f.set("a", "9"); f.set("c", "4"); return entries(f); });
test("FormData delete", async () => { const f = form(["a", "1"], ["b", "2"], ["a", "3"]); f.delete("a"); return entries(f); });
test("FormData blob", () => entries(form(["a", new Blob(["x"], { type: "t/u" })], ["b", new Blob(["y"]), "n"], ["c", new File(["z"], "f.txt")], ["d", new File(["z"], "f.txt"), "g.txt"])));
test("FormData filename without blob", () => form(["a", "x", "name"]));
test("FormData one argument", () => form(["a"]));
test("FormData constructor argument", () => new FormData({}));
test("FormData iterate", () => { const f = form(["a", "1"], ["b", "2"]); const out = []; f.forEach((v, k) => out.push([k, v])); return [[...f.keys()], [...f.values()], out, `${f}`, `${f.entries()}`]; });
test("FormData round trip", async () => entries(await new Response(form(["a", "1"], ["ü\"\n", "x\r\ny\nz"], ["f", new File([bytes(0, 255, 13, 10)], "b\"in.dat", { type: "a/b" })])).formData()));
test("FormData content type", () => /^multipart\/form-data; ?boundary=/.test(new Response(form(["a", "1"])).headers.get("content-type")));
test("FormData text shape", async () => { const r = new Response(form(["a", "1"], ["f", new Blob(["x"]), "n"])); const b = /boundary=(.*)$/.exec(r.headers.get("content-type"))[1]; return (await r.text()).replaceAll(b, "B"); });
const multipart = (text, type = "multipart/form-data; boundary=B") => new Response(text, { headers: { "content-type": type } }).formData();
for (const [label, text, type] of [
  ["plain", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\n"], ["no final newline", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--"],
  ["file", "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f.txt\"\r\nContent-Type: text/html\r\n\r\n<p>\r\n--B--\r\n"], ["file without type", "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f\"\r\n\r\nx\r\n--B--\r\n"],
  ["quoted boundary", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\n", "multipart/form-data; boundary=\"B\""], ["two", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n\r\n--B--\r\n"],
  ["utf-8", "--B\r\nContent-Disposition: form-data; name=\"é\"\r\n\r\nü\r\n--B--\r\n"], ["no boundary", "x", "multipart/form-data"], ["cut", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1"], ["garbage", "garbage"], ["no name", "--B\r\nContent-Disposition: form-data\r\n\r\n1\r\n--B--\r\n"], ["empty body", ""], ["other type", "{}", "application/json"],
  ["urlencoded", "a=1&b=%C3%A9+x&a=2", "application/x-www-form-urlencoded"], ["urlencoded charset", "a=1", "application/x-www-form-urlencoded; charset=utf-8"], ["boundary inside", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx--By\r\n--B--\r\n"], ["lowercase", "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\n"],
]) test(`formData ${label}`, async () => entries(await multipart(text, type)));
test("formData no type", () => new Response(bytes(1)).formData());
test("formData of request", async () => entries(await new Request("https://a/", { method: "POST", body: form(["x", "y"]) }).formData()));

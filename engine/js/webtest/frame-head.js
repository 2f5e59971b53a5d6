// What stands before the cases: the same text runs in our engine and in Node.js.
// test(name, f) notes a case whose value is compared; log(name, f) one whose log
// lines are compared.
const cases = [];
const names = new Set();

function note(kind, name, f) {
  if (names.has(name)) throw new Error(`two cases are called ${name}`);
  names.add(name);
  cases.push({ kind, name, f });
}

const test = (name, f) => note("test", name, f);
const log = (name, f) => note("log", name, f);

// show makes JSON of any value, and of what JSON loses a text that tells it.
function show(v) {
  if (v === undefined) return "«undefined»";
  if (typeof v === "number" && (!Number.isFinite(v) || Object.is(v, -0))) return `«${Object.is(v, -0) ? "-0" : v}»`;
  if (typeof v === "bigint") return `«${v}n»`;
  if (typeof v === "symbol" || typeof v === "function") return `«${typeof v}»`;
  if (typeof v !== "object" || v === null) return v;
  if (v instanceof ArrayBuffer) return { arrayBuffer: [...new Uint8Array(v)] };
  if (ArrayBuffer.isView(v) && !(v instanceof DataView)) return { [v.constructor.name]: Array.from(v, show) };
  if (v instanceof Map) return { map: [...v].map(show) };
  if (v instanceof Set) return { set: [...v].map(show) };
  if (v instanceof Date) return { date: Number.isNaN(v.getTime()) ? "invalid" : v.toISOString() };
  if (v instanceof RegExp) return { regexp: String(v) };
  if (v instanceof Error) return { error: v.name, message: v.message };
  if (Array.isArray(v)) return Array.from(v, show);
  const out = {};
  for (const k of Object.keys(v)) out[k] = show(v[k]);
  return out;
}

// threw is what a case gives that fails: the kind of failure, not its words.
function threw(e) {
  if (e !== null && typeof e === "object" && "name" in e) {
    const out = { threw: e.name };
    if (e instanceof DOMException) out.domException = e.code;
    return out;
  }
  return { threwValue: show(e) };
}

const attempt = (f) => {
  try {
    return show(f());
  } catch (e) {
    return threw(e);
  }
};

const attemptAsync = async (f) => {
  try {
    return show(await f());
  } catch (e) {
    return threw(e);
  }
};

const hex = (b) => Array.from(new Uint8Array(b.buffer ?? b, b.byteOffset ?? 0, b.byteLength), (x) => x.toString(16).padStart(2, "0")).join("");
const bytes = (...b) => new Uint8Array(b);
const MARK = "\u0001";

// How console.log shows values: close to Node.js's util.inspect, without its options.
const LINE_WIDTH = 80;
const LEVELS_ON_A_LINE = 3; // as many levels of nesting may share one line
const LIST_MAX = 100;
const STRING_MAX = 10000;
const IDENTIFIER = /^[a-zA-Z_$][a-zA-Z_$0-9]*$/;

// inspect gives the text of any value. depth counts the levels of nesting shown.
function inspect(value, depth = 2) {
  // deepest is the level of the object most recently entered.
  const state = { seen: [], circular: null, depth, deepest: 0 };
  return inspectValue(state, value, 0);
}

function quote(s) {
  let q = "'";
  if (s.includes("'")) q = !s.includes('"') ? '"' : !s.includes("`") && !s.includes("${") ? "`" : "'";
  const body = s.replace(/[\0-\x1f\x7f-\x9f\\'\ud800-\udfff]/gu, (c) => {
    switch (c) {
      case "\n": return "\\n";
      case "\t": return "\\t";
      case "\r": return "\\r";
      case "\b": return "\\b";
      case "\f": return "\\f";
      case "\v": return "\\v";
      case "\\": return "\\\\";
      case "'": return q === "'" ? "\\'" : "'";
    }
    const n = c.charCodeAt(0);
    return n > 0xff ? `\\u${n.toString(16).toUpperCase()}` : `\\x${n.toString(16).toUpperCase().padStart(2, "0")}`;
  });
  return q + body + q;
}

function inspectPrimitive(v) {
  switch (typeof v) {
    case "string": {
      if (v.length > STRING_MAX) return `${quote(v.slice(0, STRING_MAX))}... ${v.length - STRING_MAX} more character${v.length - STRING_MAX > 1 ? "s" : ""}`;
      return quote(v);
    }
    case "number": return Object.is(v, -0) ? "-0" : `${v}`;
    case "bigint": return `${v}n`;
    case "symbol": return v.toString();
    default: return `${v}`;
  }
}

function inspectValue(state, v, level) {
  if (!isObject(v)) return inspectPrimitive(v);
  if (state.seen.includes(v)) {
    state.circular ??= new Map();
    if (!state.circular.has(v)) state.circular.set(v, state.circular.size + 1);
    return `[Circular *${state.circular.get(v)}]`;
  }
  const custom = v[Symbol.for("nodejs.util.inspect.custom")];
  if (typeof custom === "function") {
    const shown = custom.call(v, state.depth - level, {}, inspect);
    if (shown !== v) return typeof shown === "string" ? shown : inspectValue(state, shown, level);
  }
  return inspectObject(state, v, level);
}

// constructorName finds the name in the prototype chain; null without one.
function constructorName(v) {
  for (let o = v; o !== null; o = Object.getPrototypeOf(o)) {
    const d = Object.getOwnPropertyDescriptor(o, "constructor");
    if (d !== undefined && typeof d.value === "function" && d.value.name !== "") return d.value.name;
  }
  return null;
}

// prefixOf is what stands before the brackets: "Map(2) ", "[Object: null prototype] ".
function prefixOf(v, fallback, size) {
  const name = constructorName(v);
  const count = size === undefined ? "" : `(${size})`;
  let out = name === null ? `[${fallback}${count}: null prototype] ` : `${name}${count} `;
  let t = Object.hasOwn(v, Symbol.toStringTag) ? "" : v[Symbol.toStringTag];
  if (typeof t !== "string" || t === "" || t === name) t = "";
  if (t !== "") out += `[${t}] `;
  return out;
}

function inspectObject(state, v, level) {
  let keys = ownKeys(v);
  let braces = ["{", "}"];
  let base = "";
  let prefix = "";
  let body = () => [];
  let listLike = false;
  const elementTag = typedArrayName(v);

  if (isArray(v)) {
    keys = keys.filter((k) => !isIndex(k));
    const name = constructorName(v);
    prefix = name === "Array" ? "" : prefixOf(v, "Array", v.length);
    if (name === "Array" && v[Symbol.toStringTag] !== undefined) prefix = prefixOf(v, "Array", v.length);
    braces = ["[", "]"];
    listLike = true;
    if (v.length === 0 && keys.length === 0) return `${prefix}[]`;
    body = () => arrayItems(state, v, level);
  } else if (elementTag !== undefined) {
    keys = keys.filter((k) => !isIndex(k));
    prefix = prefixOf(v, elementTag, v.length);
    braces = ["[", "]"];
    listLike = true;
    if (v.length === 0 && keys.length === 0) return `${prefix}[]`;
    body = () => limited(v.length, (i) => inspectPrimitive(v[i]));
  } else if (v instanceof Map) {
    prefix = prefixOf(v, "Map", v.size);
    const pairs = () => [...Map.prototype.entries.call(v)];
    body = () => limited(v.size, (i, all) => `${inspectValue(state, all[i][0], level + 1)} => ${inspectValue(state, all[i][1], level + 1)}`, pairs());
    if (v.size === 0 && keys.length === 0) return `${prefix}{}`;
  } else if (v instanceof Set) {
    prefix = prefixOf(v, "Set", v.size);
    body = () => limited(v.size, (i, all) => inspectValue(state, all[i], level + 1), [...Set.prototype.values.call(v)]);
    if (v.size === 0 && keys.length === 0) return `${prefix}{}`;
  } else if (isArrayBuffer(v)) {
    prefix = prefixOf(v, "ArrayBuffer");
    const bytes = new Uint8Array(v);
    body = () => {
      const shown = Array.from(bytes.subarray(0, 50), (b) => b.toString(16).padStart(2, "0")).join(" ");
      const more = bytes.length > 50 ? ` ... ${bytes.length - 50} more byte${bytes.length > 51 ? "s" : ""}` : "";
      return [`[Uint8Contents]: <${shown}${more}>`, `byteLength: ${v.byteLength}`];
    };
  } else if (typeof v === "function") {
    base = functionBase(v);
    if (keys.length === 0) return base;
  } else if (v instanceof RegExp) {
    base = RegExp.prototype.toString.call(v);
    if (keys.length === 0) return base;
  } else if (v instanceof Date) {
    base = Number.isNaN(v.getTime()) ? "Invalid Date" : v.toISOString();
    if (keys.length === 0) return base;
  } else if (v instanceof Error) {
    keys = keys.filter((k) => k !== "stack" && k !== "message");
    base = errorBase(v, level);
    if (Object.hasOwn(v, "cause") && !keys.includes("cause")) keys.push("cause");
    if (Array.isArray(v.errors) && !keys.includes("errors")) keys.push("errors");
    if (keys.length === 0) return base;
  } else if (v instanceof Promise) {
    prefix = prefixOf(v, "Promise");
    body = () => {
      const s = __native.settled(v);
      if (s === 0) return ["<pending>"];
      // A copy of the state: looking must not count as handling a rejection.
      if (s === 2) return ["<rejected>"];
      return [inspectValue(state, __native.result(v), level + 1)];
    };
  } else if (v instanceof WeakSet || v instanceof WeakMap) {
    prefix = prefixOf(v, "WeakSet");
    body = () => ["<items unknown>"];
  } else if (v instanceof Boolean || v instanceof Number || v instanceof String || v instanceof Symbol || v instanceof BigInt) {
    const primitive = v.valueOf();
    if (typeof primitive === "string") keys = keys.filter((k) => !isIndex(k));
    base = `[${constructorName(v)}: ${inspectPrimitive(primitive)}]`;
    if (keys.length === 0) return base;
  } else {
    const known = platformFields(v);
    prefix = prefixOf(v, "Object");
    if (prefix === "Object ") prefix = "";
    if (known !== null) {
      if (level > state.depth) return `[${constructorName(v) ?? "Object"}]`;
      body = () => known.map(([k, x]) => `${k} ${inspectValue(state, x, level + 1)}`);
    } else if (keys.length === 0) {
      return `${prefix}{}`;
    }
  }

  if (level > state.depth) {
    return isArray(v) ? "[Array]" : `[${(prefix === "" ? "Object" : prefix.trim().replace(/\(\d+\)/, "")).replace(/^\[(.*)\]$/, "$1")}]`;
  }
  state.seen.push(v);
  state.deepest = level;
  const items = body();
  for (const k of keys) items.push(inspectProperty(state, v, k, level));
  state.seen.pop();
  const reference = state.circular?.get(v);
  const mark = reference === undefined ? "" : `<ref *${reference}> `;
  if (base === "") prefix = mark + prefix;
  else base = mark + base;
  return layOut(state, items, base, prefix, braces, level, listLike ? v : null);
}

function ownKeys(v) {
  const keys = Object.keys(v);
  for (const s of Object.getOwnPropertySymbols(v)) if (Object.prototype.propertyIsEnumerable.call(v, s)) keys.push(s);
  return keys;
}

function isIndex(k) {
  return typeof k === "string" && /^(0|[1-9][0-9]{0,9})$/.test(k);
}

function limited(length, show, all = undefined) {
  const out = [];
  for (let i = 0; i < length && i < LIST_MAX; i++) out.push(show(i, all));
  if (length > LIST_MAX) out.push(`... ${length - LIST_MAX} more item${length - LIST_MAX > 1 ? "s" : ""}`);
  return out;
}

function arrayItems(state, v, level) {
  const out = [];
  for (let i = 0; i < v.length; i++) {
    if (out.length === LIST_MAX) {
      out.push(`... ${v.length - i} more item${v.length - i > 1 ? "s" : ""}`);
      break;
    }
    if (Object.hasOwn(v, i)) {
      out.push(inspectValue(state, v[i], level + 1));
      continue;
    }
    let holes = 1;
    while (i + 1 < v.length && !Object.hasOwn(v, i + 1)) {
      holes++;
      i++;
    }
    out.push(`<${holes} empty item${holes > 1 ? "s" : ""}>`);
  }
  return out;
}

function functionBase(f) {
  const text = Function.prototype.toString.call(f);
  if (/^class\b/.test(text)) {
    let out = `[class ${f.name === "" ? "(anonymous)" : f.name}`;
    const parent = Object.getPrototypeOf(f);
    if (typeof parent === "function" && parent.name) out += ` extends ${parent.name}`;
    return `${out}]`;
  }
  const kind = f[Symbol.toStringTag];
  const type = typeof kind === "string" && kind.endsWith("Function") ? kind : "Function";
  return f.name === "" ? `[${type} (anonymous)]` : `[${type}: ${f.name}]`;
}

// errorBase is "Name: message" and the stack below it. Node.js has both in stack;
// this engine's stack has the calls alone.
function errorBase(e, level) {
  let head;
  try {
    head = Error.prototype.toString.call(e);
  } catch {
    head = "Error";
  }
  const stack = e.stack;
  if (typeof stack !== "string" || stack === "") return `[${head}]`;
  let lines = stack.startsWith(head) ? stack : `${head}\n${stack}`;
  lines = lines.replace(/\n+$/, "");
  return level === 0 ? lines : lines.replace(/\n/g, `\n${" ".repeat(level * 2)}`);
}

// platformFields lists what to show of our own classes, whose state is private.
function platformFields(v) {
  const name = v[Symbol.toStringTag];
  switch (name) {
    case "Headers": return v instanceof Headers ? [...v].map(([k, x]) => [`${IDENTIFIER.test(k) ? k : quote(k)}:`, x]) : null;
    case "URLSearchParams": return v instanceof URLSearchParams ? [...v].map(([k, x]) => [`${quote(k)} =>`, x]) : null;
    case "FormData": return v instanceof FormData ? [...v].map(([k, x]) => [`${IDENTIFIER.test(k) ? k : quote(k)}:`, x]) : null;
    case "URL": return v instanceof URL ? pick(v, "href origin protocol username password host hostname port pathname search searchParams hash") : null;
    case "Request": return v instanceof Request ? pick(v, "method url headers bodyUsed redirect") : null;
    case "Response": return v instanceof Response ? pick(v, "status statusText headers ok bodyUsed") : null;
    case "Blob": return v instanceof Blob ? pick(v, "size type") : null;
    case "File": return v instanceof File ? pick(v, "size type name lastModified") : null;
    case "AbortSignal": return v instanceof AbortSignal ? pick(v, "aborted") : null;
    case "Event": case "CustomEvent": return v instanceof Event ? pick(v, "type defaultPrevented cancelable timeStamp") : null;
    case "ReadableStream": return v instanceof ReadableStream ? pick(v, "locked") : null;
    default: return null;
  }
}

function pick(v, names) {
  return names.split(" ").map((n) => [`${n}:`, v[n]]);
}

function inspectProperty(state, v, k, level) {
  const d = Object.getOwnPropertyDescriptor(v, k) ?? { value: v[k], enumerable: true };
  let shown;
  if (d.get !== undefined) shown = d.set !== undefined ? "[Getter/Setter]" : "[Getter]";
  else if (d.set !== undefined) shown = "[Setter]";
  else shown = inspectValue(state, d.value, level + 1);
  let name;
  if (typeof k === "symbol") name = `[${k.toString()}]`;
  else if (!d.enumerable) name = `[${k}]`;
  else if (k === "__proto__") name = "['__proto__']";
  else name = IDENTIFIER.test(k) ? k : quote(k);
  return `${name}: ${shown}`;
}

// layOut puts items on one line when they are few and short, else one to a line;
// long lists of short items go in columns. The measures are Node.js's.
function layOut(state, items, base, prefix, braces, level, list) {
  if (base !== "") base += " ";
  const open = base + prefix + braces[0];
  if (items.length === 0) return open + braces[1];
  const indent = " ".repeat(level * 2);
  const rows = list !== null && items.length > 6 ? inColumns(items, list, indent.length) : items;
  if (rows === items && state.deepest - level < LEVELS_ON_A_LINE) {
    const start = items.length + indent.length + prefix.length + 1 + Math.max(0, base.length - 1) + 10;
    const total = items.reduce((n, s) => n + s.length, items.length + start);
    if (total <= LINE_WIDTH && !base.includes("\n")) {
      const joined = items.join(", ");
      if (!joined.includes("\n")) return `${open} ${joined} ${braces[1]}`;
    }
  }
  return `${open}\n${indent}  ${rows.join(`,\n${indent}  `)}\n${indent}${braces[1]}`;
}

// inColumns joins items of a list into rows, as Node.js's groupArrayElements does.
function inColumns(items, list, indentation) {
  const extra = list.length > LIST_MAX && items[LIST_MAX]?.startsWith("... ") ? 1 : 0;
  const count = items.length - extra;
  const lengths = [];
  let total = 0, longest = 0;
  for (let i = 0; i < count; i++) {
    lengths.push(items[i].length);
    total += items[i].length + 2;
    longest = Math.max(longest, items[i].length);
  }
  const widest = longest + 2;
  if (widest * 3 + indentation >= LINE_WIDTH || (total / widest <= 5 && longest > 6)) return items;
  const biased = Math.max(widest - 3 - Math.sqrt(widest - total / items.length), 1);
  const columns = Math.min(Math.round(Math.sqrt(2.5 * biased * count) / biased), Math.floor((LINE_WIDTH - indentation) / widest), 12, 15);
  if (columns <= 1) return items;
  const widths = [];
  for (let c = 0; c < columns; c++) {
    let w = 0;
    for (let i = c; i < count; i += columns) w = Math.max(w, lengths[i]);
    widths.push(w + 2);
  }
  let numbers = true;
  for (let i = 0; i < items.length && numbers; i++) numbers = typeof list[i] === "number" || typeof list[i] === "bigint";
  const rows = [];
  for (let i = 0; i < count; i += columns) {
    const last = Math.min(i + columns, count) - 1;
    let row = "";
    for (let j = i; j < last; j++) row += numbers ? `${items[j]}, `.padStart(widths[j - i]) : `${items[j]}, `.padEnd(widths[j - i]);
    rows.push(row + (numbers ? items[last].padStart(widths[last - i] - 2) : items[last]));
  }
  if (extra) rows.push(items[count]);
  return rows;
}

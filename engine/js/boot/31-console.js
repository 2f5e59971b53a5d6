// console (https://console.spec.whatwg.org): each call is a line of the function's log,
// or several when the text has several.
let groupIndent = "";
const counts = new Map();
const stopwatches = new Map();

function printLine(level, text) {
  if (groupIndent !== "") text = groupIndent + text.replace(/\n/g, `\n${groupIndent}`);
  __native.print(level, text);
}

// format joins the arguments, the first of which may hold %s %d %i %f %j %o %O %c %%.
function format(args) {
  if (args.length === 1) return typeof args[0] === "string" ? args[0] : inspect(args[0]);
  let at = 0;
  let out = "";
  if (typeof args[0] === "string") {
    at = 1;
    out = args[0].replace(/%[sdifjoOc%]/g, (code) => {
      if (code === "%%") return at < args.length || args.length > 1 ? "%" : code;
      if (at >= args.length) return code;
      return formatOne(code, args[at++]);
    });
  }
  for (; at < args.length; at++) {
    if (at > 0) out += " ";
    out += typeof args[at] === "string" ? args[at] : inspect(args[at]);
  }
  return out;
}

function formatOne(code, v) {
  switch (code) {
    case "%s":
      if (typeof v === "string") return v;
      if (typeof v === "bigint") return `${v}n`;
      if (isObject(v) && !(hasOwnToString(v))) return inspect(v, 0);
      return Object.is(v, -0) ? "-0" : String(v);
    case "%d":
      if (typeof v === "bigint") return `${v}n`;
      return typeof v === "symbol" ? "NaN" : formatNumber(isObject(v) ? Number(v) : Number(v));
    case "%i":
      if (typeof v === "bigint") return `${v}n`;
      return typeof v === "symbol" ? "NaN" : formatNumber(parseInt(v));
    case "%f": return typeof v === "symbol" ? "NaN" : formatNumber(parseFloat(v));
    case "%j":
      try {
        return JSON.stringify(v);
      } catch (e) {
        if (/circular/i.test(e.message)) return "[Circular]";
        throw e;
      }
    case "%o": return inspect(v, 4);
    case "%O": return inspect(v);
    default: return ""; // %c: styles say nothing in a log
  }
}

function formatNumber(n) {
  return Object.is(n, -0) ? "-0" : `${n}`;
}

// hasOwnToString tells whether an object says for itself what it is as text.
function hasOwnToString(v) {
  if (v instanceof Error || v instanceof Date) return true;
  for (let o = v; o !== null && o !== Object.prototype && o !== Function.prototype && o !== Array.prototype; o = Object.getPrototypeOf(o)) {
    if (Object.hasOwn(o, "toString")) return constructorIsOurs(o) === false;
  }
  return false;
}

function constructorIsOurs(proto) {
  return [Map, Set, Promise, RegExp, Array].some((c) => c.prototype === proto);
}

function tableText(data, columns) {
  const rows = [];
  const keys = [];
  let values = false;
  const entries = data instanceof Map ? [...data].map(([k, v], i) => [i, { Key: k, Values: v }]) :
    data instanceof Set ? [...data].map((v, i) => [i, v]) : Object.entries(data);
  const rest = new Map();
  for (const [index, row] of entries) {
    const cells = new Map();
    if (isObject(row)) {
      for (const k of columns ?? Object.keys(row)) {
        if (!keys.includes(k)) keys.push(k);
        if (Object.hasOwn(row, k)) cells.set(k, inspect(row[k], 0));
      }
    } else {
      values = true;
      rest.set(rows.length, inspect(row));
    }
    rows.push([`${index}`, cells]);
  }
  const head = ["(index)", ...keys, ...(values ? ["Values"] : [])];
  const lines = rows.map(([index, cells], i) => [index, ...keys.map((k) => cells.get(k) ?? ""), ...(values ? [rest.get(i) ?? ""] : [])]);
  const widths = head.map((h, c) => Math.max(h.length, ...lines.map((l) => l[c].length)) + 2);
  const row = (cells) => `│${cells.map((s, c) => ` ${s}`.padEnd(widths[c])).join("│")}│`;
  const rule = (l, m, r) => l + widths.map((w) => "─".repeat(w)).join(m) + r;
  return [rule("┌", "┬", "┐"), row(head), rule("├", "┼", "┤"), ...lines.map(row), rule("└", "┴", "┘")].join("\n");
}

const console = {
  log(...args) { printLine("log", format(args)); },
  info(...args) { printLine("info", format(args)); },
  debug(...args) { printLine("debug", format(args)); },
  warn(...args) { printLine("warn", format(args)); },
  error(...args) { printLine("error", format(args)); },

  trace(...args) {
    const stack = new Error().stack.replace(/^.*\n/, "").replace(/\n+$/, "");
    printLine("trace", `Trace${args.length > 0 ? `: ${format(args)}` : ""}\n${stack}`);
  },

  assert(condition = false, ...args) {
    if (condition) return;
    if (typeof args[0] === "string") args[0] = `Assertion failed: ${args[0]}`;
    else args.unshift(args.length > 0 ? "Assertion failed:" : "Assertion failed");
    printLine("error", format(args));
  },

  dir(value = undefined, options = undefined) {
    const depth = options?.depth === undefined ? 2 : options.depth ?? Infinity;
    printLine("log", inspect(value, Number(depth)));
  },
  dirxml(...args) { printLine("log", format(args)); },

  table(data = undefined, columns = undefined) {
    if (!isObject(data)) return printLine("log", format([data]));
    return printLine("log", tableText(data, columns));
  },

  count(label = "default") {
    label = `${label}`;
    const n = (counts.get(label) ?? 0) + 1;
    counts.set(label, n);
    printLine("log", `${label}: ${n}`);
  },

  countReset(label = "default") {
    if (!counts.delete(`${label}`)) printLine("warn", `Count for '${label}' does not exist`);
  },

  time(label = "default") {
    label = `${label}`;
    if (stopwatches.has(label)) printLine("warn", `Label '${label}' already exists for console.time()`);
    else stopwatches.set(label, __native.monotonic());
  },

  timeLog(label = "default", ...args) { stopwatch(`${label}`, args); },

  timeEnd(label = "default") {
    stopwatch(`${label}`, []);
    stopwatches.delete(`${label}`);
  },

  group(...args) {
    if (args.length > 0) printLine("log", format(args));
    groupIndent += "  ";
  },

  groupCollapsed(...args) { console.group(...args); },
  groupEnd() { groupIndent = groupIndent.slice(2); },
};

function stopwatch(label, args) {
  const from = stopwatches.get(label);
  if (from === undefined) {
    printLine("warn", `No such label '${label}' for console.timeLog()`);
    return;
  }
  const ms = __native.monotonic() - from;
  const shown = ms >= 1000 ? `${(ms / 1000).toFixed(3)}s` : `${Number(ms.toFixed(3))}ms`;
  printLine("log", `${label}: ${shown}${args.length > 0 ? ` ${format(args)}` : ""}`);
}

tag(console, "console");
globalValue("console", console);

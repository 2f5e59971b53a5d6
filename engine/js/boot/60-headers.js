// Headers (https://fetch.spec.whatwg.org/#headers-class).
//
// A header list is one flat array: name, value, name, value …, names in lower
// case, in the order of insertion. Request and Response hold such an array and
// make a Headers object of it when somebody asks.
const HEADERS_TOKEN = {};
let headersOf, isHeaders;

// Lower-case forms of names that programs write. It grows only while the module
// loads: in an invocation that would touch memory for nothing.
const headerNames = Object.create(null);
for (const name of ("Accept Accept-Encoding Accept-Language Access-Control-Allow-Credentials Access-Control-Allow-Headers " +
  "Access-Control-Allow-Methods Access-Control-Allow-Origin Access-Control-Expose-Headers Access-Control-Max-Age " +
  "Access-Control-Request-Headers Access-Control-Request-Method Allow Authorization Cache-Control Content-Disposition " +
  "Content-Encoding Content-Language Content-Length Content-Security-Policy Content-Type Cookie Date ETag Host " +
  "If-Match If-Modified-Since If-None-Match Last-Modified Link Location Origin Range Referrer-Policy Retry-After Server " +
  "Set-Cookie Strict-Transport-Security User-Agent Vary WWW-Authenticate X-Content-Type-Options X-Forwarded-For " +
  "X-Frame-Options X-Powered-By X-Request-Id").split(" ")) {
  headerNames[name] = headerNames[name.toLowerCase()] = name.toLowerCase();
}

function normalName(name) {
  if (typeof name === "string") {
    const known = headerNames[name];
    if (known !== undefined) return known;
  } else {
    name = `${name}`;
  }
  const lower = headerName(name);
  if (lower === null) throw new TypeError(`Invalid header name: ${JSON.stringify(name)}`);
  if (!live.serving) headerNames[name] = lower;
  return lower;
}

function normalValue(value) {
  const text = typeof value === "string" ? value : `${value}`;
  const v = headerValue(text);
  if (v === null) throw new TypeError(`Invalid header value: ${JSON.stringify(text)}`);
  return v;
}

function listGet(list, lower) {
  let found = null;
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === lower) found = found === null ? list[i + 1] : `${found}, ${list[i + 1]}`;
  }
  return found;
}

function listSet(list, lower, value) {
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] !== lower) continue;
    list[i + 1] = value;
    listDelete(list, lower, i + 2);
    return;
  }
  list.push(lower, value);
}

function listDelete(list, lower, from) {
  let to = from;
  for (let i = from; i < list.length; i += 2) {
    if (list[i] === lower) continue;
    list[to] = list[i];
    list[to + 1] = list[i + 1];
    to += 2;
  }
  list.length = to;
}

// fillList appends what a HeadersInit holds.
function fillList(list, init) {
  if (!isObject(init)) throw new TypeError("Headers must be given as a Headers object, a list of pairs, or an object");
  const iterate = init[ITERATOR];
  if (iterate === undefined || iterate === null) {
    // Symbols as keys are passed over, which is quicker than looking whether to refuse them.
    const keys = objectKeys(init);
    let n = list.length;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i];
      list[n++] = headerNames[key] ?? normalName(key);
      list[n++] = normalValue(init[key]);
    }
    return;
  }
  if (isHeaders(init)) {
    const from = headersOf(init);
    for (let i = 0; i < from.length; i++) list.push(from[i]);
    return;
  }
  if (typeof iterate !== "function") throw new TypeError("Headers: the value is not iterable");
  for (const pair of { [Symbol.iterator]: () => apply(iterate, init, []) }) {
    if (!isObject(pair) || typeof pair[Symbol.iterator] !== "function") throw new TypeError("Headers: each header must be a pair of name and value");
    const [...p] = pair;
    if (p.length !== 2) throw new TypeError("Headers: each header must be a pair of name and value");
    list.push(normalName(p[0]), normalValue(p[1]));
  }
}

// sortedPairs is what iteration shows: sorted by name, values of one name
// combined, except Set-Cookie.
function sortedPairs(list) {
  const names = [];
  for (let i = 0; i < list.length; i += 2) if (!names.includes(list[i])) names.push(list[i]);
  names.sort();
  const out = [];
  for (const name of names) {
    if (name === "set-cookie") {
      for (let i = 0; i < list.length; i += 2) if (list[i] === name) out.push([name, list[i + 1]]);
    } else {
      out.push([name, listGet(list, name)]);
    }
  }
  return out;
}

class Headers {
  #list;
  #immutable;
  #sorted = null; // sortedPairs, until the next change

  constructor(init = undefined, list = undefined, immutable = false) {
    if (init === HEADERS_TOKEN) {
      this.#list = list;
      this.#immutable = immutable;
      return;
    }
    this.#list = [];
    this.#immutable = false;
    if (init !== undefined) fillList(this.#list, init);
  }

  static {
    headersOf = (h) => h.#list;
    isHeaders = (v) => #list in v;
    const iterator = iteratorPrototype("Headers", function () {
      if (!isObject(this) || !(iteratorState in this)) throw new TypeError("next called on an object that is not a Headers iterator");
      const state = this[iteratorState];
      const h = state.headers;
      h.#sorted ??= sortedPairs(h.#list);
      if (state.at >= h.#sorted.length) return { value: undefined, done: true };
      const pair = h.#sorted[state.at++];
      return { value: state.kind === 0 ? pair[0] : state.kind === 1 ? pair[1] : [pair[0], pair[1]], done: false };
    });
    const iteratorState = Symbol("state");
    const iterate = (headers, kind) => {
      headers.#list; // throws for anything but a Headers object
      return defineProperty(Object.create(iterator), iteratorState, { value: { headers, kind, at: 0 } });
    };
    this.prototype.keys = function keys() { return iterate(this, 0); };
    this.prototype.values = function values() { return iterate(this, 1); };
    this.prototype.entries = function entries() { return iterate(this, 2); };
    defineProperty(this.prototype, Symbol.iterator, { value: this.prototype.entries, writable: true, configurable: true });
  }

  append(name, value) {
    needArguments(arguments.length, 2, "Headers.append");
    const lower = normalName(name);
    value = normalValue(value);
    this.#change();
    this.#list.push(lower, value);
  }

  set(name, value) {
    needArguments(arguments.length, 2, "Headers.set");
    const lower = normalName(name);
    value = normalValue(value);
    this.#change();
    listSet(this.#list, lower, value);
  }

  delete(name) {
    needArguments(arguments.length, 1, "Headers.delete");
    const lower = normalName(name);
    this.#change();
    listDelete(this.#list, lower, 0);
  }

  get(name) {
    needArguments(arguments.length, 1, "Headers.get");
    return listGet(this.#list, normalName(name));
  }

  has(name) {
    needArguments(arguments.length, 1, "Headers.has");
    return listGet(this.#list, normalName(name)) !== null;
  }

  getSetCookie() {
    const out = [];
    for (let i = 0; i < this.#list.length; i += 2) if (this.#list[i] === "set-cookie") out.push(this.#list[i + 1]);
    return out;
  }

  forEach(callback, thisArg = undefined) {
    needArguments(arguments.length, 1, "Headers.forEach");
    if (typeof callback !== "function") throw new TypeError("Headers.forEach: the callback must be a function");
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }

  #change() {
    if (this.#immutable) throw new TypeError("The headers of an incoming request and of a redirect cannot be changed; copy them: new Headers(headers)");
    this.#sorted = null;
  }
}

publish(Headers);
defineProperty(Headers, "length", { value: 0, configurable: true });

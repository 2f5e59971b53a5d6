// Headers (https://fetch.spec.whatwg.org/#headers-class).
//
// A header list is one flat array: name, value, name, value …, names in lower
// case, in the order of insertion. Request and Response hold such an array and
// make a Headers object of it when somebody asks.
const HEADERS_TOKEN = {};
let isHeaders;

function listGet(list, lower) {
  let found = null;
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === lower) found = found === null ? list[i + 1] : `${found}, ${list[i + 1]}`;
  }
  return found;
}

// fillList appends what a HeadersInit holds.
function fillList(list, init) {
  if (!isObject(init)) throw new TypeError("Headers must be given as a Headers object, a list of pairs, or an object");
  if (listFill(list, init)) return;
  const iterate = init[ITERATOR];
  if (typeof iterate !== "function") throw new TypeError("Headers: the value is not iterable");
  for (const pair of { [Symbol.iterator]: () => apply(iterate, init, []) }) {
    if (!isObject(pair) || typeof pair[Symbol.iterator] !== "function") throw new TypeError("Headers: each header must be a pair of name and value");
    const [...p] = pair;
    if (p.length !== 2) throw new TypeError("Headers: each header must be a pair of name and value");
    listAdd(list, p[0], p[1]);
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

  // append, delete, get, has and set are in C, see src/headers.h.

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
}

__native.headersInstall(Headers.prototype, new Headers());
publish(Headers);
defineProperty(Headers, "length", { value: 0, configurable: true });

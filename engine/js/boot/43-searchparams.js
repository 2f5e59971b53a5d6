// URLSearchParams (https://url.spec.whatwg.org/#interface-urlsearchparams).
let isSearchParams, attachParams, replaceParams;

class URLSearchParams {
  #list = []; // [name, value] pairs
  #changed = null; // told when the list changes: the URL it belongs to

  constructor(init = "") {
    if (isObject(init)) {
      const iterate = init[Symbol.iterator];
      if (iterate !== undefined && iterate !== null) {
        if (typeof iterate !== "function") throw new TypeError("URLSearchParams: the value is not iterable");
        for (const pair of { [Symbol.iterator]: () => apply(iterate, init, []) }) {
          if (!isObject(pair) || typeof pair[Symbol.iterator] !== "function") throw new TypeError("URLSearchParams: each query pair must be an iterable [name, value] tuple");
          const [...p] = pair;
          if (p.length !== 2) throw new TypeError("URLSearchParams: each query pair must be an iterable [name, value] tuple");
          this.#list.push([usv(p[0]), usv(p[1])]);
        }
        return;
      }
      const seen = new Map();
      for (const key of Reflect.ownKeys(init)) {
        if (!Object.prototype.propertyIsEnumerable.call(init, key)) continue;
        seen.set(usv(key), usv(init[key]));
      }
      this.#list = [...seen];
      return;
    }
    if (init === "") return;
    init = usv(init);
    this.#list = parseForm(init[0] === "?" ? init.slice(1) : init);
  }

  static {
    isSearchParams = (v) => #list in v;
    attachParams = (p, query, changed) => {
      p.#list = parseForm(query);
      p.#changed = changed;
    };
    replaceParams = (p, query) => { p.#list = parseForm(query); };
    const iteratorState = Symbol("state");
    const iterator = iteratorPrototype("URLSearchParams", function () {
      if (!isObject(this) || !(iteratorState in this)) throw new TypeError("next called on an object that is not a URLSearchParams iterator");
      const state = this[iteratorState];
      const list = state.params.#list;
      if (state.at >= list.length) return { value: undefined, done: true };
      const [name, value] = list[state.at++];
      return { value: state.kind === 0 ? name : state.kind === 1 ? value : [name, value], done: false };
    });
    const iterate = (params, kind) => {
      params.#list; // throws for anything but a URLSearchParams object
      return defineProperty(Object.create(iterator), iteratorState, { value: { params, kind, at: 0 } });
    };
    this.prototype.keys = function keys() { return iterate(this, 0); };
    this.prototype.values = function values() { return iterate(this, 1); };
    this.prototype.entries = function entries() { return iterate(this, 2); };
    defineProperty(this.prototype, Symbol.iterator, { value: this.prototype.entries, writable: true, configurable: true });
  }

  get size() { return this.#list.length; }

  append(name, value) {
    needArguments(arguments.length, 2, "URLSearchParams.append");
    this.#list.push([usv(name), usv(value)]);
    this.#update();
  }

  delete(name, value = undefined) {
    needArguments(arguments.length, 1, "URLSearchParams.delete");
    name = usv(name);
    if (value !== undefined) value = usv(value);
    const list = this.#list;
    let to = 0;
    for (let i = 0; i < list.length; i++) {
      if (list[i][0] !== name || (value !== undefined && list[i][1] !== value)) list[to++] = list[i];
    }
    list.length = to;
    this.#update();
  }

  get(name) {
    needArguments(arguments.length, 1, "URLSearchParams.get");
    name = usv(name);
    for (const p of this.#list) if (p[0] === name) return p[1];
    return null;
  }

  getAll(name) {
    needArguments(arguments.length, 1, "URLSearchParams.getAll");
    name = usv(name);
    return this.#list.filter((p) => p[0] === name).map((p) => p[1]);
  }

  has(name, value = undefined) {
    needArguments(arguments.length, 1, "URLSearchParams.has");
    name = usv(name);
    if (value !== undefined) value = usv(value);
    return this.#list.some((p) => p[0] === name && (value === undefined || p[1] === value));
  }

  set(name, value) {
    needArguments(arguments.length, 2, "URLSearchParams.set");
    name = usv(name);
    value = usv(value);
    const at = this.#list.findIndex((p) => p[0] === name);
    if (at < 0) {
      this.#list.push([name, value]);
    } else {
      this.#list[at][1] = value;
      const list = this.#list;
      let to = at + 1;
      for (let i = at + 1; i < list.length; i++) if (list[i][0] !== name) list[to++] = list[i];
      list.length = to;
    }
    this.#update();
  }

  sort() {
    this.#list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#update();
  }

  forEach(callback, thisArg = undefined) {
    needArguments(arguments.length, 1, "URLSearchParams.forEach");
    if (typeof callback !== "function") throw new TypeError("URLSearchParams.forEach: the callback must be a function");
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }

  toString() { return serialiseForm(this.#list); }

  #update() {
    if (this.#changed !== null) this.#changed(serialiseForm(this.#list));
  }
}

// parseForm parses application/x-www-form-urlencoded text.
function parseForm(text) {
  const out = [];
  if (text === "") return out;
  const plain = !text.includes("%") && !text.includes("+");
  for (let from = 0; from <= text.length;) {
    let end = text.indexOf("&", from);
    if (end < 0) end = text.length;
    if (end > from) {
      const part = text.slice(from, end);
      const at = part.indexOf("=");
      const name = at < 0 ? part : part.slice(0, at);
      const value = at < 0 ? "" : part.slice(at + 1);
      out.push(plain ? [name, value] : [formDecode(name), formDecode(value)]);
    }
    from = end + 1;
  }
  return out;
}

function formDecode(s) {
  if (s.includes("+")) s = s.replace(/\+/g, " ");
  return percentDecode(s);
}

function serialiseForm(pairs) {
  let out = "";
  for (const [name, value] of pairs) out += `${out === "" ? "" : "&"}${formEncode(name)}=${formEncode(value)}`;
  return out;
}

function formEncode(s) {
  return s.replace(ENCODE_FORM, formBytes);
}

function formBytes(s) {
  return percentBytes(s).replace(/%20/g, "+");
}

publish(URLSearchParams);
defineProperty(URLSearchParams, "length", { value: 0, configurable: true });

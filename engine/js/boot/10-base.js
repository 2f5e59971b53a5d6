// What every later file leans on: natives, conversions, publishing of globals.
//
// All files of this folder are concatenated in the order of their names into one
// function (see NATIVES.md): they share one scope, so names here are seen there.
// Function declarations are hoisted, classes and constants are not: a file uses
// those of earlier files only, except inside functions that run after boot.
const {
  utf8Encode, utf8EncodeInto, utf8Decode, latin1Decode, latin1Encode,
  urlScan, headerName, listAdd, listHas, listFill, settled, whenSettled, result, answer, finish,
} = __native;

const apply = Reflect.apply;
const { defineProperty, freeze, keys: objectKeys } = Object;
const isArray = Array.isArray;
const ITERATOR = Symbol.iterator;
const stringify = JSON.stringify;
const EMPTY_BYTES = new Uint8Array(0);
const RESOLVED = Promise.resolve();

// TypedArray's own getter: gives the name of a typed array's kind, undefined for
// everything else, whatever the object pretends to be.
const TypedArray = Object.getPrototypeOf(Uint8Array);
const typedArrayTag = Object.getOwnPropertyDescriptor(TypedArray.prototype, Symbol.toStringTag).get;
const arrayBufferLength = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, "byteLength").get;

function typedArrayName(v) {
  return apply(typedArrayTag, v, []);
}

function isArrayBuffer(v) {
  if (typeof v !== "object" || v === null) return false;
  try {
    apply(arrayBufferLength, v, []);
    return true;
  } catch {
    return false;
  }
}

// bytesOf gives a view of a BufferSource's bytes without copying, or null when v
// is no BufferSource. A detached buffer counts as empty, as Web IDL has it.
function bytesOf(v) {
  if (ArrayBuffer.isView(v)) {
    if (typedArrayName(v) === "Uint8Array") return v;
    return new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
  }
  if (!isArrayBuffer(v)) return null;
  return v.detached ? EMPTY_BYTES : new Uint8Array(v);
}

// copyBytes gives the bytes of a BufferSource as a fresh Uint8Array, or null.
function copyBytes(v) {
  const view = bytesOf(v);
  return view === null ? null : new Uint8Array(view);
}

function concatBytes(parts, total) {
  if (parts.length === 1 && parts[0].byteLength === parts[0].buffer.byteLength) return parts[0];
  const out = new Uint8Array(total);
  let at = 0;
  for (let i = 0; i < parts.length; i++) {
    out.set(parts[i], at);
    at += parts[i].byteLength;
  }
  return out;
}

// usv is Web IDL's USVString: a string without lone surrogates.
function usv(v) {
  const s = typeof v === "string" ? v : `${v}`;
  return s.toWellFormed();
}

function isObject(v) {
  return (typeof v === "object" && v !== null) || typeof v === "function";
}

// dictionary checks what Web IDL takes for a dictionary: an object, or nothing.
function dictionary(v, what) {
  if (v === undefined || v === null) return undefined;
  if (!isObject(v)) throw new TypeError(`${what} must be an object`);
  return v;
}

function needArguments(given, wanted, what) {
  if (given < wanted) {
    throw new TypeError(`${what}: ${wanted} argument${wanted === 1 ? "" : "s"} required, but only ${given} present`);
  }
}

// publish makes classes visible on the global object the way Web IDL does:
// members enumerable, a toStringTag, the global itself not enumerable.
function publish(...classes) {
  for (const c of classes) {
    const proto = c.prototype;
    for (const key of Object.getOwnPropertyNames(proto)) {
      if (key !== "constructor") defineProperty(proto, key, { enumerable: true });
    }
    for (const key of Object.getOwnPropertyNames(c)) {
      if (key !== "length" && key !== "name" && key !== "prototype" && typeof c[key] === "function") {
        defineProperty(c, key, { enumerable: true });
      }
    }
    if (!Object.hasOwn(proto, Symbol.toStringTag)) tag(proto, c.name);
    globalValue(c.name, c);
  }
}

function tag(proto, name) {
  defineProperty(proto, Symbol.toStringTag, { value: name, writable: false, enumerable: false, configurable: true });
}

function globalValue(name, value, enumerable = false) {
  defineProperty(globalThis, name, { value, writable: true, enumerable, configurable: true });
}

function globalFunction(f) {
  globalValue(f.name, f, true);
}

// live is what every invocation writes to, in one object: each page of memory
// that an invocation writes to has to be restored after it, so what is written
// should lie together. install makes it anew, next to other things of its kind.
//
// serving is set by dispatch and false while the module loads. Loading happens
// once, ahead of all invocations: timers would never fire there, and a random value
// would be the same in every invocation.
let live = newLive(null, null);

function newLive(request, context) {
  return {
    serving: false,
    waiting: null, // promises given to waitUntil, null when there are none
    head: null, // request.casemate, once asked for
    scanned: "", // the URL that offsets describes
    offsets: new Int32Array(6), // see urlScan
    request, // a Request made ahead of the invocation
    context, // and an ExecutionContext
  };
}

function onlyWhileServing(what) {
  if (!live.serving) {
    throw new Error(`${what} is not possible while the module loads, only inside a handler: what the module makes while it loads is shared by all invocations`);
  }
}

// iteratorPrototype makes the prototype of a Web IDL iterator class.
function iteratorPrototype(name, next) {
  const proto = Object.create(Iterator.prototype);
  defineProperty(proto, "next", { value: next, writable: true, enumerable: true, configurable: true });
  tag(proto, `${name} Iterator`);
  return proto;
}

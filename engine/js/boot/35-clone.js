// structuredClone (https://html.spec.whatwg.org/#structuredserializeinternal), in
// one pass: there is one realm and nothing to send, so nothing is serialised.
const ERROR_TYPES = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

function structuredClone(value, options = undefined) {
  needArguments(arguments.length, 1, "structuredClone");
  const transfer = dictionary(options, "structuredClone options")?.transfer;
  if (transfer === undefined) return isObject(value) ? cloneObject(value, new Map()) : clonePrimitive(value);
  const list = [...transfer];
  for (const [i, t] of list.entries()) {
    if (!isArrayBuffer(t)) throw cloneError("a value in the transfer list is not an ArrayBuffer");
    if (list.indexOf(t) !== i) throw cloneError("the transfer list holds an ArrayBuffer twice");
    if (t.detached) throw cloneError("an ArrayBuffer in the transfer list is detached");
  }
  // Everything is cloned before anything is detached, so that a failure leaves all as it was.
  const memory = new Map();
  const placeholders = list.map((t) => {
    const p = new ArrayBuffer(t.byteLength, t.resizable ? { maxByteLength: t.maxByteLength } : undefined);
    memory.set(t, p);
    return p;
  });
  const result = isObject(value) ? cloneObject(value, memory) : clonePrimitive(value);
  list.forEach((t, i) => {
    new Uint8Array(placeholders[i]).set(new Uint8Array(t));
    t.transfer();
  });
  return result;
}

function clonePrimitive(v) {
  if (typeof v === "symbol") throw cloneError(`${v.toString()} could not be cloned.`);
  return v;
}

function cloneError(why) {
  return new DOMException(why, "DataCloneError");
}

function cloneValue(v, memory) {
  return isObject(v) ? cloneObject(v, memory) : clonePrimitive(v);
}

function cloneObject(v, memory) {
  const known = memory.get(v);
  if (known !== undefined) return known;
  if (typeof v === "function") throw cloneError(`${Function.prototype.toString.call(v).slice(0, 80)} could not be cloned.`);
  if (isArray(v)) {
    const out = new Array(v.length);
    memory.set(v, out);
    return cloneProperties(v, out, memory);
  }
  const proto = Object.getPrototypeOf(v);
  if (proto === Object.prototype || proto === null) {
    // Not a promise that it is plain: what else has this prototype has slots, and is looked for below.
    if (!hasSlots(v)) return cloneProperties(v, remember(v, {}, memory), memory);
  }
  return cloneExotic(v, memory);
}

function hasSlots(v) {
  return ArrayBuffer.isView(v) || isArrayBuffer(v) || Error.isError(v) || Object.prototype.toString.call(v) !== "[object Object]" && cloneKind(v) !== "Object";
}

function remember(v, out, memory) {
  memory.set(v, out);
  return out;
}

function cloneProperties(v, out, memory) {
  for (const key of Object.keys(v)) {
    if (!Object.hasOwn(v, key)) continue;
    defineProperty(out, key, { value: cloneValue(v[key], memory), writable: true, enumerable: true, configurable: true });
  }
  return out;
}

const mapSize = Object.getOwnPropertyDescriptor(Map.prototype, "size").get;
const setSize = Object.getOwnPropertyDescriptor(Set.prototype, "size").get;
const regExpSource = (v) => Object.getOwnPropertyDescriptor(RegExp.prototype, "source").get.call(v);
const CLONE_KINDS = [
  ["Date", (v) => Date.prototype.getTime.call(v)],
  ["RegExp", (v) => { if (v === RegExp.prototype) throw v; regExpSource(v); }],
  ["Map", (v) => mapSize.call(v)],
  ["Set", (v) => setSize.call(v)],
  ["Boolean", (v) => Boolean.prototype.valueOf.call(v)],
  ["Number", (v) => Number.prototype.valueOf.call(v)],
  ["String", (v) => String.prototype.valueOf.call(v)],
  ["BigInt", (v) => BigInt.prototype.valueOf.call(v)],
  ["Symbol", (v) => Symbol.prototype.valueOf.call(v)],
  ["WeakMap", (v) => WeakMap.prototype.has.call(v, v)],
  ["WeakSet", (v) => WeakSet.prototype.has.call(v, v)],
  ["WeakRef", (v) => WeakRef.prototype.deref.call(v)],
];

// cloneKind finds which internal slots an object has, whatever its prototype.
function cloneKind(v) {
  for (const [kind, probe] of CLONE_KINDS) {
    try {
      probe(v);
      return kind;
    } catch {
      // not this one
    }
  }
  return "Object";
}

function cloneExotic(v, memory) {
  if (ArrayBuffer.isView(v)) {
    const buffer = cloneObject(v.buffer, memory);
    const kind = typedArrayName(v) ?? "DataView";
    const out = new globalCopies[kind](buffer, v.byteOffset, kind === "DataView" ? v.byteLength : v.length);
    return remember(v, out, memory);
  }
  if (isArrayBuffer(v)) {
    if (v.detached) throw cloneError("An ArrayBuffer is detached and could not be cloned.");
    const out = new ArrayBuffer(v.byteLength, v.resizable ? { maxByteLength: v.maxByteLength } : undefined);
    new Uint8Array(out).set(new Uint8Array(v));
    return remember(v, out, memory);
  }
  if (v instanceof DOMException) {
    const out = new DOMException(v.message, v.name);
    defineProperty(out, "stack", { value: v.stack, writable: true, configurable: true });
    return remember(v, out, memory);
  }
  if (Error.isError(v)) return cloneErrorObject(v, memory);
  if (isBlob(v)) return remember(v, v instanceof File ? new File([v], v.name, { type: v.type, lastModified: v.lastModified }) : v.slice(0, v.size, v.type), memory);
  switch (cloneKind(v)) {
    case "Date": return remember(v, new Date(Date.prototype.getTime.call(v)), memory);
    case "RegExp": return remember(v, new RegExp(regExpSource(v), v.flags), memory);
    case "Boolean": return remember(v, Object(Boolean.prototype.valueOf.call(v)), memory);
    case "Number": return remember(v, Object(Number.prototype.valueOf.call(v)), memory);
    case "String": return remember(v, Object(String.prototype.valueOf.call(v)), memory);
    case "BigInt": return remember(v, Object(BigInt.prototype.valueOf.call(v)), memory);
    case "Map": {
      const out = remember(v, new Map(), memory);
      for (const [k, x] of [...Map.prototype.entries.call(v)]) out.set(cloneValue(k, memory), cloneValue(x, memory));
      return out;
    }
    case "Set": {
      const out = remember(v, new Set(), memory);
      for (const x of [...Set.prototype.values.call(v)]) out.add(cloneValue(x, memory));
      return out;
    }
    case "Object":
      if (!(v instanceof Promise) && !isPlatformObject(v)) return cloneProperties(v, remember(v, {}, memory), memory);
  }
  throw cloneError(`${Object.prototype.toString.call(v)} could not be cloned.`);
}

function isPlatformObject(v) {
  return v instanceof EventTarget || v instanceof Event || isHeaders(v) || isSearchParams(v) || isFormData(v) || isReadableStream(v) ||
    isWritableStream(v) || v instanceof TransformStream || v instanceof Request || v instanceof Response || v instanceof URL ||
    v instanceof AbortController || v instanceof FinalizationRegistry;
}

function cloneErrorObject(v, memory) {
  const name = v.name === undefined ? "Error" : `${v.name}`;
  const type = Object.hasOwn(ERROR_TYPES, name) ? ERROR_TYPES[name] : Error;
  const error = remember(v, new type(), memory);
  const hidden = (key, value) => defineProperty(error, key, { value, writable: true, enumerable: false, configurable: true });
  const message = Object.getOwnPropertyDescriptor(v, "message");
  if (message !== undefined && "value" in message) hidden("message", `${message.value}`);
  const stack = v.stack;
  if (typeof stack === "string") hidden("stack", stack);
  if (Object.hasOwn(v, "cause")) hidden("cause", cloneValue(v.cause, memory));
  return error;
}

const globalCopies = { DataView };
for (const name of ["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array",
  "Float16Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"]) {
  if (globalThis[name] !== undefined) globalCopies[name] = globalThis[name];
}

globalFunction(structuredClone);

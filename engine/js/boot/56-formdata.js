// FormData (https://xhr.spec.whatwg.org/#interface-formdata) and multipart/form-data
// (RFC 7578, with the escapes of the HTML standard).
let isFormData, formEntries;

class FormData {
  #list = []; // [name, string or File]

  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("FormData: there are no form elements here; call it without arguments");
  }

  static {
    isFormData = (v) => #list in v;
    formEntries = (f) => f.#list;
    const iteratorState = Symbol("state");
    const iterator = iteratorPrototype("FormData", function () {
      if (!isObject(this) || !(iteratorState in this)) throw new TypeError("next called on an object that is not a FormData iterator");
      const state = this[iteratorState];
      const list = state.form.#list;
      if (state.at >= list.length) return { value: undefined, done: true };
      const [name, value] = list[state.at++];
      return { value: state.kind === 0 ? name : state.kind === 1 ? value : [name, value], done: false };
    });
    const iterate = (form, kind) => {
      form.#list; // throws for anything but a FormData object
      return defineProperty(Object.create(iterator), iteratorState, { value: { form, kind, at: 0 } });
    };
    this.prototype.keys = function keys() { return iterate(this, 0); };
    this.prototype.values = function values() { return iterate(this, 1); };
    this.prototype.entries = function entries() { return iterate(this, 2); };
    defineProperty(this.prototype, Symbol.iterator, { value: this.prototype.entries, writable: true, configurable: true });
  }

  append(name, value, filename = undefined) {
    needArguments(arguments.length, 2, "FormData.append");
    this.#list.push(formEntry(name, value, filename, arguments.length > 2));
  }

  set(name, value, filename = undefined) {
    needArguments(arguments.length, 2, "FormData.set");
    const entry = formEntry(name, value, filename, arguments.length > 2);
    const at = this.#list.findIndex((e) => e[0] === entry[0]);
    if (at < 0) {
      this.#list.push(entry);
      return;
    }
    this.#list[at] = entry;
    this.#list = this.#list.filter((e, i) => i <= at || e[0] !== entry[0]);
  }

  delete(name) {
    needArguments(arguments.length, 1, "FormData.delete");
    name = usv(name);
    this.#list = this.#list.filter((e) => e[0] !== name);
  }

  get(name) {
    needArguments(arguments.length, 1, "FormData.get");
    name = usv(name);
    const found = this.#list.find((e) => e[0] === name);
    return found === undefined ? null : found[1];
  }

  getAll(name) {
    needArguments(arguments.length, 1, "FormData.getAll");
    name = usv(name);
    return this.#list.filter((e) => e[0] === name).map((e) => e[1]);
  }

  has(name) {
    needArguments(arguments.length, 1, "FormData.has");
    name = usv(name);
    return this.#list.some((e) => e[0] === name);
  }

  forEach(callback, thisArg = undefined) {
    needArguments(arguments.length, 1, "FormData.forEach");
    if (typeof callback !== "function") throw new TypeError("FormData.forEach: the callback must be a function");
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }
}

function formEntry(name, value, filename, hasFilename) {
  name = usv(name);
  if (!isBlob(value)) {
    if (hasFilename) throw new TypeError("FormData: a file name goes with a Blob only");
    return [name, usv(value)];
  }
  if (!(value instanceof File) || hasFilename) {
    const options = { type: value.type };
    if (value instanceof File) options.lastModified = value.lastModified;
    value = new File([value], hasFilename ? usv(filename) : "blob", options);
  }
  return [name, value];
}

const escapeName = (s) => s.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");
const newlines = (s) => s.replace(/\r?\n|\r/g, "\r\n");

// formDataBlob serialises to multipart/form-data; the blob's type carries the boundary.
function formDataBlob(form) {
  const boundary = `----formdata-casemate-${randomHex(16)}`;
  const parts = [];
  for (const [name, value] of formEntries(form)) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(newlines(name))}"`;
    if (typeof value === "string") {
      parts.push(`${head}\r\n\r\n${newlines(value)}\r\n`);
      continue;
    }
    head += `; filename="${escapeName(value.name)}"\r\nContent-Type: ${value.type || "application/octet-stream"}\r\n\r\n`;
    parts.push(head, value, "\r\n");
  }
  parts.push(`--${boundary}--\r\n`);
  return new Blob(parts, { type: `multipart/form-data; boundary=${boundary}` });
}

// randomHex names a boundary: it must not occur in the parts, no more.
function randomHex(bytes) {
  const b = new Uint8Array(bytes);
  __native.random(b);
  return Array.from(b, (v) => HEX[v].slice(1).toLowerCase()).join("");
}

// parseMultipart parses a multipart/form-data body. Headers are searched for in
// the bytes taken one to one as characters, so that positions agree.
function parseMultipart(bytes, boundary) {
  const bad = (why) => new TypeError(`formData: the multipart body is malformed: ${why}`);
  const text = latin1Decode(bytes);
  const mark = latin1Decode(utf8Encode(`--${boundary}`));
  const form = new FormData();
  let at = 0;
  if (text.startsWith("\r\n")) at = 2;
  for (;;) {
    if (!text.startsWith(mark, at)) throw bad("a boundary is missing");
    at += mark.length;
    if (text.startsWith("--", at)) return form;
    const eol = /[\t ]*\r\n/y;
    eol.lastIndex = at;
    if (!eol.test(text)) throw bad("a boundary's line does not end");
    at = eol.lastIndex;
    const headEnd = text.startsWith("\r\n", at) ? at : text.indexOf("\r\n\r\n", at);
    if (headEnd < 0) throw bad("a part's headers do not end");
    const head = text.slice(at, headEnd);
    at = headEnd + (headEnd === at ? 2 : 4);
    const end = text.indexOf(`\r\n${mark}`, at);
    if (end < 0) throw bad("a part does not end");
    const { name, filename, type } = partHeaders(utf8Decode(latin1Encode(head), false, true), bad);
    const body = bytes.subarray(at, end);
    form.append(name, filename === null ? utf8Decode(body, false, false) : new File([body], filename, { type }));
    at = end + 2;
  }
}

function partHeaders(head, bad) {
  let name = null, filename = null, type = "text/plain";
  for (const line of head.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) throw bad("a part's header has no name");
    const field = line.slice(0, colon).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (field === "content-type") type = value;
    if (field !== "content-disposition") continue;
    if (!/^form-data(?:;|\s|$)/i.test(value)) throw bad("a part is not form-data");
    const parameter = /;\s*(name|filename)="((?:[^"\\]|\\[^])*)"/gi;
    for (let m; (m = parameter.exec(value)) !== null;) {
      const v = m[2].replace(/%0a/gi, "\n").replace(/%0d/gi, "\r").replace(/%22/g, '"');
      if (m[1].toLowerCase() === "name") name ??= v;
      else filename ??= v;
    }
  }
  if (name === null) throw bad("a part has no name");
  return { name, filename, type };
}

publish(FormData);

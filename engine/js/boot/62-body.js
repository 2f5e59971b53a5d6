// The body of a Request or Response (https://fetch.spec.whatwg.org/#body-mixin).
//
// A slot holds one of: null (no body), a string, a Uint8Array that nobody else
// holds, a Blob, INCOMING (the invocation's body, still with the engine),
// CONSUMED, or, once somebody has asked for the stream, a ReadableStream. So the
// usual answer, a string, costs nothing beyond itself.
const INCOMING = { incoming: true };
const CONSUMED = { consumed: true };
const UNUSABLE = { unusable: true };

const TEXT_TYPE = "text/plain;charset=UTF-8";
const FORM_TYPE = "application/x-www-form-urlencoded;charset=UTF-8";

// bodySource turns a BodyInit into what a slot holds. For a FormData it returns
// a Blob, whose type carries the boundary.
function bodySource(init) {
  if (typeof init === "string") return init;
  if (isObject(init)) {
    if (isReadableStream(init)) {
      if (init.locked || isDisturbed(init)) throw new TypeError("The stream given as a body is locked or has been read");
      return init;
    }
    const bytes = copyBytes(init);
    if (bytes !== null) return bytes;
    if (isBlob(init)) return init;
    if (isFormData(init)) return formDataBlob(init);
    if (isSearchParams(init)) return init.toString();
    if (typeof init[Symbol.asyncIterator] === "function") return ReadableStream.from(init);
  }
  return usv(init);
}

// bodyType is the content type that a BodyInit brings, or null.
function bodyType(init, source) {
  if (typeof source === "string") return isObject(init) && isSearchParams(init) ? FORM_TYPE : TEXT_TYPE;
  if (isObject(source) && isBlob(source) && source.type !== "") return source.type;
  return null;
}

function isStreamSlot(slot) {
  return typeof slot === "object" && slot !== null && isReadableStream(slot);
}

function slotUsed(slot) {
  return slot === CONSUMED || (isStreamSlot(slot) && isDisturbed(slot));
}

function slotUnusable(slot) {
  return slot === CONSUMED || (isStreamSlot(slot) && (isDisturbed(slot) || slot.locked));
}

// slotStream gives the stream of a slot that has a body; the caller keeps it in the slot.
function slotStream(slot) {
  if (isStreamSlot(slot)) return slot;
  if (slot === CONSUMED) return new ReadableStream(STREAM_TOKEN, CONSUMED_STATE);
  if (isObject(slot) && isBlob(slot)) return slot.stream();
  return bodyStream(slot);
}

// slotBytes gives a slot's bytes; of everything but a stream at once. The slot
// must be usable. The bytes are the caller's.
function slotBytes(slot) {
  if (typeof slot === "string") return utf8Encode(slot);
  if (slot === null) return new Uint8Array(0);
  if (slot === INCOMING) return __native.bodyBytes();
  if (isBlob(slot)) return blobBytes(slot);
  if (isReadableStream(slot)) {
    const body = takeBody(slot);
    return body === undefined ? collectStream(slot) : slotBytes(body);
  }
  return slot;
}

// cloneSlot gives two slots with the same body: [what stays, what the clone gets].
function cloneSlot(slot) {
  if (isStreamSlot(slot)) {
    const body = takeBody(slot);
    return body === undefined ? slot.tee() : cloneSlot(body);
  }
  if (slot !== null && typedArrayName(slot) === "Uint8Array") return [slot, slot.slice()];
  return [slot, slot];
}

// takeSlot gives what is to be read of a usable slot that is not null: the body of a
// stream that nobody has touched.
function takeSlot(slot) {
  return isStreamSlot(slot) ? takeBody(slot) ?? slot : slot;
}

function unusable() {
  return Promise.reject(new TypeError("Body is unusable: it has already been read or its stream is locked"));
}

function withoutBOM(s) {
  return s.charCodeAt(0) === 0xfeff ? s.slice(1) : s;
}

function bodyText(slot) {
  if (typeof slot === "string") return Promise.resolve(withoutBOM(slot.toWellFormed()));
  if (slot === INCOMING) return Promise.resolve(__native.bodyText());
  if (slot === null) return Promise.resolve("");
  return bodyBytes(slot, (b) => utf8Decode(b, false, false));
}

function bodyJSON(slot) {
  try {
    if (slot === INCOMING) return Promise.resolve(__native.bodyJSON());
    if (typeof slot === "string") return Promise.resolve(JSON.parse(withoutBOM(slot.toWellFormed())));
    if (slot === null) return Promise.resolve(JSON.parse(""));
  } catch (e) {
    return Promise.reject(e);
  }
  return bodyBytes(slot, (b) => JSON.parse(utf8Decode(b, false, false)));
}

// bodyBytes gives a promise of what use makes of the slot's bytes.
async function bodyBytes(slot, use) {
  if (slot === UNUSABLE) return unusable();
  return use(await slotBytes(slot));
}

function exactBuffer(bytes) {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
}

function bodyBlob(slot, type) {
  return bodyBytes(slot, (b) => new Blob([b], { type: blobType(type) }));
}

// blobType is the essence and parameters of a Content-Type, as a Blob's type.
function blobType(contentType) {
  if (contentType === null) return "";
  const parsed = parseMIMEType(contentType);
  return parsed === null ? "" : serialiseMIMEType(parsed);
}

function bodyFormData(slot, type) {
  return bodyBytes(slot, (b) => {
    const mime = type === null ? null : parseMIMEType(type);
    if (mime !== null && mime.essence === "multipart/form-data") {
      const boundary = mime.parameters.get("boundary");
      if (boundary === undefined) throw new TypeError("formData: the content type has no boundary");
      return parseMultipart(b, boundary);
    }
    if (mime !== null && mime.essence === "application/x-www-form-urlencoded") {
      const form = new FormData();
      for (const [name, value] of parseForm(utf8Decode(b, false, false))) form.append(name, value);
      return form;
    }
    throw new TypeError("formData: the content type must be multipart/form-data or application/x-www-form-urlencoded");
  });
}

// parseMIMEType follows https://mimesniff.spec.whatwg.org/#parsing-a-mime-type:
// {essence, parameters} or null.
function parseMIMEType(input) {
  const m = /^[\t\n\r ]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\/([!#$%&'*+.^_`|~0-9A-Za-z-]+)[\t\n\r ]*(?:;|$)/.exec(input);
  if (m === null) return null;
  const parameters = new Map();
  const rest = input.slice(m[0].length);
  const parameter = /[\t\n\r ]*([^;=]*)(?:=(?:"((?:[^"\\]|\\[^]|\\$)*)(?:"[^;]*|$)|([^;]*)))?(?:;|$)/y;
  while (parameter.lastIndex < rest.length) {
    const p = parameter.exec(rest);
    if (p === null) break;
    const name = p[1].toLowerCase();
    const value = p[2] !== undefined ? p[2].replace(/\\([^])/g, "$1") : p[3]?.replace(/[\t\n\r ]+$/, "");
    if (value === undefined || (p[2] === undefined && value === "")) continue;
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) continue;
    if (!parameters.has(name)) parameters.set(name, value);
  }
  return { essence: `${m[1]}/${m[2]}`.toLowerCase(), parameters };
}

function serialiseMIMEType({ essence, parameters }) {
  let out = essence;
  for (const [name, value] of parameters) {
    out += `;${name}=`;
    out += /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`;
  }
  return out;
}
